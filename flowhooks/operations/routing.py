"""Route one stored event again with the current look-up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.ledger.route_changes import RouteChange
from flowhooks.model.event import EventState, Origin

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from flowhooks.ledger.queries import StoredEvent
    from flowhooks.operations.context import OperationContext


def compute_route_change(
    context: OperationContext, stored: StoredEvent, *, handler: str | None = None
) -> RouteChange | None:
    """Return the change that the current look-up makes to an event; None if nothing changes.

    Existing deliveries are kept, and a routed event stays routed, whichever handlers take it now.

    Args:
        context: what operations work with.
        stored: the event.
        handler: id of the only handler that may get a delivery; None: every handler that takes the event.

    Raises:
        NewerSelectorsError: handlers are registered whose selectors this version cannot read.
    """
    route = context.router.route(stored.event)
    if handler is not None and handler not in route.handlers:
        return None
    accepted = route.handlers if handler is None else {handler: route.handlers[handler]}
    new_handlers = [handler_id for handler_id in accepted if handler_id not in stored.route]
    merged_route = {**stored.route, **{handler_id: accepted[handler_id] for handler_id in new_handlers}}
    if handler is not None and accepted[handler].startswith("every"):
        # An `every` handler alone does not make an event routed: handlers of its class or key must still get it.
        return _add_deliveries(context, stored, merged_route, new_handlers) if new_handlers else None
    state = EventState.ROUTED if stored.state == EventState.ROUTED else route.state
    parked_by = route.parked_by if state is EventState.PARKED else None
    if not new_handlers and (state, parked_by) == (stored.state, stored.parked_by):
        return None
    no_match = context.router.no_match(stored.event) if state is not EventState.ROUTED or route.undecided else None
    return RouteChange(
        event_id=stored.event.id,
        state=state,
        parked_by=parked_by,
        dismissed_by=route.dismissed_by if state is EventState.DISMISSED else None,
        no_match=no_match.to_json() if no_match and no_match.total else None,
        route=merged_route,
        deliveries=tuple((context.clock.new_id(), handler_id) for handler_id in new_handlers),
        order_keys=context.router.order_keys(stored.event, new_handlers),
        expected_state=stored.state,
        expected_body=replaceable_body(stored),
    )


def replaceable_body(stored: StoredEvent) -> str | None:
    """Return the body of an event if a late callback may replace it; otherwise None."""
    return stored.body if stored.event.origin == Origin.RECONCILED else None


def _add_deliveries(
    context: OperationContext, stored: StoredEvent, route: Mapping[str, str], new_handlers: Sequence[str]
) -> RouteChange:
    return RouteChange(
        event_id=stored.event.id,
        state=stored.state,
        parked_by=stored.parked_by,
        dismissed_by=stored.dismissed_by,
        no_match=stored.no_match.to_json() if stored.no_match else None,
        route=route,
        deliveries=tuple((context.clock.new_id(), handler_id) for handler_id in new_handlers),
        order_keys=context.router.order_keys(stored.event, new_handlers),
        expected_state=stored.state,
        expected_body=replaceable_body(stored),
    )


def single_id(ids: Collection[str]) -> str:
    """Return the target of an audit record: the only id, or `""` if there are several or none."""
    (target,) = ids if len(ids) == 1 else ("",)
    return target
