"""Open the circuits of handlers whose last attempts failed, and run trials periodically.

Each process counts failures for itself. Open circuits are stored in the ledger and apply to all processes.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import SECOND
from flowhooks.errors import FlowhooksError
from flowhooks.execution.dispatcher import DAMAGED_RETRY_INTERVAL, log_damaged_delivery
from flowhooks.ledger import circuit_state
from flowhooks.model.delivery import OutcomeKind
from flowhooks.model.log_fields import event_log_fields
from flowhooks.model.plugin_version import UNKNOWN_VERSION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from flowhooks.clock import Clock
    from flowhooks.execution.runners.runner import ExecuteFn
    from flowhooks.ledger.delivery_settled import DeliverySettled
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.model.plugin_version import PluginVersion
    from flowhooks.model.ready_delivery import ClaimedAttempt, ReadyDelivery

POLL_INTERVAL: Final = 0.5
"""Seconds between checks for handlers whose trial is due."""
MAX_REASON_CHARS: Final = 500
"""Maximum characters of an error that are stored as the reason."""

log = structlog.get_logger(__name__)


class CircuitBreaker:
    """Counts failed attempts, opens and closes circuits, and runs trials.

    Args:
        ledger: stores the open circuits.
        max_failures: consecutive failures that open a circuit, by the id of each handler that this process runs;
            0: the circuit never opens.
        plugin_versions: version of the handler's plugin, by handler id.
        retry_interval: seconds between two trials of a handler.
        clock: current time.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        max_failures: Mapping[str, int],
        plugin_versions: Mapping[str, PluginVersion],
        retry_interval: float,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._max_failures = max_failures
        self._plugin_versions = plugin_versions
        self._retry_interval = int(retry_interval * SECOND)
        self._clock = clock
        self._failures: dict[str, int] = {}
        self._counting = threading.Lock()
        self._unapplied: dict[str, str | None] = {}
        self._changes: SimpleQueue[tuple[str, str | None]] = SimpleQueue()
        self._wakeup = threading.Event()
        self._failing: set[str] = set()
        self._damaged: dict[str, int] = {}

    def on_settled(self, settled: DeliverySettled) -> None:
        """Count an attempt's durable outcome. Most calls are in the ledger's writer thread, so it must not block.

        Rejections and `RetryAfter` do not count: they do not show whether the handler works.
        """
        handler, outcome = settled.delivery.handler, settled.outcome
        if outcome is None:
            return
        # A handler's own transaction publishes its outcome in the thread of its runner.
        with self._counting:
            if outcome.succeeded:
                if self._failures.pop(handler, 0) or handler in self._ledger.pauses.handlers:
                    self._request_change(handler, None)
            elif outcome.kind is not OutcomeKind.REJECTED and outcome.retry_after is None:
                failures = self._failures[handler] = self._failures.get(handler, 0) + 1
                max_failures = self._max_failures.get(handler, 0)
                if max_failures and failures >= max_failures and handler not in self._ledger.pauses.handlers:
                    self._request_change(handler, settled.status.error)

    def _request_change(self, handler: str, why: str | None) -> None:
        """Open the circuit of a handler for the reason `why`; None closes it."""
        self._changes.put((handler, why))
        self._wakeup.set()

    def run(self, execute: ExecuteFn, stop: threading.Event) -> None:
        """Open and close circuits and run trials until `stop` is set; return when no trial is running any more.

        Args:
            execute: runs a claimed attempt.
            stop: is set when the process is about to stop.
        """
        trials: list[threading.Thread] = []
        while not stop.is_set():
            with self._logging_errors():
                self._apply_changes()
                trials = [trial for trial in trials if trial.is_alive()]
                for trial in self._run_trials(execute, stop):
                    trials.append(trial)  # one by one: starting the next may fail, and every started one is joined
            self._wakeup.wait(POLL_INTERVAL)
            self._wakeup.clear()
        for trial in trials:
            trial.join()

    def wake(self) -> None:
        """End the current wait at once, because `stop` was set."""
        self._wakeup.set()

    @contextmanager
    def _logging_errors(self, handler: str = "") -> Iterator[None]:
        """Log an error in the block, once until the block succeeds; it concerns one handler, or `""`: any."""
        fields = {"handler": handler} if handler else {}
        try:
            yield
        except FlowhooksError as error:
            if handler not in self._failing:
                log.error("circuit_breaker_error", why=str(error), **fields)  # noqa: TRY400 (one line until it changes)
            self._failing.add(handler)
        except Exception:
            # A defect in flowhooks must not end the loop: open circuits would never close.
            if handler not in self._failing:
                log.exception("circuit_breaker_error", **fields)
            self._failing.add(handler)
        else:
            self._failing.discard(handler)

    def _apply_changes(self) -> None:
        changes = self._unapplied
        while True:
            try:
                handler, why = self._changes.get_nowait()
            except Empty:
                break
            changes[handler] = why  # the newest change of a handler applies
        for handler, why in list(changes.items()):
            if why is not None:
                self._open(handler, why)
            elif handler in self._ledger.pauses.handlers and self._close([handler]):
                log.info("circuit_closed", handlers=[handler], why="an attempt has succeeded")
            del changes[handler]  # a change that fails is tried again next time

    def _open(self, handler: str, why: str) -> None:
        now = self._clock.now()
        retry_at = now + self._retry_interval
        plugin_version = str(self._plugin_versions.get(handler, UNKNOWN_VERSION))
        circuit = circuit_state.OpenCircuit(handler, why[:MAX_REASON_CHARS], plugin_version, retry_at)
        pauses = self._ledger.pauses
        if self._ledger.write(
            lambda transaction: circuit_state.open_circuit(transaction, circuit, now, pauses), alone=True
        ):
            log.error(
                "circuit_opened",
                handler=handler,
                failures=self._failures.get(handler, 0),
                why=circuit.reason,
                next="fix the cause; flowhooks tries one delivery periodically, and the handler runs again when a "
                "try succeeds, or after `flowhooks handlers resume`",
            )

    def _close(self, handlers: Collection[str]) -> frozenset[str]:
        now, pauses = self._clock.now(), self._ledger.pauses
        return self._ledger.write(
            lambda transaction: circuit_state.close_circuits(transaction, handlers, now, pauses), alone=True
        )

    def _run_trials(self, execute: ExecuteFn, stop: threading.Event) -> Iterator[threading.Thread]:
        """Start a trial for each open circuit whose retry time has come; yield their threads."""
        self._failing &= {"", *self._ledger.pauses.handlers}
        if self._max_failures.keys().isdisjoint(self._ledger.pauses.handlers):
            return
        now = self._clock.now()
        for handler, circuit in self._ledger.open_circuits().items():
            next_retry_at = now + self._retry_interval
            is_time = circuit.retry_at <= now or circuit.retry_at > next_retry_at + circuit_state.MAX_TRIAL_AHEAD
            if handler in self._max_failures and is_time and not stop.is_set():
                started = None
                with self._logging_errors(handler):  # an error of one handler must not stop the trials of the others
                    started = self._claim(handler, next_retry_at, now)
                if started is not None:
                    yield from _start_trial(execute, *started)

    def _claim(self, handler: str, next_retry_at: int, now: int) -> tuple[ReadyDelivery, ClaimedAttempt] | None:
        """Claim a delivery for a trial; None if no trial is due, none could run, or the delivery is damaged."""
        # A time beyond the interval was noted by a clock that was ahead.
        self._damaged = {key: at for key, at in self._damaged.items() if 0 < at - now <= DAMAGED_RETRY_INTERVAL}
        trial = circuit_state.TrialDelivery(handler, next_retry_at, tuple(self._damaged))
        try:
            return self._ledger.claim_trial_delivery(trial)
        except circuit_state.DamagedTrial as error:
            # The next poll tries another delivery.
            self._damaged[error.delivery_id] = now + DAMAGED_RETRY_INTERVAL
            log_damaged_delivery(error.delivery_id, handler, error.why)
            return None


def _start_trial(execute: ExecuteFn, queued: ReadyDelivery, claimed: ClaimedAttempt) -> Iterator[threading.Thread]:
    """Run a trial in a thread of its own, or here if the system allows no further thread."""

    def run_trial() -> None:
        about = event_log_fields(claimed.event)
        log.info("circuit_half_open", handler=queued.handler, delivery=queued.delivery_id, **about)
        try:
            execute(queued, claimed)
        except BaseException:
            # As in a runner: log a defect in flowhooks. The next start recovers the attempt that it left running.
            log.exception("runner_fault", delivery=queued.delivery_id, handler=queued.handler, **about)

    thread = threading.Thread(target=run_trial, name=f"trial-{queued.handler}", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        run_trial()  # the delivery is stored as running: unless it runs, its handler would never be tried again
    else:
        yield thread
