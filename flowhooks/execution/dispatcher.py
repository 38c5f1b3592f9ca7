"""Run one attempt of one delivery and record its outcome."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import SECOND, to_datetime
from flowhooks.errors import DamagedRow, TransactionError, Unavailable
from flowhooks.execution.condition_recheck import ConditionCheck
from flowhooks.execution.cpu_affinity import HandlerAffinity
from flowhooks.execution.outcomes import MAX_ERROR_CHARS, MAX_TRACEBACK_CHARS, OutcomeBuilder
from flowhooks.failpoints import hit
from flowhooks.ledger.attempts import AttemptResult, state_after_loss
from flowhooks.ledger.deliveries import StateChange, apply_changes, defer_probe
from flowhooks.ledger.handler_transaction import CommitOutcomeUnknown
from flowhooks.ledger.queries import DeliveryStatus
from flowhooks.model.delivery import ClaimedAttempt, ConcurrencyLimitReached, Delivery, Outcome, OutcomeKind, State
from flowhooks.model.retry import Retry
from flowhooks.observability.metrics import Metrics
from flowhooks.plugins.error_text import traceback_text
from flowhooks.text import one_line, to_storable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.clock import Clock
    from flowhooks.ledger.handler_transaction import HandlerTransaction
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.model.delivery import IsolatedCalls, ReadyDelivery
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler
    from flowhooks.plugins.notifier import HookNotifier
    from flowhooks.plugins.plugins import Plugins

RECORD_RETRY_DELAYS: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to record an outcome while the database is down. The last delay repeats."""

SHUTDOWN_POLL_INTERVAL: Final = 0.5
"""Seconds between checks whether the process is about to stop."""
DAMAGED_RETRY_INTERVAL: Final = 60 * SECOND
"""Microseconds until a delivery whose rows cannot be read is tried again, and logged again."""
PROBE_RETRY_INTERVAL: Final = 60 * SECOND
"""Microseconds until a probe is called again, if it gave no answer or its process was killed."""

log = structlog.get_logger(__name__)


