"""The results of accepting events, and batches of events that are accepted all or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowhooks.errors import DamagedRow
from flowhooks.ledger.queries import DeliveryStatus, delivery_statuses, find_damage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.ignored_requests import IgnoredRequestRecord
    from flowhooks.ledger.new_event import NewEvent


class AcceptResult(NamedTuple):
    """The result of accepting a `NewEvent`.

    Attributes:
        event_id: the id of the stored event: of this one, or of the earlier one with its identity; `""` if the webhook
            id was reused.
        new: whether the event was stored now.
        conflict: whether the earlier event has other data.
        state: the state of the stored event; `"purged"` if only its identity is left.
        delivery_statuses: the deliveries of the earlier event; empty for a new event, a conflict, or a purged event.
        damage: why the stored event cannot be read; `""` if it can.
        webhook_id_reused: whether nothing was stored because the webhook id was used before for another path or other
            data.
        instance_id_reused: whether the event was taken in although an earlier instance with its id has an event.
    """

    event_id: str
    new: bool
    state: str
    conflict: bool = False
    delivery_statuses: tuple[DeliveryStatus, ...] = ()
    damage: str = ""
    webhook_id_reused: bool = False
    instance_id_reused: bool = False


WEBHOOK_ID_REUSED: Final = AcceptResult(event_id="", new=False, state="", webhook_id_reused=True)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events of one request, which are stored all or none, in one transaction.

    Attributes:
        events: the events.
        ignored: the ignored requests that are counted in the same transaction.
    """

    events: tuple[NewEvent, ...]
    ignored: tuple[IgnoredRequestRecord, ...] = ()


class BatchRolledBack(DamagedRow):
    """An event of a batch repeats an event that cannot be read, so nothing of the batch was stored.

    Args:
        results: the results that the events would have had, in order.

    Attributes:
        results: as given.
    """

    def __init__(self, results: list[AcceptResult]) -> None:
        super().__init__(next(result.damage for result in results if result.damage))
        self.results = results


def events_of(items: Sequence[NewEvent | EventBatch]) -> list[NewEvent]:
    """Return the events of items, in order."""
    return [event for item in items for event in (item.events if isinstance(item, EventBatch) else (item,))]


def reject_whole_batches(items: Sequence[NewEvent | EventBatch], rejected: Sequence[bool]) -> list[bool]:
    """Return which events are rejected, if none of a batch is stored when one of its events is rejected.

    Args:
        items: the items.
        rejected: for each event of the items, whether it is rejected.
    """
    left = iter(rejected)
    spread: list[bool] = []
    for item in items:
        if isinstance(item, EventBatch):
            of_batch = [next(left) for _ in item.events]
            spread += [any(of_batch)] * len(of_batch)
        else:
            spread.append(next(left))
    return spread


def results_of(
    items: Sequence[NewEvent | EventBatch], results: Sequence[AcceptResult]
) -> Iterator[AcceptResult | list[AcceptResult]]:
    """Yield the result of each item: of a batch the results of its events.

    Raises:
        BatchRolledBack: an event of a batch repeats an event that cannot be read.
    """
    left = iter(results)
    for item in items:
        if isinstance(item, EventBatch):
            of_batch = [next(left) for _ in item.events]
            if any(result.damage for result in of_batch):
                raise BatchRolledBack(of_batch)
            yield of_batch
        else:
            yield next(left)


def read_repeated(connection: Connection, rows: Sequence[Any]) -> dict[str, AcceptResult]:
    """Return the results for repeated callbacks by event id, with the deliveries of the events."""
    try:
        statuses_of = delivery_statuses(connection, [row.id for row in rows])
    except DamagedRow as error:
        if len(rows) > 1:  # one damaged event must not take the others with it
            return {row.id: result for row in rows for result in read_repeated(connection, [row]).values()}
        (row,) = rows
        return {row.id: AcceptResult(event_id=row.id, new=False, state=row.state, damage=error.why)}
    results = {}
    for row in rows:
        statuses = statuses_of.get(row.id, ())
        damage = find_damage(row.state, row.route_size, statuses)
        results[row.id] = AcceptResult(
            event_id=row.id, new=False, state=row.state, delivery_statuses=() if damage else statuses, damage=damage
        )
    return results
