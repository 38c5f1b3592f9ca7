"""Close suspended deliveries: an operator decides that their handlers' work is not needed.

A handler that was removed leaves deliveries that wait for it. They are closed together here, and one by one by
`resolve`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from flowhooks.errors import InvalidTransition
from flowhooks.ledger.deliveries import IF_SUSPENDED, StateChange, apply_changes_returning
from flowhooks.ledger.queries import SUSPENDED
from flowhooks.model.delivery import State
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.ledger.queries import DeliveryStatus, EventFilter
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.operations.context import OperationContext

PAGE_SIZE: Final = 500
"""Maximum number of events per call. It keeps requests and transactions short, and lets the caller show progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSuspendedResult:
    """Result of one call that closes suspended deliveries, or of its dry run.

    Attributes:
        events: number of events examined.
        closed: number of suspended deliveries that were closed.
        skipped: number of deliveries that were not suspended.
        changed_meanwhile: number of deliveries left unchanged because another change came first.
        next: value of `after` for the next call; `""` if there are no more events.
        dry_run: whether nothing was changed.
    """

    events: int
    closed: int
    skipped: int
    changed_meanwhile: int
    next: str
    dry_run: bool


def close_suspended(
    context: OperationContext, event_filter: EventFilter, *, note: str = "", dry_run: bool = False, after: str = ""
) -> CloseSuspendedResult:
    """Close suspended deliveries, one page of events per call. A closed delivery does not run again.

    Args:
        context: what operations work with.
        event_filter: which events; its `handler` and `error_group` also select among their deliveries. Without ids,
            only events with suspended deliveries are examined.
        note: reason, stored with the deliveries and in the audit log.
        dry_run: only count.
        after: value of `next` from the previous call.

    Raises:
        InvalidTransition: the filter has a state other than `"suspended"`.
        Unavailable: the ledger could not be written; the call changed nothing and may be repeated.
    """
    page = context.reader.page(suspended_only(event_filter), after=after, limit=PAGE_SIZE)
    next_page = page[-1].event.id if len(page) == PAGE_SIZE else ""
    selected = [
        status
        for stored in page
        for status in stored.delivery_statuses
        if event_filter.handler in {None, status.handler}
        and event_filter.error_group in {None, status.error_group}
        and (not event_filter.delivery_ids or status.delivery_id in event_filter.delivery_ids)
    ]
    matching = context.reader.matching_deliveries(event_filter, selected)
    selected = [status for status in selected if status.delivery_id in matching]
    suspended = [status for status in selected if status.is_suspended]
    closed = {status.delivery_id for status in suspended}
    if suspended and not dry_run:
        closed = context.change(
            lambda transaction: _write(context, transaction, suspended, note),
            lambda moved: AuditRecord(
                "close_suspended",
                page[0].event.id if len(page) == 1 else "",
                {"event_filter": event_filter.to_json(), "deliveries": len(moved), "note": note},
                after,
                next_page,
            ),
        )
    return CloseSuspendedResult(
        events=len(page),
        closed=len(closed),
        skipped=len(selected) - len(suspended),
        changed_meanwhile=len(suspended) - len(closed),
        next=next_page,
        dry_run=dry_run,
    )


def suspended_only(event_filter: EventFilter) -> EventFilter:
    """Restrict a filter without ids to events with suspended deliveries, which an index finds.

    Raises:
        InvalidTransition: the filter has a state other than `"suspended"`.
    """
    if event_filter.state not in {None, SUSPENDED}:
        raise InvalidTransition(f"only suspended deliveries can be closed together, not {event_filter.state} ones")
    return event_filter if event_filter.ids else replace(event_filter, state=SUSPENDED)


def _write(
    context: OperationContext, transaction: WriteTransaction, suspended: Sequence[DeliveryStatus], note: str
) -> set[str]:
    comment = note or "closed by an operator while it was suspended"
    now = context.clock.now()
    changes = [
        StateChange(status.delivery_id, status.state, State.CLOSED, status.attempt, now, comment=comment)
        for status in suspended
    ]
    return {row.id for row in apply_changes_returning(transaction, changes, IF_SUSPENDED)}
