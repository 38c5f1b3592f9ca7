"""Dismiss: an operator says of parked events that nobody need want them.

A reroute undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from flowhooks.failpoints import hit
from flowhooks.ledger.reroute import RouteChange
from flowhooks.model.event import DismissedBy, EventState
from flowhooks.operations.context import AuditRecord
from flowhooks.operations.routing import single_id

if TYPE_CHECKING:
    from flowhooks.ledger.queries import EventFilter
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.operations.context import OperationContext

PAGE_SIZE: Final = 500
"""Events gone through by one call: a short request, short transactions, and something to show progress by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DismissResult:
    """What one call of a dismissal did, or would do.

    Attributes:
        events: how many events it went through.
        dismissed: how many of them are parked no longer, but dismissed.
        skipped: how many were not parked.
        changed_meanwhile: how many had changed when their turn came, and were left alone.
        next: where to go on, as the next call's `after`; `""` when all is done.
        dry_run: whether nothing was changed.
    """

    events: int
    dismissed: int
    skipped: int
    changed_meanwhile: int
    next: str
    dry_run: bool


def dismiss(
    context: OperationContext, event_filter: EventFilter, *, note: str = "", dry_run: bool = False, after: str = ""
) -> DismissResult:
    """Dismiss parked events; a page of events for each call. Deliveries that they have stay as they are.

    Args:
        context: what operations work with.
        event_filter: which events; where it names neither ids nor a state, only those that are parked are looked at.
        note: why, for those who look later.
        dry_run: only count.
        after: where the last call left off.

    Raises:
        Unavailable: the ledger could not be written; the call changed nothing, and may be made again.
    """
    page = context.ledger.page(parked_only(event_filter), after=after, limit=PAGE_SIZE)
    items = [
        RouteChange(
            event_id=stored.event.id,
            state=EventState.DISMISSED,
            dismissed_by=DismissedBy.OPERATOR,
            no_match=stored.no_match.to_json() if stored.no_match else None,
            route=stored.route,
            deliveries=(),
        )
        for stored in page
        if stored.state == "parked"
    ]
    dismissed = {item.event_id for item in items}
    if items and not dry_run:
        dismissed = context.change(
            lambda transaction: _write(context, transaction, items),
            lambda moved: AuditRecord(
                "dismiss",
                single_id(moved),
                {"event_filter": event_filter.to_json(), "events": len(moved), "note": note},
            ),
        )
        hit("dismiss.committed")
    return DismissResult(
        events=len(page),
        dismissed=len(dismissed),
        skipped=len(page) - len(items),
        changed_meanwhile=len(items) - len(dismissed),
        next=page[-1].event.id if len(page) == PAGE_SIZE else "",
        dry_run=dry_run,
    )


def parked_only(event_filter: EventFilter) -> EventFilter:
    """A filter as a dismissal takes it: among a million events, the few that are parked are found by an index."""
    return event_filter if event_filter.ids or event_filter.state is not None else replace(event_filter, state="parked")


def _write(context: OperationContext, transaction: WriteTransaction, items: list[RouteChange]) -> set[str]:
    done = context.ledger.reroute(transaction, items, missing_handlers=context.missing_handlers)
    hit("dismiss.written")
    return done
