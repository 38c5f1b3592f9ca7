"""Steps of runners, also of expired runners, beside those of engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from flowhooks.ledger.attempts import AttemptResult
from flowhooks.model.delivery import OutcomeKind, State
from flowhooks.model.ready_delivery import ClaimedAttempt
from model.listeners import HANDLERS
from model.machine import CALLS, PICKS, WHICH, Hand, Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.paper import Delivery

FATES = st.sampled_from(["returns", "raises", "raises", "rejects", "asks for time", "never enters"])
SETTLED = st.sampled_from([State.SUCCEEDED, State.WAITING, State.DEAD, State.UNKNOWN])


class Running(Machine):
    """The steps of engines and runners."""

    @precondition(lambda self: self.paper.deliveries(State.WAITING))
    @rule(pick=PICKS, which=WHICH)
    def claim(self, pick: int, which: int) -> None:
        """A runner claims a waiting delivery."""
        one = self._nth(pick, State.WAITING)
        self._claim(one, len(one.attempts), which)

    @precondition(lambda self: self.paper.deliveries(State.WAITING))
    @rule(pick=PICKS, fate=FATES, which=WHICH)
    def run(self, pick: int, fate: str, which: int) -> None:
        """A runner claims a waiting delivery, and the attempt ends at once."""
        before = len(self.hands)
        self.claim(pick, which)
        if len(self.hands) > before:
            self._finish(self.hands.pop(), fate)()

    @precondition(lambda self: self.paper.deliveries())
    @rule(pick=PICKS, off=st.sampled_from([-1, 0, 1]), which=WHICH)
    def claim_by_an_old_hint(self, pick: int, off: int, which: int) -> None:
        """A runner claims a delivery by an outdated notification."""
        one = self._nth(pick)
        self._claim(one, max(0, len(one.attempts) + off), which)

    def _claim(self, one: Delivery, made: int, which: int) -> None:
        flow, number = self._flow(which), made + 1
        may = self.paper.may_begin(one, number)
        queued = self.real.queued(one.event, one.handler, made)
        if one.handler not in self.paper.loaded:
            flow.app.dispatcher.execute(queued)
            self.real.flush(flow)
            if may:
                one.begin(flow.app.ledger.process, self.paper.now)
                one.end("failed", State.WAITING, self.paper.now, None)
            return
        if self.paper.decide(one) is not True:
            flow.app.dispatcher.execute(queued)  # it enters no function: no fate is set for it
            self.paper.check_conditions(one, made)
            return
        claimed = flow.app.ledger.claim(queued)
        assert isinstance(claimed, ClaimedAttempt) is may
        if may:
            one.begin(flow.app.ledger.process, self.paper.now)
            self._check_claimed(one, claimed)
            self.hands.append(Hand(which, queued, claimed, one))

    @staticmethod
    def _check_claimed(one: Delivery, claimed: ClaimedAttempt) -> None:
        assert (claimed.event.id, claimed.attempt, claimed.retry_base) == (
            one.event,
            len(one.attempts),
            one.retry_base,
        )

    @precondition(lambda self: self.hands)
    @rule(pick=PICKS, fate=FATES)
    def finish(self, pick: int, fate: str) -> None:
        """An attempt ends; if its process has expired, that changes nothing."""
        self._finish(self.hands.pop(pick % len(self.hands)), fate)()

    def _finish(self, hand: Hand, fate: str) -> Callable[[], None]:
        flow, one, number = self._flow(hand.flow), hand.delivery, hand.claimed.attempt
        self.real.work.fates[hand.queued.delivery_id] = fate
        self.real.work.entered.clear()
        flow.app.dispatcher.execute(hand.queued, hand.claimed)
        passes = one.handler in self.paper.loaded and self.paper.decide(one) is True
        assert self.real.work.entered == [(hand.queued.delivery_id, number, one.event)] * (
            passes and fate != "never enters"
        )
        if one.handler in self.paper.loaded and not passes:
            self.paper.end_unentered(one, number)
        else:
            self.paper.finish(one, number, fate)
        return lambda: self.real.flush(flow)

    @precondition(lambda self: self.paper.deliveries())
    @rule(pick=PICKS, number=st.integers(1, 4), outcome=st.sampled_from(OutcomeKind), into=SETTLED, which=WHICH)
    def settle_late(self, pick: int, number: int, outcome: OutcomeKind, into: State, which: int) -> None:
        """A process that has not started an attempt, or has ended it, reports an outcome: that changes nothing."""
        one = self._nth(pick)
        if one.is_current(number):
            number += 1
        now = self.paper.now
        said = AttemptResult(
            self.real.ids[one.event, one.handler], one.handler, number, outcome, "", "", None, into, now, now
        )
        recorded = one.attempts[number - 1] if number <= len(one.attempts) else None
        # An identical outcome may be recorded twice, because the reply to the first may be lost.
        known = recorded is not None and (recorded.outcome, recorded.finished) == (outcome, now)
        ledger = self._flow(which).app.ledger
        assert ledger.wait_for(ledger.record_result(said)) is known

    @precondition(lambda self: "p" in {one[0] for one in self.paper.loaded} and self.paper.deliveries(State.UNKNOWN))
    @rule(pick=PICKS, verdict=st.sampled_from([True, False, None, "raises"]), which=WHICH, lost=st.booleans())
    def probe(self, pick: int, verdict: Any, which: int, lost: bool) -> None:
        """Run the probe of a lost attempt."""
        one = self._nth(pick, *([State.UNKNOWN] if lost else []))
        queued = self.real.queued(one.event, one.handler, len(one.attempts), probe=True)
        self.real.work.fates[queued.delivery_id] = verdict
        self._flow(which).app.dispatcher.execute(queued)
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
        """Ends of attempts, callbacks and starts in one commit have the effect of some sequence."""
        which %= len(self.real.flows)
        flow, paper = self._flow(which), self.paper
        flow.app.runner._slots.free = free
        by = flow.app.ledger.process if free else None
        with self.real.one_commit(flow):
            for pick, fate in hands:
                mine = [one for one in self.hands if one.flow % len(self.real.flows) == which]
                if mine:
                    self.hands.remove(hand := mine[pick % len(mine)])
                    self._finish(hand, fate)
            stored = []
            for identity, body in calls:
                new, _ = flow.app.intake._build_event(self.real.call(identity, body), flow.app.intake.config)
                conflict = paper.conflicts(identity, body)
                stored.append((flow.app.ledger.accept(new), paper.store(new.event.id, identity, body, by), conflict))
            waiting = [
                one
                for one in paper.deliveries(State.WAITING)
                if one.handler in paper.loaded and paper.decide(one) is True
                if (one.event, one.handler) in self.real.ids
            ]
            wanted = {}
            for pick in claims if waiting else ():
                one = waiting[pick % len(waiting)]
                queued = self.real.queued(one.event, one.handler, len(one.attempts))
                # Of several claims of one delivery in one commit, the last one gets it.
                wanted[queued.delivery_id] = one, queued, self.real.claim_soon(flow, queued)
        for result, event_id, conflict in stored:
            accepted = result.result(60)
            assert (accepted.event_id, accepted.conflict) == (event_id, conflict)
        self._hold(which)
        for one, queued, result in wanted.values():
            claimed = result()
            assert isinstance(claimed, ClaimedAttempt) is paper.may_begin(one, len(one.attempts) + 1)
            if isinstance(claimed, ClaimedAttempt):
                one.begin(flow.app.ledger.process, paper.now)
                self._check_claimed(one, claimed)
                self.hands.append(Hand(which, queued, claimed, one))
        self.real.flush(flow)
