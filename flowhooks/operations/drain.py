"""Drain: parked events that somebody wants by now are delivered, the oldest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flowhooks.clock import to_datetime
from flowhooks.event import Event
from flowhooks.ledger.reading import EventFilter
from flowhooks.ledger.rerouting import Rerouted

if TYPE_CHECKING:
    from flowhooks.ledger.reading import Stored
    from flowhooks.ledger.rerouting import ParkedGroup
    from flowhooks.operations import Desk

AT_ONCE: Final = 200
"""Events given their deliveries in one transaction, so that accepting goes on meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What a drain did, or would do.

    Attributes:
        parked: how many events were parked.
        delivered: how many of them now have their deliveries.
        dismissed: how many the settings now say that nobody need want.
        deliveries: how many deliveries that made.
        left: what stays parked, as (class, key, version, how many); the largest first, 20 at the most.
        dry_run: whether nothing was changed.
    """

    parked: int
    delivered: int
    dismissed: int
    deliveries: int
    left: tuple[tuple[str, str, int | None, int], ...]
    dry_run: bool


def drain(desk: Desk, *, dry_run: bool = False) -> Drained:
    """Route what is parked again, by the present look-up.

    Args:
        desk: what operations work with.
        dry_run: only count.

    Raises:
        Unavailable: the ledger could not be written; what was delivered before stays so, and calling again goes on.
    """
    groups = desk.ledger.parked()
    left = [group for group in groups if desk.router.route(_like(group)).parked]
    delivered = dismissed = deliveries = seen = 0
    batch: list[Rerouted] = []
    if len(left) < len(groups):
        for stored in desk.ledger.each(EventFilter(state="parked")):
            seen += 1
            desk.told(seen)
            item = _rerouted(desk, stored)
            if item is None:
                continue
            delivered += item.state == "routed"
            dismissed += item.state == "dismissed"
            deliveries += len(item.deliveries)
            batch.append(item)
            if len(batch) >= AT_ONCE and not dry_run:
                desk.ledger.reroute(batch, absent=desk.absent)
                batch = []
        if batch and not dry_run:
            desk.ledger.reroute(batch, absent=desk.absent)
    return Drained(
        parked=sum(group.count for group in groups),
        delivered=delivered,
        dismissed=dismissed,
        deliveries=deliveries,
        left=tuple(
            (group.callback_class, group.process_key or "", group.process_version, group.count) for group in left[:20]
        ),
        dry_run=dry_run,
    )


def _like(group: ParkedGroup) -> Event:
    """An event that any router would treat like those of the group."""
    return Event(
        id="",
        source=group.source,
        kind=group.kind,
        flow_instance_id="",
        callback_class=group.callback_class or None,
        process_definition_key=group.process_key,
        process_definition_version=group.process_version,
        data={},
        received_at=to_datetime(0),
    )


def _rerouted(desk: Desk, stored: Stored) -> Rerouted | None:
    route = desk.router.route(stored.event)
    if route.parked:
        return None
    fresh = [handler for handler in route.handlers if handler not in stored.route]
    whole = {**stored.route, **{handler: route.handlers[handler] for handler in fresh}}
    return Rerouted(
        event_id=stored.event.id,
        state="routed" if whole else "dismissed",
        route=whole,
        deliveries=tuple((desk.clock.new_id(), handler) for handler in fresh),
    )
