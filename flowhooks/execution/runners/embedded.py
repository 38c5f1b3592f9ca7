"""The runner inside the server's own process: a pool of threads, for which the ledger's rows are the queue.

It must not know what a delivery does. What waits here in memory is only a hint: all of it can be read again.

A delivery that is stored while a thread is free is stored as running, so that its running mark costs no further
commit; it is handed to that thread after the commit. All others are claimed by the thread that takes their turn.

A thread cannot be ended from outside. One whose attempt takes longer than it may is given up: it goes on, another
takes its place in the pool, and it ends with its attempt. So many are given up at the most as the pool has threads, and
of one handler as many as it may hold: beyond that an attempt keeps its place.
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
from flowhooks.execution.runners.handler_queue import FEWER, KEPT, REPLACED, Line, Run, told

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from flowhooks.clock import Clock
    from flowhooks.model.delivery import Execute, Queued, Transaction

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
        timeout: seconds after which an attempt of a handler is overdue, by the handler's id.
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
        timeout: Callable[[str], float] = lambda _handler: inf,
    ) -> None:
        self._threads = threads
        self._share = max(1, threads // 2)
        self._due = due
        self._clock = clock
        self._mine = mine
        self._limit = limit
        self._paused = paused
        self._timeout = timeout
        self._runs_of: dict[threading.Thread, Run] = {}
        self._pool: list[threading.Thread] = []
        self._given_up = 0
        self._unfilled = 0
        self._numbers = count()
        self._lines: dict[str, Line] = {}
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
                transaction.notify_peers()

    def run(self, execute: Execute, stop: threading.Event) -> None:
        """Run deliveries until `stop` is set; return when none runs any more."""
        self._fill(self._threads, execute, stop)
        self._runs = True
        while not stop.is_set():
            started = time.monotonic()
            self._hurry()
            self._fetch()
            self._fill(self._give_up(started), execute, stop)
            # With thousands of handlers a look takes a while: it must not take more than a tenth of the time.
            self._look.wait(max(LOOK_EVERY, 9 * (time.monotonic() - started)))
            self._look.clear()
        self._runs = False
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in list(self._pool):
            thread.join()

    def _fill(self, places: int, execute: Execute, stop: threading.Event) -> None:
        """Start threads for so many places, and for those that have none yet; the next look goes on with it."""
        known = self._unfilled > 0
        self._unfilled += places
        while self._unfilled:
            try:
                self._add_thread(execute, stop)
            except RuntimeError as error:  # the system has no room for another thread
                if not known:
                    log.error("thread_not_started", why=str(error), next=FEWER)  # noqa: TRY400 (one line until it changes)
                return
            self._unfilled -= 1
            with self._changed:  # from now on: what is reserved for a place is marked as running, and has to run
                self._free += 1
                self._changed.notify()

    def _add_thread(self, execute: Execute, stop: threading.Event) -> None:
        thread = threading.Thread(
            target=self._work, args=(execute, stop), name=f"runner-{next(self._numbers)}", daemon=True
        )
        self._pool = [one for one in self._pool if one.is_alive()]
        thread.start()
        self._pool.append(thread)

    def _give_up(self, now: float) -> int:
        """Give up the threads whose attempts take too long, as far as may be; how many places that leaves."""
        given_up = 0
        with self._changed:
            for run in list(self._runs_of.values()):
                handler = run.queued.handler
                if run.given_up or now - run.began < self._timeout(handler):
                    continue
                line = self._lines[handler]
                room = self._given_up < self._threads and line.given_up < line.share
                if room:
                    run.given_up = True
                    line.given_up += 1
                    line.running -= 1
                    self._given_up += 1
                    given_up += 1
                    self._give_turn(handler, line)
                if room or not run.overdue:
                    log.error("attempt_overdue", **told(run, now), next=REPLACED if room else KEPT)
                run.overdue = True
        return given_up

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
            return sum(line.running + line.given_up for line in self._lines.values())

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

    def _line(self, handler: str) -> Line:
        line = self._lines.get(handler)
        if line is None:
            limit = self._limit(handler)
            line = self._lines[handler] = Line(self._share if limit is None else min(self._share, limit))
        return line

    def _drop(self, handler: str) -> None:
        """Forget what waits here of a handler that has no room anywhere: it is offered again once it has."""
        with self._changed:
            line = self._lines[handler]
            self._forget(line)
            if line.has_turn:
                line.has_turn = False
                self._turns.remove(handler)

    def _forget(self, line: Line) -> None:
        self._here.difference_update(queued.delivery_id for queued in line.queue)
        line.queue.clear()

    def _give_turn(self, handler: str, line: Line) -> None:
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
                        if not line.here:
                            del self._lines[handler]
                        continue
                    queued = line.queue.popleft()
                    line.running += 1
                    self._free -= 1
                    self._give_turn(handler, line)
                    return queued, False
                self._changed.wait()

    def _give_back(self, queued: Queued, run: Run | None = None) -> None:
        with self._changed:
            self._here.discard(queued.delivery_id)
            line = self._lines[queued.handler]
            if run is not None:
                del self._runs_of[threading.current_thread()]
            if run is not None and run.given_up:
                line.given_up -= 1
                self._given_up -= 1
            else:
                self._free += 1
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
            # Without the lock: to put it there is one step, and only this thread takes it out again.
            run = self._runs_of[threading.current_thread()] = Run(queued)
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
                    self._ran(queued.handler, time.monotonic() - run.began)
                self._give_back(queued, run)
            if run.given_up:
                log.info("attempt_over", **told(run, time.monotonic()))
                return
