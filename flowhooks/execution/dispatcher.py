"""Running one attempt of one delivery and making its outcome; it must not know who calls it, or when."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import SECOND, to_datetime
from flowhooks.errors import TransactionError, Unavailable
from flowhooks.execution.condition_check import ConditionCheck
from flowhooks.execution.cpu_affinity import Room
from flowhooks.execution.outcomes import MOST_ERROR, MOST_TRACEBACK, Outcomes, kept
from flowhooks.failpoints import reached
from flowhooks.ledger.attempts import AttemptResult, state_after_loss
from flowhooks.ledger.deliveries import StateChange, apply_changes, defer_probe
from flowhooks.ledger.handler_transaction import CommitOutcomeUnknown
from flowhooks.ledger.queries import DeliveryStatus
from flowhooks.model.delivery import Claimed, Delivery, NoRoom, Outcome, OutcomeKind, State
from flowhooks.model.retry import Retry
from flowhooks.observability.metrics import Metrics
from flowhooks.plugins.error_text import in_full

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.clock import Clock
    from flowhooks.ledger.handler_transaction import HandlerTransaction
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.model.delivery import Elsewhere, Queued
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler
    from flowhooks.plugins.notifier import Notices
    from flowhooks.plugins.plugins import Plugins

RECORD_AGAIN: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to record an outcome while the database is down; the last one goes on."""

LOOK_EVERY: Final = 0.5
"""Seconds between looks at whether the process is about to end."""
PROBE_AGAIN: Final = 60 * SECOND
"""How long a probe that was asked is left alone, if it cannot tell, or its process is killed."""

log = structlog.get_logger(__name__)


