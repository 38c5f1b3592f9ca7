"""What engines and runners do, each step done to a real ledger and on paper, and what must hold after each.

It must not know how often, or on which database, that is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model.paper import HANDLERS, IGNORED, Delivery, Paper
from model.real import Real

from flowhooks.delivery import Claimed, OutcomeKind, State
from flowhooks.errors import Conflict
from flowhooks.ledger import Settlement

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.delivery import Queued

BOOKS_EVERY = 5
"""Steps between looks at the books, which cost as much as a step; they are looked at in the end, too."""
PICKS = st.integers(0, 11)
WHICH = st.integers(0, 1)
KEYS = st.sampled_from(["leave", "trip", "late", "nobody", IGNORED])
CALLS = st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "", "C"]), KEYS, st.sampled_from([1, 2]))
FATES = st.sampled_from(["returns", "raises", "raises", "rejects", "asks for time", "never enters"])
LOADED = st.sampled_from(["p", "p", "pq", "pq", "q", ""])
SETTLED = st.sampled_from([State.SUCCEEDED, State.WAITING, State.DEAD, State.UNKNOWN])


class Hand(NamedTuple):
    """An attempt that a process has begun, and perhaps has in hand still when it is no longer its own."""

    flow: int
    queued: Queued
    claimed: Claimed
    delivery: Delivery


class Machine(RuleBasedStateMachine):
    """The real ledger and the paper, side by side. A subclass says where the real one is."""

    def site(self) -> Real:
        """A real ledger with nothing in it."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.real = self.site()
        self.paper = Paper(shared=self.real.shared, now=self.real.clock.now())
        self.hands: list[Hand] = []
        self.looks = 0

    def teardown(self) -> None:
        """The books balance, and nothing is left."""
        try:
            if self.real.flows:
                assert self.real.flows[0].app.ledger.balance().trouble == []
                self.real.empty()
        finally:
            self.real.crash()

    @initialize(loaded=LOADED)
    def begin_with(self, loaded: str) -> None:
        """Processes begin, with some plugins."""
        handlers = [one for one in HANDLERS if one[0] in loaded]
        self.real.open(handlers)
        self.paper.reopen(handlers)

    @invariant()
    def agree(self) -> None:
        """What is stored is what is on paper; what may run is offered; now and then, the books balance."""
        if not self.real.flows:
            return
        assert self.real.stored() == self.paper.shape()
        ledger = self.real.flows[0].app.ledger
        names = {delivery_id: name for name, delivery_id in self.real.ids.items()}
        due = {names[one.delivery_id]: (one.attempt, one.probe) for one in ledger.due(self.paper.now, lambda _: 100)}
        assert due == self.paper.due()
        # Whatever waits moves on by itself, unless its handler is nowhere.
        assert all(one.due is not None for one in self.paper.deliveries(State.WAITING) if one.handler in self.paper.loaded)
        self.looks += 1
        if self.looks % BOOKS_EVERY == 0:
            assert ledger.balance().trouble == []

    # What an engine does

    def _flow(self, which: int) -> Any:
        return self.real.flows[which % len(self.real.flows)]

    @rule(call=CALLS, free=st.booleans(), which=WHICH)
    def call_back(self, call: tuple[str, str, str, int], free: bool, which: int) -> None:
        """An engine calls back: for the first time, again, or with other data under the same identity."""
        instance, callback_class, key, number = call
        self._take((instance, callback_class), {"processDefinitionKey": key, "n": number}, free=free, which=which)

    @precondition(lambda self: self.paper.events or self.paper.gone)
    @rule(pick=PICKS, other=st.booleans(), free=st.booleans(), which=WHICH)
    def call_back_again(self, pick: int, other: bool, free: bool, which: int) -> None:
        """The same call-back comes once more, also if all but its identity is purged; or one with other data."""
        before = [(one.identity, one.body) for one in self.paper.events.values()]
        before += [(identity, body) for identity, (_, body) in self.paper.gone.items()]
        identity, body = before[pick % len(before)]
        # A number is the same however it is written.
        self._take(identity, body | {"n": float(body["n"] + other)}, free=free, which=which)

    def _take(self, identity: tuple[str, str], body: dict[str, Any], *, free: bool, which: int) -> None:
        flow, paper = self._flow(which), self.paper
        flow.app.runner.free = free
        by = flow.app.ledger.process if free else None
        if paper.conflicts(identity, body):
            with pytest.raises(Conflict) as refused:
                flow.app.intake.take(self.real.call(identity, body), wait=0)
            assert refused.value.event_id == paper.store("", identity, body, by)
            assert refused.value.key == ("conflict_purged" if identity in paper.gone else "conflict")
            return
        known = identity in paper.gone or paper.find(identity) is not None
        answer = flow.app.intake.take(self.real.call(identity, body), wait=0)
        assert answer.event_id == paper.store(answer.event_id, identity, body, by)
        if known:
            paper.revive(answer.event_id)
        elif by is not None:
            self._hold(which)
            return  # it is answered as it was stored, before anything begins
        assert answer.status == paper.answer(answer.event_id)
        shown = {one.handler: one.state for one in answer.standings}
        event = paper.events.get(answer.event_id)
        assert shown == ({one.handler: one.state for one in event.deliveries.values()} if event else {})

    def _hold(self, which: int) -> None:
        """Take in hand what was begun by being stored."""
        flow = self._flow(which)
        self.real.stored()
        names = {delivery_id: name for name, delivery_id in self.real.ids.items()}
        for queued in flow.app.runner.begun:
            event, handler = names[queued.delivery_id]
            self.hands.append(
                Hand(which, queued, queued.claimed(), self.paper.events[event].deliveries[handler])
            )
        flow.app.runner.begun.clear()

    # What a runner does

    def _nth(self, pick: int, *states: State) -> Delivery:
        those = self.paper.deliveries(*states)
        return those[pick % len(those)]

    @precondition(lambda self: self.paper.deliveries(State.WAITING))
    @rule(pick=PICKS, which=WHICH)
    def claim(self, pick: int, which: int) -> None:
        """A runner claims what waits."""
        one = self._nth(pick, State.WAITING)
        self._claim(one, len(one.attempts), which)

    @precondition(lambda self: self.paper.deliveries())
    @rule(pick=PICKS, off=st.sampled_from([-1, 0, 1]), which=WHICH)
    def claim_by_an_old_hint(self, pick: int, off: int, which: int) -> None:
        """A runner claims whatever it was once told of, as it was then."""
        one = self._nth(pick)
        self._claim(one, max(0, len(one.attempts) + off), which)

    def _claim(self, one: Delivery, made: int, which: int) -> None:
        flow, number = self._flow(which), made + 1
        may = self.paper.may_begin(one, number)
        queued = self.real.queued(one.event, one.handler, made)
        if one.handler not in self.paper.loaded:
            flow.app.dispatch.execute(queued)
            if may:
                one.begin(flow.app.ledger.process, self.paper.now)
                one.end("failed", State.WAITING, self.paper.now, None)
            return
        claimed = flow.app.ledger.claim(queued)
        assert isinstance(claimed, Claimed) is may
        if may:
            one.begin(flow.app.ledger.process, self.paper.now)
            self._check_claimed(one, claimed)
            self.hands.append(Hand(which, queued, claimed, one))

    @staticmethod
    def _check_claimed(one: Delivery, claimed: Claimed) -> None:
        assert (claimed.event.id, claimed.attempt, claimed.retries_from) == (
            one.event,
            len(one.attempts),
            one.retries_from,
        )

    @precondition(lambda self: self.hands)
    @rule(pick=PICKS, fate=FATES)
    def finish(self, pick: int, fate: str) -> None:
        """An attempt comes to its end, be it that its process was long taken for dead: then it changes nothing."""
        self._finish(self.hands.pop(pick % len(self.hands)), fate)()

    def _finish(self, hand: Hand, fate: str) -> Callable[[], None]:
        flow, one, number = self._flow(hand.flow), hand.delivery, hand.claimed.attempt
        self.real.fates[hand.queued.delivery_id] = fate
        self.real.entered.clear()
        flow.app.dispatch.execute(hand.queued, hand.claimed)
        is_loaded = one.handler in self.paper.loaded
        assert self.real.entered == [(hand.queued.delivery_id, number, one.event)] * (
            is_loaded and fate != "never enters"
        )
        self.paper.finish(one, number, fate)
        return lambda: self.real.flush(flow)

    @precondition(lambda self: self.paper.deliveries())
    @rule(pick=PICKS, number=st.integers(1, 4), outcome=st.sampled_from(OutcomeKind), into=SETTLED, which=WHICH)
    def settle_late(self, pick: int, number: int, outcome: OutcomeKind, into: State, which: int) -> None:
        """Whoever has not begun an attempt, or is done with it, says how it ended: that changes nothing."""
        one = self._nth(pick)
        if one.is_current(number):
            number += 1
        now = self.paper.now
        said = Settlement(
            self.real.ids[one.event, one.handler], one.handler, number, outcome, "", "", None, into, now, now
        )
        recorded = one.attempts[number - 1] if number <= len(one.attempts) else None
        # What stands there already, word for word, may be said twice: the answer to the first time may be lost.
        known = recorded is not None and (recorded.outcome, recorded.finished) == (outcome, now)
        assert self._flow(which).app.ledger.settle(said) is known

    @precondition(lambda self: "p" in {one[0] for one in self.paper.loaded} and self.paper.deliveries(State.UNKNOWN))
    @rule(pick=PICKS, verdict=st.sampled_from([True, False, None, "raises"]), which=WHICH, lost=st.booleans())
    def probe(self, pick: int, verdict: Any, which: int, lost: bool) -> None:
        """A handler is asked what became of a lost attempt."""
        one = self._nth(pick, *([State.UNKNOWN] if lost else []))
        queued = self.real.queued(one.event, one.handler, len(one.attempts), probe=True)
        self.real.fates[queued.delivery_id] = verdict
        self._flow(which).app.dispatch.execute(queued)
        if HANDLERS[one.handler].probes:
            self.paper.asked(one, None if verdict == "raises" else verdict)

    @rule(
        hands=st.lists(st.tuples(PICKS, FATES), max_size=2),
        calls=st.lists(CALLS, max_size=3),
        claims=st.lists(PICKS, max_size=2),
        which=WHICH,
        free=st.booleans(),
    )
    def one_commit(self, hands: Any, calls: Any, claims: Any, which: int, free: bool) -> None:
        """Attempts end, call-backs come and attempts begin, all at once: it is as if one had come after the other."""
        which %= len(self.real.flows)
        flow, paper = self._flow(which), self.paper
        flow.app.runner.free = free
        by = flow.app.ledger.process if free else None
        with self.real.one_commit(flow):
            for pick, fate in hands:
                mine = [one for one in self.hands if self._may_finish(one, which)]
                if mine:
                    self.hands.remove(hand := mine[pick % len(mine)])
                    self._finish(hand, fate)
            stored = []
            for instance, callback_class, key, number in calls:
                identity, body = (instance, callback_class), {"processDefinitionKey": key, "n": number}
                new = flow.app.intake._routed(self.real.call(identity, body), flow.app.intake.rules)
                conflict = paper.conflicts(identity, body)
                stored.append((flow.app.ledger.submit(new), paper.store(new.event.id, identity, body, by), conflict))
            waiting = [
                one
                for one in paper.deliveries(State.WAITING)
                if one.handler in paper.loaded and (one.event, one.handler) in self.real.ids
            ]
            wanted = {}
            for pick in claims if waiting else ():
                one = waiting[pick % len(waiting)]
                queued = self.real.queued(one.event, one.handler, len(one.attempts))
                # Of several that claim one delivery at once the last one gets it.
                wanted[queued.delivery_id] = one, queued, self.real.claim_soon(flow, queued)
        for result, event_id, conflict in stored:
            accepted = result(60)
            assert (accepted.event_id, accepted.conflict) == (event_id, conflict)
        self._hold(which)
        for one, queued, result in wanted.values():
            claimed = result()
            assert isinstance(claimed, Claimed) is paper.may_begin(one, len(one.attempts) + 1)
            if isinstance(claimed, Claimed):
                one.begin(flow.app.ledger.process, paper.now)
                self._check_claimed(one, claimed)
                self.hands.append(Hand(which, queued, claimed, one))
        self.real.flush(flow)

    def _may_finish(self, hand: Hand, which: int) -> bool:
        return hand.flow % len(self.real.flows) == which and hand.delivery.handler in self.paper.loaded
