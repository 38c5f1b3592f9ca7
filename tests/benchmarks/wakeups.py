"""Run a server and count each time that one of its threads wakes another.

`python wakeups.py FILE flowhooks serve …` or `… FILE bare --port …`: when the server ends, FILE has the counts as JSON,
by the names of the thread that wakes and the thread that is woken. A thread counts as woken only if it was asleep.
Timeouts and the interpreter lock are not counted.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections import Counter
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from stopwatch import NUMBER, resolve
from waitress import trigger, wasyncore

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPS, HTTP_THREADS = {"Thread", "MainThread"}, {"listen", "waitress"}
"""The names of threads, of flowhooks and of the bare app. Counting starts when the first wakes the second."""
STARTING = "a thread that starts"
CLIENT = "client"
"""The waker of the I/O loop when bytes or a connection have arrived."""

LOCKS = (
    ("flowhooks.ledger.waiters:Waiter", "_sleep", "_wake"),
    ("flowhooks.web.server.thread_pool:_IdleThread", "wait", "give"),
)
"""Classes whose objects let one thread sleep by a lock of their own: the class, and its functions that sleep and wake.
A test imports all of them, so that a missing class is noticed. Conditions and queues need no list."""
END = "flowhooks.web.server.server:Server.drain"
"""The function that starts the shutdown of a server; threads that it wakes are not counted."""
QUEUES = ("flowhooks.ledger.group_commit:SimpleQueue",)
"""The names under which modules use the queue of the standard library, which is written in C."""


class Wakeups:
    """The number of times that each kind of thread has woken each other kind."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._counters: list[Counter[tuple[str, str]]] = []
        self._asleep: dict[int, str] = {}
        self._serving = self._ended = False

    def install(self, *, flowhooks: bool) -> None:
        """Start counting; with `flowhooks`, also count locks and queues that only flowhooks has."""
        self._count_conditions()
        self._count_loops()
        if flowhooks:
            for class_path, *functions in LOCKS:
                module, _, name = class_path.partition(":")
                self._count_locks(getattr(import_module(module), name), *functions)
            self._stop_counting_at(*resolve(END))
            for class_path in QUEUES:
                module, _, name = class_path.partition(":")
                setattr(import_module(module), name, self._counting_queue())

    def write(self, file: Path) -> None:
        """Write the counts."""
        total = sum(self._counters, Counter())
        file.write_text(json.dumps([[waker, woken, times] for (waker, woken), times in total.items()]))

    def _thread_name(self) -> str:
        try:
            return self._local.name
        except AttributeError:
            # Not `current_thread`: before a new thread is registered, it would register another object for it.
            thread = threading._active.get(threading.get_ident())
            if thread is None:
                return STARTING
            self._local.name = NUMBER.sub("", thread.name)
            self._local.counts = Counter()
            self._counters.append(self._local.counts)
            return self._local.name

    def _count(self, woken: str, times: int = 1, waker: str | None = None) -> None:
        thread_name = self._thread_name()
        if woken in HTTP_THREADS and thread_name in LOOPS and not self._serving:
            self._serving = True
            for counts in self._counters:
                counts.clear()  # of the start
        if thread_name != STARTING and not self._ended:
            self._local.counts[waker or thread_name, woken] += times  # of this thread alone, so that no lock is needed

    def _stop_counting_at(self, owner: type, name: str) -> None:
        function = getattr(owner, name)

        def stop_and_call(*args: Any, **kwargs: Any) -> Any:
            self._ended = True
            return function(*args, **kwargs)

        setattr(owner, name, stop_and_call)

    def _count_conditions(self) -> None:
        """Count for `Condition` and the classes of the standard library that use it: `Event`, `Future`."""
        wait, notify = threading.Condition.wait, threading.Condition.notify

        def counted_wait(condition: Any, timeout: float | None = None) -> bool:
            condition.sleeper = self._thread_name()
            return wait(condition, timeout)

        def counted_notify(condition: Any, n: int = 1) -> None:
            if woken := min(n, len(condition._waiters)):
                self._count(condition.sleeper, woken)
            notify(condition, n)

        threading.Condition.wait = counted_wait
        threading.Condition.notify = counted_notify

    def _count_loops(self) -> None:
        loops: dict[int, str] = {}
        pulled = set()
        physical_pull = trigger.trigger._physical_pull

        def counted(poll: Callable[..., None]) -> Callable[..., None]:
            def counted_poll(timeout: float = 0.0, sockets: Any = None) -> None:
                loops[id(sockets)] = self._thread_name()
                poll(timeout, sockets)
                loops.pop(id(sockets), None)
                if id(sockets) in pulled:
                    pulled.discard(id(sockets))
                else:
                    self._count(self._thread_name(), waker=CLIENT)

            return counted_poll

        def counted_pull(self_: Any) -> None:
            pulled.add(id(self_._map))
            if loop := loops.pop(id(self_._map), ""):
                self._count(loop)
            physical_pull(self_)

        wasyncore.poll, wasyncore.poll2 = counted(wasyncore.poll), counted(wasyncore.poll2)
        trigger.trigger._physical_pull = counted_pull

    def _count_locks(self, owner: type, sleeping: str, waking: str) -> None:
        sleep, wake = getattr(owner, sleeping), getattr(owner, waking)

        def counted_sleep(object_: Any, *args: Any, **kwargs: Any) -> Any:
            self._asleep[id(object_)] = self._thread_name()
            try:
                return sleep(object_, *args, **kwargs)
            finally:
                self._asleep.pop(id(object_), None)

        def counted_wake(object_: Any, *args: Any, **kwargs: Any) -> Any:
            if sleeper := self._asleep.pop(id(object_), None):
                self._count(sleeper)
            return wake(object_, *args, **kwargs)

        setattr(owner, sleeping, counted_sleep)
        setattr(owner, waking, counted_wake)

    def _counting_queue(self) -> type:
        wakeups = self

        class CountingQueue(SimpleQueue):  # type: ignore[type-arg]  # mypy does not check the benchmarks
            """A queue that knows whether a thread waits for it."""

            sleeper = ""

            def put(self, *args: Any, **kwargs: Any) -> None:
                """Put an item; wake the thread that waits."""
                if self.sleeper:
                    wakeups._count(self.sleeper)
                    self.sleeper = ""
                super().put(*args, **kwargs)

            def get(self, block: bool = True, timeout: float | None = None) -> Any:
                """Take an item; sleep until there is one."""
                if not block or self.qsize():
                    return super().get(block, timeout)
                self.sleeper = wakeups._thread_name()
                try:
                    return super().get(block, timeout)
                finally:
                    self.sleeper = ""

        return CountingQueue


def main() -> None:
    """Serve, then write the counts."""
    file, command, *arguments = sys.argv[1:]
    sys.argv = [command, *arguments]
    wakeups = Wakeups()
    try:
        if command == "bare":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # otherwise the process would end without output
            wakeups.install(flowhooks=False)
            import_module("bare").main()
        else:
            wakeups.install(flowhooks=True)
            import_module("flowhooks.cli.main").main()
    finally:
        wakeups.write(Path(file))


if __name__ == "__main__":
    main()
