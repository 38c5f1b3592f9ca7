"""Operations of operators in the model; each function returns the expected result of its operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowhooks.model.delivery import State
from model.listeners import HANDLERS
from model.paper import IDENTITY_RETENTION, TERMINAL_STATES, Delivery, Event, LedgerModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.routes import Route

RESOLUTIONS: Final = {
    "did": (State.SUCCEEDED, {State.UNKNOWN}),
    "did-not": (State.WAITING, {State.UNKNOWN}),
    "close": (State.CLOSED, {State.UNKNOWN, State.DEAD, State.WAITING}),
}
"""The decisions of an operator about a delivery: the new state, and the states that permit it."""


def matching_events(model: LedgerModel, event_filter: Mapping[str, Any]) -> list[Event]:
    """The events that match a filter."""
    return [event for event in model.events.values() if _matches(event, event_filter)]


def _matches(event: Event, event_filter: Mapping[str, Any]) -> bool:
    state, handler = event_filter.get("state"), event_filter.get("handler")
    delivery_state = state if state in {*State, "suspended"} else None
    if event.id not in event_filter.get("ids", [event.id]) or (
        state in {"parked", "dismissed"} and event.state != state
    ):
        return False
    return (delivery_state is None and handler is None) or any(
        matches_delivery(delivery, handler, delivery_state) for delivery in event.deliveries.values()
    )


def matches_delivery(delivery: Delivery, handler: str | None, state: str | None) -> bool:
    """Whether a delivery itself meets the conditions of a filter on deliveries."""
    if state == "suspended" and (delivery.state, delivery.due) != (State.WAITING, None):
        return False
    return (handler is None or delivery.handler == handler) and (
        state in {None, "suspended"} or delivery.state == state
    )


def resolve(model: LedgerModel, delivery: Delivery, verdict: str, *, dry_run: bool) -> dict[str, str] | None:
    """Resolve an *unknown* delivery; None if the decision is not permitted."""
    target, sources = RESOLUTIONS[verdict]
    before = delivery.state
    if before not in sources:
        return None
    if not dry_run:
        if target is State.WAITING:
            model.requeue(delivery, model.missing_handlers)
        else:
            delivery.move(target, model.now)
        model.audit_entries += 1
    return {"handler": delivery.handler, "before": before, "after": target}


class Change(NamedTuple):
    """The change of a rerouted event: its new state, and the handlers that get a delivery.

    With a route of None its state does not change.
    """

    event: Event
    route: Route | None
    new_handlers: set[str]

    @property
    def state(self) -> str:
        """The event's state afterwards."""
        return self.event.state if self.route is None or self.event.state == "routed" else self.route.state

    @property
    def is_delivered(self) -> bool:
        """Whether the event gets a delivery, or becomes routed."""
        return bool(self.new_handlers) or self.only_becomes("routed")

    def only_becomes(self, state: str) -> bool:
        """Whether the event gets a new state and no delivery."""
        return not self.new_handlers and self.event.state != self.state == state


def reroute(model: LedgerModel, *, event_filter: Mapping[str, Any], handler: str = "", dry_run: bool) -> dict[str, int]:
    """Route events again beside their earlier routes; with `handler` only for this one."""
    events = matching_events(model, event_filter)
    changes = [
        change
        for event in events
        if event_filter.get("ids")
        or (event.parked_by != "end_state" and (not handler or event.dismissed_by not in {"operator", "setting"}))
        if (change := _plan_reroute(model, event, handler)) is not None
    ]
    delivered = sum(change.is_delivered for change in changes)
    parked = sum(change.only_becomes("parked") for change in changes)
    dismissed = sum(change.only_becomes("dismissed") for change in changes)
    _write(model, changes, dry_run=dry_run)
    return {
        "events": len(events),
        "delivered": delivered,
        "deliveries": sum(len(change.new_handlers) for change in changes),
        "parked": parked,
        "dismissed": dismissed,
        "skipped": len(events) - delivered - parked - dismissed,
        "changed_meanwhile": 0,
    }


def reroute_parked(model: LedgerModel, *, dry_run: bool) -> dict[str, int]:
    """Deliver parked events that match a handler now; update the reason of the rest."""
    parked = [
        change
        for event in matching_events(model, {"state": "parked"})
        if event.parked_by != "end_state" and (change := _plan_reroute(model, event)) is not None
    ]
    changes = [
        change._replace(new_handlers=set()) if change.state == "parked" else change
        for change in parked
        if change.state != "parked" or change.route.parked_by != change.event.parked_by
    ]
    done = {
        "delivered": sum(change.is_delivered for change in changes),
        "dismissed": sum(change.only_becomes("dismissed") for change in changes),
        "deliveries": sum(len(change.new_handlers) for change in changes),
    }
    _write(model, changes, dry_run=dry_run)
    return done


