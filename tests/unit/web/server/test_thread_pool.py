"""The threads of a listener: how many run, wait and remain."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from flowhooks.web.server import thread_pool
from flowhooks.web.server.thread_pool import ThreadPool

WAIT = 60


class Task:
    """A task that calls a function and then is done."""

    def __init__(self, function=lambda: None):
        self._function = function
        self.done, self.cancelled = threading.Event(), threading.Event()

    def service(self):
        """Run."""
        try:
            self._function()
        finally:
            self.done.set()

    def cancel(self):
        """Be dropped."""
        self.cancelled.set()


class Gate:
    """A function in which threads stop until it is opened."""

    def __init__(self, pool=None):
        self._pool = pool
        self.entered, self.opened = threading.Semaphore(0), threading.Event()
        self.added = []

    def __call__(self):
        """Stop; with a pool: have another thread meanwhile."""
        if self._pool is not None:
            self.added.append(self._pool.add_thread())
        self.entered.release()
        assert self.opened.wait(WAIT)
        if self._pool is not None and self.added[0]:
            self._pool.remove_thread()

    def await_threads(self, count):
        """Wait until this many more threads have stopped here."""
        for _ in range(count):
            assert self.entered.acquire(timeout=WAIT)


@pytest.fixture
def pool():
    """Two threads."""
    pool = ThreadPool("test", 2)
    yield pool
    pool.shutdown(timeout=WAIT)
    assert not pool.threads


def test_tasks_run_in_order_in_the_threads_of_the_pool(pool):
    """A third task waits until one of two threads is free; the order of the queue is kept."""
    gate, ran = Gate(), SimpleQueue()
    for _ in range(2):
        pool.add_task(Task(gate))
    gate.await_threads(2)
    tasks = [Task(lambda number=number: ran.put(number)) for number in range(3)]
    for task in tasks:
        pool.add_task(task)
    assert ran.empty()
    gate.opened.set()
    assert sorted(ran.get(timeout=WAIT) for _ in tasks) == [0, 1, 2]
    assert len(pool.threads) == 2


def test_waiting_threads_do_not_reduce_the_pool(pool):
    """However many threads wait, as many others as the size of the pool run tasks."""
    waiting, running = Gate(pool), Gate()
    for _ in range(20):
        pool.add_task(Task(waiting))
    waiting.await_threads(20)
    assert waiting.added == [True] * 20
    for _ in range(3):
        pool.add_task(Task(running))
    running.await_threads(2)
    assert not running.entered.acquire(blocking=False)
    waiting.opened.set()
    running.opened.set()
    running.await_threads(1)


def test_idle_threads_above_the_size_end(pool, monkeypatch, eventually):
    """Idle threads above the size end after a while; the others remain, and run tasks."""
    monkeypatch.setattr(thread_pool, "SPARE_THREAD_SECONDS", 0.05)
    gate = Gate(pool)
    tasks = [Task(gate) for _ in range(6)]
    for task in tasks:
        pool.add_task(task)
    gate.await_threads(6)
    assert len(pool.threads) == 8
    gate.opened.set()
    eventually(lambda: len(pool.threads) == 2)
    after = [Task() for _ in range(5)]
    for task in after:
        pool.add_task(task)
    assert all(task.done.wait(WAIT) for task in after)


def test_a_thread_that_cannot_be_started_is_no_spare_thread(pool, monkeypatch, logged):
    """If the system allows no further thread, the caller is notified and it is logged once; the pool goes on."""

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    gate = Gate(pool)
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            pool.add_task(Task(gate))
        gate.await_threads(2)
    gate.opened.set()
    assert gate.added == [False, False]
    assert [record["event"] for record in logged] == ["http_thread_start_failed"]
    task = Task()
    pool.add_task(task)
    assert task.done.wait(WAIT)


def test_a_failed_task_costs_no_thread(pool, logged):
    """An exception of a task is logged, and its thread runs the next ones."""

    def fail():
        raise SystemExit

    tasks = [Task(fail), Task(fail), Task(fail), Task()]
    for task in tasks:
        pool.add_task(task)
    assert all(task.done.wait(WAIT) for task in tasks)
    assert {record["event"] for record in logged} <= {"http_thread_fault"}


def test_a_shutdown_ends_threads_and_cancels_queued_tasks():
    """Idle threads end at once, busy ones with their task; queued tasks are cancelled, and there is no spare thread."""
    pool, gate, last = ThreadPool("test", 1), Gate(), threading.Event()
    pool.on_last_thread_exit = last.set
    running, queued = Task(gate), Task()
    pool.add_task(running)
    gate.await_threads(1)
    pool.add_task(queued)
    pool.shutdown(timeout=0.01)
    assert queued.cancelled.is_set()
    assert pool.threads
    assert not pool.add_thread()
    gate.opened.set()
    assert last.wait(WAIT)
    assert not pool.threads
