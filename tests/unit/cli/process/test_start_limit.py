"""The limit of a start: a process that loads for too long is killed, but not one that works on the ledger for long."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowhooks.cli.process.child import ChildProcess
from flowhooks.cli.process.context import ProcessContext
from flowhooks.cli.process.inherited import InheritedSockets
from flowhooks.cli.process.restart_delay import START_TIMEOUT
from flowhooks.cli.process.single_supervisor import Inheritance, SingleSupervisor
from flowhooks.cli.process.supervisor import Slot, Supervisor
from flowhooks.settings import Settings

SELECTOR = SimpleNamespace()


@pytest.fixture(params=["loading", "loaded"])
def child(request):
    """A process that is started, and has loaded its plugins or not."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = ChildProcess.adopt(os.getpid(), 0, ours, start_timeout=START_TIMEOUT)
        made._process = SimpleNamespace(kill=lambda: None)
        if request.param == "loaded":
            finish_loading(InheritedSockets(0, {}, theirs))
        made.receive()
        assert made.has_loaded is (request.param == "loaded")
        yield made


def finish_loading(link):
    """Do what any process does when it has loaded its plugins."""
    context = ProcessContext(
        started=0.0, source=None, inherited=link, service_manager=None, reread_settings=None, configure_log=None,
        environ={}, folder=Path(), configured={},
    )  # fmt: skip
    context.finish_loading(SimpleNamespace(finish_loading=lambda: None))


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