def _plan_reroute(model: LedgerModel, event: Event, handler: str = "") -> Change | None:
    """The change of rerouting an event; None if there is none."""
    new_route = model.route(event)
    if handler and handler not in new_route.handlers:
        return None
    new_handlers = {name for name in new_route.handlers if handler in {"", name}} - set(event.deliveries)
    if handler and HANDLERS[handler].every:
        # It does not make an event routed, parked or dismissed.
        return Change(event, None, new_handlers) if new_handlers else None
    change = Change(event, new_route, new_handlers)
    parked_by = new_route.parked_by if change.state == "parked" else None
    return change if new_handlers or (change.state, parked_by) != (event.state, event.parked_by) else None


def _write(model: LedgerModel, changes: list[Change], *, dry_run: bool) -> None:
    if not dry_run:
        for event, new_route, new_handlers in changes:
            if new_route is not None:
                event.apply_route(new_route)
            event.rerouted = model.now
            model.add_deliveries(event, new_handlers)
        model.audit_entries += bool(changes)


def dismiss(model: LedgerModel, event_filter: Mapping[str, Any], *, dry_run: bool) -> dict[str, int]:
    """Dismiss parked events."""
    events = matching_events(
        model,
        event_filter if event_filter.get("ids") or event_filter.get("state") else {**event_filter, "state": "parked"},
    )
    parked = [event for event in events if event.state == "parked"]
    if not dry_run:
        for event in parked:
            event.state, event.parked_by, event.dismissed_by = "dismissed", None, "operator"
            event.rerouted = model.now
        model.audit_entries += bool(parked)
    return {
        "events": len(events),
        "dismissed": len(parked),
        "skipped": len(events) - len(parked),
        "changed_meanwhile": 0,
    }


def purge(model: LedgerModel, event_filter: Mapping[str, Any], *, dry_run: bool) -> dict[str, int]:
    """Delete old events; only their identities are kept for a limited time."""
    until, state, handler = event_filter["until"], event_filter.get("state"), event_filter.get("handler")
    states = {state} if state else {"succeeded", "closed", "dismissed"}
    purged = [
        event
        for event in model.events.values()
        if _is_purgeable(event, states, until)
        and _is_of_handler(event, state, handler)
        and not _counts_as_failed(model, event)
    ]
    if not dry_run:
        for event in purged:
            del model.events[event.id]
            if event.received >= model.now - IDENTITY_RETENTION:
                model.purged_identities[event.identity] = event.id, event.body
                model.purged_instances.setdefault(event.identity[0], []).append(
                    (event.received, event.id, event.origin)
                )
        model.purged += len(purged)
        model.audit_entries += bool(purged)
    return {"purged": len(purged), "deliveries": sum(len(event.deliveries) for event in purged)}


def _is_purgeable(event: Event, states: set[str], until: int) -> bool:
    delivery_states = {delivery.state for delivery in event.deliveries.values()}
    changes = [event.received, event.last_body_at, event.rerouted]
    changes += [delivery.changed for delivery in event.deliveries.values()]
    if not delivery_states <= TERMINAL_STATES or max(changes) >= until:
        return False
    unresolved = delivery_states & {State.DEAD} | {event.state} & {"parked"}
    if unresolved or event.state == "dismissed":
        return (unresolved or {"dismissed"}) <= states
    return bool(delivery_states) and (State.CLOSED if State.CLOSED in delivery_states else State.SUCCEEDED) in states


def _is_of_handler(event: Event, state: str | None, handler: str | None) -> bool:
    """Whether a purge with this handler may delete an event; no dead delivery of another one is deleted."""
    if handler is None:
        return True
    dead = {delivery.handler for delivery in event.deliveries.values() if delivery.state is State.DEAD}
    of_deliveries = state if state in set(State) else None
    matching = any(matches_delivery(delivery, handler, of_deliveries) for delivery in event.deliveries.values())
    return matching and dead <= {handler}


def _counts_as_failed(model: LedgerModel, event: Event) -> bool:
    """Whether an operation that has not ended counts a delivery of an event that is at rest as failed."""
    return any(
        item.event == event.id
        and item.status == "released"
        and event.deliveries[item.handler].state is not State.SUCCEEDED
        for operation in model.operations.values()
        if not operation.ended and operation.action not in {"close", "mark-done"}
        for item in operation.items.values()
    )


def pause(model: LedgerModel, handlers: set[str], *, dry_run: bool) -> dict[str, Any]:
    """Pause these handlers; return those that changed."""
    return _set_paused(model, handlers & model.known.keys() - model.paused, dry_run=dry_run)


def resume(model: LedgerModel, handlers: set[str], *, dry_run: bool) -> dict[str, Any]:
    """Resume these handlers; return those that changed."""
    return _set_paused(model, handlers & model.paused, dry_run=dry_run)


def _set_paused(model: LedgerModel, changed: set[str], *, dry_run: bool) -> dict[str, Any]:
    if not dry_run:
        model.paused ^= changed
        model.audit_entries += bool(changed)
    return {
        "handlers": tuple(sorted(changed)),
        "waiting": sum(delivery.handler in changed for delivery in model.deliveries(State.WAITING)),
        "running": sum(delivery.handler in changed for delivery in model.deliveries(State.RUNNING)),
    }
