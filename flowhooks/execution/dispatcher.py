"""Run one attempt of one delivery, and give its outcome to the recorder."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import SECOND
from flowhooks.errors import DamagedRow, TransactionError
from flowhooks.execution.attempt_results import Attempt, ResultBuilder
from flowhooks.execution.condition_recheck import ConditionCheck
from flowhooks.execution.cpu_affinity import HandlerAffinity
from flowhooks.execution.outcomes import Raised
from flowhooks.execution.probe import Prober
from flowhooks.execution.recorder import EndedAttempt
from flowhooks.failpoints import hit
from flowhooks.ledger.attempts import AttemptResult
from flowhooks.model.delivery import Delivery, Outcome, OutcomeKind, State
from flowhooks.model.invocation import Invocation
from flowhooks.model.log_fields import delivery_log_fields
from flowhooks.model.ready_delivery import ClaimedAttempt, LimitReached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.clock import Clock
    from flowhooks.execution.isolation import IsolatedCalls
    from flowhooks.execution.recorder import OutcomeRecorder
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.model.handler import Handler
    from flowhooks.model.ready_delivery import ReadyDelivery
    from flowhooks.plugins.plugins import Plugins

DAMAGED_RETRY_INTERVAL: Final = 60 * SECOND
"""Microseconds until a delivery whose rows cannot be read is tried again, and logged again."""

log = structlog.get_logger(__name__)


def log_damaged_delivery(delivery_id: str, handler: str, why: str) -> None:
    """Log that a delivery does not run, because its rows cannot be read."""
    log.error(
        "delivery_damaged",
        delivery=delivery_id,
        handler=handler,
        why=why,
        next="run `flowhooks verify`, and restore a backup; the delivery waits until then",
    )


class Dispatcher:
    """Runs attempts.

    Args:
        ledger: claims attempts.
        recorder: records their outcomes.
        plugins: calls handlers through the wrappers.
        handlers: the loaded handlers, by id.
        clock: current time and random numbers.
        affinity: chooses the CPU cores of handlers; default: leave the cores of their threads unchanged.
        isolated: the call functions of isolated handlers, by handler id.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        recorder: OutcomeRecorder,
        plugins: Plugins,
        handlers: Mapping[str, Handler],
        clock: Clock,
        affinity: HandlerAffinity | None = None,
        isolated: Mapping[str, IsolatedCalls] = MappingProxyType({}),
    ) -> None:
        self._ledger, self._recorder, self._clock = ledger, recorder, clock
        self._plugins, self._handlers = plugins, handlers
        self._affinity = affinity or HandlerAffinity()
        self._isolated = isolated
        self._results = ResultBuilder(plugins, clock)
        self._conditions = ConditionCheck(ledger, recorder, clock)
        self._prober = Prober(ledger=ledger, plugins=plugins, clock=clock, publish=recorder.publish, isolated=isolated)
        self._damaged_until: dict[str, int] = {}

    def execute(self, queued: ReadyDelivery, claimed: ClaimedAttempt | None = None) -> LimitReached | None:
        """Run one attempt of a delivery, or call the probe of an *unknown* one.

        Does nothing if the delivery has changed since it was read. Returns when the attempt has ended; the result is
        recorded soon after.

        Args:
            queued: the delivery.
            claimed: its attempt, if the runner has claimed it already.

        Returns:
            `LimitReached` if the handler's concurrency limit or its rate prevented the attempt; otherwise None.

        Raises:
            Unavailable: the attempt could not be claimed; nothing was run.
        """
        # A claimed attempt is stored as running, and its event was read. A later time than that of one interval is from
        # before the clock was set back.
        until = 0 if claimed is not None else self._damaged_until.get(queued.delivery_id, 0)
        if until and 0 < until - self._clock.now() <= DAMAGED_RETRY_INTERVAL:
            return None
        try:
            return self._execute(queued, claimed)
        except DamagedRow as error:
            now = self._clock.now()
            # Its runner offers it again at each poll.
            self._damaged_until = {key: until for key, until in list(self._damaged_until.items()) if until > now}
            self._damaged_until[queued.delivery_id] = now + DAMAGED_RETRY_INTERVAL
            log_damaged_delivery(queued.delivery_id, queued.handler, error.why)
            return None

    def _execute(self, queued: ReadyDelivery, claimed: ClaimedAttempt | None) -> LimitReached | None:
        handler = self._handlers.get(queued.handler)
        if handler is None:
            self._suspend_missing_handler(queued, claimed)
            return None
        if queued.probe:
            self._prober.run(handler, queued)
            return None
        if handler.selectors.has_conditions and not self._conditions.passes(handler, queued, claimed):
            return None
        attempt = claimed or self._ledger.claim(queued)
        if attempt is None or isinstance(attempt, LimitReached):
            return attempt
        hit("attempt.marked")
        self._make_attempt(handler, queued, attempt)
        return None

    def _make_attempt(self, handler: Handler, queued: ReadyDelivery, claimed: ClaimedAttempt) -> None:
        delivery_id, handler_id = queued.delivery_id, queued.handler
        delivery = Delivery(id=delivery_id, event_id=claimed.event.id, handler=handler_id, attempt=claimed.attempt)
        transaction = self._ledger.handler_transaction(delivery_id, claimed.attempt)
        invocation = Invocation(
            delivery_id,
            claimed.attempt,
            begin_transaction=transaction.begin,
            log_fields=lambda: {**delivery_log_fields(claimed.event, delivery), "attempt": claimed.attempt},
        )
        if isolated := self._isolated.get(handler_id):
            invocation.isolated_call = lambda event: isolated.run(event, delivery)
        attempt = Attempt(handler, claimed, delivery, invocation, transaction)
        unpinned = isolated is None and self._affinity.acquire(handler_id)
        started = time.perf_counter()
        answer = self._call_handler(attempt)
        seconds = time.perf_counter() - started
        if isolated is None:
            self._affinity.release(handler_id, seconds, unpinned=unpinned)
        hit("attempt.ended")
        self._record(attempt, answer, seconds)

    def _call_handler(self, attempt: Attempt) -> object:
        """Call a handler through its wrappers, unless its plugin's schema refuses the data.

        Returns:
            The outcome that the wrappers returned, or any other value of theirs; `Raised` if an exception was raised.
        """
        handler, event, invocation = attempt.handler, attempt.claimed.event, attempt.invocation
        try:
            if rejection := self._plugins.why_data_invalid(handler, event):
                return Outcome(kind=OutcomeKind.REJECTED, error=rejection, entered=False)
            with invocation:
                answer = self._plugins.run_handler(handler, event, attempt.delivery)
            attempt.transaction.end_block()
        except BaseException as error:  # noqa: BLE001 (any exception of a plugin, even SystemExit, is the attempt's outcome)
            return Raised(error, invocation.entered)
        return answer

    def _record(self, attempt: Attempt, answer: object, seconds: float) -> None:
        """Record the outcome of an attempt together with its handler's own transaction."""
        event, delivery = attempt.claimed.event, attempt.delivery
        outcome, result = self._results.build(attempt, answer)
        if attempt.transaction.is_open and outcome.succeeded:
            try:
                self._recorder.commit(attempt.transaction, EndedAttempt(event, delivery, result, outcome, seconds))
            except TransactionError as error:
                outcome, result = self._results.build(attempt, Raised(error, entered=True))
            else:
                return
        attempt.transaction.close()
        if not outcome.succeeded:
            log.warning(
                "attempt_failed",
                **delivery_log_fields(event, delivery),
                attempt=delivery.attempt,
                outcome=outcome.kind.value,
                state=result.target.value,
                error=result.error,
                seconds=round(seconds, 6),
            )
        self._recorder.record(EndedAttempt(event, delivery, result, outcome, seconds))

    def _suspend_missing_handler(self, queued: ReadyDelivery, claimed: ClaimedAttempt | None) -> None:
        """Suspend a delivery whose handler is not installed: without a due time it is not polled."""
        attempt = claimed if claimed is not None or queued.probe else self._ledger.claim(queued)
        if not isinstance(attempt, ClaimedAttempt):
            return
        event = attempt.event
        delivery = Delivery(id=queued.delivery_id, event_id=event.id, handler=queued.handler, attempt=attempt.attempt)
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
        self._recorder.record(EndedAttempt(event, delivery, result))
