"""Store the missing jobs of due deliveries: of the processes that share the ledger, one looks for them.

Theory of operation
-------------------
A job is lost with a worker that is killed after it took the job, or in an outage. The sweep reads which handlers have
an overdue delivery, and stores a job for each of them that has none.

The process that holds the `LeaderLock` does so for all, over the lock's connection. PostgreSQL releases the lock when
that process ends or stops responding. The others look every `CHECK_INTERVAL` whether the lock is free. From the third
one on they look less often, so that many idle workers cost few transactions.

Each process also sweeps for its own handlers when it starts, when a handler is resumed, and when a delivery could not
be marked as running.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import SECOND
from flowhooks.errors import FlowhooksError
from flowhooks.failpoints import hit
from flowhooks.ledger import processes
from flowhooks.ledger.due_deliveries import due_handlers, due_handlers_of_all
from flowhooks.ledger.leader_lock import LeaderLock

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from flowhooks.clock import Clock
    from flowhooks.execution.runners.job_queue import JobQueue
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction

SWEEP_INTERVAL: Final = 1.25
"""Seconds between sweeps for due deliveries whose handler has no job."""
CHECK_INTERVAL: Final = 1.75
"""Seconds until a process looks again whether another one still sweeps."""
MAX_CHECK_INTERVAL: Final = 5.0
"""The same for a process that many started before."""
WAKE_INTERVAL: Final = 0.2
"""Seconds after which a started delivery gets another thread if its intended one is still busy."""
CLEANING_INTERVAL: Final = 10.0
"""Seconds between removals of the jobs of dead workers."""
LOST_JOB_THRESHOLD_SECONDS: Final = 0.5
"""Seconds that a delivery must be overdue before the sweep assumes that its job was lost."""

_ON_COMMITTED: Final = partial(hit, "sweep.committed")

log = structlog.get_logger(__name__)


class JobSweeper:
    """Sweeps in a thread of its own.

    Args:
        url: the ledger's database.
        queue: stores the jobs.
        ledger: finds deliveries.
        clock: current time.
        handlers: ids of the handlers whose deliveries this process runs.
    """

    def __init__(self, url: str, *, queue: JobQueue, ledger: Ledger, clock: Clock, handlers: Collection[str]) -> None:
        self._lock = LeaderLock(url)
        self._queue = queue
        self._ledger = ledger
        self._clock = clock
        self._handlers = handlers
        self._wakeup = threading.Event()
        self._has_failed = threading.Event()
        self._next_check = 0.0
        self._next_cleaning = 0.0

    def run(self, stop: threading.Event) -> None:
        """Store jobs for due deliveries whose handler has none, until `stop` is set."""
        is_woken = True
        while not stop.is_set():
            self._queue.slots.wake()
            try:
                if is_woken:
                    self.sweep_own()
                if self._is_leader():
                    self._sweep_as_leader()
            except FlowhooksError as error:
                self._has_failed.set()
                log.error("sweep_failed", why=str(error))  # noqa: TRY400 (one line says it)
            except Exception:
                # A defect in flowhooks must not end the sweeps: deliveries without a job would never run.
                self._has_failed.set()
                log.exception("sweep_failed")
            self._wait(self._pause())
            # A delivery that could not be marked has lost its job, even if it became due only now.
            is_woken = any([_take(self._wakeup), _take(self._has_failed)])
        self._lock.release()

    def _wait(self, seconds: float) -> None:
        """Wait for the next turn; meanwhile wake threads for started deliveries."""
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0 and not self._wakeup.wait(min(left, WAKE_INTERVAL)):
            self._queue.slots.wake()

    def wake(self) -> None:
        """Sweep for the handlers of this process at once."""
        self._wakeup.set()

    def on_failed(self) -> None:
        """Sweep for the handlers of this process next time, because a delivery could not be marked as running."""
        self._has_failed.set()

    def sweep_own(self) -> None:
        """Store a job for each handler of this process that has a due delivery and no waiting job."""
        with self._ledger.connection() as connection:
            due = due_handlers(connection, self._clock.now())
        self._store_missing([handler for handler in due if handler in self._handlers])

    def _is_leader(self) -> bool:
        """Return whether this process sweeps for all; try to become that process if there is none."""
        if self._lock.is_held:
            return True
        if time.monotonic() < self._next_check:
            return False
        with self._ledger.connection() as connection:
            is_free = self._lock.is_free(connection)
            earlier = processes.count_earlier(connection, self._ledger.process)
        self._next_check = time.monotonic() + min(CHECK_INTERVAL * max(earlier, 1), MAX_CHECK_INTERVAL)
        return is_free and self._lock.take()

    def _pause(self) -> float:
        until_check = self._next_check - time.monotonic()
        return SWEEP_INTERVAL if self._lock.is_held or until_check <= 0 else until_check

    def _sweep_as_leader(self) -> None:
        """Store the missing jobs of the handlers of all processes, and remove the jobs of dead workers."""
        due = self._lock.read(self._overdue)
        if due is not None:  # otherwise the lock was lost, and the next turn looks whether it is free
            self._store(due)

    def _overdue(self, connection: Connection) -> list[str]:
        late = self._clock.now() - int(LOST_JOB_THRESHOLD_SECONDS * SECOND)
        return due_handlers_of_all(connection, late, self._ledger.heartbeat_timeout)

    def _store(self, due: list[str]) -> None:
        self._store_missing(due)
        if time.monotonic() >= self._next_cleaning:
            self._ledger.write(self._queue.sweep)
            self._next_cleaning = time.monotonic() + CLEANING_INTERVAL

    def _store_missing(self, handlers: list[str]) -> None:
        def write(transaction: WriteTransaction) -> None:
            self._queue.defer(transaction, handlers, 0, most=1)
            hit("sweep.written")
            transaction.after_commit(_ON_COMMITTED)

        if handlers:
            self._ledger.write(write)


def _take(event: threading.Event) -> bool:
    """Return whether an event is set, and clear it. If it is set just after it was read, it stays set."""
    if not event.is_set():
        return False
    event.clear()
    return True
