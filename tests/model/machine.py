"""Steps of engines, each made on a real ledger and on the model, and the checks after each step."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flowhooks.errors import IdentityConflict
from flowhooks.model.delivery import State
from model.listeners import IGNORED, Conditions, handlers_of
from model.paper import Delivery, Event, LedgerModel

if TYPE_CHECKING:
    from flowhooks.intake.callback import Answer
    from flowhooks.model.ready_delivery import ClaimedAttempt, ReadyDelivery
    from model.real import RealLedger

STEPS_BETWEEN_CHECKS = 8
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


class StartedAttempt(NamedTuple):
    """An attempt that a process has started, and may still run when the attempt is no longer current."""

    flow: int
    queued: ReadyDelivery
    claimed: ClaimedAttempt
    delivery: Delivery


class Machine(RuleBasedStateMachine):
    """The real ledger and the model side by side. A subclass provides the real ledger."""

    def new_ledger(self) -> RealLedger:
        """An empty real ledger."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.real = self.new_ledger()
        self.model = LedgerModel(shared=self.real.shared, now=self.real.clock.now())
        self.started_attempts: list[StartedAttempt] = []
        self.n_steps = 0

    def teardown(self) -> None:
        """Check that the counts balance and no resource is left."""
        try:
            if self.real.flows and sys.exception() is None:
                self.check_due_and_counts()
            if self.real.flows:
                self.real.empty()
        finally:
            self.real.crash()

    @initialize(loaded=LOADED)
    def begin_with(self, loaded: dict[str, Conditions]) -> None:
        """Start processes with some plugins."""
        self.real.open(loaded)
        self.model.reopen(loaded)

    @invariant()
    def agree(self) -> None:
        """Check that stored and expected state are equal, and that each waiting delivery has a due time.

        Except deliveries whose handler is not loaded or whose condition is undecided.
        """
        if not self.real.flows:
            return
        assert self.real.stored() == self.model.shape()
        assert all(
            delivery.due is not None or self.model.decide(delivery) is None
            for delivery in self.model.deliveries(State.WAITING)
            if delivery.handler in self.model.loaded
        )
        self.n_steps += 1
        if self.n_steps % STEPS_BETWEEN_CHECKS == 0:
            self.check_due_and_counts()

    def check_due_and_counts(self) -> None:
        """Check that due deliveries are polled, and that the counts balance."""
        ledger = self.real.flows[0].app.ledger
        names = {delivery_id: name for name, delivery_id in self.real.ids.items()}
        due = {
            names[delivery.delivery_id]: (delivery.attempt, delivery.probe)
            for delivery in ledger.due_deliveries(self.model.now, lambda _: 100)
        }
        assert due == self.model.due()
        assert ledger.verify().problems == []
        assert self.real.count_dismissed() == self.model.count_dismissed()

    def _flow(self, which: int) -> Any:
        return self.real.flows[which % len(self.real.flows)]

    @rule(call=CALLS, free=st.booleans(), which=WHICH)
    def call_back(self, call: tuple[tuple[str, str, str], dict[str, Any]], free: bool, which: int) -> None:
        """An engine sends a callback: new, repeated, or with other data and the same identity."""
        identity, body = call
        self._accept(identity, body, free=free, which=which)

    @rule(call=CALLS, undecided=st.sampled_from([False, False, True]), free=st.booleans(), which=WHICH)
    def pull(self, call: tuple[tuple[str, str, str], dict[str, Any]], undecided: bool, free: bool, which: int) -> None:
        """An instance is taken in from the history of its engine."""
        identity, body = call
        flow, model = self._flow(which), self.model
        flow.app.runner._slots.free = free
        before = len(model.events)
        pulled = self.real.call(identity, body)._replace(origin="reconciled", end_undecided=undecided)
        taken_in = flow.app.intake.take_in(pulled)
        by = flow.app.ledger.process if free else None
        expected = model.take_in(taken_in.event_id, identity, body, by, undecided=undecided)
        assert (taken_in.event_id, taken_in.disposition) == expected
        assert taken_in.new == (len(model.events) > before)
        assert not taken_in.reused_id
        self._record_started(which)

    @precondition(lambda self: self.model.events or self.model.purged_identities)
    @rule(pick=PICKS, other=st.booleans(), failed=st.booleans(), free=st.booleans(), which=WHICH)
    def call_back_again(self, pick: int, other: bool, failed: bool, free: bool, which: int) -> None:
        """The same callback is repeated, also if its event is purged, or one with other data is sent.

        Or, a minute later, a callback that was answered with a failed delivery.
        """
        earlier = [(event.identity, event.body) for event in self.model.events.values()]
        earlier += [(identity, body) for identity, (_, body) in self.model.purged_identities.items()]
        dead = [self.model.events[delivery.event] for delivery in self.model.deliveries(State.DEAD)]
        if failed and dead:
            earlier, other = [(event.identity, event.body) for event in dead], False
            self.advance(60)
        identity, body = earlier[pick % len(earlier)]
        # A number is the same in any notation.
        self._accept(identity, body | {"n": float(body["n"] + other)}, free=free, which=which)

    def _accept(self, identity: tuple[str, str, str], body: dict[str, Any], *, free: bool, which: int) -> None:
        flow, model = self._flow(which), self.model
        flow.app.runner._slots.free = free
        by = flow.app.ledger.process if free else None
        if model.conflicts(identity, body):
            with pytest.raises(IdentityConflict) as refused:
                flow.app.intake.accept(self.real.call(identity, body), wait=0)
            assert refused.value.event_id == model.store("", identity, body, by)
            assert refused.value.key == ("conflict" if refused.value.event_id in model.events else "conflict_purged")
            return
        known = model.is_known(identity)
        answer = flow.app.intake.accept(self.real.call(identity, body), wait=0)
        assert answer.event_id == model.store(answer.event_id, identity, body, by)
        if known:
            model.revive(answer.event_id)
        elif by is not None:
            self._record_started(which)
            return  # the answer has the stored state, before any attempt starts
        assert answer.status == model.answer(answer.event_id)
        if answer.status == "parked":
            self._check_reason(answer, model.events[answer.event_id])
        answered = {delivery.handler: delivery.state for delivery in answer.delivery_statuses}
        event = model.events.get(answer.event_id)
        assert answered == (
            {delivery.handler: delivery.state for delivery in event.deliveries.values()} if event else {}
        )

    @rule(calls=st.lists(CALLS, max_size=5), rules=st.lists(RULES, max_size=3), free=st.booleans(), which=WHICH)
    def batch(
        self, calls: list[tuple[tuple[str, str, str], dict[str, Any]]], rules: list[str], free: bool, which: int
    ) -> None:
        """A request to a fixed URL has several callbacks, and others that rules ignore: every one is answered (I1)."""
        flow, model = self._flow(which), self.model
        calls = self._drop_repeats(calls)
        flow.app.runner._slots.free = free
        by = flow.app.ledger.process if free else None
        answers = flow.app.intake.accept_all(
            [self.real.ingress(identity, body) for identity, body in calls], [self.real.ignored(rule) for rule in rules]
        )
        model.ignored.update(rules)
        assert len(answers) == len(calls)
        repeated = []
        for (identity, body), answer in zip(calls, answers, strict=True):
            assert isinstance(answer, IdentityConflict) == model.conflicts(identity, body)
            if not isinstance(answer, IdentityConflict) and model.is_known(identity):
                repeated.append(answer.event_id)
            assert answer.event_id == model.store(answer.event_id, identity, body, by, "ingress")
        for event_id in repeated:
            model.revive(event_id)
        for answer in answers:
            assert isinstance(answer, IdentityConflict) or answer.status == model.answer(answer.event_id)
        self._record_started(which)

    def _drop_repeats(
        self, calls: list[tuple[tuple[str, str, str], dict[str, Any]]]
    ) -> list[tuple[tuple[str, str, str], dict[str, Any]]]:
        """Leave out all but the first callback for an instance that was taken in: each may change its event."""
        seen: set[str] = set()
        apart = []
        for identity, body in calls:
            is_taken_in = self.model.taken_in(identity) is not None or self.model.purged_taken_in(identity)
            if identity[0] not in seen or not is_taken_in:
                apart.append((identity, body))
            seen.add(identity[0])
        return apart

    def _check_reason(self, answer: Answer, event: Event) -> None:
        """Check that an answer has the reason why the event is parked: its present route, if that parks it."""
        route = self.model.route(event)
        assert answer.parked_by == route.parked_by
        if route.parked_by == "condition":
            assert answer.undecided in route.missing

    def _record_started(self, which: int) -> None:
        """Record the attempts that were started as they were stored."""
        flow = self._flow(which)
        if flow.app.runner._slots.started:
            self.real.stored()  # this learns the ids
        names = {delivery_id: name for name, delivery_id in self.real.ids.items()}
        for ready in flow.app.runner._slots.started:
            event, handler = names[ready.delivery_id]
            self.started_attempts.append(
                StartedAttempt(which, ready, ready.to_claimed_attempt(), self.model.events[event].deliveries[handler])
            )
        flow.app.runner._slots.started.clear()

    def advance(self, seconds: int) -> None:
        """Move the clock."""
        self.real.clock.advance(seconds)
        self.model.now = self.real.clock.now()

    def _pick(self, pick: int, *states: State) -> Delivery:
        deliveries = self.model.deliveries(*states)
        return deliveries[pick % len(deliveries)]
