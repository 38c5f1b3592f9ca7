"""Threads share one core, and handlers' threads may use all cores."""

from __future__ import annotations

import json
import os
import sys
import threading
from functools import partial
from types import SimpleNamespace

import pytest

from flowhooks.app import App
from flowhooks.background.file_watch import FileWatch
from flowhooks.cli.process import serving
from flowhooks.execution import cpu_affinity
from flowhooks.intake.callback import Callback
from flowhooks.settings import Settings
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no core affinity")


def in_a_thread(function):
    """The result of `function` in a new thread, so that its core settings end with it."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_pinned_threads_and_their_children_use_one_core():
    """After `pin`, a thread and its children use one core, one of its previous cores."""
    before = os.sched_getaffinity(0)

    def pinned():
        had = cpu_affinity.pin()
        return had, os.sched_getaffinity(0), in_a_thread(lambda: os.sched_getaffinity(0))

    had, own, inherited = in_a_thread(pinned)
    assert had == before
    assert len(own) == 1
    assert own <= before
    assert inherited == own


def test_several_processes_are_pinned_to_the_cores_in_turn():
    """Each process takes the next core in rotation; its handlers return to that core."""
    before = sorted(os.sched_getaffinity(0), reverse=True)

    def pinned(number):
        room = cpu_affinity.HandlerAffinity(cpu_affinity.pin(number))
        own = os.sched_getaffinity(0)
        return own, seen_by(room, "p:h")[1]

    found = [in_a_thread(lambda number=number: pinned(number)) for number in range(len(before) + 1)]
    assert found == [({core}, {core}) for core in (*before, before[0])]


def test_unpin_gives_a_thread_all_its_cores():
    """`unpin` undoes `pin` for the calling thread."""

    def unpinned():
        cpu_affinity.unpin(cpu_affinity.pin())
        return os.sched_getaffinity(0)

    assert in_a_thread(unpinned) == os.sched_getaffinity(0)


def test_unpin_to_empty_or_impossible_cores_changes_nothing():
    """An empty or impossible set of cores does not move a thread."""

    def unpinned():
        cpu_affinity.unpin(frozenset())
        cpu_affinity.unpin(frozenset({100_000}))
        return os.sched_getaffinity(0)

    assert in_a_thread(unpinned) == os.sched_getaffinity(0)


def test_a_large_file_is_checked_on_all_cores():
    """The check of a large database file does not compete with the server's own threads for their core."""
    used = []

    def check():
        guard.unchecked = False
        used.append(os.sched_getaffinity(0))

    guard = SimpleNamespace(unchecked=True, unconfirmed=False, check=check, find_problem=lambda: None)

    def watched():
        unpin = partial(cpu_affinity.unpin, cpu_affinity.pin())
        watch = FileWatch(SimpleNamespace(guard=guard), SimpleNamespace(restore=lambda: None), unpin=unpin)
        watch.start()
        watch.stop(WAIT_TIMEOUT)

    in_a_thread(watched)
    until(lambda: used)
    assert used == [os.sched_getaffinity(0)]


def seen_by(room, handler, *, seconds=0.0):
    """The cores of the calling thread while `handler` runs for `seconds`, and afterwards."""
    wide = room.acquire(handler)
    within = os.sched_getaffinity(0)
    room.release(handler, seconds, unpinned=wide)
    return within, os.sched_getaffinity(0)


def in_one_room(*runs):
    """The results of `seen_by` for each (handler, seconds) in turn, in one thread with one core."""

    def gathered():
        room = cpu_affinity.HandlerAffinity(cpu_affinity.pin())
        return [seen_by(room, handler, seconds=seconds) for handler, seconds in runs]

    return in_a_thread(gathered)


def test_the_first_attempt_of_a_handler_may_use_every_core():
    """The first attempt of a handler has all cores; its thread returns to the one core afterwards."""
    ((within, after),) = in_one_room(("p:h", 0.0))
    assert within == os.sched_getaffinity(0)
    assert after == {max(within)}


def test_a_quick_handler_stays_on_one_core():
    """A short attempt does not move the thread again; another handler still has all cores."""
    _first, (again, _), (other, _) = in_one_room(("p:h", 0.001), ("p:h", 0.001), ("p:other", 0.001))
    assert again == {max(other)}
    assert other == os.sched_getaffinity(0)


def test_a_slow_handler_may_use_every_core_again():
    """After one slow attempt a handler has all cores again."""
    *_, (within, after) = in_one_room(("p:h", 0.001), ("p:h", 1.0), ("p:h", 1.0))
    assert within == os.sched_getaffinity(0)
    assert after == {max(within)}


def test_a_process_without_gathered_threads_moves_no_thread():
    """A process that did not gather its threads does not move them."""
    before = os.sched_getaffinity(0)
    assert in_a_thread(lambda: seen_by(cpu_affinity.HandlerAffinity(), "p:h", seconds=1.0)) == (before, before)


def test_a_served_handler_may_use_every_core(harness, make_plugin, listens):
    """An app with known cores runs the first attempt of a handler on all of them."""
    found = []
    plugin = make_plugin(listens(lambda _event: found.append(os.sched_getaffinity(0))))

    def serve():
        had = cpu_affinity.pin()
        app = App(harness.settings(allow=("p",)), objects={"p": plugin}, cores=had)
        app.start()
        body = {"processDefinitionKey": "leave"}
        app.intake.accept(
            Callback(source="default", kind="complete", flow_instance_id="i", body=body, text=json.dumps(body)),
            wait=20,
        )
        app.close(20)
        return had

    assert found == [in_a_thread(serve)]


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, False),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, True),
        ("0::/\n", {}, False),
        ("0::/system.slice/flowhooks.service\n", {"system.slice/cpu.max": "50000 100000\n"}, True),
        ("0::/system.slice/flowhooks.service\n", {"system.slice/flowhooks.service/cpu.max": "max 100000\n"}, False),
        ("0::/of/the/host\n", {"cpu.max": "150000 100000\n"}, True),
        ("4:memory:/a\n2:cpu,cpuacct:/b\n", {"cpu,cpuacct/b/cpu.cfs_quota_us": "50000\n"}, True),
        ("2:cpu,cpuacct:/b\n", {"cpu,cpuacct/b/cpu.cfs_quota_us": "-1\n"}, False),
        ("2:cpuset:/b\n", {"cpuset/b/cpu.cfs_quota_us": "50000\n"}, False),
        ("", {}, False),
        ("nonsense\n", {}, False),
    ],
)
def test_a_quota_of_processor_time(tmp_path, membership, files, expected):
    """The limit of the process's own control group or of a group above it counts."""
    (tmp_path / "cgroup").write_text(membership)
    for name, content in files.items():
        file = tmp_path / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    assert cpu_affinity.has_cpu_quota(tmp_path / "cgroup", tmp_path / "mounted") is expected


@pytest.mark.parametrize("quota", [True, False])
def test_a_process_with_a_quota_does_not_change_its_cores(monkeypatch, quota):
    """Containers that share cores would choose the same one."""
    monkeypatch.setattr(serving, "has_cpu_quota", lambda: quota)
    monkeypatch.setattr(serving.malloc, "limit_arenas", lambda: False)
    before = os.sched_getaffinity(0)
    interval = sys.getswitchinterval()

    def tuned():
        return serving.tune_process(Settings()), os.sched_getaffinity(0)

    handlers, own = in_a_thread(tuned)
    sys.setswitchinterval(interval)
    assert (handlers, own) == (frozenset(), before) if quota else (handlers == before and len(own) == 1)
