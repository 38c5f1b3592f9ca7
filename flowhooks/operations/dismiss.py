"""Dismiss: an operator decides that parked events need no handler.

A reroute reverses it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from flowhooks.failpoints import hit
from flowhooks.ledger.route_changes import RouteChange
from flowhooks.model.event import DismissedBy, EventState
from flowhooks.operations.context import AuditRecord
from flowhooks.operations.routing import replaceable_body, single_id

if TYPE_CHECKING:
    from flowhooks.ledger.queries import EventFilter
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.operations.context import OperationContext

PAGE_SIZE: Final = 500
"""Maximum number of events per call. It keeps requests and transactions short, and lets the caller show progress.
Large events end a page earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DismissResult:
    """Result of one call of a dismissal, or of its dry run.

    Attributes:
        events: number of events examined.
        dismissed: number of parked events that were dismissed.
        skipped: number of events that were not parked.
        changed_meanwhile: number of events left unchanged because another change came first.
        next: value of `after` for the next call; `""` if there are no more events.
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
    """Dismiss one page of parked events per call. Their existing deliveries stay unchanged.

    Args:
        context: what operations work with.
        event_filter: which events; without ids and state, only parked events are examined.
        note: reason, stored in the audit log.
        dry_run: only count.
        after: value of `next` from the previous call.

    Raises:
        Unavailable: the ledger could not be written; the call changed nothing and may be repeated.
    """
    page, next_page = context.reader.bounded_page(parked_only(event_filter), after=after, limit=PAGE_SIZE)
    items = [
        RouteChange(
            event_id=stored.event.id,
            state=EventState.DISMISSED,
            dismissed_by=DismissedBy.OPERATOR,
            no_match=stored.no_match.to_json() if stored.no_match else None,
            route=stored.route,
            deliveries=(),
            expected_body=replaceable_body(stored),
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
                after,
                next_page,
            ),
        )
        hit("dismiss.committed")
    return DismissResult(
        events=len(page),
        dismissed=len(dismissed),
        skipped=len(page) - len(items),
        changed_meanwhile=len(items) - len(dismissed),
        next=next_page,
        dry_run=dry_run,
    )


def parked_only(event_filter: EventFilter) -> EventFilter:
    """Restrict a filter without ids and state to parked events, which an index finds among a million others."""
    return event_filter if event_filter.ids or event_filter.state is not None else replace(event_filter, state="parked")


def _write(context: OperationContext, transaction: WriteTransaction, items: list[RouteChange]) -> set[str]:
    done = context.ledger.reroute(transaction, items, missing_handlers=context.missing_handlers)
    hit("dismiss.written")
    return done
