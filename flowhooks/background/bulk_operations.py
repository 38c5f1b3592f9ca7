"""Release the deliveries of running bulk operations, and store the results of operations that have ended."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND
from flowhooks.errors import FlowhooksError
from flowhooks.failpoints import hit
from flowhooks.ledger import bulk_operations, bulk_release, database
from flowhooks.logger import get_logger
from flowhooks.model.bulk_operation import OperationState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from flowhooks.clock import Clock
    from flowhooks.ledger.bulk_release import OpenOperation, Released
    from flowhooks.ledger.ledger import Ledger

POLL_INTERVAL: Final = 1.0
"""Maximum seconds between two looks at running operations."""
IDLE_POLL_INTERVAL: Final = 10.0
"""Seconds between two looks while no operation is running, in case that the notification of its start was missed."""
MAX_DUTY_CYCLE: Final = 0.2
"""Maximum share of the time that releases take, so that callbacks are stored between them."""
CHECK_COST: Final = 20
"""A check for results is repeated only after this many times the time that it took."""

_CONTINUES: Final = "it continues when the database works again"

log = get_logger(__name__)


class OperationReleaser:
    """Releases deliveries of operations, and stores results.

    Args:
        ledger: has the operations and the deliveries.
        clock: the time.
        missing_handlers: returns the ids of handlers that are not loaded: their deliveries are suspended.
    """

    def __init__(self, ledger: Ledger, clock: Clock, missing_handlers: Callable[[], Collection[str]]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._missing_handlers = missing_handlers

    def open_operations(self) -> list[OpenOperation]:
        """Return the operations that have work to do, oldest first."""
        with self._ledger.connection() as connection:
            return bulk_release.open_operations(connection)

    def release(self, operation_id: str) -> Released | None:
        """Release the next deliveries of an operation, as `bulk_release.release` does, durably.

        Raises:
            FlowhooksError: nothing was released, or it is not known.
        """
        missing, now = self._missing_handlers(), self._clock.now()
        request = bulk_release.Release(operation_id, self._ledger.process, now, missing)
        released = self._ledger.write(lambda transaction: self._ledger.release(transaction, request))
        hit("operation.release_committed")
        return released

    def finish(self, operation: OpenOperation) -> bool:
        """Store the results of an operation if all its released deliveries were executed; return whether it did.

        Raises:
            FlowhooksError: the results were not stored, or it is not known.
        """
        # The time of these reads grows with the operation, and after a timeout they are repeated.
        with (
            self._ledger.connection() as connection,
            database.with_statement_timeout(connection, database.LONG_STATEMENT_TIMEOUT),
        ):
            if not operation.is_released or bulk_release.is_executing(connection, operation):
                return False
            results = bulk_operations.results_of(connection, operation.id, operation.action, operation.released)
        now = self._clock.now()
        finished = self._ledger.write(lambda transaction: bulk_release.finish(transaction, operation, results, now))
        hit("operation.finish_committed")
        if finished and operation.state is OperationState.RUNNING:
            succeeded, failed = results
            log.info(
                "operation_finished",
                operation=operation.id,
                action=operation.action,
                succeeded=succeeded,
                failed=failed,
                changed=operation.changed,
            )
        return finished


class BulkOperations:
    """The thread that releases the deliveries of all operations whose lease this process has.

    Args:
        ledger: has the operations and the deliveries.
        clock: the time.
        missing_handlers: as for `OperationReleaser`.
    """

    def __init__(self, ledger: Ledger, clock: Clock, missing_handlers: Callable[[], Collection[str]]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._releaser = OperationReleaser(ledger, clock, missing_handlers)
        self._next_checks: dict[str, float] = {}
        self._last_errors: dict[str, str] = {}
        self._wakeup = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="bulk-operations", daemon=True)

    def start(self) -> None:
        """Start. Operations that ran before are continued."""
        self._thread.start()

    def wake(self) -> None:
        """Look for running operations at once."""
        self._wakeup.set()

    def begin_stop(self) -> None:
        """Release nothing after the transaction in progress."""
        self._stopping.set()
        self._wakeup.set()

    def stop(self, timeout: float) -> None:
        """Stop; the transaction in progress gets `timeout` seconds. Another process may continue at once."""
        self.begin_stop()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _loop(self) -> None:
        wait, last_error = 0.0, ""
        while not self._stopping.is_set():
            self._wakeup.wait(wait)
            self._wakeup.clear()
            if self._stopping.is_set():
                break
            wait = POLL_INTERVAL
            try:
                wait = self._work()
                last_error = ""
            except FlowhooksError as error:
                if str(error) != last_error:
                    log.error("operation_failed", why=str(error), next=_CONTINUES)  # noqa: TRY400 (one line until it changes)
                last_error = str(error)
            except Exception:
                # A defect in flowhooks must not end the thread: operations would stop without a visible reason.
                log.exception("operation_fault")
        self._give_up_leases()

    def _work(self) -> float:
        """Make one transaction for each open operation; return the seconds until the next one."""
        found = self._releaser.open_operations()
        self._next_checks = {operation.id: self._next_checks.get(operation.id, 0.0) for operation in found}
        self._last_errors = {operation.id: self._last_errors.get(operation.id, "") for operation in found}
        wait, seconds = POLL_INTERVAL, 0.0
        for operation in found:
            if self._stopping.is_set():
                return 0.0
            began = time.monotonic()
            try:
                wait = min(wait, self._advance(operation))
            except Exception as error:  # noqa: BLE001 (`_report` logs it)
                # The operations after it must run, whatever is wrong with this one.
                self._report(operation.id, error)
            if not operation.is_released:
                # A check for results reads for long and blocks no callback: other operations need not wait for it.
                seconds += time.monotonic() - began
        return max(wait, seconds * (1 / MAX_DUTY_CYCLE - 1)) if found else IDLE_POLL_INTERVAL

    def _advance(self, operation: OpenOperation) -> float:
        """Make one transaction for an operation; return the seconds until the next one."""
        if operation.is_released:
            return self._finish(operation)
        result = self._releaser.release(operation.id)
        self._last_errors[operation.id] = ""
        if result is None:
            return POLL_INTERVAL
        return 0.0 if result.is_last else max(0.0, (result.next_at - self._clock.now()) / SECOND)

    def _report(self, operation_id: str, error: Exception) -> None:
        """Log why an operation does not go on, once until the reason changes."""
        why = f"{type(error).__name__}: {error}"
        if why == self._last_errors[operation_id]:
            return
        self._last_errors[operation_id] = why
        if isinstance(error, FlowhooksError):
            log.error("operation_failed", operation=operation_id, why=str(error), next=_CONTINUES)
        else:
            log.error("operation_fault", operation=operation_id, exc_info=error)

    def _finish(self, operation: OpenOperation) -> float:
        """Store results if a check is due; return the seconds until the next check."""
        began = time.monotonic()
        if began < self._next_checks[operation.id]:
            return self._next_checks[operation.id] - began
        try:
            is_finished = self._releaser.finish(operation)
        finally:
            # Also after an error: a check that the database has ended for its duration must not be repeated at once.
            wait = max(POLL_INTERVAL / 4, (time.monotonic() - began) * CHECK_COST)
            self._next_checks[operation.id] = began + wait
        self._last_errors[operation.id] = ""
        return POLL_INTERVAL if is_finished else wait

    def _give_up_leases(self) -> None:
        process = self._ledger.process
        try:
            self._ledger.write(lambda transaction: bulk_release.give_up_leases(transaction, process))
        except FlowhooksError as error:
            log.warning("operation_leases_kept", why=str(error), next="they end by themselves")
