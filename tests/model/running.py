"""Steps of runners, also of expired runners, beside those of engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from flowhooks.ledger.attempts import AttemptResult
from flowhooks.model.delivery import OutcomeKind, State
from flowhooks.model.ready_delivery import ClaimedAttempt
from model.listeners import HANDLERS
from model.machine import CALLS, PICKS, WHICH, Machine, StartedAttempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.paper import Delivery

FATES = st.sampled_from(["returns", "raises", "raises", "rejects", "asks for time", "never enters"])
SETTLED = st.sampled_from([State.SUCCEEDED, State.WAITING, State.DEAD, State.UNKNOWN])


class Running(Machine):
    """The steps of engines and runners."""

    @precondition(lambda self: self.model.deliveries(State.WAITING))
    @rule(pick=PICKS, which=WHICH)
    def claim(self, pick: int, which: int) -> None:
        """A runner claims a waiting delivery."""
        delivery = self._pick(pick, State.WAITING)
        self._claim(delivery, len(delivery.attempts), which)

    @precondition(lambda self: self.model.deliveries(State.WAITING))
    @rule(pick=PICKS, fate=FATES, which=WHICH)
    def run(self, pick: int, fate: str, which: int) -> None:
        """A runner claims a waiting delivery, and the attempt ends at once."""
        before = len(self.started_attempts)
        self.claim(pick, which)
        if len(self.started_attempts) > before:
            self._finish(self.started_attempts.pop(), fate)()

    @precondition(lambda self: self.model.deliveries())
    @rule(pick=PICKS, off=st.sampled_from([-1, 0, 1]), which=WHICH)
    def claim_by_an_old_hint(self, pick: int, off: int, which: int) -> None:
        """A runner claims a delivery by an outdated notification."""
        delivery = self._pick(pick)
        self._claim(delivery, max(0, len(delivery.attempts) + off), which)

    def _claim(self, delivery: Delivery, attempts: int, which: int) -> None:
        flow, number = self._flow(which), attempts + 1
        may_begin = self.model.may_begin(delivery, number)
        queued = self.real.queued(delivery.event, delivery.handler, attempts)
        if delivery.handler not in self.model.loaded:
            flow.app.dispatcher.execute(queued)
            self.real.flush(flow)
            if may_begin:
                delivery.begin(flow.app.ledger.process, self.model.now)
                delivery.end("failed", State.WAITING, self.model.now, None)
            return
        if self.model.decide(delivery) is not True:
            flow.app.dispatcher.execute(queued)  # it enters no function: no fate is set for it
            self.model.check_conditions(delivery, attempts)
            return
        claimed = flow.app.ledger.claim(queued)
        assert isinstance(claimed, ClaimedAttempt) is may_begin
        if may_begin:
            delivery.begin(flow.app.ledger.process, self.model.now)
            self._check_claimed(delivery, claimed)
            self.started_attempts.append(StartedAttempt(which, queued, claimed, delivery))

    @staticmethod
    def _check_claimed(delivery: Delivery, claimed: ClaimedAttempt) -> None:
        assert (claimed.event.id, claimed.attempt, claimed.retry_base) == (
            delivery.event,
            len(delivery.attempts),
            delivery.retry_base,
        )

    @precondition(lambda self: self.started_attempts)
    @rule(pick=PICKS, fate=FATES)
    def finish(self, pick: int, fate: str) -> None:
        """An attempt ends; if its process has expired, that changes nothing."""
        self._finish(self.started_attempts.pop(pick % len(self.started_attempts)), fate)()

    def _finish(self, attempt: StartedAttempt, fate: str) -> Callable[[], None]:
        flow, delivery, number = self._flow(attempt.flow), attempt.delivery, attempt.claimed.attempt
        self.real.work.fates[attempt.queued.delivery_id] = fate
        self.real.work.entered.clear()
        flow.app.dispatcher.execute(attempt.queued, attempt.claimed)
        may_run = delivery.handler in self.model.loaded and self.model.decide(delivery) is True
        assert self.real.work.entered == [(attempt.queued.delivery_id, number, delivery.event)] * (
            may_run and fate != "never enters"
        )
        if delivery.handler in self.model.loaded and not may_run:
            self.model.end_unentered(delivery, number)
        else:
            self.model.finish(delivery, number, fate)
        return lambda: self.real.flush(flow)

    @precondition(lambda self: self.model.deliveries())
    @rule(pick=PICKS, number=st.integers(1, 4), outcome=st.sampled_from(OutcomeKind), into=SETTLED, which=WHICH)
    def settle_late(self, pick: int, number: int, outcome: OutcomeKind, into: State, which: int) -> None:
        """A process that has not started an attempt, or has ended it, reports an outcome: that changes nothing."""
        delivery = self._pick(pick)
        if delivery.is_current(number):
            number += 1
        now = self.model.now
        result = AttemptResult(
            self.real.ids[delivery.event, delivery.handler],
            delivery.handler,
            number,
            outcome,
            "",
            "",
            None,
            into,
            now,
            now,
        )
        recorded = delivery.attempts[number - 1] if number <= len(delivery.attempts) else None
        # An identical outcome may be recorded twice, because the reply to the first may be lost.
        known = recorded is not None and (recorded.outcome, recorded.finished) == (outcome, now)
        ledger = self._flow(which).app.ledger
        assert ledger.wait_for(ledger.record_result(result)) is known

    @precondition(
        lambda self: "p" in {handler[0] for handler in self.model.loaded} and self.model.deliveries(State.UNKNOWN)
    )
    @rule(pick=PICKS, verdict=st.sampled_from([True, False, None, "raises"]), which=WHICH, lost=st.booleans())
    def probe(self, pick: int, verdict: Any, which: int, lost: bool) -> None:
        """Run the probe of a lost attempt."""
        delivery = self._pick(pick, *([State.UNKNOWN] if lost else []))
        queued = self.real.queued(delivery.event, delivery.handler, len(delivery.attempts), probe=True)
        self.real.work.fates[queued.delivery_id] = verdict
        self._flow(which).app.dispatcher.execute(queued)
        if HANDLERS[delivery.handler].probes:
            self.model.record_probe(delivery, None if verdict == "raises" else verdict)

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
        flow, model = self._flow(which), self.model
        flow.app.runner._slots.free = free
        by = flow.app.ledger.process if free else None
        with self.real.batch_writes(flow):
            for pick, fate in hands:
                attempts = [
                    attempt for attempt in self.started_attempts if attempt.flow % len(self.real.flows) == which
                ]
                if attempts:
                    self.started_attempts.remove(attempt := attempts[pick % len(attempts)])
                    self._finish(attempt, fate)
            stored = []
            for identity, body in calls:
                new, _ = flow.app.intake._build_event(self.real.call(identity, body), flow.app.intake.config)
                conflict = model.conflicts(identity, body)
                stored.append((flow.app.ledger.accept(new), model.store(new.event.id, identity, body, by), conflict))
            waiting = [
                delivery
                for delivery in model.deliveries(State.WAITING)
                if delivery.handler in model.loaded and model.decide(delivery) is True
                if (delivery.event, delivery.handler) in self.real.ids
            ]
            submitted = {}
            for pick in claims if waiting else ():
                delivery = waiting[pick % len(waiting)]
                queued = self.real.queued(delivery.event, delivery.handler, len(delivery.attempts))
                # Of several claims of one delivery in one commit, the last one gets it.
                submitted[queued.delivery_id] = delivery, queued, self.real.submit_claim(flow, queued)
        for result, event_id, conflict in stored:
            accepted = result.result(60)
            assert (accepted.event_id, accepted.conflict) == (event_id, conflict)
        self._record_started(which)
        for delivery, queued, result in submitted.values():
            claimed = result()
            assert isinstance(claimed, ClaimedAttempt) is model.may_begin(delivery, len(delivery.attempts) + 1)
            if isinstance(claimed, ClaimedAttempt):
                delivery.begin(flow.app.ledger.process, model.now)
                self._check_claimed(delivery, claimed)
                self.started_attempts.append(StartedAttempt(which, queued, claimed, delivery))
        self.real.flush(flow)
