"""Replay: new attempts on existing deliveries, history kept; it must not route again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from flowhooks.failpoints import hit
from flowhooks.model.delivery import State
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowhooks.ledger.queries import DeliveryStatus, EventFilter, StoredEvent
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.operations.context import OperationContext

PAGE_SIZE: Final = 500
"""Events gone through by one call: a short request, short transactions, and something to show progress by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """What one call of a replay did, or would do.

    Attributes:
        events: how many events it went through.
        deliveries: how many of their deliveries run again.
        skipped: how many were in a state from which they are not replayed.
        changed_meanwhile: how many had changed when their turn came, and were left alone.
        out_of_order: of those that run again, how many are of ordered handlers: they come after what waits for the
            same key by now.
        next: where to go on, as the next call's `after`; `""` when all is done.
        dry_run: whether nothing was changed.
    """

    events: int
    deliveries: int
    skipped: int
    changed_meanwhile: int
    out_of_order: int
    next: str
    dry_run: bool


def replay(
    context: OperationContext, event_filter: EventFilter, *, again: bool = False, dry_run: bool = False, after: str = ""
) -> ReplayResult:
    """Run dead deliveries again, with a fresh retry schedule; a page of events for each call.

    Args:
        context: what operations work with.
        event_filter: which events; its `handler` and its `state` also say which of their deliveries, so that what
            was not asked for is not run a second time.
        again: also those that succeeded: their handlers do their work a second time.
        dry_run: only count.
        after: where the last call left off.

    Raises:
        Unavailable: the ledger could not be written; the call changed nothing, and may be made again.
    """
    states = {State.DEAD, State.SUCCEEDED} if again else {State.DEAD}
    page = context.ledger.page(event_filter, after=after, limit=PAGE_SIZE)
    selected = [
        delivery for stored in page for delivery in stored.delivery_statuses if _matches(event_filter, delivery)
    ]
    replayable = [delivery for delivery in selected if delivery.state in states]
    requeued = {delivery.delivery_id for delivery in replayable}
    if replayable and not dry_run:
        requeued = context.change(
            lambda transaction: _requeue(context, transaction, replayable),
            partial(_audit_record, event_filter, page, again),
        )
        hit("replay.committed")
    return ReplayResult(
        events=len(page),
        deliveries=len(requeued),
        skipped=len(selected) - len(replayable),
        changed_meanwhile=len(replayable) - len(requeued),
        out_of_order=sum(delivery.ordered for delivery in replayable if delivery.delivery_id in requeued),
        next=page[-1].event.id if len(page) == PAGE_SIZE else "",
        dry_run=dry_run,
    )


def _audit_record(
    event_filter: EventFilter, page: Sequence[StoredEvent], again: bool, requeued: Collection[str]
) -> AuditRecord:
    target = page[0].event.id if len(page) == 1 else ""
    # Where to go on, should this have been the last page that was done: beginning again would run all of them again.
    after = {"after": page[-1].event.id} if again and len(page) > 1 else {}
    return AuditRecord(
        "replay",
        target,
        {"event_filter": event_filter.to_json(), "again": again, "deliveries": len(requeued), **after},
    )


def _requeue(
    context: OperationContext, transaction: WriteTransaction, replayable: Sequence[DeliveryStatus]
) -> set[str]:
    requeued = context.ledger.requeue(
        transaction, replayable, missing_handlers=context.missing_handlers, reset_retries=True
    )
    hit("replay.written")
    return requeued


def _matches(event_filter: EventFilter, standing: DeliveryStatus) -> bool:
    """Tell whether a filter by handler or state includes a delivery."""
    return (event_filter.handler is None or standing.handler == event_filter.handler) and (
        event_filter.state not in set(State) or standing.state == event_filter.state
    )
