"""The threads that run the requests of a listener.

Theory of operation
-------------------
At most `size` threads run requests at a time; further requests wait in a queue. A thread that is about to wait for
something else calls `add_thread`. It then does not count as running, and the pool has one more thread, so that waiting
takes no thread away from other requests. The thread that is added remains for `SPARE_THREAD_SECONDS`, because the next
wait may need it.

The thread that became idle last gets the next request, so that its data is still in the caches of the processor, and
the threads that are no longer needed are the ones that time out.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

SPARE_THREAD_SECONDS: Final = 30.0
"""Seconds after which an idle thread ends if the pool has more than it needs."""
LOG_INTERVAL: Final = 60.0
"""Minimum number of seconds between two log records about threads that cannot be started."""
POOL: Final = "flowhooks.thread_pool"
"""The pool whose thread runs a request, in its environ."""

_log = structlog.get_logger(__name__)


class _Task(Protocol):
    """A channel of waitress with requests to run."""

    def service(self) -> None:
        """Run a request."""

    def cancel(self) -> None:
        """Drop the requests."""


class _IdleThread:
    """A thread that waits for its next task; None ends it."""

    __slots__ = ("_wakeup", "task")

    def __init__(self) -> None:
        self.task: _Task | None = None
        self._wakeup = threading.Lock()
        self._wakeup.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait for a task; return whether there is one."""
        return self._wakeup.acquire(timeout=seconds)

    def give(self, task: _Task | None) -> None:
        """Wake the thread."""
        self.task = task
        self._wakeup.release()


class ThreadPool:
    """Runs the tasks of waitress, in place of its own dispatcher.

    Args:
        name: the prefix of the threads' names.
        size: the number of tasks that run at once.

    Attributes:
        threads: the numbers of the threads that have not ended.
        wait_changes: tasks in the order in which their threads have begun to wait without sending (True), or have ended
            a wait of any kind (False). The I/O loop removes what it has read.
        on_last_thread_exit: called when the last thread ends, after `shutdown`.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._lock = threading.Lock()
        self._thread_ended = threading.Condition(self._lock)
        self._queue: deque[_Task] = deque()
        self._idle: list[_IdleThread] = []
        self._running = self._waiting = 0
        self._ended = False
        self._logged_at = -LOG_INTERVAL
        self._current = threading.local()
        self.threads: set[int] = set()
        self.wait_changes: deque[tuple[_Task, bool]] = deque()
        self.on_last_thread_exit: Callable[[], None] = lambda: None
        for _ in range(size):
            self._start_thread(self._take_number())

    def add_task(self, task: _Task) -> None:
        """Run a task, in the order in which tasks are added."""
        with self._lock:
            self._queue.append(task)
            self._wake_for_queue()

    def add_thread(self, *, sends: bool = False) -> bool:
        """Have one more thread, because the calling thread of this pool is going to wait for something.

        Args:
            sends: whether the calling thread sends a part of its response before `remove_thread`.

        Returns:
            Whether there is one. `remove_thread` must then be called after the wait. There is none if the system allows
            no further thread, or if the pool has been shut down.
        """
        with self._lock:
            if self._ended:
                return False
            self._running -= 1
            self._waiting += 1
            if not sends:
                self.wait_changes.append((self._current.task, True))
            is_enough = len(self.threads) - self._waiting >= self._size
            if is_enough:
                self._wake_for_queue()
                return True
            number = self._take_number()
        try:
            self._start_thread(number)
        except RuntimeError as error:
            with self._lock:
                self._release_number(number)
                self._end_wait()
            self._log_failed_start(error)
            return False
        return True

    def remove_thread(self) -> None:
        """Count the calling thread as running again."""
        with self._lock:
            self._end_wait()

    @contextmanager
    def spare_thread(self) -> Iterator[None]:
        """Have one more thread while a thread of this pool waits or sends its response, if possible."""
        added = self.add_thread(sends=True)
        try:
            yield
        finally:
            if added:
                self.remove_thread()

    def shutdown(self, *, timeout: float) -> None:
        """End the threads, wait for them up to `timeout` seconds, and cancel the tasks that still wait."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._ended = True
            while self._idle:
                self._idle.pop().give(None)
            while self.threads and (left := deadline - time.monotonic()) > 0:
                self._thread_ended.wait(left)
            cancelled, self._queue = self._queue, deque()
        for task in cancelled:
            task.cancel()

    def _take_number(self) -> int:
        """Return the number of a thread that is about to start; it counts as running until it waits for a task."""
        number = next(number for number in range(len(self.threads) + 1) if number not in self.threads)
        self.threads.add(number)
        self._running += 1
        return number

    def _end_wait(self) -> None:
        self._running += 1
        self._waiting -= 1
        self.wait_changes.append((self._current.task, False))

    def _release_number(self, number: int) -> None:
        self._running -= 1
        self.threads.discard(number)

    def _start_thread(self, number: int) -> None:
        threading.Thread(target=self._run, args=(number,), name=f"{self._name}-{number}", daemon=True).start()

    def _wake_for_queue(self) -> None:
        while self._queue and self._idle and self._running < self._size and not self._ended:
            self._running += 1
            self._idle.pop().give(self._queue.popleft())

    def _run(self, number: int) -> None:
        idle = _IdleThread()
        while (task := self._next_task(idle, number)) is not None:
            self._current.task = task
            try:
                task.service()
            except BaseException as error:  # noqa: BLE001 (a defect must not cost a thread of the pool)
                _log.error("http_thread_fault", exc_info=error)
        if not self.threads:
            self.on_last_thread_exit()

    def _next_task(self, idle: _IdleThread, number: int) -> _Task | None:
        """Return the next task of the calling thread; None if the thread is to end."""
        with self._lock:
            if self._queue and self._running <= self._size and not self._ended:
                return self._queue.popleft()
            if self._ended:
                self._end_thread(number)
                return None
            self._running -= 1
            self._idle.append(idle)
        while not idle.wait(SPARE_THREAD_SECONDS):
            with self._lock:
                if idle in self._idle and len(self.threads) - self._waiting > self._size:
                    self._idle.remove(idle)
                    self._running += 1
                    self._end_thread(number)
                    return None
        if idle.task is None:
            with self._lock:
                self._running += 1
                self._end_thread(number)
        return idle.task

    def _end_thread(self, number: int) -> None:
        self._release_number(number)
        self._thread_ended.notify_all()

    def _log_failed_start(self, error: RuntimeError) -> None:
        if (now := time.monotonic()) - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            _log.warning(
                "http_thread_start_failed",
                threads=len(self.threads),
                why=str(error),
                next="allow this process more threads (`ulimit -u`, pids.max of its control group, TasksMax= of "
                "systemd), or lower http.max_waiting",
            )


def thread_pool(environ: Mapping[str, Any]) -> ThreadPool | None:
    """Return the pool whose thread runs a request; None on other servers."""
    return environ.get(POOL)


def spare_thread(environ: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Return a context in which a request may wait without taking a thread away; on other servers it does nothing."""
    pool = thread_pool(environ)
    return nullcontext() if pool is None else pool.spare_thread()
