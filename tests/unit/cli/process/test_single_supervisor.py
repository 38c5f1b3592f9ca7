"""The supervisor of the only process: which process takes the ledger over, and when."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import time
from types import SimpleNamespace

import pytest

from flowhooks.cli.process import single_supervisor
from flowhooks.cli.process.child import ChildProcess
from flowhooks.cli.process.single_supervisor import Inheritance, SingleSupervisor


class Child:
    """A process that records its commands."""

    numbers = iter(range(100, 1000))

    def __init__(self, *_, is_successor=False, **__):
        self.pid, self.number, self.is_successor = next(self.numbers), 1, is_successor
        self.control = self
        self.received, self.why = [], "it was killed by SIGKILL"
        self.ready_at = self.released = self.stop_timeout = None
        self.has_loaded = self.has_ended = self.wants_replacement = self.has_reloaded = False
        self.stop_requested = self.killed = False
        self.succeeded = True
        self.started = time.monotonic()
        self.kill_at = self.started + 100

    def hand_over(self, *, timeout):
        """Record the command."""
        self.stop_requested = True
        self.kill_at = time.monotonic() + timeout
        self.received.append("hand over")

    def take_over(self, stopped_at):
        """Record the command."""
        self.received.append(("take over", stopped_at))

    def report_refused(self, why, started):
        """Record the message."""
        self.received.append(("refused", why, started))

    def stop(self, *, timeout):
        """Record the command."""
        self.received.append("stop")

    def reload(self):
        """Record the signal."""
        self.received.append("reload")

    def exit_reason(self):
        """Why it has exited."""
        return self.why


@pytest.fixture
def supervisor(monkeypatch):
    """A supervisor whose only process serves."""
    monkeypatch.setattr(single_supervisor, "ChildProcess", Child)
    inheritance = Inheritance(
        command=["flowhooks"], sockets={}, configured={}, control=0, pid=1, number=1, has_command=True, stopped_at=1.0,
        stop_timeout=30.0, had_terminal=True, notify="", log_level="info", log_format="json",
    )  # fmt: skip
    made = SingleSupervisor(inheritance=inheritance, sockets={}, successor=Child())
    made.successor.has_loaded, made.successor.ready_at = True, 2.0
    advance(made)
    assert made._current is not None
    assert made.successor is None
    return made


SELECTOR = SimpleNamespace(register=lambda *_: None)


def advance(supervisor):
    """Do what is due."""
    supervisor._advance(SELECTOR)


def replace(supervisor):
    """Start a successor that has loaded; return the predecessor and the successor."""
    supervisor._replace(SELECTOR)
    supervisor.successor.has_loaded = True
    advance(supervisor)
    return supervisor._current, supervisor.successor


def test_predecessor_is_notified_only_after_the_successor_has_loaded(supervisor):
    """Until then the predecessor does not know of it."""
    supervisor._replace(SELECTOR)
    advance(supervisor)
    assert supervisor._current.received == []
    assert supervisor.successor.is_successor
    supervisor.successor.has_loaded = True
    advance(supervisor)
    advance(supervisor)
    assert supervisor._current.received == ["hand over"]
    assert supervisor.successor.received == []


def test_the_successor_takes_over_the_released_ledger(supervisor):
    """It does so at once if all attempts have ended; otherwise when the predecessor has exited."""
    before, after = replace(supervisor)
    before.released = 5.0
    advance(supervisor)
    assert after.received == []
    before.has_ended = True
    advance(supervisor)
    advance(supervisor)
    assert after.received == [("take over", 5.0)]
    after.ready_at = 6.0
    advance(supervisor)
    assert (supervisor._current, supervisor.successor, supervisor._leaving) == (after, None, [before])
    supervisor._on_exit(before)
    assert supervisor._leaving == []


def test_the_reported_shutdown_timeout_of_a_predecessor_applies(supervisor):
    """The first process may have had another `shutdown.timeout` than this one."""
    supervisor._current.stop_timeout = 900.0
    before, _ = replace(supervisor)
    assert before.received == ["hand over"]
    assert before.kill_at > time.monotonic() + 900


def test_the_successor_waits_for_the_process_of_running_attempts(supervisor):
    """The successor waits until the process of such attempts has exited."""
    before, after = replace(supervisor)
    before.released = 5.0
    advance(supervisor)
    assert after.received == []
    supervisor._on_exit(before)
    advance(supervisor)
    assert after.received == [("take over", 5.0)]


@pytest.mark.parametrize("has_loaded", [False, True])
def test_a_loading_successor_replaces_a_crashed_predecessor(supervisor, has_loaded):
    """A successor that is still loading takes over as soon as it has loaded; no third process is started."""
    supervisor._replace(SELECTOR)
    after = supervisor.successor
    after.has_loaded = has_loaded
    supervisor._on_exit(supervisor._current)
    supervisor._restart_at = 0.0
    advance(supervisor)
    assert (supervisor._current, supervisor.successor) == (None, after)
    after.has_loaded = True
    advance(supervisor)
    assert [word for word, _ in after.received] == ["take over"]


def test_a_successor_that_cannot_load_changes_nothing(supervisor, logged):
    """The predecessor receives the reason, and goes on."""
    supervisor._replace(SELECTOR)
    before, failed = supervisor._current, supervisor.successor
    supervisor._on_exit(failed)
    advance(supervisor)
    assert (supervisor._current, supervisor.successor) == (before, None)
    assert before.received == [("refused", "it was killed by SIGKILL", failed.started)]
    assert [entry["event"] for entry in logged][-1] == "process_replace_failed"


def test_a_successor_that_cannot_be_started_changes_nothing(supervisor, monkeypatch, logged):
    """The predecessor receives the reason as well."""

    def cannot_start(*_, **__):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(single_supervisor, "ChildProcess", cannot_start)
    supervisor._replace(SELECTOR)
    assert supervisor.successor is None
    ((word, why, _),) = supervisor._current.received
    assert (word, why) == ("refused", "a process could not be started: Cannot allocate memory")
    assert [entry["event"] for entry in logged] == ["process_replacing", "process_replace_failed"]
    assert supervisor._restart_at == 0.0


def test_a_process_is_started_after_both_processes_have_exited(supervisor):
    """The last of them to die is followed by a process that waits for no other."""
    before, after = replace(supervisor)
    supervisor._on_exit(after)
    assert supervisor._current is before
    supervisor._on_exit(before)
    supervisor._restart_at = 0.0
    advance(supervisor)
    assert not supervisor._current.is_successor
    assert supervisor._current not in {before, after}


def test_a_reload_during_a_replacement_reaches_the_successor(supervisor):
    """SIGHUP during a replacement reaches the successor."""
    before, after = replace(supervisor)
    supervisor._reload_pending = True
    advance(supervisor)
    before.released, before.has_ended, after.ready_at = 5.0, True, 6.0
    advance(supervisor)
    assert before.received == ["hand over"]
    assert after.received[-1] == "reload"


def test_a_reload_reaches_a_loading_successor(supervisor, monkeypatch):
    """The successor may have read the settings before they were changed."""
    monkeypatch.setattr(single_supervisor, "has_terminal", lambda: True)
    supervisor._replace(SELECTOR)
    before, after = supervisor._current, supervisor.successor
    supervisor._on_signal(signal.SIGHUP, SELECTOR)
    advance(supervisor)
    after.has_loaded, before.released, before.has_ended, after.ready_at = True, 5.0, True, 6.0
    for _ in range(2):
        advance(supervisor)
    assert before.received == ["reload"]
    assert [word for word in after.received if word == "reload"] == ["reload"]


def test_sighup_after_the_terminal_closed_stops_the_process(supervisor, monkeypatch):
    """SIGHUP requests a reload as long as there is a terminal."""
    has_terminal = True
    monkeypatch.setattr(single_supervisor, "has_terminal", lambda: has_terminal)
    for _ in range(2):
        supervisor._on_signal(signal.SIGHUP, SELECTOR)
        advance(supervisor)
        has_terminal = False
    supervisor._on_signal(signal.SIGHUP, SELECTOR)  # a shell and the system may both send it
    assert supervisor._current.received == ["reload", "stop"]


def test_a_process_can_request_its_replacement(supervisor):
    """It does so when the signal was sent to it."""
    supervisor._current.wants_replacement = True
    advance(supervisor)
    advance(supervisor)
    assert supervisor.successor is not None
    assert not supervisor._current.wants_replacement


@pytest.mark.parametrize("exits", [False, True])
def test_a_request_during_a_replacement_causes_another_replacement(supervisor, exits):
    """The successor may have read a file before it was changed."""
    before, after = replace(supervisor)
    before.wants_replacement, before.released, before.has_ended = True, 5.0, True
    if exits:
        supervisor._on_exit(before)
    advance(supervisor)
    assert supervisor.successor is after
    after.ready_at = 6.0
    advance(supervisor)
    assert supervisor._current is after
    assert supervisor.successor not in {None, after}


def test_a_request_while_a_successor_loads_causes_another_replacement(supervisor):
    """It does so even if the successor fails, because the error may have been corrected since."""
    supervisor._replace(SELECTOR)
    failed = supervisor.successor
    supervisor._on_signal(signal.SIGUSR2, SELECTOR)
    supervisor._on_exit(failed)
    advance(supervisor)
    assert supervisor.successor not in {None, failed}


def test_an_exited_process_with_an_open_link_in_its_child(supervisor):
    """The supervisor does not wait for the end of what still has the other end of its link open."""
    ours, theirs = socket.socketpair()
    with ours, theirs, selectors.DefaultSelector() as selector:
        child = ChildProcess.adopt(os.getpid(), 0, ours)
        theirs.sendall(b'{"failed": "no settings", "code": 2}\n')
        supervisor._close(child, selector)
        assert child.exit_reason() == "no settings"