class Dispatcher:
    """Runs attempts.

    Args:
        ledger: claims attempts and records their results.
        plugins: calls handlers through the wrappers.
        handlers: the loaded handlers, by id.
        notifier: notifies the plugins of settled deliveries.
        clock: current time and random numbers.
        on_settled: called with the event's id and the delivery's status once a result is durable.
        wait_for_shutdown: waits the given seconds; returns True if the process is about to stop.
        on_attempt_ended: called with the handler's id, the outcome and the recorded error once a result is durable.
        metrics: counts recorded attempts.
        affinity: chooses the CPU cores of handlers; default: leave the cores of their threads unchanged.
        isolated: the call functions of isolated handlers, by handler id.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        plugins: Plugins,
        handlers: Mapping[str, Handler],
        notifier: HookNotifier,
        clock: Clock,
        on_settled: Callable[[str, DeliveryStatus], None],
        wait_for_shutdown: Callable[[float], bool],
        on_attempt_ended: Callable[[str, Outcome, str], None] = lambda _handler, _outcome, _error: None,
        metrics: Metrics | None = None,
        affinity: HandlerAffinity | None = None,
        isolated: Mapping[str, IsolatedCalls] = MappingProxyType({}),
    ) -> None:
        self._ledger = ledger
        self._plugins = plugins
        self._outcomes = OutcomeBuilder(plugins)
        self._handlers = handlers
        self._notifier = notifier
        self._clock = clock
        self._on_settled = on_settled
        self._conditions = ConditionCheck(ledger, clock, on_settled=on_settled)
        self._wait_for_shutdown = wait_for_shutdown
        self._on_attempt_ended = on_attempt_ended
        self._metrics = metrics or Metrics()
        self._affinity = affinity or HandlerAffinity()
        self._isolated = isolated
        self._damaged: dict[str, int] = {}
        self._unrecorded: SimpleQueue[tuple[AttemptResult, Callable[[bool | None], None]]] = SimpleQueue()

    def execute(self, queued: ReadyDelivery, claimed: ClaimedAttempt | None = None) -> ConcurrencyLimitReached | None:
        """Run one attempt of a delivery, or call the probe of an *unknown* one.

        Does nothing if the delivery has changed since it was read. Returns when the attempt has ended; the result is
        recorded soon after.

        Args:
            queued: the delivery.
            claimed: its attempt, if the runner has claimed it already.

        Returns:
            `ConcurrencyLimitReached` if the handler's concurrency limit prevented the attempt; otherwise None.

        Raises:
            Unavailable: the attempt could not be claimed; nothing was run.
        """
        now = self._clock.now()
        if self._damaged.get(queued.delivery_id, now) > now:
            return None
        try:
            return self._execute(queued, claimed)
        except DamagedRow as error:
            # Its runner offers it again at each poll.
            until = now + DAMAGED_RETRY_INTERVAL
            self._damaged = {key: time for key, time in list(self._damaged.items()) if time > now} | {
                queued.delivery_id: until
            }
            log.error(  # noqa: TRY400 (a traceback says nothing about the row)
                "delivery_damaged",
                delivery=queued.delivery_id,
                handler=queued.handler,
                why=error.why,
                next="run `flowhooks verify`, and restore a backup; the delivery waits until then",
            )
            return None

    def _execute(self, queued: ReadyDelivery, claimed: ClaimedAttempt | None) -> ConcurrencyLimitReached | None:
        handler = self._handlers.get(queued.handler)
        if handler is None:
            self._suspend_missing_handler(queued, claimed)
            return None
        if queued.probe:
            self._probe(handler, queued)
            return None
        if not self._conditions.passes(handler, queued, claimed):
            return None
        attempt = claimed or self._ledger.claim(queued)
        if attempt is None or isinstance(attempt, ConcurrencyLimitReached):
            return attempt
        claimed = attempt
        transaction = self._ledger.handler_transaction(queued.delivery_id, claimed.attempt)
        delivery = Delivery(
            id=queued.delivery_id,
            event_id=claimed.event.id,
            handler=handler.id,
            attempt=claimed.attempt,
            _begin_transaction=transaction.begin,
            _isolated_call=isolated.run if (isolated := self._isolated.get(handler.id)) else None,
        )
        hit("attempt.marked")
        unpinned = isolated is None and self._affinity.acquire(handler.id)
        started = time.perf_counter()
        outcome = self._run_attempt(handler, claimed.event, delivery, transaction)
        seconds = time.perf_counter() - started
        if isolated is None:
            self._affinity.release(handler.id, seconds, unpinned=unpinned)
        hit("attempt.ended")
        self._finish(handler, claimed, delivery, outcome, transaction=transaction, seconds=seconds)
        return None

    def _suspend_missing_handler(self, queued: ReadyDelivery, claimed: ClaimedAttempt | None) -> None:
        """Suspend a delivery whose handler is not installed: without a due time it is not polled."""
        attempt = claimed if claimed is not None or queued.probe else self._ledger.claim(queued)
        if isinstance(attempt, ClaimedAttempt):
            result = AttemptResult(
                queued.delivery_id,
                queued.handler,
                attempt.attempt,
                OutcomeKind.FAILED,
                "no loaded plugin has this handler; the delivery waits until it is installed",
                "",
                None,
                State.WAITING,
                None,
                self._clock.now(),
            )
            self._record(result, lambda _settled: None)

    def _run_attempt(
        self, handler: Handler, event: Event, delivery: Delivery, transaction: HandlerTransaction
    ) -> Outcome:
        if rejection := self._plugins.why_data_invalid(handler, event):
            return Outcome(kind=OutcomeKind.REJECTED, error=rejection, entered=False)
        outcome = self._call_handler(handler, event, delivery, transaction)
        return self._redact(outcome)

    def _redact(self, outcome: Outcome) -> Outcome:
        # Before any text is truncated or published: half a secret could not be recognised.
        if outcome.error or outcome.traceback:
            conceal = self._plugins.redact
            return replace(outcome, error=conceal(outcome.error), traceback=conceal(outcome.traceback))
        return outcome

    def _call_handler(
        self, handler: Handler, event: Event, delivery: Delivery, transaction: HandlerTransaction
    ) -> Outcome:
        try:
            answer = self._plugins.run_handler(handler, event, delivery)
            transaction.end_block()
        except BaseException as error:  # noqa: BLE001 (any exception of a plugin, even SystemExit, is the attempt's outcome)
            return self._outcomes.failure(error, entered=bool(delivery._entered))  # noqa: SLF001 (the dispatcher created it)
        if isinstance(answer, Outcome):
            return answer
        why = f"a run_handler wrapper returned {type(answer).__name__} instead of the Outcome that its yield returned"
        return Outcome(kind=OutcomeKind.FAILED, error=why, entered=bool(delivery._entered))  # noqa: SLF001 (as above)

    def _build_result(
        self, handler: Handler, claimed: ClaimedAttempt, delivery: Delivery, outcome: Outcome
    ) -> AttemptResult:
        now = self._clock.now()
        target, due_at = self._next_state(handler, claimed, outcome, now)
        encoded = self._outcomes.result(outcome, delivery)
        return AttemptResult(
            delivery.id,
            delivery.handler,
            delivery.attempt,
            outcome.kind,
            to_storable(one_line(outcome.error), MAX_ERROR_CHARS),
            to_storable(outcome.traceback, MAX_TRACEBACK_CHARS),
            encoded.text,
            target,
            due_at,
            now,
            encoded.dropped or None,
        )

    def _finish(
        self,
        handler: Handler,
        claimed: ClaimedAttempt,
        delivery: Delivery,
        outcome: Outcome,
        *,
        transaction: HandlerTransaction,
        seconds: float,
    ) -> None:
        """Record the result of an attempt together with its handler's own transaction."""
        result = self._build_result(handler, claimed, delivery, outcome)
        if transaction.is_open and outcome.succeeded:
            try:
                settled = self._commit(transaction, result)
            except TransactionError as error:
                outcome = self._redact(self._outcomes.failure(error, entered=True))
                result = self._build_result(handler, claimed, delivery, outcome)
            else:
                if settled is not None:
                    self._on_recorded(
                        settled,
                        event=claimed.event,
                        delivery=delivery,
                        outcome=outcome,
                        result=result,
                        seconds=seconds,
                    )
                return
        transaction.close()
        if not outcome.succeeded:
            log.warning(
                "attempt_failed",
                handler=delivery.handler,
                delivery=delivery.id,
                event_id=delivery.event_id,
                attempt=delivery.attempt,
                outcome=outcome.kind.value,
                state=result.target.value,
                error=result.error,
                seconds=round(seconds, 6),
            )
        recorded = partial(
            self._on_recorded,
            event=claimed.event,
            delivery=delivery,
            outcome=outcome,
            result=result,
            seconds=seconds,
        )
        try:
            self._ledger.record_result_async(result, recorded)
        except Unavailable:
            # The write queue is full. Record synchronously, so that this thread takes no further delivery meanwhile.
            self._record(result, recorded)

    def _record_metrics(self, event: Event, result: AttemptResult, seconds: float) -> None:
        ended = result.target in {State.SUCCEEDED, State.DEAD}
        total = (to_datetime(result.now) - event.received_at).total_seconds() if ended else None
        self._metrics.attempted(result.handler, result.outcome.value, seconds, total=total)

    def _on_recorded(
        self,
        settled: bool | None,
        *,
        event: Event,
        delivery: Delivery,
        outcome: Outcome,
        result: AttemptResult,
        seconds: float,
    ) -> None:
        """Publish a recorded result; schedule another try if it could not be recorded."""
        if settled is None:
            retry = partial(
                self._on_recorded,
                event=event,
                delivery=delivery,
                outcome=outcome,
                result=result,
                seconds=seconds,
            )
            self._unrecorded.put((result, retry))
        elif settled:
            self._record_metrics(event, result, seconds)
            self._on_attempt_ended(result.handler, outcome, result.error)
            self._publish(event, delivery, outcome, result)
        else:
            log.warning("stale_attempt", delivery=delivery.id, attempt=delivery.attempt)

    def _commit(self, transaction: HandlerTransaction, result: AttemptResult) -> bool | None:
        """Commit a handler's transaction together with its result.

        Returns:
            False if the attempt was no longer the current one. None if the process stops before the database
            has replied; recovery then determines the result.

        Raises:
            TransactionError: nothing was written.
        """
        try:
            return transaction.commit_with_result(result)
        except CommitOutcomeUnknown as error:
            unknown = error
        tries = 0
        log.error("commit_outcome_unknown", delivery=result.delivery_id, why=unknown.why)
        while True:
            try:
                committed = unknown.was_committed()
            except Unavailable:
                tries += 1
                if self._wait_for_shutdown(RECORD_RETRY_DELAYS[min(tries, len(RECORD_RETRY_DELAYS)) - 1]):
                    log.error("outcome_lost", delivery=result.delivery_id, attempt=result.attempt)  # noqa: TRY400 (said once, without a traceback)
                    return None
            else:
                if committed:
                    return True
                raise TransactionError(f"the connection was lost before the commit: {unknown.why}") from unknown

    def _publish(self, event: Event, delivery: Delivery, outcome: Outcome, result: AttemptResult) -> None:
        self._on_settled(
            delivery.event_id,
            DeliveryStatus(
                delivery_id=delivery.id,
                handler=delivery.handler,
                state=result.target,
                attempt=delivery.attempt,
                due_at=result.due_at,
                outcome=outcome.kind,
                error=result.error,
                finished_at=result.now,
            ),
        )
        self._notifier.delivery_settled(event, delivery, outcome, result.target)

    def _next_state(
        self, handler: Handler, claimed: ClaimedAttempt, outcome: Outcome, now: int
    ) -> tuple[State, int | None]:
        if outcome.succeeded:
            return State.SUCCEEDED, None
        if outcome.kind is OutcomeKind.REJECTED:
            return State.DEAD, None
        if outcome.kind is OutcomeKind.LOST:
            attempts_made = claimed.attempt - claimed.retry_base
            return state_after_loss(
                handler.retry,
                attempts_made=attempts_made,
                has_probe=handler.probe is not None,
                now=now,
                random=self._clock.random,
            )
        # Without `retry=` a failure is final, unless the function raised RetryAfter. If the function was not entered,
        # retrying is safe even without `retry=` or after the last attempt.
        schedules = [handler.retry] if handler.retry else []
        if not outcome.entered or (handler.retry is None and outcome.retry_after is not None):
            schedules.append(Retry())
        attempts_made, random = claimed.attempt - claimed.retry_base, self._clock.random()
        delays = [delay for schedule in schedules if (delay := schedule.delay(attempts_made, random)) is not None]
        if not delays:
            return State.DEAD, None
        delay = delays[0] if outcome.retry_after is None else outcome.retry_after
        return State.WAITING, now + int(delay * SECOND)

    def run_recording_retries(self) -> None:
        """Record results that could not be recorded at once, until the process stops; runs in its own thread."""
        while True:
            try:
                result, on_recorded = self._unrecorded.get(timeout=SHUTDOWN_POLL_INTERVAL)
            except Empty:
                if self._wait_for_shutdown(0):
                    return
                continue
            self._record(result, on_recorded)

    def _record(self, result: AttemptResult, on_recorded: Callable[[bool | None], None]) -> None:
        """Record a result; retry while the database is down, until the process stops."""
        tries = 0
        while True:
            try:
                settled = self._ledger.record_result(result)
            except Unavailable as error:
                if tries == 0:
                    log.error("outcome_write_failed", delivery=result.delivery_id, why=str(error))  # noqa: TRY400 (said once, without a traceback)
                tries += 1
                if self._wait_for_shutdown(RECORD_RETRY_DELAYS[min(tries, len(RECORD_RETRY_DELAYS)) - 1]):
                    log.error("outcome_lost", delivery=result.delivery_id, attempt=result.attempt)  # noqa: TRY400 (as above)
                    return
            else:
                on_recorded(settled)
                return

    def _probe(self, handler: Handler, queued: ReadyDelivery) -> None:
        """Call a handler's probe for a lost attempt; without an answer the delivery stays *unknown*."""
        if handler.probe is None or (stored := self._ledger.delivery(queued.delivery_id)) is None:
            return
        event, standing = stored
        asked_at = self._clock.now()
        # Before the call, because another process may have read the same delivery.
        if not self._ledger.write(
            lambda transaction: defer_probe(
                transaction, queued.delivery_id, now=asked_at, until=asked_at + PROBE_RETRY_INTERVAL
            )
        ):
            return
        delivery = Delivery(id=standing.delivery_id, event_id=event.id, handler=handler.id, attempt=standing.attempt)
        try:
            isolated = self._isolated.get(handler.id)
            verdict = (isolated.probe if isolated else handler.probe)(event, delivery)
        except BaseException as error:  # noqa: BLE001 (after any exception of a plugin the delivery stays unknown)
            traceback = self._plugins.redact(traceback_text(error))
            log.error("probe_failed", handler=handler.id, delivery=delivery.id, traceback=traceback)  # noqa: TRY400 (it is in the field)
            verdict = None
        now = self._clock.now()
        if verdict is True:
            change = StateChange(
                delivery.id,
                State.UNKNOWN,
                State.SUCCEEDED,
                standing.attempt,
                now,
                comment="its probe says that its work was done",
            )
            if self._ledger.write(lambda transaction: apply_changes(transaction, [change])):
                self._on_settled(event.id, replace(standing, state=State.SUCCEEDED, due_at=None))
        elif verdict is False:
            note = "its probe says that its work was not done"
            self._ledger.write(
                lambda transaction: self._ledger.requeue(transaction, [standing], reset_retries=True, comment=note)
            )
