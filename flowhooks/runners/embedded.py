"""The runner inside the server's own process: a pool of threads, for which the ledger's rows are the queue.

It must not know what a delivery does. What waits here in memory is only a hint: all of it can be read again.

A delivery that is stored while a thread is free is stored as running, so that its running mark costs no further
commit; it is handed to that thread after the commit. All others are claimed by the thread that takes their turn.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.errors import FlowhooksError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from flowhooks.clock import Clock
    from flowhooks.delivery import Execute, Queued, Transaction

MOST_OF_ONE: Final = 1_000
"""Deliveries of one handler kept in memory at the most; the others wait in the ledger until there is room."""
LOOK_EVERY: Final = 0.2
"""Seconds between looks into the ledger for what has become due."""
QUICK_SECONDS: Final = 0.001
"""Of a handler that took less the last time, what begins together is run by one thread, one after the other: to wake a
thread for each costs more than to run them. If it takes longer this time, the others are begun at the next look."""
FAULT_SECONDS: Final = 1.0
"""How long a thread rests after a delivery that could not be run: it will be offered again, and may fail again."""

log = structlog.get_logger(__name__)


class _Line:
    """The deliveries of one handler that are in memory."""

    __slots__ = ("has_turn", "more", "queue", "running", "share")

    def __init__(self, share: int) -> None:
        self.share = share
        self.queue: deque[Queued] = deque()
        self.running = 0
        self.has_turn = False
        self.more = False

    @property
    def here(self) -> int:
        """How many are here, waiting or running."""
        return len(self.queue) + self.running


class Embedded:
    """Runs deliveries in this process; handlers take turns, so that no backlog of one delays another.

    Args:
        threads: how many run at once at the most. One handler gets half of them at the most (but one at
            least), so that a handler that hangs does not stop the others.
        due: reads from the ledger what may run by a time, and how many of a handler at the most.
        clock: tells the time.
        mine: whether this process has a handler; what is for others is left to those that have them. Default: all.
        limit: how many of a handler's deliveries run at once at the most; None: as many as there are threads for.
        paused: the ids of the handlers that are passed over just now.
    """

    def __init__(
        self,
        *,
        threads: int,
        due: Callable[[int, Callable[[str], int]], list[Queued]],
        clock: Clock,
        mine: Callable[[str], bool] = lambda _handler: True,
        limit: Callable[[str], int | None] = lambda _handler: None,
        paused: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._threads = threads
        self._share = max(1, threads // 2)
        self._due = due
        self._clock = clock
        self._mine = mine
        self._limit = limit
        self._paused = paused
        self._lines: dict[str, _Line] = {}
        self._turns: deque[str] = deque()
        self._begun: deque[Queued] = deque()
        self._free = 0
        self._reserved = 0
        self._here: set[str] = set()
        self._quick: set[str] = set()
        self._changed = threading.Condition(threading.Lock())
        self._look = threading.Event()
        self._stopping = False
        self._runs = False
        self._trouble: str | None = None

    def reserve(self, transaction: Transaction, deliveries: Sequence[Queued]) -> list[Queued]:
        """Those for which a thread is free: they are handed to it after the commit."""
        reserved = self._reserve(deliveries)
        if reserved:
            transaction.after_commit(partial(self._start, reserved))
            transaction.after_rollback(partial(self._release, reserved))
        return reserved

    def enqueue(self, transaction: Transaction, deliveries: Sequence[Queued], not_before: int) -> None:
        """Take note of what may run at once after the commit; what is for later is found by looking."""
        if not_before <= self._clock.now():
            transaction.after_commit(partial(self._offer, deliveries))
            if not self._runs or not all(self._mine(queued.handler) for queued in deliveries):
                transaction.hand_over()

    def run(self, execute: Execute, stop: threading.Event) -> None:
        """Run deliveries until `stop` is set; return when none runs any more."""
        pool = [
            threading.Thread(target=self._work, args=(execute, stop), name=f"runner-{number}", daemon=True)
            for number in range(self._threads)
        ]
        for thread in pool:
            thread.start()
        with self._changed:
            self._free = self._threads
            self._changed.notify_all()
        self._runs = True
        while not stop.is_set():
            started = time.monotonic()
            self._hurry()
            self._fetch()
            # With thousands of handlers a look takes a while: it must not take more than a tenth of the time.
            self._look.wait(max(LOOK_EVERY, 9 * (time.monotonic() - started)))
            self._look.clear()
        self._runs = False
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in pool:
            thread.join()

    def sweep(self, transaction: Transaction) -> None:
        """Nothing to do: what a killed process left running is settled at start, by the ledger's recovery."""

    def health(self) -> str | None:
        """Why deliveries cannot be run just now, or None."""
        return self._trouble

    def wake(self) -> None:
        """Look now rather than soon: `stop` was set, or something has changed in the ledger."""
        self._look.set()

    @property
    def running(self) -> int:
        """How many deliveries run just now."""
        with self._changed:
            return sum(line.running for line in self._lines.values())

    def _fetch(self) -> None:
        try:
            self._offer(self._due(self._clock.now(), self._wanted))
            self._trouble = None
        except FlowhooksError as error:
            if self._trouble is None:
                log.error("cannot_look_for_work", why=str(error))  # noqa: TRY400 (one line until it changes)
            self._trouble = str(error)
        except Exception as error:
            # A fault of ours must not end the looking: nothing would ever be run again.
            log.exception("cannot_look_for_work")
            self._trouble = type(error).__name__

    def _may(self, handler: str) -> bool:
        """Whether deliveries of a handler are to begin here just now."""
        return self._mine(handler) and handler not in self._paused()

    def _wanted(self, handler: str) -> int:
        """How many rows of a handler to read; those that are here already still wait in the ledger, and come first."""
        if not self._may(handler):
            return 0
        with self._changed:
            line = self._lines.get(handler)
            here = line.here if line else 0
            return 0 if here > MOST_OF_ONE // 2 else here + MOST_OF_ONE

    def _offer(self, deliveries: Sequence[Queued]) -> None:
        with self._changed:
            for queued in deliveries:
                if queued.delivery_id in self._here or not self._may(queued.handler):
                    continue
                line = self._line(queued.handler)
                if line.here >= MOST_OF_ONE:
                    line.more = True
                    continue
                self._here.add(queued.delivery_id)
                line.queue.append(queued._replace(fresh=None))
                self._give_turn(queued.handler, line)

    def _reserve(self, deliveries: Sequence[Queued]) -> list[Queued]:
        """Those for which a thread is free, each with its thread; none of a handler that others wait for already."""
        reserved = []
        with self._changed:
            for queued in deliveries:
                # As many threads stay free as others have a turn coming.
                if self._free <= len(self._turns) or self._stopping:
                    break
                if not self._may(queued.handler):
                    continue
                line = self._line(queued.handler)
                if queued.probe or line.queue or line.running >= line.share or queued.delivery_id in self._here:
                    continue
                self._here.add(queued.delivery_id)
                line.running += 1
                self._free -= 1
                self._reserved += 1
                reserved.append(queued)
        return reserved

    def _start(self, reserved: Sequence[Queued]) -> None:
        with self._changed:
            self._reserved -= len(reserved)
            self._begun.extend(reserved)
            quick = all(queued.handler in self._quick for queued in reserved)
            self._changed.notify(1 if quick else len(reserved))

    def _hurry(self) -> None:
        """Wake a thread for each delivery that has begun and was left to one that is not done yet."""
        with self._changed:
            self._changed.notify(len(self._begun))

    def _ran(self, handler: str, seconds: float) -> None:
        """Note how long it took to run a delivery that had begun."""
        if seconds < QUICK_SECONDS:
            self._quick.add(handler)
        else:
            self._quick.discard(handler)

    def _release(self, reserved: Sequence[Queued]) -> None:
        with self._changed:
            self._reserved -= len(reserved)
        for queued in reserved:
            self._give_back(queued)

    def _line(self, handler: str) -> _Line:
        line = self._lines.get(handler)
        if line is None:
            limit = self._limit(handler)
            line = self._lines[handler] = _Line(self._share if limit is None else min(self._share, limit))
        return line

    def _drop(self, handler: str) -> None:
        """Forget what waits here of a handler that has no room anywhere: it is offered again once it has."""
        with self._changed:
            line = self._lines[handler]
            self._forget(line)
            if line.has_turn:
                line.has_turn = False
                self._turns.remove(handler)

    def _forget(self, line: _Line) -> None:
        self._here.difference_update(queued.delivery_id for queued in line.queue)
        line.queue.clear()

    def _give_turn(self, handler: str, line: _Line) -> None:
        if line.queue and not line.has_turn and line.running < line.share:
            line.has_turn = True
            self._turns.append(handler)
            self._changed.notify()

    def _take(self) -> tuple[Queued, bool] | None:
        """What to run next, and whether it is claimed already; None when the runner stops."""
        with self._changed:
            while True:
                if self._begun:
                    return self._begun.popleft(), True
                if self._stopping:
                    if self._reserved == 0:
                        return None
                # A free thread that is reserved waits for what it is reserved for.
                elif self._turns and self._free > 0:
                    handler = self._turns.popleft()
                    line = self._lines[handler]
                    line.has_turn = False
                    if handler in self._paused():
                        self._forget(line)
                        if not line.running:
                            del self._lines[handler]
                        continue
                    queued = line.queue.popleft()
                    line.running += 1
                    self._free -= 1
                    self._give_turn(handler, line)
                    return queued, False
                self._changed.wait()

    def _give_back(self, queued: Queued) -> None:
        with self._changed:
            self._here.discard(queued.delivery_id)
            self._free += 1
            line = self._lines[queued.handler]
            line.running -= 1
            self._give_turn(queued.handler, line)
            if self._stopping:
                self._changed.notify_all()
            elif self._turns:
                self._changed.notify()
            if line.more and line.here <= MOST_OF_ONE // 2:
                line.more = False
                self._look.set()
            elif not line.here:
                del self._lines[queued.handler]

    def _work(self, execute: Execute, stop: threading.Event) -> None:
        while (taken := self._take()) is not None:
            queued, begun = taken
            started = time.monotonic()
            try:
                if execute(queued, queued.claimed() if begun else None) is not None:
                    self._drop(queued.handler)
            except FlowhooksError as error:
                log.warning("not_run", delivery=queued.delivery_id, handler=queued.handler, why=str(error))
                stop.wait(FAULT_SECONDS)
            except BaseException:
                # A fault of ours must not cost a thread of the pool.
                log.exception("runner_fault", delivery=queued.delivery_id, handler=queued.handler)
                stop.wait(FAULT_SECONDS)
            finally:
                if begun:
                    self._ran(queued.handler, time.monotonic() - started)
                self._give_back(queued)
