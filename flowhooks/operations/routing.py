"""One event routed again by the present look-up, as several operations do it; it must not know which, or who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.ledger.rerouting import Rerouted

if TYPE_CHECKING:
    from collections.abc import Collection

    from flowhooks.ledger.reading import Stored
    from flowhooks.operations import Desk


def rerouted(desk: Desk, stored: Stored) -> Rerouted | None:
    """What the present look-up makes of an event; None if nothing of it changes.

    What it has it keeps: no delivery is taken away, and one that is routed stays so, whoever wants it by now.
    """
    route = desk.router.route(stored.event)
    fresh = [handler for handler in route.handlers if handler not in stored.route]
    whole = {**stored.route, **{handler: route.handlers[handler] for handler in fresh}}
    if stored.state == "routed":
        state = "routed"
    elif route.parked:
        state = "parked"
    else:
        state = "routed" if whole else "dismissed"
    if not fresh and state == stored.state:
        return None
    return Rerouted(
        event_id=stored.event.id,
        state=state,
        route=whole,
        deliveries=tuple((desk.clock.new_id(), handler) for handler in fresh),
        order_keys=desk.router.order_keys(stored.event, fresh),
        seen=stored.state,
    )


def one_of(ids: Collection[str]) -> str:
    """What a deed is about: the id, if it is one; else `""`."""
    (subject,) = ids if len(ids) == 1 else ("",)
    return subject
