"""The slots of a process that runs deliveries: its threads, and the share of them that each handler may take."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from flowhooks.execution.runners.runner import FAST_THRESHOLD_SECONDS, max_per_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from flowhooks.ledger.attempts import StartedDelivery

TURN_SECONDS: Final = 0.1
"""Seconds after which a handler with more due deliveries lets others take its slots, if no slot is free."""


class HandlerSlots:
    """Counts the free slots, and passes started deliveries to the threads.

    A slot is taken before a delivery is marked as running, and free when its attempt has ended. So no more deliveries
    are marked than threads can run at once.

    Args:
        threads: number of slots. One handler takes at most three quarters of them, but at least one.
        limit: the concurrency limit of a handler id; None: limited only by the slots.
        on_freed: called when a slot is free that a handler may have waited for; it must return quickly.
    """

    def __init__(
        self, threads: int, limit: Callable[[str], int | None], on_freed: Callable[[], None] = lambda: None
    ) -> None:
        self.threads = threads
        self.on_freed = on_freed
        self._limit = limit
        self._share = max_per_handler(threads)
        self._taken: Counter[str] = Counter()
        self._free = threads
        self._started: deque[StartedDelivery] = deque()
        self._not_run: Counter[str] = Counter()
        self._backlogs: dict[str, float] = {}
        self._fast_handlers: set[str] = set()
        self._changed = threading.Condition(threading.Lock())
        self._stopping = False

    def take(self, handler: str) -> int:
        """Take all free slots of a handler; return their number."""
        with self._changed:
            count = 0 if self._stopping else max(0, min(self._free, self._max_of(handler) - self._taken[handler]))
            self._taken[handler] += count
            self._free -= count
            return count

    def take_one(self, handler: str) -> bool:
        """Take one slot of a handler without a backlog; return whether there was one.

        One slot stays free for handlers that have a job.
        """
        with self._changed:
            if (
                self._stopping
                or self._free <= 1
                or handler in self._backlogs
                or self._taken[handler] >= self._max_of(handler)
            ):
                return False
            self._taken[handler] += 1
            self._free -= 1
            return True

    def release(self, handler: str, count: int) -> None:
        """Return slots of deliveries that have ended or were not started."""
        if not count:
            return
        with self._changed:
            is_full = handler not in self._backlogs and self._taken[handler] >= self._max_of(handler)
            has_waited = is_full or not self._free
            self._taken[handler] -= count
            if not self._taken[handler]:
                del self._taken[handler]
            self._free += count
            if self._stopping:
                self._changed.notify_all()
        if has_waited:
            self.on_freed()

    def start(self, deliveries: Sequence[StartedDelivery]) -> None:
        """Pass started deliveries, whose slots are taken, to the threads."""
        with self._changed:
            self._started.extend(deliveries)
            self._not_run.update(started.queued.handler for started in deliveries)
            is_fast = all(started.queued.handler in self._fast_handlers for started in deliveries)
            self._changed.notify(1 if is_fast else len(deliveries))

    def next(self) -> StartedDelivery | None:
        """Wait for a started delivery; None when the process stops and all of them have ended."""
        with self._changed:
            while True:
                if self._started:
                    started = self._started.popleft()
                    self._not_run[started.queued.handler] -= 1
                    return started
                if self._stopping and self._free == self.threads:
                    return None
                self._changed.wait()

    def on_ended(self, handler: str, seconds: float) -> None:
        """Return the slot of an attempt, and remember how long it took."""
        if seconds < FAST_THRESHOLD_SECONDS:
            self._fast_handlers.add(handler)
        else:
            self._fast_handlers.discard(handler)
        self.release(handler, 1)

    def wake(self) -> None:
        """Wake a thread for each delivery whose intended thread is still busy."""
        with self._changed:
            self._changed.notify(len(self._started))

    def stop(self) -> None:
        """Take no further slot; the threads end when all started deliveries have ended."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def set_backlog(self, handler: str, *, has_more: bool) -> None:
        """Remember whether further deliveries of a handler were due when its last ones were started."""
        with self._changed:
            if has_more:
                self._backlogs.setdefault(handler, time.monotonic())
            else:
                self._backlogs.pop(handler, None)

    def should_refill(self, handler: str) -> bool:
        """Return whether the free slots of a handler are to be filled now: all its started deliveries are running."""
        with self._changed:
            return handler in self._backlogs and not self._not_run[handler] and not self._stopping

    def to_refill(self) -> list[str]:
        """Return the handlers with a backlog that may take slots which others have left."""
        with self._changed:
            return [
                handler
                for handler in self._backlogs
                if self._free and not self._not_run[handler] and self._taken[handler] < self._max_of(handler)
            ]

    def is_turn_over(self, handler: str) -> bool:
        """Return whether a handler lets others take its slots, because they have none."""
        with self._changed:
            since = self._backlogs.get(handler)
            return since is not None and self._free <= 1 and time.monotonic() - since > TURN_SECONDS

    def closed(self, claiming: int = 0) -> Collection[str] | None:
        """Return the handlers that need no job now: they have a backlog or no free slot.

        Args:
            claiming: number of handlers that are about to take slots, at least one each.

        Returns:
            The ids of the handlers; None: no slot is left for any handler.
        """
        with self._changed:
            if self._free <= claiming or self._stopping:
                return None
            full = {handler for handler, taken in self._taken.items() if taken >= self._max_of(handler)}
            return full | self._backlogs.keys()

    @property
    def taken(self) -> int:
        """Number of deliveries that run or are about to start."""
        with self._changed:
            return self._taken.total()

    def _max_of(self, handler: str) -> int:
        limit = self._limit(handler)
        return self._share if limit is None else min(self._share, limit)
