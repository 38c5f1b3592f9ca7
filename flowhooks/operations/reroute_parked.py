"""Drain: parked events that somebody wants by now are delivered, the oldest first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from flowhooks.clock import to_datetime
from flowhooks.failpoints import hit
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.event import Event, EventState
from flowhooks.operations.context import AuditRecord
from flowhooks.operations.routing import compute_route_change

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowhooks.ledger.queries import StoredEvent
    from flowhooks.ledger.reroute import ParkedGroup, RouteChange
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.operations.context import OperationContext
    from flowhooks.routing.router import Router

PAGE_SIZE: Final = 500
"""Events gone through by one call: a short request, short transactions, and something to show progress by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerouteParkedResult:
    """What one call of a drain did, or would do.

    Attributes:
        events: how many parked events it went through.
        delivered: how many of them now have their deliveries.
        dismissed: how many the settings now say that nobody need want.
        deliveries: how many deliveries that made.
        next: where to go on, as the next call's `after`; `""` when all is done.
        dry_run: whether nothing was changed.
    """

    events: int
    delivered: int
    dismissed: int
    deliveries: int
    next: str
    dry_run: bool


def reroute_parked(context: OperationContext, *, dry_run: bool = False, after: str = "") -> RerouteParkedResult:
    """Route what is parked again, by the present look-up; a page of events for each call.

    Args:
        context: what operations work with.
        dry_run: only count.
        after: where the last call left off.

    Raises:
        Unavailable: the ledger could not be written; the call changed nothing, and may be made again.
    """
    page: list[StoredEvent] = []
    if after or _may_change(context):
        page = context.ledger.page(EventFilter(state="parked"), after=after, limit=PAGE_SIZE)
    items = [item for stored in page if (item := _route_change(context, stored)) is not None]
    if items and not dry_run:
        changed = context.change(
            lambda transaction: _write(context, transaction, items),
            lambda done: AuditRecord(
                "drain", "", {"events": sum(item.event_id in done for item in items if item.state != "parked")}
            ),
        )
        hit("drain.committed")
        items = [item for item in items if item.event_id in changed]
    return RerouteParkedResult(
        events=len(page),
        delivered=sum(item.state == "routed" for item in items),
        dismissed=sum(item.state == "dismissed" for item in items),
        deliveries=sum(len(item.deliveries) for item in items),
        next=page[-1].event.id if len(page) == PAGE_SIZE else "",
        dry_run=dry_run,
    )


def count_deliverable(context: OperationContext) -> int:
    """How many parked events may be taken now; where a condition reads the data of events, all of those count."""
    return sum(group.events for group in context.ledger.parked() if is_deliverable(context.router, group))


def _may_change(context: OperationContext) -> bool:
    """Whether parked events may be parked no longer, or for another reason than the stored one."""
    return any(
        is_deliverable(context.router, group)
        or context.router.route(representative_event(group)).parked_by != parked_by
        for group, parked_by in context.ledger.parked_reasons()
    )


def is_deliverable(router: Router, group: ParkedGroup) -> bool:
    """Whether a group of parked events would be parked no longer, or each of them has to be routed by its own data."""
    event = representative_event(group)
    return not router.route(event).parked or router.reads_data(event)


def count_parked_by_handler(router: Router, groups: Iterable[ParkedGroup]) -> dict[str, int]:
    """How many parked events each handler wants by now, by its class or its key; those that none wants left out."""
    counts: Counter[str] = Counter()
    for group in groups:
        route = router.route(representative_event(group))
        if not route.parked:
            # One that takes every event had its delivery when the event came, or was not there then.
            counts.update(
                {handler: group.events for handler, reason in route.handlers.items() if not reason.startswith("every")}
            )
    return dict(counts)


def representative_event(group: ParkedGroup) -> Event:
    """An event that any router would treat like those of the group."""
    return Event(
        id="",
        source=group.source,
        kind=group.kind,
        flow_instance_id="",
        callback_class=group.callback_class or None,
        process_definition_key=group.process_key,
        process_definition_version=group.process_version,
        conclusion=group.conclusion,
        data={},
        received_at=to_datetime(0),
    )


def _route_change(context: OperationContext, stored: StoredEvent) -> RouteChange | None:
    """What becomes of a parked event; one that stays parked gets no delivery, but its reason is kept up to date."""
    item = compute_route_change(context, stored)
    if item is None or item.state != EventState.PARKED:
        return item
    return (
        None if item.parked_by == stored.parked_by else replace(item, route=stored.route, deliveries=(), order_keys={})
    )


def _write(context: OperationContext, transaction: WriteTransaction, items: list[RouteChange]) -> set[str]:
    done = context.ledger.reroute(transaction, items, missing_handlers=context.missing_handlers)
    hit("drain.written")
    return done
