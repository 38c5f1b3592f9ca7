"""Operations of operators in the model; each function returns the expected result of its operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowhooks.model.delivery import State
from model.listeners import HANDLERS
from model.paper import AT_REST, IDENTITIES_FOR, Delivery, Event, Paper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.routes import Route

RESOLVES: Final = {
    "did": (State.SUCCEEDED, {State.UNKNOWN}),
    "did-not": (State.WAITING, {State.UNKNOWN}),
    "close": (State.CLOSED, {State.UNKNOWN, State.DEAD, State.WAITING}),
}
"""The decisions of an operator about a delivery: the new state, and the states that permit it."""


def meant(paper: Paper, event_filter: Mapping[str, Any]) -> list[Event]:
    """The events that match a filter."""
    return [event for event in paper.events.values() if _is_meant(event, event_filter)]


def _is_meant(event: Event, event_filter: Mapping[str, Any]) -> bool:
    state, handler = event_filter.get("state"), event_filter.get("handler")
    of_delivery = state if state in {*State, "suspended"} else None
    if event.id not in event_filter.get("ids", [event.id]) or (
        state in {"parked", "dismissed"} and event.state != state
    ):
        return False
    return (of_delivery is None and handler is None) or any(
        fits(one, handler, of_delivery) for one in event.deliveries.values()
    )


def fits(one: Delivery, handler: str | None, state: str | None) -> bool:
    """Whether a delivery itself meets the conditions of a filter on deliveries."""
    if state == "suspended" and (one.state, one.due) != (State.WAITING, None):
        return False
    return (handler is None or one.handler == handler) and (state in {None, "suspended"} or one.state == state)


def resolve(paper: Paper, one: Delivery, verdict: str, *, dry_run: bool) -> dict[str, str] | None:
    """Resolve an *unknown* delivery; None if the decision is not permitted."""
    target, sources = RESOLVES[verdict]
    before = one.state
    if before not in sources:
        return None
    if not dry_run:
        if target is State.WAITING:
            paper.again(one, paper.absent)
        else:
            one.move(target, paper.now)
        paper.deeds += 1
    return {"handler": one.handler, "before": before, "after": target}


class Change(NamedTuple):
    """The change of a rerouted event: its new state, and the handlers that get a delivery.

    With a route of None its state does not change.
    """

    event: Event
    route: Route | None
    fresh: set[str]

    @property
    def state(self) -> str:
        """The event's state afterwards."""
        return self.event.state if self.route is None or self.event.state == "routed" else self.route.state

    @property
    def is_delivered(self) -> bool:
        """Whether the event gets a delivery, or becomes routed."""
        return bool(self.fresh) or self.only_becomes("routed")

    def only_becomes(self, state: str) -> bool:
        """Whether the event gets a new state and no delivery."""
        return not self.fresh and self.event.state != self.state == state


def reroute(paper: Paper, *, event_filter: Mapping[str, Any], handler: str = "", dry_run: bool) -> dict[str, int]:
    """Route events again beside their earlier routes; with `handler` only for this one."""
    events = meant(paper, event_filter)
    changes = [
        change
        for event in events
        if event_filter.get("ids")
        or (event.parked_by != "end_state" and (not handler or event.dismissed_by not in {"operator", "setting"}))
        if (change := _anew(paper, event, handler)) is not None
    ]
    delivered = sum(change.is_delivered for change in changes)
    parked = sum(change.only_becomes("parked") for change in changes)
    dismissed = sum(change.only_becomes("dismissed") for change in changes)
    _write(paper, changes, dry_run=dry_run)
    return {
        "events": len(events),
        "delivered": delivered,
        "deliveries": sum(len(change.fresh) for change in changes),
        "parked": parked,
        "dismissed": dismissed,
        "skipped": len(events) - delivered - parked - dismissed,
        "changed_meanwhile": 0,
    }


def reroute_parked(paper: Paper, *, dry_run: bool) -> dict[str, int]:
    """Deliver parked events that match a handler now; update the reason of the rest."""
    parked = [
        change
        for event in meant(paper, {"state": "parked"})
        if event.parked_by != "end_state" and (change := _anew(paper, event)) is not None
    ]
    changes = [
        change._replace(fresh=set()) if change.state == "parked" else change
        for change in parked
        if change.state != "parked" or change.route.parked_by != change.event.parked_by
    ]
    done = {
        "delivered": sum(change.is_delivered for change in changes),
        "dismissed": sum(change.only_becomes("dismissed") for change in changes),
        "deliveries": sum(len(change.fresh) for change in changes),
    }
    _write(paper, changes, dry_run=dry_run)
    return done


