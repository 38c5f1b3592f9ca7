"""Keeping threads on one core, and letting handlers' threads use all."""

from __future__ import annotations

import os
import threading

import pytest

from flowhooks import cores
from flowhooks.clock import Clock
from flowhooks.delivery import Queued
from flowhooks.runners.embedded import Embedded

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no core affinity")


def in_a_thread(function):
    """What `function` returns in a thread of its own, whose cores die with it."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_gathered_threads_keep_to_one_core_and_so_do_those_they_start():
    """After `gather`, a thread and its children may use one core, which is one of those it had."""
    before = os.sched_getaffinity(0)

    def gathered():
        had = cores.gather()
        return had, os.sched_getaffinity(0), in_a_thread(lambda: os.sched_getaffinity(0))

    had, own, inherited = in_a_thread(gathered)
    assert had == before
    assert len(own) == 1
    assert own <= before
    assert inherited == own


def test_a_spread_thread_has_all_its_cores_back():
    """`spread` undoes `gather` for the thread that calls it."""

    def spread():
        cores.spread(cores.gather())
        return os.sched_getaffinity(0)

    assert in_a_thread(spread) == os.sched_getaffinity(0)


def test_spreading_to_nothing_or_to_what_is_not_there_changes_nothing():
    """No cores, or cores that the machine does not have, leave a thread where it was."""

    def spread():
        cores.spread(frozenset())
        cores.spread(frozenset({100_000}))
        return os.sched_getaffinity(0)

    assert in_a_thread(spread) == os.sched_getaffinity(0)


def test_handlers_may_use_every_core():
    """Where the process keeps to one core, the threads that run handlers do not."""
    stop, seen = threading.Event(), []

    def execute(_queued, _claimed):
        seen.append(os.sched_getaffinity(0))
        stop.set()

    def serve():
        had = cores.gather()
        offered = [Queued("d", "p:h", 0)]
        Embedded(threads=1, due=lambda _now, _most: offered, clock=Clock(), cores=had).run(execute, stop)

    in_a_thread(serve)
    assert seen == [os.sched_getaffinity(0)]
