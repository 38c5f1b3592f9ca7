"""The limit of a start: a process that loads for too long is killed, but not one that works on the ledger for long.

Meanwhile the process notifies the service manager, which has a limit of its own, that the start goes on.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from flowhooks.cli.process import sd_notify
from flowhooks.cli.process.child import ChildProcess
from flowhooks.cli.process.context import ProcessContext
from flowhooks.cli.process.inherited import InheritedSockets
from flowhooks.cli.process.restart_delay import START_TIMEOUT
from flowhooks.cli.process.sd_notify import ServiceManager
from flowhooks.cli.process.single_supervisor import Inheritance, SingleSupervisor
from flowhooks.cli.process.supervisor import Slot, Supervisor
from flowhooks.settings import Settings
from support.waiting import WAIT_TIMEOUT, until

EXTENSION = b"EXTEND_TIMEOUT_USEC=60000000"
SELECTOR = SimpleNamespace()


@pytest.fixture(params=["loading", "loaded"])
def child(request):
    """A process that is started, and has loaded its plugins or not."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = ChildProcess.adopt(os.getpid(), 0, ours)
        made.has_loaded, made.kill_at = False, made.started + START_TIMEOUT  # as if it was started here
        made._process = SimpleNamespace(kill=lambda: None)
        if request.param == "loaded":
            finish_loading(InheritedSockets(0, {}, theirs))
        made.receive()
        assert made.has_loaded is (request.param == "loaded")
        yield made


def finish_loading(link, service_manager=None, **signals):
    """Do what any process does when it has loaded its plugins; return its context."""
    context = ProcessContext(
        started=0.0, source=None, inherited=link, service_manager=service_manager, reread_settings=None,
        configure_log=None, environ={}, configured={},
    )  # fmt: skip
    context.finish_loading(SimpleNamespace(finish_loading=lambda: None, **signals))
    return context


@pytest.fixture
def manager(tmp_path):
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.settimeout(WAIT_TIMEOUT)
        bound.bind(str(tmp_path / "notify"))
        yield bound


@pytest.fixture
def notified(manager, monkeypatch):
    """The service manager, to which a start that goes on is reported every 50 ms."""
    monkeypatch.setattr(sd_notify, "EXTENSION_INTERVAL", 0.05)
    return ServiceManager(manager.getsockname())


def threads():
    """The threads that extend the start of a process."""
    return [thread for thread in threading.enumerate() if thread.name == "start"]


def received(manager):
    """The messages that have arrived."""
    messages = []
    manager.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            messages.append(manager.recv(1000))
    return messages


def test_a_start_that_works_on_the_ledger_is_extended_until_it_is_ready(manager, notified):
    """The service manager is notified repeatedly, and not any more after the process is ready."""
    context = finish_loading(None, notified, was_received=False)
    assert [manager.recv(1000) for _ in range(2)] == [EXTENSION] * 2
    context.report_ready(Settings())
    until(lambda: not threads())
    assert [message for message in received(manager) if message != EXTENSION] == [b"READY=1"]


def test_a_start_is_extended_as_soon_as_the_plugins_are_loaded(manager):
    """The loading may have taken most of the service manager's limit."""
    context = finish_loading(None, ServiceManager(manager.getsockname()), was_received=False)
    assert manager.recv(1000) == EXTENSION
    context.report_ready(Settings())
    until(lambda: not threads())


def test_a_supervisor_extends_a_start_as_soon_as_a_process_has_loaded(manager):
    """Not only after the next interval."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = ChildProcess.adopt(os.getpid(), 0, ours)
        child.has_loaded = False  # as if it was started here
        supervisor = Supervisor(
            settings=Settings(), sockets={}, load=None, on_settings=None,
            service_manager=ServiceManager(manager.getsockname()),
        )  # fmt: skip
        supervisor._slots = [Slot(0, current=child)]
        finish_loading(InheritedSockets(0, {}, theirs))
        supervisor._receive(child, SELECTOR)
        supervisor._extend_start()
        assert received(manager) == [EXTENSION]


def test_a_start_that_has_to_stop_is_not_extended(manager, notified):
    """After SIGTERM the service manager has another limit, which is kept."""
    finish_loading(None, notified, was_received=True)
    until(lambda: not threads())
    assert received(manager) == []


def test_a_start_without_a_service_manager_has_no_thread():
    """There is nobody to notify."""
    finish_loading(None, ServiceManager(""), was_received=False)
    assert threads() == []


def test_a_supervisor_extends_the_start_of_processes_that_have_loaded(child, manager, notified):
    """A process that loads has a limit of its own."""
    supervisor = Supervisor(settings=Settings(), sockets={}, load=None, on_settings=None, service_manager=notified)
    supervisor._slots = [Slot(0, current=child)]
    assert supervisor._seconds_until_due() <= sd_notify.EXTENSION_INTERVAL
    until(lambda: supervisor._seconds_until_due() == 0)
    supervisor._extend_start()
    assert received(manager) == [EXTENSION] * child.has_loaded
    child.ready_at = time.monotonic()
    supervisor._notify_when_ready()
    assert received(manager) == [b"READY=1"]
    child.kill_at = 0.0
    assert supervisor._seconds_until_due() is None


@pytest.fixture
def wait_for_limit(child, monkeypatch):
    """A function that lets the limit of a start pass."""
    return lambda: monkeypatch.setattr(time, "monotonic", lambda: child.started + START_TIMEOUT + 1)


def test_only_loading_has_a_limit_under_a_supervisor_of_several_processes(child, wait_for_limit):
    """The process is not ready in either case."""
    supervisor = Supervisor(settings=Settings(), sockets={}, load=None, on_settings=None, service_manager=None)
    supervisor._slots = [Slot(0, current=child)]
    wait_for_limit()
    supervisor._continue_replacement(SELECTOR)
    assert child.killed is not child.has_loaded


def test_only_loading_has_a_limit_under_the_supervisor_of_one_process(child, wait_for_limit):
    """A process that was started after a crash, and has loaded, registers its handlers for as long as that takes."""
    supervisor = single_supervisor(None)
    supervisor._current = child
    wait_for_limit()
    supervisor._advance(SELECTOR)
    assert child.killed is not child.has_loaded


def test_a_successor_that_has_taken_over_has_no_limit(child, wait_for_limit):
    """It works on the ledger from then on."""
    supervisor = single_supervisor(child)
    supervisor._advance(SELECTOR)
    assert supervisor._has_command is child.has_loaded
    wait_for_limit()
    supervisor._advance(SELECTOR)
    assert child.killed is not child.has_loaded


def single_supervisor(successor):
    """A supervisor of this process, whose predecessor has released the ledger."""
    inheritance = Inheritance(
        command=["flowhooks"], sockets={}, configured={}, control=0, pid=1, number=1, has_command=False, stopped_at=1.0,
        stop_timeout=30.0, had_terminal=True, notify="", log_level="info", log_format="json",
    )  # fmt: skip
    return SingleSupervisor(inheritance=inheritance, sockets={}, successor=successor)