def _anew(paper: Paper, event: Event, handler: str = "") -> Change | None:
    """The change of rerouting an event; None if there is none."""
    found = paper.route(event)
    if handler and handler not in found.handlers:
        return None
    fresh = {one for one in found.handlers if handler in {"", one}} - set(event.deliveries)
    if handler and HANDLERS[handler].every:
        # It does not make an event routed, parked or dismissed.
        return Change(event, None, fresh) if fresh else None
    change = Change(event, found, fresh)
    parked_by = found.parked_by if change.state == "parked" else None
    return change if fresh or (change.state, parked_by) != (event.state, event.parked_by) else None


def _write(paper: Paper, changes: list[Change], *, dry_run: bool) -> None:
    if not dry_run:
        for event, found, fresh in changes:
            if found is not None:
                event.become(found)
            event.rerouted = paper.now
            paper.give(event, fresh)
        paper.deeds += bool(changes)


def dismiss(paper: Paper, event_filter: Mapping[str, Any], *, dry_run: bool) -> dict[str, int]:
    """Dismiss parked events."""
    events = meant(
        paper,
        event_filter if event_filter.get("ids") or event_filter.get("state") else {**event_filter, "state": "parked"},
    )
    parked = [one for one in events if one.state == "parked"]
    if not dry_run:
        for one in parked:
            one.state, one.parked_by, one.dismissed_by = "dismissed", None, "operator"
            one.rerouted = paper.now
        paper.deeds += bool(parked)
    return {
        "events": len(events),
        "dismissed": len(parked),
        "skipped": len(events) - len(parked),
        "changed_meanwhile": 0,
    }


def purge(paper: Paper, until: int, state: str | None, *, dry_run: bool) -> dict[str, int]:
    """Delete old events; only their identities are kept for a limited time."""
    states = {state} if state else {"succeeded", "closed", "dismissed"}
    going = [one for one in paper.events.values() if _may_go(one, states, until)]
    if not dry_run:
        for one in going:
            del paper.events[one.id]
            if one.received >= paper.now - IDENTITIES_FOR:
                paper.gone[one.identity] = one.id, one.body
                paper.gone_instances.setdefault(one.identity[0], []).append((one.received, one.id, one.origin))
        paper.purged += len(going)
        paper.deeds += bool(going)
    return {"purged": len(going), "deliveries": sum(len(one.deliveries) for one in going)}


def _may_go(event: Event, states: set[str], until: int) -> bool:
    theirs = {one.state for one in event.deliveries.values()}
    changes = [event.received, event.beside_at, event.rerouted]
    changes += [delivery.changed for delivery in event.deliveries.values()]
    if not theirs <= AT_REST or max(changes) >= until:
        return False
    grave = theirs & {State.DEAD} | {event.state} & {"parked"}
    if grave or event.state == "dismissed":
        return (grave or {"dismissed"}) <= states
    return bool(theirs) and (State.CLOSED if State.CLOSED in theirs else State.SUCCEEDED) in states


def pause(paper: Paper, handlers: set[str], *, dry_run: bool) -> dict[str, Any]:
    """Pause these handlers; return those that changed."""
    return _held(paper, handlers & paper.known.keys() - paper.paused, dry_run=dry_run)


def resume(paper: Paper, handlers: set[str], *, dry_run: bool) -> dict[str, Any]:
    """Resume these handlers; return those that changed."""
    return _held(paper, handlers & paper.paused, dry_run=dry_run)


def _held(paper: Paper, changed: set[str], *, dry_run: bool) -> dict[str, Any]:
    if not dry_run:
        paper.paused ^= changed
        paper.deeds += bool(changed)
    return {
        "handlers": tuple(sorted(changed)),
        "waiting": sum(one.handler in changed for one in paper.deliveries(State.WAITING)),
        "running": sum(one.handler in changed for one in paper.deliveries(State.RUNNING)),
    }
