"""Replay: new attempts on existing deliveries, history kept; it must not route again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from flowhooks.failpoints import hit
from flowhooks.model.delivery import State
from flowhooks.operations.context import Deed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowhooks.ledger.group_commit import WriteTransaction
    from flowhooks.ledger.queries import DeliveryStatus, EventFilter, StoredEvent
    from flowhooks.operations.context import Desk

AT_ONCE: Final = 500
"""Events gone through by one call: a short request, short transactions, and something to show progress by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What one call of a replay did, or would do.

    Attributes:
        events: how many events it went through.
        deliveries: how many of their deliveries run again.
        passed_over: how many were in a state from which they are not replayed.
        moved_on: how many had changed when their turn came, and were left alone.
        out_of_order: of those that run again, how many are of ordered handlers: they come after what waits for the
            same key by now.
        next: where to go on, as the next call's `after`; `""` when all is done.
        dry_run: whether nothing was changed.
    """

    events: int
    deliveries: int
    passed_over: int
    moved_on: int
    out_of_order: int
    next: str
    dry_run: bool


def replay(desk: Desk, wanted: EventFilter, *, again: bool = False, dry_run: bool = False, after: str = "") -> Replayed:
    """Run dead deliveries again, with a fresh retry schedule; a page of events for each call.

    Args:
        desk: what operations work with.
        wanted: which events; its `handler` and its `state` also say which of their deliveries, so that what
            was not asked for is not run a second time.
        again: also those that succeeded: their handlers do their work a second time.
        dry_run: only count.
        after: where the last call left off.

    Raises:
        Unavailable: the ledger could not be written; the call changed nothing, and may be made again.
    """
    states = {State.DEAD, State.SUCCEEDED} if again else {State.DEAD}
    page = desk.ledger.page(wanted, after=after, limit=AT_ONCE)
    meant = [one for stored in page for one in stored.delivery_statuses if _meant(wanted, one)]
    chosen = [one for one in meant if one.state in states]
    moved = {one.delivery_id for one in chosen}
    if chosen and not dry_run:
        moved = desk.change(lambda transaction: _again(desk, transaction, chosen), partial(_deed, wanted, page, again))
        hit("replay.committed")
    return Replayed(
        events=len(page),
        deliveries=len(moved),
        passed_over=len(meant) - len(chosen),
        moved_on=len(chosen) - len(moved),
        out_of_order=sum(one.ordered for one in chosen if one.delivery_id in moved),
        next=page[-1].event.id if len(page) == AT_ONCE else "",
        dry_run=dry_run,
    )


def _deed(wanted: EventFilter, page: Sequence[StoredEvent], again: bool, moved: Collection[str]) -> Deed:
    subject = page[0].event.id if len(page) == 1 else ""
    # Where to go on, should this have been the last page that was done: beginning again would run all of them again.
    after = {"after": page[-1].event.id} if again and len(page) > 1 else {}
    return Deed("replay", subject, {"wanted": wanted.to_json(), "again": again, "deliveries": len(moved), **after})


def _again(desk: Desk, transaction: WriteTransaction, chosen: Sequence[DeliveryStatus]) -> set[str]:
    moved = desk.ledger.requeue(transaction, chosen, missing_handlers=desk.absent, reset_retries=True)
    hit("replay.written")
    return moved


def _meant(wanted: EventFilter, standing: DeliveryStatus) -> bool:
    """Whether a filter that names a handler or a delivery's state means this one of an event's deliveries."""
    return (wanted.handler is None or standing.handler == wanted.handler) and (
        wanted.state not in set(State) or standing.state == wanted.state
    )
