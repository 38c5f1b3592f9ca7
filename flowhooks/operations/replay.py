"""Replay: start new attempts of existing deliveries. History is kept, and events are not routed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flowhooks.failpoints import hit
from flowhooks.model.delivery import State, Trigger
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.ledger.queries import DeliveryStatus, EventFilter, StoredEvent
    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.operations.context import OperationContext

PAGE_SIZE: Final = 500
"""Maximum number of events per call. It keeps requests and transactions short, and lets the caller show progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """Result of one call of a replay, or of its dry run.

    Attributes:
        events: number of events examined.
        deliveries: number of deliveries that run again.
        skipped: number of deliveries in a state that is not replayed.
        changed_meanwhile: number of deliveries left unchanged because another change came first.
        out_of_order: number of replayed deliveries of ordered handlers; they run after the deliveries that now wait for
            the same order key.
        next: value of `after` for the next call; `""` if there are no more events.
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
    """Run dead deliveries again with a new retry schedule, one page of events per call.

    Args:
        context: what operations work with.
        event_filter: which events; its conditions on deliveries and attempts also select among their deliveries, so
            that no other delivery runs a second time.
        again: also replay succeeded deliveries; their handlers do their work a second time.
        dry_run: only count.
        after: value of `next` from the previous call.

    Raises:
        Unavailable: the ledger could not be written; the call changed nothing and may be repeated.
    """
    states = {State.DEAD, State.SUCCEEDED} if again else {State.DEAD}
    page = context.reader.page(event_filter, after=after, limit=PAGE_SIZE)
    next_page = page[-1].event.id if len(page) == PAGE_SIZE else ""
    selected = select_deliveries(context.reader, event_filter, page)
    replayable = [delivery for delivery in selected if delivery.state in states]
    requeued = {delivery.delivery_id for delivery in replayable}
    if replayable and not dry_run:
        requeued = context.change(
            lambda transaction: _requeue(context, transaction, replayable),
            lambda requeued: AuditRecord(
                "replay",
                page[0].event.id if len(page) == 1 else "",
                {"event_filter": event_filter.to_json(), "again": again, "deliveries": len(requeued)},
                after,
                next_page,
            ),
        )
        hit("replay.committed")
    return ReplayResult(
        events=len(page),
        deliveries=len(requeued),
        skipped=len(selected) - len(replayable),
        changed_meanwhile=len(replayable) - len(requeued),
        out_of_order=sum(delivery.ordered for delivery in replayable if delivery.delivery_id in requeued),
        next=next_page,
        dry_run=dry_run,
    )


def _requeue(
    context: OperationContext, transaction: WriteTransaction, replayable: Sequence[DeliveryStatus]
) -> set[str]:
    requeued = context.ledger.requeue(
        transaction,
        replayable,
        trigger=Trigger.REPLAY,
        actor=context.actor,
        missing_handlers=context.missing_handlers,
        reset_retries=True,
    )
    hit("replay.written")
    return requeued


def select_deliveries(reader: Reader, event_filter: EventFilter, page: Sequence[StoredEvent]) -> list[DeliveryStatus]:
    """Return the deliveries of a page of events that a filter includes."""
    selected = [status for stored in page for status in stored.delivery_statuses if event_filter.selects(status)]
    matching = reader.matching_deliveries(event_filter, selected)
    return [status for status in selected if status.delivery_id in matching]
