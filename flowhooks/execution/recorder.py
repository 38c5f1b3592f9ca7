"""Record how attempts ended, and publish what is recorded.

No other module retries recording, and no other module publishes `DeliverySettled`.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from flowhooks.errors import FlowhooksError, TransactionError, Unavailable
from flowhooks.ledger.delivery_settled import DeliverySettled
from flowhooks.ledger.handler_transaction import CommitOutcomeUnknown
from flowhooks.ledger.queries import DeliveryStatus
from flowhooks.model.log_fields import delivery_log_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from flowhooks.ledger.attempts import AttemptResult
    from flowhooks.ledger.handler_transaction import HandlerTransaction
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.model.delivery import Delivery, Outcome
    from flowhooks.model.event import Event

RETRY_DELAYS: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to record a result while the database is down. The last delay repeats."""

log = structlog.get_logger(__name__)


class EndedAttempt(NamedTuple):
    """An attempt that has ended and is not recorded yet.

    Attributes:
        event: the event.
        delivery: the delivery, as its handler saw it.
        result: the attempt's result.
        outcome: how it ended; None if the handler was not called.
        seconds: the run time of the handler.
    """

    event: Event
    delivery: Delivery
    result: AttemptResult
    outcome: Outcome | None = None
    seconds: float = 0.0

    def log_fields(self) -> dict[str, str]:
        """Return the fields that name the delivery and its event in log records."""
        return delivery_log_fields(self.event, self.delivery)

    def to_settled(self) -> DeliverySettled:
        """Return the signal for the durable result."""
        result = self.result
        status = DeliveryStatus(
            delivery_id=result.delivery_id,
            handler=result.handler,
            state=result.target,
            attempt=result.attempt,
            due_at=result.due_at,
            outcome=result.outcome,
            error=result.error,
            finished_at=result.now,
        )
        return DeliverySettled(self.event, self.delivery, status, self.outcome, self.seconds, result.error_identity)


