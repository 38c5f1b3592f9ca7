"""Drain: parked events that somebody wants by now are delivered, the oldest first; it must not know who asks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from flowhooks.clock import to_datetime
from flowhooks.failpoints import hit
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.event import Event, EventState
from flowhooks.operations.context import Deed
from flowhooks.operations.routing import rerouted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowhooks.ledger.group_commit import WriteTransaction
    from flowhooks.ledger.queries import StoredEvent
    from flowhooks.ledger.reroute import ParkedGroup, RouteChange
    from flowhooks.operations.context import Desk
    from flowhooks.routing.router import Router

AT_ONCE: Final = 500
"""Events gone through by one call: a short request, short transactions, and something to show progress by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
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


def drain(desk: Desk, *, dry_run: bool = False, after: str = "") -> Drained:
    """Route what is parked again, by the present look-up; a page of events for each call.

    Args:
        desk: what operations work with.
        dry_run: only count.
        after: where the last call left off.

    Raises:
        Unavailable: the ledger could not be written; the call changed nothing, and may be made again.
    """
    page: list[StoredEvent] = []
    if after or _may_change(desk):
        page = desk.ledger.page(EventFilter(state="parked"), after=after, limit=AT_ONCE)
    items = [item for stored in page if (item := _wanted(desk, stored)) is not None]
    if items and not dry_run:
        changed = desk.change(
            lambda transaction: _written(desk, transaction, items),
            lambda done: Deed(
                "drain", "", {"events": sum(item.event_id in done for item in items if item.state != "parked")}
            ),
        )
        hit("drain.committed")
        items = [item for item in items if item.event_id in changed]
    return Drained(
        events=len(page),
        delivered=sum(item.state == "routed" for item in items),
        dismissed=sum(item.state == "dismissed" for item in items),
        deliveries=sum(len(item.deliveries) for item in items),
        next=page[-1].event.id if len(page) == AT_ONCE else "",
        dry_run=dry_run,
    )


def wanted_by_now(desk: Desk) -> int:
    """How many parked events may be taken now; where a condition reads the data of events, all of those count."""
    return sum(group.events for group in desk.ledger.parked() if may_be_taken(desk.router, group))


def _may_change(desk: Desk) -> bool:
    """Whether parked events may be parked no longer, or for another reason than the stored one."""
    return any(
        may_be_taken(desk.router, group) or desk.router.route(like(group)).parked_by != parked_by
        for group, parked_by in desk.ledger.parked_reasons()
    )


def may_be_taken(router: Router, group: ParkedGroup) -> bool:
    """Whether a group of parked events would be parked no longer, or each of them has to be routed by its own data."""
    event = like(group)
    return not router.route(event).parked or router.reads_data(event)


def parked_by_handler(router: Router, groups: Iterable[ParkedGroup]) -> dict[str, int]:
    """How many parked events each handler wants by now, by its class or its key; those that none wants left out."""
    counts: Counter[str] = Counter()
    for group in groups:
        route = router.route(like(group))
        if not route.parked:
            # One that takes every event had its delivery when the event came, or was not there then.
            counts.update({one: group.events for one, why in route.handlers.items() if not why.startswith("every")})
    return dict(counts)


def like(group: ParkedGroup) -> Event:
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


def _wanted(desk: Desk, stored: StoredEvent) -> RouteChange | None:
    """What becomes of a parked event; one that stays parked gets no delivery, but its reason is kept up to date."""
    item = rerouted(desk, stored)
    if item is None or item.state != EventState.PARKED:
        return item
    return (
        None if item.parked_by == stored.parked_by else replace(item, route=stored.route, deliveries=(), order_keys={})
    )


def _written(desk: Desk, transaction: WriteTransaction, items: list[RouteChange]) -> set[str]:
    done = desk.ledger.reroute(transaction, items, missing_handlers=desk.absent)
    hit("drain.written")
    return done
