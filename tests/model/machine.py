"""Steps of engines, each made on a real ledger and on the model, and the checks after each step."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flowhooks.errors import IdentityConflict
from flowhooks.model.delivery import State
from model.listeners import IGNORED, Conditions, handlers_of
from model.paper import Delivery, Event, Paper

if TYPE_CHECKING:
    from flowhooks.intake.callback import Answer
    from flowhooks.model.ready_delivery import ClaimedAttempt, ReadyDelivery
    from model.real import Real

LOOK_CLOSER_EVERY = 8
"""Steps between expensive checks; there is one at the end, too."""
PICKS = st.integers(0, 11)
WHICH = st.integers(0, 1)
KEYS = st.sampled_from(["leave", "trip", "late", "loan", "loan", "loan", "nobody", IGNORED, ""])
DETAILS = st.sampled_from(
    [
        {},
        {},
        {"conclusion": "approved"},
        {"conclusion": "rejected"},
        {"conclusion": "Approved", "amount": 100},
        {"conclusion": "approved", "amount": 20},
        {"conclusion": "rejected", "amount": 20, "processDefinitionVersion": 2},
        {"conclusion": "approved", "amount": 5, "processDefinitionVersion": 1},
        {"amount": "much"},
        {"amount": 20, "processDefinitionVersion": 3},
    ]
)
IDENTITIES = st.tuples(
    st.sampled_from("abcdef"), st.sampled_from(["", "", "C"]), st.sampled_from(["complete"] * 5 + ["cancel"])
)


def _body(key: str, number: int, details: dict[str, Any]) -> dict[str, Any]:
    return {"n": number} | ({"processDefinitionKey": key} if key else {}) | details


RULES = st.sampled_from(["/status = 1", "/status = 1", "/status = other"])
CALLS = st.tuples(IDENTITIES, st.builds(_body, KEYS, st.sampled_from([1, 1, 2]), DETAILS))
LOADED = st.builds(handlers_of, st.sampled_from(["pqr", "r", "pr", "pqr", "p", "qr", "q", ""]), st.integers(0, 3))
"""The handlers of some plugins in one of the releases of `r`."""


class Hand(NamedTuple):
    """An attempt that a process has started, and may still run when the attempt is no longer current."""

    flow: int
    queued: ReadyDelivery
    claimed: ClaimedAttempt
    delivery: Delivery


class Machine(RuleBasedStateMachine):
    """The real ledger and the model side by side. A subclass provides the real ledger."""

    def site(self) -> Real:
        """An empty real ledger."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.real = self.site()
        self.paper = Paper(shared=self.real.shared, now=self.real.clock.now())
        self.hands: list[Hand] = []
        self.looks = 0

    def teardown(self) -> None:
        """Check that the counts balance and no resource is left."""
        try:
            if self.real.flows and sys.exception() is None:
                self.look_closer()
            if self.real.flows:
                self.real.empty()
        finally:
            self.real.crash()

    @initialize(loaded=LOADED)
    def begin_with(self, loaded: dict[str, Conditions]) -> None:
        """Start processes with some plugins."""
        self.real.open(loaded)
        self.paper.reopen(loaded)

    @invariant()
    def agree(self) -> None:
        """Check that stored and expected state are equal, and that each waiting delivery has a due time.

        Except deliveries whose handler is not loaded or whose condition is undecided.
        """
        if not self.real.flows:
            return
        assert self.real.stored() == self.paper.shape()
        assert all(
            one.due is not None or self.paper.decide(one) is None
            for one in self.paper.deliveries(State.WAITING)
            if one.handler in self.paper.loaded
        )
        self.looks += 1
        if self.looks % LOOK_CLOSER_EVERY == 0:
            self.look_closer()

    def look_closer(self) -> None:
        """Check that due deliveries are polled, and that the counts balance."""
        ledger = self.real.flows[0].app.ledger
        names = {delivery_id: name for name, delivery_id in self.real.ids.items()}
        due = {
            names[one.delivery_id]: (one.attempt, one.probe)
            for one in ledger.due_deliveries(self.paper.now, lambda _: 100)
        }
        assert due == self.paper.due()
        assert ledger.verify().problems == []
        assert self.real.dismissed_wanted() == self.paper.dismissed_wanted()

    def _flow(self, which: int) -> Any:
        return self.real.flows[which % len(self.real.flows)]

    @rule(call=CALLS, free=st.booleans(), which=WHICH)
    def call_back(self, call: tuple[tuple[str, str, str], dict[str, Any]], free: bool, which: int) -> None:
        """An engine sends a callback: new, repeated, or with other data and the same identity."""
        identity, body = call
        self._take(identity, body, free=free, which=which)

    @rule(call=CALLS, undecided=st.sampled_from([False, False, True]), free=st.booleans(), which=WHICH)
    def pull(self, call: tuple[tuple[str, str, str], dict[str, Any]], undecided: bool, free: bool, which: int) -> None:
        """An instance is taken in from the history of its engine."""
        identity, body = call
        flow, paper = self._flow(which), self.paper
        flow.app.runner._slots.free = free
        before = len(paper.events)
        pulled = replace(self.real.call(identity, body), origin="reconciled", end_undecided=undecided)
        taken_in = flow.app.intake.take_in(pulled)
        by = flow.app.ledger.process if free else None
        expected = paper.take_in(taken_in.event_id, identity, body, by, undecided=undecided)
        assert (taken_in.event_id, taken_in.disposition) == expected
        assert taken_in.new == (len(paper.events) > before)
        assert not taken_in.reused_id
        self._hold(which)

    @precondition(lambda self: self.paper.events or self.paper.gone)
    @rule(pick=PICKS, other=st.booleans(), failed=st.booleans(), free=st.booleans(), which=WHICH)
    def call_back_again(self, pick: int, other: bool, failed: bool, free: bool, which: int) -> None:
        """The same callback is repeated, also if its event is purged, or one with other data is sent.

        Or, a minute later, a callback that was answered with a failed delivery.
        """
        before = [(one.identity, one.body) for one in self.paper.events.values()]
        before += [(identity, body) for identity, (_, body) in self.paper.gone.items()]
        dead = [self.paper.events[one.event] for one in self.paper.deliveries(State.DEAD)]
        if failed and dead:
            before, other = [(one.identity, one.body) for one in dead], False
            self.advance(60)
        identity, body = before[pick % len(before)]
        # A number is the same in any notation.
        self._take(identity, body | {"n": float(body["n"] + other)}, free=free, which=which)

    def _take(self, identity: tuple[str, str, str], body: dict[str, Any], *, free: bool, which: int) -> None:
        flow, paper = self._flow(which), self.paper
        flow.app.runner._slots.free = free
        by = flow.app.ledger.process if free else None
        if paper.conflicts(identity, body):
            with pytest.raises(IdentityConflict) as refused:
                flow.app.intake.accept(self.real.call(identity, body), wait=0)
            assert refused.value.event_id == paper.store("", identity, body, by)
            assert refused.value.key == ("conflict" if refused.value.event_id in paper.events else "conflict_purged")
            return
        known = paper.is_known(identity)
        answer = flow.app.intake.accept(self.real.call(identity, body), wait=0)
        assert answer.event_id == paper.store(answer.event_id, identity, body, by)
        if known:
            paper.revive(answer.event_id)
        elif by is not None:
            self._hold(which)
            return  # the answer has the stored state, before any attempt starts
        assert answer.status == paper.answer(answer.event_id)
        if answer.status == "parked":
            self._check_reason(answer, paper.events[answer.event_id])
        shown = {one.handler: one.state for one in answer.delivery_statuses}
        event = paper.events.get(answer.event_id)
        assert shown == ({one.handler: one.state for one in event.deliveries.values()} if event else {})

    @rule(calls=st.lists(CALLS, max_size=5), rules=st.lists(RULES, max_size=3), free=st.booleans(), which=WHICH)
    def batch(
        self, calls: list[tuple[tuple[str, str, str], dict[str, Any]]], rules: list[str], free: bool, which: int
    ) -> None:
        """A request to a fixed URL has several callbacks, and others that rules ignore: every one is answered (I1)."""
        flow, paper = self._flow(which), self.paper
        calls = self._apart(calls)
        flow.app.runner._slots.free = free
        by = flow.app.ledger.process if free else None
        answers = flow.app.intake.accept_all(
            [self.real.ingress(identity, body) for identity, body in calls], [self.real.ignored(one) for one in rules]
        )
        paper.ignored.update(rules)
        assert len(answers) == len(calls)
        repeated = []
        for (identity, body), answer in zip(calls, answers, strict=True):
            assert isinstance(answer, IdentityConflict) == paper.conflicts(identity, body)
            if not isinstance(answer, IdentityConflict) and paper.is_known(identity):
                repeated.append(answer.event_id)
            assert answer.event_id == paper.store(answer.event_id, identity, body, by, "ingress")
        for event_id in repeated:
            paper.revive(event_id)
        for answer in answers:
            assert isinstance(answer, IdentityConflict) or answer.status == paper.answer(answer.event_id)
        self._hold(which)

    def _apart(
        self, calls: list[tuple[tuple[str, str, str], dict[str, Any]]]
    ) -> list[tuple[tuple[str, str, str], dict[str, Any]]]:
        """Leave out all but the first callback for an instance that was taken in: each may change its event."""
        seen: set[str] = set()
        apart = []
        for identity, body in calls:
            is_taken_in = self.paper.taken_in(identity) is not None or self.paper.purged_taken_in(identity)
            if identity[0] not in seen or not is_taken_in:
                apart.append((identity, body))
            seen.add(identity[0])
        return apart

    def _check_reason(self, answer: Answer, event: Event) -> None:
        """Check that an answer has the reason why the event is parked: its present route, if that parks it."""
        found = self.paper.route(event)
        assert answer.parked_by == found.parked_by
        if found.parked_by == "condition":
            assert answer.undecided in found.missing

    def _hold(self, which: int) -> None:
        """Record the attempts that were started as they were stored."""
        flow = self._flow(which)
        if flow.app.runner._slots.begun:
            self.real.stored()  # this learns the ids
        names = {delivery_id: name for name, delivery_id in self.real.ids.items()}
        for queued in flow.app.runner._slots.begun:
            event, handler = names[queued.delivery_id]
            self.hands.append(
                Hand(which, queued, queued.to_claimed_attempt(), self.paper.events[event].deliveries[handler])
            )
        flow.app.runner._slots.begun.clear()

    def advance(self, seconds: int) -> None:
        """Move the clock."""
        self.real.clock.advance(seconds)
        self.paper.now = self.real.clock.now()

    def _nth(self, pick: int, *states: State) -> Delivery:
        those = self.paper.deliveries(*states)
        return those[pick % len(those)]