class OutcomeRecorder:
    """Records ended attempts until that has succeeded, and publishes `DeliverySettled`.

    Args:
        ledger: records the results.
        subscribers: called in this order with each signal, after the change is durable. They must return quickly,
            because most signals are published in the ledger's writer thread.
    """

    def __init__(self, *, ledger: Ledger, subscribers: Sequence[Callable[[DeliverySettled], object]]) -> None:
        self._ledger = ledger
        self._subscribers = subscribers
        self._unrecorded: SimpleQueue[EndedAttempt | None] = SimpleQueue()  # None wakes the thread
        self._stopping = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._retry, name="recording", daemon=True)

    def start(self) -> None:
        """Start the thread that retries results that could not be recorded."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop retrying, and try once more to record all remaining results. Call it after the runner has stopped.

        Args:
            timeout: maximum seconds to wait for them. The ledger still commits the queued ones before it closes.
        """
        deadline = time.monotonic() + timeout
        self._stopping.set()
        self._unrecorded.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        futures = []
        for ended in self._take_unrecorded():
            try:
                futures.append(self._submit(ended))
            except Unavailable:
                self._unrecorded.put(ended)
        wait(futures, max(0.0, deadline - time.monotonic()))

    def close(self, timeout: float) -> None:
        """Log the results that are lost. Call it after the ledger has been closed, because its last writes may fail.

        Args:
            timeout: maximum seconds to wait for the end of the thread, which may still have a result.
        """
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._closed = True
        self._log_lost()

    def record(self, ended: EndedAttempt) -> None:
        """Record an ended attempt in the background.

        If the write queue is full, the caller waits, so that its thread takes no further delivery meanwhile.
        """
        try:
            self._submit(ended)
        except Unavailable:
            self._record_until_stored(ended)

    def commit(self, transaction: HandlerTransaction, ended: EndedAttempt) -> None:
        """Commit a handler's transaction together with the result of its attempt.

        Raises:
            TransactionError: nothing was written.
        """
        committed = self._commit(transaction, ended)
        if committed is not None:
            self._on_stored(ended, is_current=committed)

    def publish(self, settled: DeliverySettled) -> None:
        """Publish that a delivery has settled; call it after the change is durable."""
        for subscriber in self._subscribers:
            try:
                subscriber(settled)
            except Exception:
                # The change is durable anyway, and the writer serves all threads, so it must continue.
                log.exception("post_commit_hook_failed")

    def _submit(self, ended: EndedAttempt) -> Future[bool]:
        future = self._ledger.record_result(ended.result)
        future.add_done_callback(partial(self._on_recorded, ended))
        return future

    def _retry(self) -> None:
        failures = 0
        while not self._is_stopping_after(failures):
            ended = self._unrecorded.get()
            if ended is None:
                return
            if self._try_record(ended, failures):
                failures = 0
            else:
                failures += 1
                self._keep(ended)  # behind the others, which may not fail

    def _record_until_stored(self, ended: EndedAttempt) -> None:
        failures = 0
        while not self._try_record(ended, failures):
            failures += 1
            if self._is_stopping_after(failures):
                self._keep(ended)
                return

    def _is_stopping_after(self, failures: int) -> bool:
        """Wait before the next try, and return whether the process is about to stop."""
        return self._stopping.wait(RETRY_DELAYS[min(failures, len(RETRY_DELAYS)) - 1] if failures else 0)

    def _keep(self, ended: EndedAttempt) -> None:
        """Keep a result for the next try. If there will be none, log it."""
        self._unrecorded.put(ended)
        if self._closed:
            self._log_lost()

    def _log_lost(self) -> None:
        for ended in self._take_unrecorded():
            log.error("outcome_lost", **ended.log_fields(), attempt=ended.delivery.attempt)

    def _take_unrecorded(self) -> list[EndedAttempt]:
        unrecorded = []
        with suppress(Empty):
            while True:
                unrecorded.append(self._unrecorded.get_nowait())
        return [ended for ended in unrecorded if ended is not None]

    def _try_record(self, ended: EndedAttempt, failures: int) -> bool:
        try:
            is_current = self._ledger.wait_for(self._ledger.record_result(ended.result))
        except FlowhooksError as error:
            if failures == 0:
                log.error("outcome_write_failed", **ended.log_fields(), why=str(error))  # noqa: TRY400 (said once, without a traceback)
            return False
        except Exception:
            # A defect in flowhooks must not end the thread: no later result would be recorded.
            log.exception("outcome_write_failed", **ended.log_fields())
            return False
        self._on_stored(ended, is_current=is_current)
        return True

    def _on_recorded(self, ended: EndedAttempt, future: Future[bool]) -> None:
        try:
            is_current = future.result()
        except BaseException:  # noqa: BLE001 (the ledger logs its own errors)
            self._keep(ended)
        else:
            self._on_stored(ended, is_current=is_current)

    def _on_stored(self, ended: EndedAttempt, *, is_current: bool) -> None:
        if is_current:
            self.publish(ended.to_settled())
        else:
            log.warning("stale_attempt", **ended.log_fields(), attempt=ended.delivery.attempt)

    def _commit(self, transaction: HandlerTransaction, ended: EndedAttempt) -> bool | None:
        """Return whether the attempt was still the current one; None if the process stops before that is known."""
        try:
            return transaction.commit_with_result(ended.result)
        except CommitOutcomeUnknown as error:
            unknown = error
        log.error("commit_outcome_unknown", **ended.log_fields(), why=unknown.why)
        failures = 0
        while True:
            try:
                committed = unknown.was_committed()
            except Unavailable:
                failures += 1
                if self._is_stopping_after(failures):
                    # The next start determines the result.
                    log.error("outcome_lost", **ended.log_fields(), attempt=ended.delivery.attempt)  # noqa: TRY400 (said once, without a traceback)
                    return None
            else:
                if committed:
                    return True
                raise TransactionError(f"the connection was lost before the commit: {unknown.why}") from unknown
