"""The supervisor's reaction to the exit of one of its processes."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from types import SimpleNamespace

import pytest

from flowhooks.cli.process.child import ChildProcess
from flowhooks.cli.process.inherited import InheritedSockets
from flowhooks.cli.process.supervisor import Slot, Supervisor
from flowhooks.settings import Settings


@pytest.fixture
def supervisor():
    """A supervisor of one process."""
    return Supervisor(
        settings=Settings(),
        sockets={},
        load=None,
        on_settings=lambda settings: None,
        service_manager=SimpleNamespace(stopping=lambda: None, reloading=lambda: None),
    )


def exited(ready_at):
    """A process that was killed."""
    return SimpleNamespace(
        pid=1, number=0, ready_at=ready_at, start_error="", exit_code=1, stop_requested=False,
        exit_reason=lambda: "it was killed by SIGKILL",
    )  # fmt: skip


def test_a_process_exit_before_ready_ends_the_start(supervisor):
    """A process that exits before it is ready ends the start, because the settings or the machine are wrong."""
    slot = Slot(0)
    slot.current = child = exited(None)
    supervisor._on_exit(slot, child)
    assert supervisor._start_failure == ("a process could not start: it was killed by SIGKILL", 1)


def test_a_process_that_exits_right_after_ready_is_restarted(supervisor, logged):
    """A process is restarted if its ready report and its exit arrive together."""
    slot = Slot(0)
    slot.current = child = exited(time.monotonic())
    supervisor._on_exit(slot, child)
    assert supervisor._start_failure is None
    assert slot.restart_at > 0
    assert [entry["event"] for entry in logged] == ["process_died"]


def test_sighup_after_the_terminal_closed_stops_all_processes(supervisor, monkeypatch):
    """SIGHUP replaces the processes as long as there is a terminal, or if there never was one."""
    done = []
    monkeypatch.setattr(Supervisor, "_reload", lambda _: done.append("reload"))
    monkeypatch.setattr(Supervisor, "_stop_all", lambda _: done.append("stop"))
    for had, has in ((False, False), (True, True), (True, False)):
        supervisor._had_terminal = had
        monkeypatch.setattr("flowhooks.cli.process.supervisor.has_terminal", lambda has=has: has)
        supervisor._on_signal(signal.SIGHUP)
    assert done == ["reload", "reload", "stop"]


def test_an_exception_in_a_reload_does_not_stop_the_processes(supervisor, logged):
    """An exception that no check of the settings has foreseen is logged, and the processes continue."""

    def fail():
        raise RecursionError("maximum recursion depth exceeded")

    supervisor.load = fail
    supervisor._reload()
    assert [(record["event"], record["why"]) for record in logged] == [
        ("process_replace_failed", "an error in flowhooks")
    ]
    assert not supervisor._replacing


def test_a_process_continues_the_counts_of_an_exited_process(supervisor, monkeypatch):
    """Two processes that run never count in the same files."""
    monkeypatch.setattr("flowhooks.cli.process.supervisor.ChildProcess", _StartedChild)
    selector = SimpleNamespace(register=lambda *_: None)
    supervisor._slots = first, second = [Slot(0), Slot(1)]
    supervisor._start_due_slots(selector)
    first.successor = supervisor._start(first, selector)
    first.retiring, first.current, first.successor = first.current, first.successor, None
    second.current = None  # it has died
    supervisor._start_due_slots(selector)
    first.retiring = None
    second.successor = supervisor._start(second, selector)
    numbers = [child.metrics_number for child in (first.current, second.current, second.successor)]
    assert numbers == [2, 1, 0]


def test_a_successor_that_cannot_be_started_is_a_failed_replacement(supervisor, monkeypatch, logged):
    """The log says that the old processes continue, and what to do; nothing starts the successor again."""
    slot = Slot(0, current=SimpleNamespace(generation=0, ready_at=1.0, kill_at=0.0, metrics_number=0))
    supervisor._slots, supervisor._generation, supervisor._replacing, supervisor._was_ready = [slot], 1, True, True
    monkeypatch.setattr("flowhooks.cli.process.supervisor.ChildProcess", _cannot_start)
    supervisor._continue_replacement(SimpleNamespace())
    assert [(entry["event"], entry["why"], entry["old"]) for entry in logged] == [
        ("process_replace_failed", "a process could not be started: Cannot allocate memory", 1)
    ]
    assert not supervisor._replacing
    assert slot.restart_at == 0.0


def _cannot_start(*_, **__):
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


class _StartedChild(SimpleNamespace):
    """A process that has started."""

    def __init__(self, number, *_, metrics_number, **__):
        super().__init__(pid=100 + metrics_number, number=number, metrics_number=metrics_number, control=None)


def test_supervisor_sleeps_while_the_successor_of_an_exited_process_loads(supervisor):
    """No process is started in place of the dead one meanwhile, so there is nothing to do."""
    slot = Slot(0, restart_at=time.monotonic() - 1)
    slot.successor = SimpleNamespace(kill_at=time.monotonic() + 100, killed=False)
    supervisor._slots = [slot]
    assert supervisor._seconds_until_due() > 0


def test_a_ready_process_gets_no_second_signal():
    """Its report may not have been read yet. A service manager may have signalled all processes."""
    signalled = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = ChildProcess.adopt(1, 0, ours)
        child._process = SimpleNamespace(terminate=lambda: signalled.append(child))
        child.stop(timeout=1)
        assert signalled == [child]
        InheritedSockets(0, {}, theirs).report_ready(910.0)
        child.stop(timeout=1)
    assert signalled == [child]


def test_the_reported_shutdown_timeout_of_a_process_applies(supervisor):
    """Each process has read `shutdown.timeout` at its own start; the limit of one that is not ready is estimated."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = ChildProcess.adopt(os.getpid(), 0, ours)
        InheritedSockets(0, {}, theirs).report_ready(910.0)
        child.receive()
    timeouts = {}
    slot = Slot(0)
    slot.current, slot.successor = (
        SimpleNamespace(stop_timeout=stop_timeout, stop=lambda *, timeout, name=name: timeouts.update({name: timeout}))
        for name, stop_timeout in (("ready", child.stop_timeout), ("starting", None))
    )
    supervisor._slots = [slot]
    supervisor._stop_all()
    assert timeouts["ready"] > 910
    assert 0 < timeouts["starting"] < 910
