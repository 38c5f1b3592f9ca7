"""Steps of operators, ends of processes, and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from flowhooks.errors import InvalidTransition, NotFound
from flowhooks.model.delivery import State, Trigger
from model import desk
from model.listeners import HANDLERS, SECOND, Conditions
from model.machine import LOADED, PICKS, WHICH
from model.operating import Operating

if TYPE_CHECKING:
    from flowhooks.ledger.queries import DeliveryStatus
    from model.paper import Delivery

DRY = st.sampled_from([False, False, False, True])
FILTERS = st.sampled_from(
    ["one", "one", {}, {"handler": "p:again"}, {"handler": "q:every", "state": "dead"}]
    + [{"state": state} for state in ("dead", "succeeded", "unknown", "waiting", "suspended", "parked", "dismissed")]
)
PURGE_STATES = st.sampled_from([None, None, "succeeded", "closed", "dismissed", "dead", "parked"])
PURGE_HANDLERS = st.sampled_from([None, None, None, "p:again", "q:every", "r:large"])
HANDLER_PATTERNS = st.sampled_from([["p:again"], ["p:*"], ["*"], ["*"], ["q:late", "p:once", "r:large"], ["nobody:*"]])
HANDLER_FILTERS = st.sampled_from(["", "", "r:books", "r:large", "r:watch", "p:again", "q:every"])
MIN_STEPS_BETWEEN_CRASHES = 6
"""The minimum number of steps between two crashes, because each takes as long as many steps."""
SECONDS = st.sampled_from([1, 10, 60, 3600, 86_400, 200 * 86_400])


class Acting(Operating):
    """All steps."""

    def __init__(self) -> None:
        super().__init__()
        self.seen_deliveries: list[tuple[DeliveryStatus, Delivery]] = []
        self.began = 0

    def _perform(self, which: int, name: str, expected: dict[str, Any], **arguments: Any) -> None:
        result = self.real.perform(self._flow(which), name, **arguments)
        assert {key: result[key] for key in expected} == expected

    @precondition(lambda self: self.real.ids)
    @rule(pick=PICKS, verdict=st.sampled_from(["did", "did-not", "close"]), dry=DRY, which=WHICH)
    def resolve(self, pick: int, verdict: str, dry: bool, which: int) -> None:
        """An operator resolves one delivery that is not purged."""
        names = sorted(self.real.ids)
        event, handler = names[pick % len(names)]
        arguments = {"delivery_id": self.real.ids[event, handler], "verdict": verdict, "dry_run": dry}
        if event not in self.model.events:
            with pytest.raises(NotFound):
                self._perform(which, "resolve", {}, **arguments)
            return
        delivery = self.model.events[event].deliveries[handler]
        expected = desk.resolve(self.model, delivery, verdict, dry_run=dry)
        if expected is None:
            with pytest.raises(InvalidTransition):
                self._perform(which, "resolve", {}, **arguments)
        else:
            self._perform(which, "resolve", expected, **arguments)

    @precondition(lambda self: self.model.events)
    @rule(how=st.sampled_from(["reroute_parked", "dismiss"]), wanted=FILTERS, pick=PICKS, dry=DRY, which=WHICH)
    def route_anew(self, how: str, wanted: Any, pick: int, dry: bool, which: int) -> None:
        """Reroute parked events, or dismiss them."""
        arguments = {} if how == "reroute_parked" else {"event_filter": self._wanted(wanted, pick)}
        expected = getattr(desk, how)(self.model, **arguments, dry_run=dry)
        self._perform(which, how, expected, **arguments, dry_run=dry)

    @precondition(lambda self: self.model.events)
    @rule(wanted=FILTERS, pick=PICKS, handler=HANDLER_FILTERS, dry=DRY, which=WHICH)
    def reroute(self, wanted: Any, pick: int, handler: str, dry: bool, which: int) -> None:
        """Reroute events in any state, for all handlers or one."""
        arguments = {"event_filter": self._wanted(wanted, pick), "dry_run": dry} | (
            {"handler": handler} if handler else {}
        )
        if handler and handler not in self.model.known:
            with pytest.raises(NotFound):
                self._perform(which, "reroute", {}, **arguments)
            return
        self._perform(which, "reroute", desk.reroute(self.model, **arguments), **arguments)

    @precondition(lambda self: self.model.known)
    @rule(handlers=HANDLER_PATTERNS, pause=st.booleans(), dry=DRY, which=WHICH)
    def pause_or_resume(self, handlers: list[str], pause: bool, dry: bool, which: int) -> None:
        """Open or close circuits of handlers."""
        matching_handlers = {
            handler
            for handler in HANDLERS
            if any(
                handler == pattern or (pattern[-1] == "*" and handler.startswith(pattern[:-1])) for pattern in handlers
            )
        }
        expected = (desk.pause if pause else desk.resume)(self.model, matching_handlers, dry_run=dry)
        self._perform(which, "pause" if pause else "resume", expected, handlers=handlers, dry_run=dry)

    @precondition(lambda self: self.model.events)
    @rule(state=PURGE_STATES, handler=PURGE_HANDLERS, age=st.sampled_from([0, 0, 60, 86_400]), dry=DRY, which=WHICH)
    def purge(self, state: str | None, handler: str | None, age: int, dry: bool, which: int) -> None:
        """Purge old events."""
        given = {"until": self.model.now + 1 - age * SECOND, "state": state, "handler": handler}
        wanted = {name: value for name, value in given.items() if value is not None}
        expected = desk.purge(self.model, wanted, dry_run=dry)
        self._perform(which, "purge", expected, event_filter=wanted, dry_run=dry)

    @precondition(lambda self: self.model.deliveries())
    @rule(pick=PICKS, which=WHICH)
    def look(self, pick: int, which: int) -> None:
        """Read a delivery, for a later action."""
        delivery = self._pick(pick)
        _, delivery_status = self._flow(which).app.ledger.delivery(self.real.ids[delivery.event, delivery.handler])
        last = delivery.attempts[-1] if delivery.attempts else None
        assert (delivery_status.state, delivery_status.attempt, delivery_status.outcome) == (
            delivery.state,
            len(delivery.attempts),
            last and last.outcome,
        )
        self.seen_deliveries.append((delivery_status, delivery))

    @precondition(lambda self: self.seen_deliveries)
    @rule(pick=PICKS, which=WHICH)
    def act_late(self, pick: int, which: int) -> None:
        """Replay a delivery that was read before, which succeeds only if it is unchanged."""
        earlier, delivery = self.seen_deliveries.pop(pick % len(self.seen_deliveries))
        if earlier.state not in {State.DEAD, State.UNKNOWN, State.SUCCEEDED}:
            return
        app = self._flow(which).app
        moved = app.ledger.write(
            lambda transaction: app.ledger.requeue(
                transaction,
                [earlier],
                trigger=Trigger.REPLAY,
                missing_handlers=self.model.missing_handlers,
                reset_retries=True,
            )
        )
        is_same = delivery.event in self.model.events and (delivery.state, len(delivery.attempts)) == (
            earlier.state,
            earlier.attempt,
        )
        assert moved == ({earlier.delivery_id} if is_same else set())
        if is_same:
            self.model.requeue(delivery, self.model.missing_handlers)

    # Processes and time

    @precondition(lambda self: self.n_steps >= self.began + MIN_STEPS_BETWEEN_CRASHES)
    @rule(loaded=LOADED)
    def crash(self, loaded: dict[str, Conditions]) -> None:
        """Kill and restart all processes with the same, more or fewer plugins, or other conditions."""
        self.real.crash()
        self.real.open(loaded)
        self.model.reopen(loaded)
        self.began = self.n_steps

    @precondition(lambda self: self.real.shared and self.real.flows)
    @rule(which=WHICH, silent=st.booleans())
    def sweep(self, which: int, silent: bool) -> None:
        """A process recovers the attempts of expired processes, one of which may then return."""
        app, other = self._flow(which).app, self._flow(1 - which).app
        before = other.ledger.process
        if silent:
            self.real.age_heartbeat(self._flow(1 - which), self._flow(which))
        lost = self.model.expire({before} if silent else {})
        assert app.ledger.recover(missing_handlers=self.model.missing_handlers) == lost
        other.ledger.heartbeat()
        assert (other.ledger.process != before) is silent

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: int) -> None:
        """Move the clock."""
        self.advance(seconds)
