"""The slots of the embedded runner: which deliveries wait for a thread, and which thread is free.

Theory of operation
-------------------
The queue is the table `deliveries`. This module keeps only a cache of ids in memory, which may be lost at any time:
each delivery in it can be read again.

A delivery reaches a thread in one of two ways:

1. *Reserved.* While a callback is being stored, `reserve` checks for a free slot. If there is one, and the handler may
   run the delivery beside all that it has in its queue, the delivery is stored as *running* in the same transaction,
   and its thread starts after the COMMIT. The attempt costs no commit of its own to start.
2. *Queued.* All other deliveries are put into their handler's queue, by `enqueue` after a commit or by the runner's
   poll. The thread that takes one claims it first, which is one commit. If the handler is fast, the thread takes as
   many deliveries as the handler has free slots, claims them together, and runs them one after another.

Fairness: handlers that have something to run are in one round-robin queue (`_ready_handlers`), and one handler gets
at most three quarters of the slots. So the others continue if one hangs, or has a backlog of a million deliveries.

Overdue attempts: Python cannot end a thread from outside. A thread whose attempt exceeds its timeout is *abandoned*: it
keeps running, another thread takes its slot, and it ends with its attempt. At most as many threads are abandoned as
there are slots, and for one handler as many as it may run at once. Beyond that an overdue attempt keeps its slot.

Locking: `_changed` guards all fields that threads share. It is never held while the ledger or a handler is called.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.execution.runners.handler_queue import (
    SLOT_KEPT,
    SLOT_REPLACED,
    HandlerQueue,
    RunningAttempt,
    log_fields,
)
from flowhooks.execution.runners.next_poll import seconds_to_poll
from flowhooks.execution.runners.runner import FAST_THRESHOLD_SECONDS, max_per_handler
from flowhooks.model.ready_delivery import ClaimedAttempt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.clock import Clock
    from flowhooks.execution.handler_runtime import HandlerRuntime
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.ready_delivery import LimitReached, ReadyDelivery

MAX_QUEUED_PER_HANDLER: Final = 1_000
"""Maximum number of deliveries of one handler in memory. The others wait in the ledger."""
MAX_NOT_JOINING: Final = 100
"""Number of deliveries that are remembered because they failed to be claimed together with others."""
log = structlog.get_logger(__name__)


class SlotPool:
    """The queued deliveries and the free slots of one process. The ledger's queue for `EmbeddedRunner`.

    Args:
        size: number of slots. One handler uses at most three quarters of them, but at least one.
        runtime: how this process runs each handler.
        clock: current time.

    Attributes:
        size: as given.
        poll_now: is set when the ledger may have deliveries that were not read into memory and now can be.
    """

    def __init__(self, size: int, runtime: HandlerRuntime, clock: Clock) -> None:
        self.size = size
        self.poll_now = threading.Event()
        self._max_per_handler = max_per_handler(size)
        self._runtime = runtime
        self._clock = clock
        self._running_attempts: dict[threading.Thread, RunningAttempt] = {}
        self._abandoned = 0
        self._queues: dict[str, HandlerQueue] = {}
        self._ready_handlers: deque[str] = deque()
        self._claimed: deque[tuple[ReadyDelivery, ClaimedAttempt | None]] = deque()
        self._free = 0
        self._reserved = 0
        # Each with whether it is probed, because a delivery whose probe hangs runs if an operator decides so.
        self._in_memory: set[tuple[str, bool]] = set()
        self._fast_handlers: set[str] = set()
        self._not_joining: deque[str] = deque(maxlen=MAX_NOT_JOINING)
        self._changed = threading.Condition(threading.Lock())
        self._stopping = False
        self._is_polled = False

    def reserve(self, transaction: WriteTransaction, deliveries: Sequence[ReadyDelivery]) -> list[ReadyDelivery]:
        """Reserve a free thread for each delivery that its handler may run beside its queued ones; return these.

        Their threads start after the commit.
        """
        reserved, now = [], self._clock.now()
        with self._changed:
            for queued in deliveries:
                # Keep one thread free for each handler in the round-robin queue.
                if self._free <= len(self._ready_handlers) or self._stopping:
                    break
                if not self._runtime.may_start(queued.handler, now):
                    continue
                queue = self._queue_of(queued.handler)
                if (
                    queued.probe
                    or queue.running + len(queue.deliveries) >= queue.max_running
                    or (queued.delivery_id, False) in self._in_memory
                ):
                    continue
                self._in_memory.add((queued.delivery_id, False))
                queue.running += 1
                self._free -= 1
                self._reserved += 1
                reserved.append(queued)
        if reserved:
            transaction.after_commit(partial(self._start_reserved, reserved))
            transaction.after_rollback(partial(self._cancel_reserved, reserved))
        return reserved

    def enqueue(self, transaction: WriteTransaction, deliveries: Sequence[ReadyDelivery], not_before: int) -> None:
        """Queue deliveries that are due now after the commit; the poll finds the others when they are due."""
        if not_before <= self._clock.now():
            transaction.after_commit(partial(self.put, deliveries))
            if not self._is_polled or not all(self._runtime.runs_here(queued.handler) for queued in deliveries):
                transaction.notify_peers()

    def open(self) -> None:
        """Announce that the runner polls from now on."""
        self._is_polled = True

    def close(self) -> None:
        """Give out no further delivery, except those that are reserved."""
        self._is_polled = False
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def add(self) -> None:
        """Add a free slot, for a thread that has just started."""
        # Only now: a reserved delivery is stored as running, so its thread must exist.
        with self._changed:
            self._free += 1
            self._changed.notify()

    def abandon_overdue(self, now: float) -> int:
        """Abandon overdue threads within the limits; return the number of freed slots."""
        count = 0
        with self._changed:
            for attempt in list(self._running_attempts.values()):
                handler = attempt.queued.handler
                if attempt.abandoned or now - attempt.began < self._runtime.timeout(handler):
                    continue
                queue = self._queues[handler]
                can_abandon = self._abandoned < self.size and queue.abandoned < queue.max_running
                if can_abandon:
                    attempt.abandoned = True
                    queue.abandoned += 1
                    queue.running -= 1
                    self._abandoned += 1
                    count += 1
                    self._schedule(handler, queue)  # `add` wakes a thread for it
                if can_abandon or not attempt.overdue:
                    log.error(
                        "attempt_overdue", **log_fields(attempt, now), next=SLOT_REPLACED if can_abandon else SLOT_KEPT
                    )
                attempt.overdue = True
        return count

    @property
    def running(self) -> int:
        """Number of running deliveries, including abandoned ones."""
        with self._changed:
            return sum(queue.running + queue.abandoned for queue in self._queues.values())

    def seconds_to_poll(self, interval: float) -> float:
        """Return the seconds until the next poll: the interval, or less if the rate of a handler allows an attempt."""
        return seconds_to_poll(self._runtime, self._clock, interval)

    def max_rows(self, handler: str) -> int:
        """Return how many rows of a handler a poll reads; the rows in memory come first, so they are added."""
        if not self._runtime.may_start(handler, self._clock.now()):
            return 0
        with self._changed:
            queue = self._queues.get(handler)
            if queue is None:
                return MAX_QUEUED_PER_HANDLER
            # To read the same rows five times a second takes time from the threads that accept callbacks.
            queue.was_skipped = queue.is_stuck
            is_enough = queue.was_skipped or queue.size > MAX_QUEUED_PER_HANDLER // 2
            queue.has_moved = False
            return 0 if is_enough else queue.size + MAX_QUEUED_PER_HANDLER

    def put(self, deliveries: Sequence[ReadyDelivery]) -> None:
        """Queue deliveries that are due, except those in memory already, each to run or to be probed."""
        now = self._clock.now()
        with self._changed:
            for queued in deliveries:
                key = (queued.delivery_id, queued.probe)
                if key in self._in_memory or not self._runtime.may_start(queued.handler, now):
                    continue
                queue = self._queue_of(queued.handler)
                if queue.size >= MAX_QUEUED_PER_HANDLER:
                    queue.has_more = True
                    continue
                self._in_memory.add(key)
                queue.deliveries.append(queued._replace(load_event=None))
                self._schedule(queued.handler, queue)
            self._wake_for_ready()

    def _start_reserved(self, reserved: Sequence[ReadyDelivery]) -> None:
        with self._changed:
            self._reserved -= len(reserved)
            self._claimed.extend((queued, None) for queued in reserved)
            quick = all(queued.handler in self._fast_handlers for queued in reserved)
            self._changed.notify(1 if quick else len(reserved))

    def wake_for_claimed(self) -> None:
        """Wake a thread for each claimed delivery whose intended thread is still busy."""
        with self._changed:
            self._changed.notify(len(self._claimed))

    def _cancel_reserved(self, reserved: Sequence[ReadyDelivery]) -> None:
        with self._changed:
            self._reserved -= len(reserved)
            for queued in reserved:
                self._free_slot(queued)
            self._wake_for_ready()

    def _queue_of(self, handler: str) -> HandlerQueue:
        queue = self._queues.get(handler)
        if queue is None:
            limit = self._runtime.limit(handler)
            queue = self._queues[handler] = HandlerQueue(
                self._max_per_handler if limit is None else min(self._max_per_handler, limit)
            )
        return queue

    def drop_queue(self, handler: str) -> None:
        """Drop the queue of a handler at its limit; its deliveries are offered again when a slot is free."""
        with self._changed:
            queue = self._queues[handler]
            self._clear(queue)
            if queue.is_scheduled:
                queue.is_scheduled = False
                self._ready_handlers.remove(handler)

    def _clear(self, queue: HandlerQueue) -> None:
        for queued in queue.deliveries:
            self._in_memory.discard((queued.delivery_id, queued.probe))
        queue.deliveries.clear()

    def _schedule(self, handler: str, queue: HandlerQueue) -> None:
        is_open = queue.running < queue.max_running and not queue.is_claiming
        if queue.deliveries and not queue.is_scheduled and is_open:
            queue.is_scheduled = True
            self._ready_handlers.append(handler)

    def _wake_for_ready(self) -> None:
        """Wake one thread if it can run something; it wakes the next one."""
        if self._ready_handlers and self._free > 0:
            self._changed.notify()

    def take(self) -> RunningAttempt | None:
        """Wait for the next delivery for this thread; return None when the runner stops."""
        with self._changed:
            while True:
                if self._claimed:
                    return self._begin(RunningAttempt(*self._claimed.popleft()))
                if self._stopping:
                    if self._reserved == 0:
                        return None
                # A reserved slot waits for its own delivery, so it is not counted as free.
                elif self._ready_handlers and self._free > 0:
                    handler = self._ready_handlers.popleft()
                    queue = self._queues[handler]
                    queue.is_scheduled = False
                    if not self._runtime.may_start(handler, self._clock.now()):
                        # A later poll finds its deliveries again, or, after a stop, the next process.
                        self._clear(queue)
                        if not queue.size:
                            del self._queues[handler]
                        continue
                    queued = self._take_queued(queue)
                    others = self._take_others(queue, handler) if self._may_join(queued) else None
                    self._schedule(handler, queue)
                    return self._begin(RunningAttempt(queued, None, others))
                self._changed.wait()

    def _may_join(self, queued: ReadyDelivery) -> bool:
        """Return whether a delivery may be claimed together with others of its handler."""
        return not (
            queued.probe or queued.ordered or queued.delivery_id in self._not_joining
        ) and self._runtime.is_unconditional(queued.handler)

    def _take_queued(self, queue: HandlerQueue) -> ReadyDelivery:
        queue.has_moved = True
        queue.running += 1
        self._free -= 1
        queued = queue.deliveries.popleft()
        if queue.was_skipped and not queue.deliveries:  # more may have become due in the ledger meanwhile
            queue.was_skipped = False
            self.poll_now.set()
        return queued

    def _take_others(self, queue: HandlerQueue, handler: str) -> list[ReadyDelivery]:
        """Take a slot for each further delivery of a fast handler, as long as other handlers keep theirs."""
        others: list[ReadyDelivery] = []
        if handler in self._fast_handlers:
            queue.is_claiming = True
            while (
                queue.deliveries
                and queue.running < queue.max_running
                and self._free > len(self._ready_handlers)
                and self._may_join(queue.deliveries[0])
            ):
                others.append(self._take_queued(queue))
        self._reserved += len(others)
        return others

    def start_others(self, attempt: RunningAttempt, results: Sequence[ClaimedAttempt | LimitReached | None]) -> None:
        """Queue the deliveries that were claimed with an attempt; free the slots of those that were not marked.

        The thread of the attempt takes them itself, unless the attempt takes long.
        """
        with self._changed:
            for queued, claimed in zip(attempt.others or (), results, strict=True):
                self._reserved -= 1
                if isinstance(claimed, ClaimedAttempt):
                    self._claimed.append((queued, claimed))
                else:
                    self._free_slot(queued)
            self._end_claim(attempt.queued.handler)  # last, because it wakes a thread for the free slots
            if self._stopping:
                self._changed.notify_all()

    def split(self, attempt: RunningAttempt) -> None:
        """Free the slots of the others of an attempt that could not be claimed together; each is claimed alone next."""
        with self._changed:
            self._not_joining.append(attempt.queued.delivery_id)
            for queued in attempt.others or ():
                self._reserved -= 1
                self._not_joining.append(queued.delivery_id)
                self._free_slot(queued)
            self._end_claim(attempt.queued.handler)

    def _end_claim(self, handler: str) -> None:
        queue = self._queues[handler]
        queue.is_claiming = False
        self._schedule(handler, queue)
        self._wake_for_ready()

    def _begin(self, attempt: RunningAttempt) -> RunningAttempt:
        if not self._claimed or (self._ready_handlers and self._ready_handlers[0] not in self._fast_handlers):
            self._wake_for_ready()
        self._running_attempts[threading.current_thread()] = attempt
        return attempt

    def give_back(self, attempt: RunningAttempt) -> None:
        """Free the slot of this thread's attempt, which has ended."""
        handler = attempt.queued.handler
        if attempt.claimed is not None:
            if time.monotonic() - attempt.began < FAST_THRESHOLD_SECONDS:
                self._fast_handlers.add(handler)
            else:
                self._fast_handlers.discard(handler)
        with self._changed:
            del self._running_attempts[threading.current_thread()]
            self._free_slot(attempt.queued, abandoned=attempt.abandoned)
            if attempt.abandoned:  # otherwise this thread takes the next delivery itself
                self._wake_for_ready()

    def _free_slot(self, queued: ReadyDelivery, *, abandoned: bool = False) -> None:
        self._in_memory.discard((queued.delivery_id, queued.probe))
        queue = self._queues[queued.handler]
        if abandoned:
            queue.abandoned -= 1
            self._abandoned -= 1
        else:
            self._free += 1
            queue.running -= 1
        self._schedule(queued.handler, queue)
        if self._stopping:
            self._changed.notify_all()
        if queue.has_more and queue.size <= MAX_QUEUED_PER_HANDLER // 2:
            queue.has_more = False
            self.poll_now.set()
        elif not queue.size:
            del self._queues[queued.handler]
