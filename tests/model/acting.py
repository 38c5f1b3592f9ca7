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
WANTED = st.sampled_from(
    ["one", "one", {}, {"handler": "p:again"}, {"handler": "q:every", "state": "dead"}]
    + [{"state": one} for one in ("dead", "succeeded", "unknown", "waiting", "suspended", "parked", "dismissed")]
)
PURGED = st.sampled_from([None, None, "succeeded", "closed", "dismissed", "dead", "parked"])
HELD = st.sampled_from([["p:again"], ["p:*"], ["*"], ["*"], ["q:late", "p:once", "r:large"], ["nobody:*"]])
ONLY = st.sampled_from(["", "", "r:books", "r:large", "r:watch", "p:again", "q:every"])
RESTS = 6
"""The minimum number of steps between two crashes, because each takes as long as many steps."""
SECONDS = st.sampled_from([1, 10, 60, 3600, 86_400, 200 * 86_400])


class Acting(Operating):
    """All steps."""

    def __init__(self) -> None:
        super().__init__()
        self.sights: list[tuple[DeliveryStatus, Delivery]] = []
        self.began = 0

    def _perform(self, which: int, name: str, expected: dict[str, Any], **arguments: Any) -> None:
        done = self.real.perform(self._flow(which), name, **arguments)
        assert {one: done[one] for one in expected} == expected

    @precondition(lambda self: self.real.ids)
    @rule(pick=PICKS, verdict=st.sampled_from(["did", "did-not", "close"]), dry=DRY, which=WHICH)
    def resolve(self, pick: int, verdict: str, dry: bool, which: int) -> None:
        """An operator resolves one delivery that is not purged."""
        names = sorted(self.real.ids)
        event, handler = names[pick % len(names)]
        arguments = {"delivery_id": self.real.ids[event, handler], "verdict": verdict, "dry_run": dry}
        if event not in self.paper.events:
            with pytest.raises(NotFound):
                self._perform(which, "resolve", {}, **arguments)
            return
        one = self.paper.events[event].deliveries[handler]
        expected = desk.resolve(self.paper, one, verdict, dry_run=dry)
        if expected is None:
            with pytest.raises(InvalidTransition):
                self._perform(which, "resolve", {}, **arguments)
        else:
            self._perform(which, "resolve", expected, **arguments)

    @precondition(lambda self: self.paper.events)
    @rule(how=st.sampled_from(["reroute_parked", "dismiss"]), wanted=WANTED, pick=PICKS, dry=DRY, which=WHICH)
    def route_anew(self, how: str, wanted: Any, pick: int, dry: bool, which: int) -> None:
        """Reroute parked events, or dismiss them."""
        arguments = {} if how == "reroute_parked" else {"event_filter": self._wanted(wanted, pick)}
        expected = getattr(desk, how)(self.paper, **arguments, dry_run=dry)
        self._perform(which, how, expected, **arguments, dry_run=dry)

    @precondition(lambda self: self.paper.events)
    @rule(wanted=WANTED, pick=PICKS, handler=ONLY, dry=DRY, which=WHICH)
    def reroute(self, wanted: Any, pick: int, handler: str, dry: bool, which: int) -> None:
        """Reroute events in any state, for all handlers or one."""
        arguments = {"event_filter": self._wanted(wanted, pick), "dry_run": dry} | (
            {"handler": handler} if handler else {}
        )
        if handler and handler not in self.paper.known:
            with pytest.raises(NotFound):
                self._perform(which, "reroute", {}, **arguments)
            return
        self._perform(which, "reroute", desk.reroute(self.paper, **arguments), **arguments)

    @precondition(lambda self: self.paper.known)
    @rule(handlers=HELD, pause=st.booleans(), dry=DRY, which=WHICH)
    def pause_or_resume(self, handlers: list[str], pause: bool, dry: bool, which: int) -> None:
        """Open or close circuits of handlers."""
        meant = {
            one
            for one in HANDLERS
            if any(one == word or (word[-1] == "*" and one.startswith(word[:-1])) for word in handlers)
        }
        expected = (desk.pause if pause else desk.resume)(self.paper, meant, dry_run=dry)
        self._perform(which, "pause" if pause else "resume", expected, handlers=handlers, dry_run=dry)

    @precondition(lambda self: self.paper.events)
    @rule(state=PURGED, age=st.sampled_from([0, 0, 60, 86_400]), dry=DRY, which=WHICH)
    def purge(self, state: str | None, age: int, dry: bool, which: int) -> None:
        """Purge old events."""
        until = self.paper.now + 1 - age * SECOND
        wanted = {"until": until} | ({"state": state} if state else {})
        expected = desk.purge(self.paper, until, state, dry_run=dry)
        self._perform(which, "purge", expected, event_filter=wanted, dry_run=dry)

    @precondition(lambda self: self.paper.deliveries())
    @rule(pick=PICKS, which=WHICH)
    def look(self, pick: int, which: int) -> None:
        """Read a delivery, for a later action."""
        one = self._nth(pick)
        _, delivery_status = self._flow(which).app.ledger.delivery(self.real.ids[one.event, one.handler])
        last = one.attempts[-1] if one.attempts else None
        assert (delivery_status.state, delivery_status.attempt, delivery_status.outcome) == (
            one.state,
            len(one.attempts),
            last and last.outcome,
        )
        self.sights.append((delivery_status, one))

    @precondition(lambda self: self.sights)
    @rule(pick=PICKS, which=WHICH)
    def act_late(self, pick: int, which: int) -> None:
        """Replay a delivery that was read before, which succeeds only if it is unchanged."""
        seen, one = self.sights.pop(pick % len(self.sights))
        if seen.state not in {State.DEAD, State.UNKNOWN, State.SUCCEEDED}:
            return
        app = self._flow(which).app
        moved = app.ledger.write(
            lambda transaction: app.ledger.requeue(
                transaction, [seen], trigger=Trigger.REPLAY, missing_handlers=self.paper.absent, reset_retries=True
            )
        )
        is_same = one.event in self.paper.events and (one.state, len(one.attempts)) == (seen.state, seen.attempt)
        assert moved == ({seen.delivery_id} if is_same else set())
        if is_same:
            self.paper.again(one, self.paper.absent)

    # Processes and time

    @precondition(lambda self: self.looks >= self.began + RESTS)
    @rule(loaded=LOADED)
    def crash(self, loaded: dict[str, Conditions]) -> None:
        """Kill and restart all processes with the same, more or fewer plugins, or other conditions."""
        self.real.crash()
        self.real.open(loaded)
        self.paper.reopen(loaded)
        self.began = self.looks

    @precondition(lambda self: self.real.shared and self.real.flows)
    @rule(which=WHICH, silent=st.booleans())
    def sweep(self, which: int, silent: bool) -> None:
        """A process recovers the attempts of expired processes, one of which may then return."""
        app, other = self._flow(which).app, self._flow(1 - which).app
        before = other.ledger.process
        if silent:
            self.real.silence(self._flow(1 - which), self._flow(which))
        lost = self.paper.lose({before} if silent else {})
        assert app.ledger.recover(missing_handlers=self.paper.absent) == lost
        other.ledger.heartbeat()
        assert (other.ledger.process != before) is silent

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: int) -> None:
        """Move the clock."""
        self.advance(seconds)
