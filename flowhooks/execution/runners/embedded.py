"""The embedded runner: a pool of threads in the server's process, with the ledger's rows as its queue.

`slots` decides which delivery gets which thread. This module has the threads, and polls the ledger.
"""

from __future__ import annotations

import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.errors import DamagedRow, FlowhooksError
from flowhooks.execution.runners.handler_queue import SLOT_LOST, log_fields
from flowhooks.execution.runners.runner import FAULT_PAUSE_SECONDS
from flowhooks.model.ready_delivery import ClaimedAttempt, LimitReached

if TYPE_CHECKING:
    from flowhooks.clock import Clock
    from flowhooks.execution.runners.handler_queue import RunningAttempt
    from flowhooks.execution.runners.runner import ExecuteFn
    from flowhooks.execution.runners.slots import SlotPool
    from flowhooks.ledger.ledger import Ledger

POLL_INTERVAL: Final = 0.2
"""Seconds between two polls of the ledger for due deliveries."""
# A poll may have hung, because the database did. The runner must notice soon that it answers again.
MAX_POLL_PAUSE: Final = 5.0
"""Maximum seconds between two polls, however long the first one took."""

log = structlog.get_logger(__name__)


class EmbeddedRunner:
    """Runs deliveries in this process, round-robin over the handlers.

    Args:
        slots: the ledger's queue; one thread is started for each of its slots.
        ledger: is polled for due deliveries.
        clock: current time.
    """

    def __init__(self, slots: SlotPool, ledger: Ledger, clock: Clock) -> None:
        self._slots = slots
        self._ledger = ledger
        self._clock = clock
        self._pool: list[threading.Thread] = []
        self._threads_to_start = 0
        self._numbers = count()
        self._last_error: str | None = None

    def run(self, execute: ExecuteFn, stop: threading.Event) -> None:
        """Run deliveries until `stop` is set; return when no delivery is running any more."""
        slots = self._slots
        self._start_threads(slots.size, execute, stop)
        slots.open()
        while not stop.is_set():
            started, pause = time.monotonic(), POLL_INTERVAL
            try:
                slots.wake_for_claimed()
                self._poll()
                self._start_threads(slots.abandon_overdue(started), execute, stop)
                pause = slots.seconds_to_poll(POLL_INTERVAL)
            except Exception as error:
                # A defect in flowhooks must not end this loop: nothing would ever run again.
                log.exception("poll_failed")
                self._last_error = type(error).__name__
            # With thousands of handlers a poll takes long. Polling must not take more than a tenth of the time.
            slots.poll_now.wait(max(pause, min(9 * (time.monotonic() - started), MAX_POLL_PAUSE)))
            slots.poll_now.clear()
        slots.close()
        for thread in list(self._pool):
            thread.join()

    def health(self) -> str | None:
        """Return why the last poll failed, or None."""
        return self._last_error

    def wake(self) -> None:
        """Poll at once, because `stop` was set or the ledger has changed."""
        self._slots.poll_now.set()

    @property
    def running(self) -> int:
        """Number of running deliveries, including abandoned ones."""
        return self._slots.running

    def _start_threads(self, number: int, execute: ExecuteFn, stop: threading.Event) -> None:
        """Start threads for new slots and for those that failed before."""
        already_logged = self._threads_to_start > 0
        self._threads_to_start += number
        while self._threads_to_start:
            try:
                self._add_thread(execute, stop)
            except RuntimeError as error:  # the system allows no further thread
                if not already_logged:
                    log.error("thread_start_failed", why=str(error), next=SLOT_LOST)  # noqa: TRY400 (one line until it changes)
                return
            self._threads_to_start -= 1
            self._slots.add()

    def _add_thread(self, execute: ExecuteFn, stop: threading.Event) -> None:
        thread = threading.Thread(
            target=self._run_thread, args=(execute, stop), name=f"runner-{next(self._numbers)}", daemon=True
        )
        self._pool = [other for other in self._pool if other.is_alive()]
        thread.start()
        self._pool.append(thread)

    def _poll(self) -> None:
        try:
            self._slots.put(self._ledger.due_deliveries(self._clock.now(), self._slots.max_rows))
            self._last_error = None
        except FlowhooksError as error:
            if self._last_error is None:
                log.error("poll_failed", why=str(error))  # noqa: TRY400 (one line until it changes)
            self._last_error = str(error)
        except Exception as error:
            # Such a defect must not keep overdue threads from being replaced either.
            log.exception("poll_failed")
            self._last_error = type(error).__name__

    def _run_thread(self, execute: ExecuteFn, stop: threading.Event) -> None:
        while (attempt := self._slots.take()) is not None:
            queued = attempt.queued
            try:
                if isinstance(self._make_attempt(attempt, execute), LimitReached):
                    self._slots.drop_queue(queued.handler)
            except FlowhooksError as error:
                log.warning("delivery_not_run", delivery=queued.delivery_id, handler=queued.handler, why=str(error))
                stop.wait(FAULT_PAUSE_SECONDS)
            except BaseException:
                # A defect in flowhooks must not cost a thread of the pool.
                log.exception("runner_fault", delivery=queued.delivery_id, handler=queued.handler)
                stop.wait(FAULT_PAUSE_SECONDS)
            finally:
                self._slots.give_back(attempt)
            if attempt.abandoned:
                log.info("overdue_attempt_finished", **log_fields(attempt, time.monotonic()))
                return

    def _make_attempt(self, attempt: RunningAttempt, execute: ExecuteFn) -> LimitReached | None:
        claimed = attempt.claimed or attempt.queued.to_claimed_attempt()
        if attempt.others is not None:
            try:
                result = self._claim_together(attempt)
            except DamagedRow:
                # `execute` claims it alone, and reports it if it is the damaged one.
                return execute(attempt.queued, None)
            if not isinstance(result, ClaimedAttempt):
                return result
            claimed = result
        if claimed is not None:
            attempt.begin(claimed)
        return execute(attempt.queued, claimed)

    def _claim_together(self, attempt: RunningAttempt) -> ClaimedAttempt | LimitReached | None:
        """Claim the delivery of an attempt and the others; return the result of the first one."""
        try:
            result, *results = self._ledger.claim_all([attempt.queued, *(attempt.others or ())])
        except BaseException:
            self._slots.split(attempt)
            raise
        self._slots.start_others(attempt, results)
        return result