class Dispatch:
    """Runs attempts.

    Args:
        ledger: marks them and records how they ended.
        plugins: runs the handler, through the wrappers.
        handlers: those that are loaded, by id.
        notices: who is told.
        clock: time and chance.
        told: called, after it is durable, with the event's id and the delivery's standing.
        pause: waits some seconds; answers True when the process is about to end.
        ended: called, after it is durable, with the handler's id, the outcome and the error that was written down.
        metrics: counts what was settled.
        room: the processor cores that handlers may use; default: whatever their threads have.
        elsewhere: how those handlers are called that run in processes of their own, by their ids.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        plugins: Plugins,
        handlers: Mapping[str, Handler],
        notices: Notices,
        clock: Clock,
        told: Callable[[str, DeliveryStatus], None],
        pause: Callable[[float], bool],
        ended: Callable[[str, Outcome, str], None] = lambda _handler, _outcome, _error: None,
        metrics: Metrics | None = None,
        room: Room | None = None,
        elsewhere: Mapping[str, Elsewhere] = MappingProxyType({}),
    ) -> None:
        self._ledger = ledger
        self._plugins = plugins
        self._outcomes = Outcomes(plugins)
        self._handlers = handlers
        self._notices = notices
        self._clock = clock
        self._told = told
        self._conditions = ConditionCheck(ledger, clock, on_settled=told)
        self._pause = pause
        self._ended = ended
        self._metrics = metrics or Metrics()
        self._room = room or Room()
        self._elsewhere = elsewhere
        self._unrecorded: SimpleQueue[tuple[AttemptResult, Callable[[bool | None], None]]] = SimpleQueue()

    def execute(self, queued: Queued, claimed: Claimed | None = None) -> NoRoom | None:
        """Make one attempt, or ask the probe of one that is *unknown*. Harmless for a delivery that has moved on.

        Returns when the attempt has ended; that is recorded soon after.

        Args:
            queued: the delivery.
            claimed: its attempt, if its runner has begun it already.

        Returns:
            `NoRoom` if it was not made because as many of its handler's run as may; else None.

        Raises:
            Unavailable: the attempt could not be marked; nothing was run.
        """
        handler = self._handlers.get(queued.handler)
        if handler is None:
            self._leave(queued, claimed)
            return None
        if queued.probe:
            self._probe(handler, queued)
            return None
        if not self._conditions.passes(handler, queued, claimed):
            return None
        made = claimed or self._ledger.claim(queued)
        if made is None or isinstance(made, NoRoom):
            return made
        claimed = made
        joint = self._ledger.handler_transaction(queued.delivery_id, claimed.attempt)
        delivery = Delivery(
            id=queued.delivery_id,
            event_id=claimed.event.id,
            handler=handler.id,
            attempt=claimed.attempt,
            _block=joint.begin,
            _elsewhere=elsewhere.run if (elsewhere := self._elsewhere.get(handler.id)) else None,
        )
        reached("attempt.marked")
        wide = elsewhere is None and self._room.enter(handler.id)
        started = time.perf_counter()
        outcome = self._run(handler, claimed.event, delivery, joint)
        seconds = time.perf_counter() - started
        if elsewhere is None:
            self._room.leave(handler.id, seconds, wide=wide)
        reached("attempt.ended")
        self._finish(handler, claimed, delivery, outcome, joint=joint, seconds=seconds)
        return None

    def _leave(self, queued: Queued, claimed: Claimed | None) -> None:
        """Have a delivery whose handler nobody has wait for it, without a time: neither running nor offered again."""
        made = claimed if claimed is not None or queued.probe else self._ledger.claim(queued)
        if isinstance(made, Claimed):
            settlement = AttemptResult(
                queued.delivery_id,
                queued.handler,
                made.attempt,
                OutcomeKind.FAILED,
                "no plugin that is loaded has this handler; the delivery waits for one",
                "",
                None,
                State.WAITING,
                None,
                self._clock.now(),
            )
            self._record(settlement, lambda _settled: None)

    def _run(self, handler: Handler, event: Event, delivery: Delivery, joint: HandlerTransaction) -> Outcome:
        if refused := self._plugins.refusal(handler, event):
            return Outcome(kind=OutcomeKind.REJECTED, error=refused, entered=False)
        outcome = self._attempt(handler, event, delivery, joint)
        return self._concealed(outcome)

    def _concealed(self, outcome: Outcome) -> Outcome:
        """An outcome without the plugins' secrets: before anything of it is cut or anybody is told."""
        if outcome.error or outcome.traceback:
            conceal = self._plugins.conceal
            return replace(outcome, error=conceal(outcome.error), traceback=conceal(outcome.traceback))
        return outcome

    def _attempt(self, handler: Handler, event: Event, delivery: Delivery, joint: HandlerTransaction) -> Outcome:
        try:
            answer = self._plugins.run_handler(handler, event, delivery)
            joint.end_block()
        except BaseException as error:  # noqa: BLE001 (whatever a plugin raises, SystemExit too, is that attempt's outcome)
            return self._outcomes.failure(error, entered=bool(delivery._entered))  # noqa: SLF001 (dispatch made it)
        if isinstance(answer, Outcome):
            return answer
        why = f"a run_handler wrapper returned {type(answer).__name__} instead of the Outcome that its yield gave"
        return Outcome(kind=OutcomeKind.FAILED, error=why, entered=bool(delivery._entered))  # noqa: SLF001 (as above)

    def _settlement(self, handler: Handler, claimed: Claimed, delivery: Delivery, outcome: Outcome) -> AttemptResult:
        now = self._clock.now()
        target, due_at = self._next(handler, claimed, outcome, now)
        return AttemptResult(
            delivery.id,
            delivery.handler,
            delivery.attempt,
            outcome.kind,
            kept(" ".join(outcome.error.split()), MOST_ERROR),
            kept(outcome.traceback, MOST_TRACEBACK),
            self._outcomes.result(outcome, delivery),
            target,
            due_at,
            now,
        )

    def _finish(
        self,
        handler: Handler,
        claimed: Claimed,
        delivery: Delivery,
        outcome: Outcome,
        *,
        joint: HandlerTransaction,
        seconds: float,
    ) -> None:
        """Have it recorded how an attempt ended, with what its handler wrote in a transaction of its own."""
        settlement = self._settlement(handler, claimed, delivery, outcome)
        if joint.is_open and outcome.succeeded:
            try:
                settled = self._commit(joint, settlement)
            except TransactionError as error:
                outcome = self._concealed(self._outcomes.failure(error, entered=True))
                settlement = self._settlement(handler, claimed, delivery, outcome)
            else:
                if settled is not None:
                    self._recorded(
                        settled,
                        event=claimed.event,
                        delivery=delivery,
                        outcome=outcome,
                        settlement=settlement,
                        seconds=seconds,
                    )
                return
        joint.close()
        if not outcome.succeeded:
            log.warning(
                "attempt_failed",
                handler=delivery.handler,
                delivery=delivery.id,
                event_id=delivery.event_id,
                attempt=delivery.attempt,
                outcome=outcome.kind.value,
                state=settlement.target.value,
                error=settlement.error,
                seconds=round(seconds, 6),
            )
        recorded = partial(
            self._recorded,
            event=claimed.event,
            delivery=delivery,
            outcome=outcome,
            settlement=settlement,
            seconds=seconds,
        )
        try:
            self._ledger.record_result_async(settlement, recorded)
        except Unavailable:
            # Too much is queued: wait for it, and so keep this thread from doing more.
            self._record(settlement, recorded)

    def _count(self, event: Event, settlement: AttemptResult, seconds: float) -> None:
        ended = settlement.target in {State.SUCCEEDED, State.DEAD}
        total = (to_datetime(settlement.now) - event.received_at).total_seconds() if ended else None
        self._metrics.attempted(settlement.handler, settlement.outcome.value, seconds, total=total)

    def _recorded(
        self,
        settled: bool | None,
        *,
        event: Event,
        delivery: Delivery,
        outcome: Outcome,
        settlement: AttemptResult,
        seconds: float,
    ) -> None:
        """What follows once an outcome is durable; where it could not be recorded, that is tried again."""
        if settled is None:
            again = partial(
                self._recorded,
                event=event,
                delivery=delivery,
                outcome=outcome,
                settlement=settlement,
                seconds=seconds,
            )
            self._unrecorded.put((settlement, again))
        elif settled:
            self._count(event, settlement, seconds)
            self._ended(settlement.handler, outcome, settlement.error)
            self._tell(event, delivery, outcome, settlement)
        else:
            log.warning("stale_attempt", delivery=delivery.id, attempt=delivery.attempt)

    def _commit(self, joint: HandlerTransaction, settlement: AttemptResult) -> bool | None:
        """Commit what a handler wrote together with its outcome.

        Returns:
            Whether that is so; False if the attempt was no longer the current one. None if the process ends before
            the database has said: whoever recovers the delivery finds out.

        Raises:
            TransactionError: nothing was written.
        """
        try:
            return joint.commit_with_result(settlement)
        except CommitOutcomeUnknown as error:
            unanswered = error
        tries = 0
        log.error("commit_unanswered", delivery=settlement.delivery_id, why=unanswered.why)
        while True:
            try:
                came_through = unanswered.was_committed()
            except Unavailable:
                tries += 1
                if self._pause(RECORD_AGAIN[min(tries, len(RECORD_AGAIN)) - 1]):
                    log.error("outcome_lost", delivery=settlement.delivery_id, attempt=settlement.attempt)  # noqa: TRY400 (said once, without a traceback)
                    return None
            else:
                if came_through:
                    return True
                raise TransactionError(f"the connection broke before the commit: {unanswered.why}") from unanswered

    def _tell(self, event: Event, delivery: Delivery, outcome: Outcome, settlement: AttemptResult) -> None:
        self._told(
            delivery.event_id,
            DeliveryStatus(
                delivery_id=delivery.id,
                handler=delivery.handler,
                state=settlement.target,
                attempt=delivery.attempt,
                due_at=settlement.due_at,
                outcome=outcome.kind,
                error=settlement.error,
                finished_at=settlement.now,
            ),
        )
        self._notices.settled(event, delivery, outcome, settlement.target)

    def _next(self, handler: Handler, claimed: Claimed, outcome: Outcome, now: int) -> tuple[State, int | None]:
        """The state that follows an outcome, and from when the next attempt may run."""
        if outcome.succeeded:
            return State.SUCCEEDED, None
        if outcome.kind is OutcomeKind.REJECTED:
            return State.DEAD, None
        if outcome.kind is OutcomeKind.LOST:
            made = claimed.attempt - claimed.retries_from
            return state_after_loss(
                handler.retry, attempts_made=made, probes=handler.probe is not None, now=now, random=self._clock.chance
            )
        # Without `retry=` a failure is final, unless the function itself asked for more. If it was not even entered,
        # it is safe to run it again whatever `retry=` says, and be it that its own attempts are used up.
        schedules = [handler.retry] if handler.retry else []
        if not outcome.entered or (handler.retry is None and outcome.retry_after is not None):
            schedules.append(Retry())
        made, chance = claimed.attempt - claimed.retries_from, self._clock.chance()
        delays = [delay for schedule in schedules if (delay := schedule.delay(made, chance)) is not None]
        if not delays:
            return State.DEAD, None
        delay = delays[0] if outcome.retry_after is None else outcome.retry_after
        return State.WAITING, now + int(delay * SECOND)

    def keep_recording(self) -> None:
        """Record, for as long as the process lives, what could not be recorded at once; for a thread of its own."""
        while True:
            try:
                settlement, recorded = self._unrecorded.get(timeout=LOOK_EVERY)
            except Empty:
                if self._pause(0):
                    return
                continue
            self._record(settlement, recorded)

    def _record(self, settlement: AttemptResult, recorded: Callable[[bool | None], None]) -> None:
        """Record an outcome, however long the database is down, unless the process ends before."""
        tries = 0
        while True:
            try:
                settled = self._ledger.record_result(settlement)
            except Unavailable as error:
                if tries == 0:
                    log.error("outcome_not_recorded", delivery=settlement.delivery_id, why=str(error))  # noqa: TRY400 (said once, without a traceback)
                tries += 1
                if self._pause(RECORD_AGAIN[min(tries, len(RECORD_AGAIN)) - 1]):
                    log.error("outcome_lost", delivery=settlement.delivery_id, attempt=settlement.attempt)  # noqa: TRY400 (as above)
                    return
            else:
                recorded(settled)
                return

    def _probe(self, handler: Handler, queued: Queued) -> None:
        """Ask a handler's probe what became of a lost attempt; what it cannot tell stays *unknown*."""
        if handler.probe is None or (found := self._ledger.delivery(queued.delivery_id)) is None:
            return
        event, standing = found
        asked = self._clock.now()
        # Before it is asked: others may have been told of it, too.
        if not self._ledger.write(
            lambda transaction: defer_probe(transaction, queued.delivery_id, now=asked, until=asked + PROBE_AGAIN)
        ):
            return
        delivery = Delivery(id=standing.delivery_id, event_id=event.id, handler=handler.id, attempt=standing.attempt)
        try:
            elsewhere = self._elsewhere.get(handler.id)
            verdict = (elsewhere.probe if elsewhere else handler.probe)(event, delivery)
        except BaseException as error:  # noqa: BLE001 (whatever a plugin raises: the delivery stays unknown, and is shown)
            traceback = self._plugins.conceal(in_full(error))
            log.error("probe_failed", handler=handler.id, delivery=delivery.id, traceback=traceback)  # noqa: TRY400 (it is in the field)
            verdict = None
        now = self._clock.now()
        if verdict is True:
            moved = StateChange(
                delivery.id,
                State.UNKNOWN,
                State.SUCCEEDED,
                standing.attempt,
                now,
                note="its probe says that it did its work",
            )
            if self._ledger.write(lambda transaction: apply_changes(transaction, [moved])):
                self._told(event.id, replace(standing, state=State.SUCCEEDED, due_at=None))
        elif verdict is False:
            note = "its probe says that it did not do its work"
            self._ledger.write(
                lambda transaction: self._ledger.requeue(transaction, [standing], reset_retries=True, note=note)
            )
