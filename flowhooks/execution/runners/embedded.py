"""The embedded runner: a pool of threads in the server's process, with the ledger's rows as its queue.

Theory of operation
-------------------
The queue is the table `deliveries`. This module keeps only a cache of ids in memory, which may be lost at any time:
each delivery in it can be read again.

A delivery reaches a thread in one of two ways:

1. *Reserved.* While a callback is being stored, `reserve` checks for a free thread. If there is one, the delivery is
   stored as *running* in the same transaction, and its thread starts after the COMMIT. The attempt costs no commit of
   its own to start.
2. *Queued.* All other deliveries are put into their handler's queue, by `enqueue` after a commit or by the poll every
   `POLL_INTERVAL`. The thread that takes one claims it first, which is one commit.

Fairness: handlers that have something to run are in one round-robin queue (`_ready_handlers`), and one handler gets
at most half of the threads. A handler that hangs, or has a backlog of a million deliveries, delays no other one.

Overdue attempts: Python cannot end a thread from outside. A thread whose attempt exceeds its timeout is *abandoned*: it
keeps running, another thread takes its slot in the pool, and it ends with its attempt. At most as many threads are
abandoned as the pool has, and for one handler as many as it may run at once. Beyond that an overdue attempt keeps its
slot.

Locking: `_changed` guards all fields that threads share. It is never held while the ledger or a handler is called.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.errors import FlowhooksError
from flowhooks.execution.runners.handler_queue import (
    SLOT_KEPT,
    SLOT_LOST,
    SLOT_REPLACED,
    HandlerQueue,
    RunningAttempt,
    log_fields,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from flowhooks.clock import Clock
    from flowhooks.execution.runners.runner import ExecuteFn
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.ready_delivery import ReadyDelivery

MAX_QUEUED_PER_HANDLER: Final = 1_000
"""Maximum number of deliveries of one handler in memory. The others wait in the ledger."""
POLL_INTERVAL: Final = 0.2
"""Seconds between two polls of the ledger for due deliveries."""
# To wake a thread costs more than such a delivery. If it takes longer this time, the next poll wakes more threads.
FAST_THRESHOLD_SECONDS: Final = 0.001
"""Deliveries of a handler whose last attempt took less run one after another in one thread."""
# The delivery is offered again at once, and may fail again.
FAULT_PAUSE_SECONDS: Final = 1.0
"""Seconds that a thread pauses after a delivery that could not be run."""

log = structlog.get_logger(__name__)


class EmbeddedRunner:
    """Runs deliveries in this process, round-robin over the handlers.

    Args:
        threads: number of threads. One handler uses at most half of them, but at least one.
        fetch_due: reads the deliveries that are due at a time from the ledger, given the maximum number per handler id.
        clock: current time.
        handles: whether this process runs deliveries of a handler id; other processes run the rest. Default: all.
        limit: the concurrency limit of a handler id; None: limited only by the threads.
        paused: returns the ids of the paused handlers.
        timeout: seconds after which an attempt of a handler id is overdue; default: never.
    """

    def __init__(
        self,
        *,
        threads: int,
        fetch_due: Callable[[int, Callable[[str], int]], list[ReadyDelivery]],
        clock: Clock,
        handles: Callable[[str], bool] = lambda _handler: True,
        limit: Callable[[str], int | None] = lambda _handler: None,
        paused: Callable[[], Collection[str]] = frozenset,
        timeout: Callable[[str], float] = lambda _handler: inf,
    ) -> None:
        self._threads = threads
        self._max_per_handler = max(1, threads // 2)
        self._fetch_due = fetch_due
        self._clock = clock
        self._handles = handles
        self._limit = limit
        self._paused = paused
        self._timeout = timeout
        self._running_attempts: dict[threading.Thread, RunningAttempt] = {}
        self._pool: list[threading.Thread] = []
        self._abandoned = 0
        self._threads_to_start = 0
        self._numbers = count()
        self._queues: dict[str, HandlerQueue] = {}
        self._ready_handlers: deque[str] = deque()
        self._claimed: deque[ReadyDelivery] = deque()
        self._free_threads = 0
        self._reserved_threads = 0
        self._delivery_ids: set[str] = set()
        self._fast_handlers: set[str] = set()
        self._changed = threading.Condition(threading.Lock())
        self._wakeup = threading.Event()
        self._stopping = False
        self._is_running = False
        self._last_error: str | None = None

    def reserve(self, transaction: WriteTransaction, deliveries: Sequence[ReadyDelivery]) -> list[ReadyDelivery]:
        """Reserve a free thread for each of these deliveries while there are any; return the deliveries that got one.

        Their threads start after the commit.
        """
        reserved = self._reserve(deliveries)
        if reserved:
            transaction.after_commit(partial(self._start_reserved, reserved))
            transaction.after_rollback(partial(self._cancel_reserved, reserved))
        return reserved

    def enqueue(self, transaction: WriteTransaction, deliveries: Sequence[ReadyDelivery], not_before: int) -> None:
        """Queue deliveries that are due now after the commit; the poll finds the others when they are due."""
        if not_before <= self._clock.now():
            transaction.after_commit(partial(self._enqueue_ready, deliveries))
            if not self._is_running or not all(self._handles(queued.handler) for queued in deliveries):
                transaction.notify_peers()

    def run(self, execute: ExecuteFn, stop: threading.Event) -> None:
        """Run deliveries until `stop` is set; return when no delivery is running any more."""
        self._start_threads(self._threads, execute, stop)
        self._is_running = True
        while not stop.is_set():
            started = time.monotonic()
            self._wake_for_claimed()
            self._fetch()
            self._start_threads(self._abandon_overdue(started), execute, stop)
            # With thousands of handlers a poll takes long. Polling must not take more than a tenth of the time.
            self._wakeup.wait(max(POLL_INTERVAL, 9 * (time.monotonic() - started)))
            self._wakeup.clear()
        self._is_running = False
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in list(self._pool):
            thread.join()

    def _start_threads(self, places: int, execute: ExecuteFn, stop: threading.Event) -> None:
        """Start threads for new slots and for those that failed before."""
        already_logged = self._threads_to_start > 0
        self._threads_to_start += places
        while self._threads_to_start:
            try:
                self._add_thread(execute, stop)
            except RuntimeError as error:  # the system allows no further thread
                if not already_logged:
                    log.error("thread_start_failed", why=str(error), next=SLOT_LOST)  # noqa: TRY400 (one line until it changes)
                return
            self._threads_to_start -= 1
            with self._changed:  # only now: a reserved delivery is stored as running, so its thread must exist
                self._free_threads += 1
                self._changed.notify()

    def _add_thread(self, execute: ExecuteFn, stop: threading.Event) -> None:
        thread = threading.Thread(
            target=self._run_thread, args=(execute, stop), name=f"runner-{next(self._numbers)}", daemon=True
        )
        self._pool = [other for other in self._pool if other.is_alive()]
        thread.start()
        self._pool.append(thread)

    def _abandon_overdue(self, now: float) -> int:
        """Abandon overdue threads within the limits; return the number of freed slots."""
        count = 0
        with self._changed:
            for attempt in list(self._running_attempts.values()):
                handler = attempt.queued.handler
                if attempt.abandoned or now - attempt.began < self._timeout(handler):
                    continue
                queue = self._queues[handler]
                can_abandon = self._abandoned < self._threads and queue.abandoned < queue.max_running
                if can_abandon:
                    attempt.abandoned = True
                    queue.abandoned += 1
                    queue.running -= 1
                    self._abandoned += 1
                    count += 1
                    self._schedule(handler, queue)
                if can_abandon or not attempt.overdue:
                    log.error(
                        "attempt_overdue", **log_fields(attempt, now), next=SLOT_REPLACED if can_abandon else SLOT_KEPT
                    )
                attempt.overdue = True
        return count

    def sweep(self, transaction: WriteTransaction) -> None:
        """Do nothing: the ledger's recovery settles the attempts of killed processes."""

    def health(self) -> str | None:
        """Return why the last poll failed, or None."""
        return self._last_error

    def wake(self) -> None:
        """Poll at once, because `stop` was set or the ledger has changed."""
        self._wakeup.set()

    @property
    def running(self) -> int:
        """Number of running deliveries, including abandoned ones."""
        with self._changed:
            return sum(queue.running + queue.abandoned for queue in self._queues.values())

    def _fetch(self) -> None:
        try:
            self._enqueue_ready(self._fetch_due(self._clock.now(), self._max_rows))
            self._last_error = None
        except FlowhooksError as error:
            if self._last_error is None:
                log.error("poll_failed", why=str(error))  # noqa: TRY400 (one line until it changes)
            self._last_error = str(error)
        except Exception as error:
            # A defect in flowhooks must not end the polling: nothing would ever run again.
            log.exception("poll_failed")
            self._last_error = type(error).__name__

    def _can_run(self, handler: str) -> bool:
        return self._handles(handler) and handler not in self._paused()

    def _max_rows(self, handler: str) -> int:
        """Return how many rows of a handler to read; the rows in memory come first, so they are added."""
        if not self._can_run(handler):
            return 0
        with self._changed:
            queue = self._queues.get(handler)
            size = queue.size if queue else 0
            return 0 if size > MAX_QUEUED_PER_HANDLER // 2 else size + MAX_QUEUED_PER_HANDLER

    def _enqueue_ready(self, deliveries: Sequence[ReadyDelivery]) -> None:
        with self._changed:
            for queued in deliveries:
                if queued.delivery_id in self._delivery_ids or not self._can_run(queued.handler):
                    continue
                queue = self._queue_of(queued.handler)
                if queue.size >= MAX_QUEUED_PER_HANDLER:
                    queue.has_more = True
                    continue
                self._delivery_ids.add(queued.delivery_id)
                queue.deliveries.append(queued._replace(load_event=None))
                self._schedule(queued.handler, queue)

    def _reserve(self, deliveries: Sequence[ReadyDelivery]) -> list[ReadyDelivery]:
        """Reserve a free thread for each delivery whose handler has no backlog; return these deliveries."""
        reserved = []
        with self._changed:
            for queued in deliveries:
                # Keep one thread free for each handler in the round-robin queue.
                if self._free_threads <= len(self._ready_handlers) or self._stopping:
                    break
                if not self._can_run(queued.handler):
                    continue
                queue = self._queue_of(queued.handler)
                if (
                    queued.probe
                    or queue.deliveries
                    or queue.running >= queue.max_running
                    or queued.delivery_id in self._delivery_ids
                ):
                    continue
                self._delivery_ids.add(queued.delivery_id)
                queue.running += 1
                self._free_threads -= 1
                self._reserved_threads += 1
                reserved.append(queued)
        return reserved

    def _start_reserved(self, reserved: Sequence[ReadyDelivery]) -> None:
        with self._changed:
            self._reserved_threads -= len(reserved)
            self._claimed.extend(reserved)
            quick = all(queued.handler in self._fast_handlers for queued in reserved)
            self._changed.notify(1 if quick else len(reserved))

    def _wake_for_claimed(self) -> None:
        """Wake a thread for each claimed delivery whose intended thread is still busy."""
        with self._changed:
            self._changed.notify(len(self._claimed))

    def _on_finished(self, handler: str, seconds: float) -> None:
        if seconds < FAST_THRESHOLD_SECONDS:
            self._fast_handlers.add(handler)
        else:
            self._fast_handlers.discard(handler)

    def _cancel_reserved(self, reserved: Sequence[ReadyDelivery]) -> None:
        with self._changed:
            self._reserved_threads -= len(reserved)
        for queued in reserved:
            self._return(queued)

    def _queue_of(self, handler: str) -> HandlerQueue:
        queue = self._queues.get(handler)
        if queue is None:
            limit = self._limit(handler)
            queue = self._queues[handler] = HandlerQueue(
                self._max_per_handler if limit is None else min(self._max_per_handler, limit)
            )
        return queue

    def _unqueue(self, handler: str) -> None:
        """Drop the queue of a handler at its limit; its deliveries are offered again when a slot is free."""
        with self._changed:
            queue = self._queues[handler]
            self._clear(queue)
            if queue.is_scheduled:
                queue.is_scheduled = False
                self._ready_handlers.remove(handler)

    def _clear(self, queue: HandlerQueue) -> None:
        self._delivery_ids.difference_update(queued.delivery_id for queued in queue.deliveries)
        queue.deliveries.clear()

    def _schedule(self, handler: str, queue: HandlerQueue) -> None:
        if queue.deliveries and not queue.is_scheduled and queue.running < queue.max_running:
            queue.is_scheduled = True
            self._ready_handlers.append(handler)
            self._changed.notify()

    def _dequeue(self) -> tuple[ReadyDelivery, bool] | None:
        """Return the next delivery and whether it is claimed already; None when the runner stops."""
        with self._changed:
            while True:
                if self._claimed:
                    return self._claimed.popleft(), True
                if self._stopping:
                    if self._reserved_threads == 0:
                        return None
                # A reserved thread waits for its own delivery, so it is not counted as free.
                elif self._ready_handlers and self._free_threads > 0:
                    handler = self._ready_handlers.popleft()
                    queue = self._queues[handler]
                    queue.is_scheduled = False
                    if handler in self._paused():
                        self._clear(queue)
                        if not queue.size:
                            del self._queues[handler]
                        continue
                    queued = queue.deliveries.popleft()
                    queue.running += 1
                    self._free_threads -= 1
                    self._schedule(handler, queue)
                    return queued, False
                self._changed.wait()

    def _return(self, queued: ReadyDelivery, attempt: RunningAttempt | None = None) -> None:
        with self._changed:
            self._delivery_ids.discard(queued.delivery_id)
            queue = self._queues[queued.handler]
            if attempt is not None:
                del self._running_attempts[threading.current_thread()]
            if attempt is not None and attempt.abandoned:
                queue.abandoned -= 1
                self._abandoned -= 1
            else:
                self._free_threads += 1
                queue.running -= 1
            self._schedule(queued.handler, queue)
            if self._stopping:
                self._changed.notify_all()
            elif self._ready_handlers:
                self._changed.notify()
            if queue.has_more and queue.size <= MAX_QUEUED_PER_HANDLER // 2:
                queue.has_more = False
                self._wakeup.set()
            elif not queue.size:
                del self._queues[queued.handler]

    def _run_thread(self, execute: ExecuteFn, stop: threading.Event) -> None:
        while (dequeued := self._dequeue()) is not None:
            queued, claimed = dequeued
            # No lock needed: the insertion is atomic, and only this thread removes the entry.
            attempt = self._running_attempts[threading.current_thread()] = RunningAttempt(queued)
            try:
                if execute(queued, queued.to_claimed_attempt() if claimed else None) is not None:
                    self._unqueue(queued.handler)
            except FlowhooksError as error:
                log.warning("delivery_not_run", delivery=queued.delivery_id, handler=queued.handler, why=str(error))
                stop.wait(FAULT_PAUSE_SECONDS)
            except BaseException:
                # A defect in flowhooks must not cost a thread of the pool.
                log.exception("runner_fault", delivery=queued.delivery_id, handler=queued.handler)
                stop.wait(FAULT_PAUSE_SECONDS)
            finally:
                if claimed:
                    self._on_finished(queued.handler, time.monotonic() - attempt.began)
                self._return(queued, attempt)
            if attempt.abandoned:
                log.info("overdue_attempt_finished", **log_fields(attempt, time.monotonic()))
                return
