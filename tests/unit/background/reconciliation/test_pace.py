"""A round rests between its pages only while other threads of the process are busy."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from flowhooks.background.reconciliation.pace import MAX_REST, MAX_SHARE, Pace

WORK = 0.05
"""Seconds of processor time."""


class Stop:
    """A stop request that never comes, and remembers how long it was waited for."""

    def __init__(self):
        self.rests = []

    def wait(self, seconds):
        """Wait for no time."""
        self.rests.append(seconds)


def work(seconds=WORK):
    """Use processor time in this thread."""
    before = time.thread_time()
    while time.thread_time() - before < seconds:
        pass


def elsewhere(function):
    """Call a function in another thread, and wait for it."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@pytest.fixture
def stop():
    """A stop request."""
    return Stop()


def test_a_round_does_not_rest_without_other_work(stop):
    """Without other work, pages are read one after the other, also if other threads work for the round."""
    pace = Pace()
    pace.start()
    work()

    def of_the_round():
        with pace.measured():
            work(10 * WORK)

    elsewhere(of_the_round)
    pace.rest(stop)
    assert stop.rests == []


def test_a_round_rests_while_other_threads_are_busy(stop, monkeypatch):
    """The rest is so long that the round's share of the time is at most the maximum."""
    monkeypatch.setattr("flowhooks.background.reconciliation.pace.BUSY_SHARE", 0.0)  # the machine may be busy, too
    # The process always receives a whole core: the second rest would be longer if it did not.
    clocks = SimpleNamespace(monotonic=time.process_time, process_time=time.process_time, thread_time=time.thread_time)
    monkeypatch.setattr("flowhooks.background.reconciliation.pace.time", clocks)
    pace = Pace()
    pace.start()
    work()
    elsewhere(work)
    pace.rest(stop)
    (rest,) = stop.rests
    assert WORK / (WORK + rest) <= MAX_SHARE * 1.01
    pace.rest(stop)
    assert sum(stop.rests[1:]) < rest  # the work before the first rest does not count again


def test_a_rest_is_longer_if_other_processes_use_the_core(stop, monkeypatch):
    """If this process receives half of a core, other threads need twice the time for the same work."""
    now = iter((0.0, 0.0, 10.0, 10.0))
    used = iter((0.0, 0.0, 5.0, 5.0))
    own = iter((0.0, 0.0, 1.0, 1.0))
    # Not in the module `time` itself: other threads of the process use it.
    clocks = SimpleNamespace(monotonic=now.__next__, process_time=used.__next__, thread_time=own.__next__)
    monkeypatch.setattr("flowhooks.background.reconciliation.pace.time", clocks)
    pace = Pace()
    pace.start()
    monkeypatch.setattr("flowhooks.background.reconciliation.pace.MAX_REST", 1000.0)
    pace.rest(stop)
    assert stop.rests == [pytest.approx(2 * (1 / MAX_SHARE - 1))]


def test_a_rest_is_bounded(stop, monkeypatch):
    """A page that needed much processor time does not stop the round for minutes."""
    monkeypatch.setattr("flowhooks.background.reconciliation.pace.MAX_SHARE", 1e-6)
    monkeypatch.setattr("flowhooks.background.reconciliation.pace.BUSY_SHARE", 0.0)
    pace = Pace()
    pace.start()
    work()
    elsewhere(work)
    pace.rest(stop)
    assert stop.rests == [MAX_REST]
