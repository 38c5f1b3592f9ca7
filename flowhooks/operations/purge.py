"""Purge: delete old events with all data that belongs to them, and keep only their identities."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Final

from flowhooks.errors import SettingsError
from flowhooks.failpoints import hit
from flowhooks.ledger.purge import EVALUATED, PURGED_BY_DEFAULT, PURGED_ON_REQUEST
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from flowhooks.ledger.purge import Cutoffs
    from flowhooks.operations.context import OperationContext

PAGE_SIZE: Final = 100
"""Maximum number of events per call and per transaction. Callbacks that arrive wait for the transaction."""
MAX_DUTY_CYCLE: Final = 0.2
"""Maximum share of time that the pages of a purge take. Callers pause between pages: callbacks need the rest."""

PURGE_FILTER_SCHEMA: Final[dict[str, Any]] = {
    "properties": {
        **{field.name: {"type": "null"} for field in fields(EventFilter) if field.name not in EVALUATED},
        "until": {"type": "integer"},
        "state": {"enum": [*PURGED_BY_DEFAULT, *PURGED_ON_REQUEST, None]},
    },
    "required": ["until"],
}
"""Additional requirements of a purge on its filter, as JSON Schema for the API description."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeResult:
    """Result of one call of a purge, or of its dry run.

    Attributes:
        events: number of events examined.
        purged: number of events deleted.
        deliveries: number of deliveries deleted.
        next: value of `after` for the next call; `""` if there are no more events.
        dry_run: whether nothing was changed.
    """

    events: int
    purged: int
    deliveries: int
    next: str
    dry_run: bool


def purge(
    context: OperationContext,
    event_filter: Annotated[EventFilter, PURGE_FILTER_SCHEMA],
    *,
    dry_run: bool = False,
    after: str = "",
) -> PurgeResult:
    """Delete one page of old events per call.

    Pause between the calls, so that callbacks do not wait for the purge: see `MAX_DUTY_CYCLE`.

    By default it deletes completed events: all of their deliveries succeeded or were closed, or the event was
    dismissed. With a state it deletes only events in that state, which may also be *dead* or *parked*: the operator
    decides that nothing more is needed of them.

    With a handler it deletes only events with a delivery for this handler. With the state *succeeded* or *closed*,
    that delivery must be in the state. With *dead*, all dead deliveries of the event must be for this handler.

    It keeps the events that a bulk operation counts as failed until the operation has ended.

    The identities of all deleted events are kept, in case the clock is wrong. Retention deletes those that are older
    than `retention.identities`.

    Args:
        context: what operations work with.
        event_filter: which events; requires `until`. Events that changed after `until` are kept.
        dry_run: only count.
        after: value of `next` from the previous call.

    Raises:
        SettingsError: `until` is missing, events in the state are never purged, or the filter has a field by which a
            purge cannot select: `delivery_ids`, `error_group`, or a field about attempts.
        Unavailable: the ledger could not be written; the call changed nothing and may be repeated.
    """
    cutoffs = cutoffs_from_filter(event_filter)
    page = context.reader.purgeable(cutoffs, event_filter=event_filter, after=after, limit=PAGE_SIZE)
    purged, deliveries = len(page.ids), page.deliveries
    if page.ids and not dry_run:
        purged, deliveries = context.change(
            lambda transaction: context.ledger.purge(transaction, page.ids, cutoffs),
            lambda done: AuditRecord(
                "purge", "", {"event_filter": event_filter.to_json(), "events": done.events}, after, page.next
            ),
        )
        hit("purge.committed")
    return PurgeResult(events=page.examined, purged=purged, deliveries=deliveries, next=page.next, dry_run=dry_run)


def cutoffs_from_filter(event_filter: EventFilter) -> Cutoffs:
    """Return the time before which events are deleted, by state.

    Raises:
        SettingsError: `until` is missing, events in the state are never purged, or the filter has a field by which a
            purge cannot select.
    """
    refused = [name for name in event_filter.to_json() if name not in EVALUATED]
    if refused:
        raise SettingsError(f"a purge cannot select events by {', '.join(refused)}")
    if event_filter.until is None:
        raise SettingsError("a purge needs event_filter.until: only older events are deleted")
    if event_filter.state is None:
        return dict.fromkeys(PURGED_BY_DEFAULT, event_filter.until)
    if event_filter.state not in {*PURGED_BY_DEFAULT, *PURGED_ON_REQUEST}:
        states = ", ".join((*PURGED_BY_DEFAULT, *PURGED_ON_REQUEST))
        raise SettingsError(f"events in the state {event_filter.state} are never purged; allowed states: {states}")
    return {event_filter.state: event_filter.until}
