"""Build the result that is stored for an ended attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

from flowhooks.execution.error_fingerprint import identify_error
from flowhooks.execution.next_state import next_state
from flowhooks.execution.outcomes import OutcomeBuilder, Raised
from flowhooks.ledger.attempts import AttemptResult
from flowhooks.model.log_fields import delivery_log_fields
from flowhooks.plugins.error_text import clear_tracebacks, traceback_text

if TYPE_CHECKING:
    from flowhooks.clock import Clock
    from flowhooks.ledger.handler_transaction import HandlerTransaction
    from flowhooks.model.delivery import Delivery, Outcome
    from flowhooks.model.handler import Handler
    from flowhooks.model.invocation import Invocation
    from flowhooks.model.ready_delivery import ClaimedAttempt
    from flowhooks.plugins.plugins import Plugins

log = structlog.get_logger(__name__)


class Attempt(NamedTuple):
    """A running attempt.

    Attributes:
        handler: its handler.
        claimed: the attempt as it was claimed.
        delivery: its delivery.
        invocation: the private state of the call.
        transaction: the transaction that its handler may open.
    """

    handler: Handler
    claimed: ClaimedAttempt
    delivery: Delivery
    invocation: Invocation
    transaction: HandlerTransaction


class ResultBuilder:
    """Builds the results of attempts.

    Args:
        plugins: mask their secrets, and tell which plugin raised an exception.
        clock: current time, and random numbers for the jitter of retries.
    """

    def __init__(self, plugins: Plugins, clock: Clock) -> None:
        self._plugins = plugins
        self._clock = clock
        self._outcomes = OutcomeBuilder(plugins)

    def build(self, attempt: Attempt, answer: object) -> tuple[Outcome, AttemptResult]:
        """Return the outcome and the result of an attempt, without details if these cannot be read.

        Nothing else reads an exception or a result of a plugin, which may run any code of the plugin.

        Args:
            attempt: the attempt.
            answer: what the wrappers of the handler returned; `Raised` if an exception was raised.
        """
        invocation = attempt.invocation
        try:
            outcome = self._outcomes.build(answer, entered=invocation.entered)
            return outcome, self._build_result(attempt, outcome)
        except BaseException as error:  # noqa: BLE001 (an attempt without a result would stay *running*)
            log.error(  # noqa: TRY400 (the traceback is in the field)
                "outcome_incomplete",
                **delivery_log_fields(attempt.claimed.event, attempt.delivery),
                attempt=attempt.delivery.attempt,
                traceback=self._plugins.redact(traceback_text(error)),
                next="correct the plugin: its exception or result cannot be read; the attempt is recorded without it",
            )
            invocation.result_dropped = f"returned a value that cannot be stored ({type(error).__name__})"
            outcome = self._outcomes.build_without_details(answer, error, entered=invocation.entered)
            return outcome, self._build_result(attempt, outcome)
        finally:
            if isinstance(answer, Raised):
                clear_tracebacks(answer.error)

    def _build_result(self, attempt: Attempt, outcome: Outcome) -> AttemptResult:
        claimed, delivery, now = attempt.claimed, attempt.delivery, self._clock.now()
        target, due_at = next_state(attempt.handler, outcome, claimed, now=now, clock=self._clock)
        error, traceback = self._outcomes.stored_texts(outcome)
        encoded = self._outcomes.result(outcome, delivery, attempt.invocation)
        return AttemptResult(
            delivery.id,
            delivery.handler,
            delivery.attempt,
            outcome.kind,
            error,
            traceback,
            encoded.text,
            target,
            due_at,
            now,
            encoded.dropped or None,
            None if outcome.succeeded else identify_error(attempt.handler, outcome.kind, error, traceback),
            attempt.invocation.log.text(),
        )
