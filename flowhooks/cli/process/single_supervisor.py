"""Supervisor of a server that is the only process: replaces it without refusing a callback.

A server has no supervisor until it is replaced for the first time. Then it executes this one in its own place, with its
process id, its listening sockets and its successor. The supervisor loads no settings, no plugin and no database.

One rule decides: a successor that has loaded takes the ledger over as soon as no other process has it, whether its
predecessor has released it or died. If no process is left, one is started.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from flowhooks.cli.process import STATE_VARIABLE
from flowhooks.cli.process.child import ChildProcess
from flowhooks.cli.process.restart_delay import START_TIMEOUT, next_restart_delay
from flowhooks.cli.process.sd_notify import ServiceManager
from flowhooks.cli.process.signals import has_terminal
from flowhooks.observability import logging
from flowhooks.signals import STOP_SIGNALS, SignalWaiter
from flowhooks.sockets import socket_from_file

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPERVISOR_SIGNALS: Final = (*STOP_SIGNALS, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
"""Signals that the supervisor handles; they are blocked while a server executes the supervisor."""
STOP_MARGIN: Final = 120.0
"""Seconds beyond `shutdown.timeout` and `http.read_timeout` after which a process that ends is killed."""
NEXT: Final = "the running process continues; fix the error, then run `flowhooks restart` again"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inheritance:
    """The state that a server passes to the supervisor that it executes.

    Attributes:
        command: the command line of the server.
        sockets: file descriptors of the listening sockets, by the name of their setting.
        configured: the addresses in the settings with which these sockets were opened, by the same name.
        control: file descriptor of the link to the successor.
        pid: process id of the successor.
        number: number of replacements so far.
        has_command: whether the successor has the command to take the ledger over.
        stopped_at: since when no connection is accepted, by `time.monotonic`.
        stop_timeout: seconds that a process may take for an orderly end if it has not reported how many.
        had_terminal: whether the server had a terminal at its start, whose end stops it.
        notify: the service manager's socket; `""` if there is none.
        log_level: least severe level that is logged.
        log_format: format of the log.
    """

    command: list[str]
    sockets: dict[str, int]
    configured: dict[str, str]
    control: int
    pid: int
    number: int
    has_command: bool
    stopped_at: float
    stop_timeout: float
    had_terminal: bool
    notify: str
    log_level: str
    log_format: Any

    def to_json(self) -> dict[str, Any]:
        """Return the value as JSON."""
        return asdict(self)


def supervise(inherited: str) -> int:
    """Supervise the successor of the server that executed this program.

    Args:
        inherited: the `Inheritance` as JSON text.

    Returns:
        The exit code.
    """
    try:
        inheritance = Inheritance(**json.loads(inherited))
    except (ValueError, TypeError):
        print(f"Error: {STATE_VARIABLE} is for internal use: unset it", file=sys.stderr)  # noqa: T201 (no log yet)
        return 2
    logging.configure(inheritance.log_level, inheritance.log_format, pid=os.getpid())
    control = socket_from_file(inheritance.control)
    sockets = {name: socket.socket(fileno=number) for name, number in inheritance.sockets.items()}
    for sock in (control, *sockets.values()):
        sock.set_inheritable(False)
    successor = ChildProcess.adopt(inheritance.pid, inheritance.number, control)
    return SingleSupervisor(inheritance=inheritance, sockets=sockets, successor=successor).run()


@dataclass(slots=True, kw_only=True)
class SingleSupervisor:
    """Keeps one process running until SIGTERM or SIGINT, and replaces it on SIGUSR2.

    Args:
        inheritance: what the server passed that executed this supervisor.
        sockets: the listening sockets, by the name of their setting.
        successor: the process that has loaded, and takes the ledger over.
    """

    inheritance: Inheritance
    sockets: dict[str, socket.socket]
    successor: ChildProcess | None
    _current: ChildProcess | None = field(init=False, default=None)
    _leaving: list[ChildProcess] = field(init=False, default_factory=list)
    _has_command: bool = field(init=False)
    _stopped_at: float = field(init=False)
    _number: int = field(init=False)
    _service_manager: ServiceManager = field(init=False)
    _reload_pending: bool = field(init=False, default=False)
    _reload_again: bool = field(init=False, default=False)
    _replace_again: bool = field(init=False, default=False)
    _stopping: bool = field(init=False, default=False)
    _restart_delay: float = field(init=False, default=0.0)
    _restart_at: float = field(init=False, default=0.0)
    _exit_code: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._has_command, self._stopped_at = self.inheritance.has_command, self.inheritance.stopped_at
        self._number = self.inheritance.number
        self._service_manager = ServiceManager(self.inheritance.notify)

    def run(self) -> int:
        """Run until shutdown; return the exit code."""
        with SignalWaiter(SUPERVISOR_SIGNALS) as signals, selectors.DefaultSelector() as selector:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISOR_SIGNALS)
            selector.register(signals.reader, selectors.EVENT_READ)
            log.info("supervisor_started", processes=1)
            if self.successor is not None:
                self.successor.report_supervised()
                selector.register(self.successor.control, selectors.EVENT_READ, self.successor)
            while not self._stopping or any(self._children()):
                self._advance(selector)
                ready = selector.select(self._seconds_until_due())
                for number in signals.read():
                    self._on_signal(signal.Signals(number), selector)
                for key, _ in ready:
                    if isinstance(key.data, ChildProcess) and not key.data.receive():
                        selector.unregister(key.fileobj)
                for child in list(self._children()):
                    if child.has_exited():
                        self._close(child, selector)
                        self._on_exit(child)
        log.info("supervisor_stopped", code=self._exit_code)
        return self._exit_code

    def _children(self) -> Iterator[ChildProcess]:
        return (child for child in (self._current, self.successor, *self._leaving) if child is not None)

    def _seconds_until_due(self) -> float | None:
        times = [child.kill_at for child in self._children() if child.kill_at and not child.killed]
        if self._current is None and self.successor is None and not self._stopping:
            times.append(self._restart_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _stop_timeout(self, child: ChildProcess) -> float:
        return STOP_MARGIN + (self.inheritance.stop_timeout if child.stop_timeout is None else child.stop_timeout)

    # events

    def _on_signal(self, number: signal.Signals, selector: selectors.BaseSelector) -> None:
        if number in STOP_SIGNALS:
            if self._stopping:
                for child in self._children():
                    child.kill()
                os._exit(128 + number)
            self._stop_all()
        elif self._stopping:
            return
        elif number == signal.SIGUSR2:
            self._replace(selector)
        elif number == signal.SIGHUP and self.inheritance.had_terminal and not has_terminal():
            self._stop_all()
        elif number == signal.SIGHUP:
            self._service_manager.reloading()
            self._reload_pending = True
            self._reload_again = self.successor is not None

    def _stop_all(self) -> None:
        log.info("stopping_all", processes=sum(1 for _ in self._children()))
        self._stopping = True
        self._service_manager.stopping()
        for sock in self.sockets.values():
            sock.close()  # connections are refused once the last process has closed it
        for child in self._children():
            child.stop(timeout=self._stop_timeout(child))

    def _replace(self, selector: selectors.BaseSelector) -> None:
        if self.successor is not None:
            self._replace_again = True  # the successor may have read a file before it was changed
            return
        if self._current is None:
            return  # a process that starts anyway loads the current files
        log.info("process_replacing", processes=1)
        self._number += 1
        self.successor = self._start(selector, is_successor=True)
        self._has_command = False

    def _close(self, child: ChildProcess, selector: selectors.BaseSelector) -> None:
        child.receive_last()
        with contextlib.suppress(KeyError):
            selector.unregister(child.control)
        child.close()

    def _on_exit(self, child: ChildProcess) -> None:
        is_expected = child.stop_requested or self._stopping
        if is_expected and child.ready_at is not None and not child.succeeded:
            log.warning("process_ended", process=child.pid, number=child.number, why=child.exit_reason())
            self._exit_code = 1 if self._stopping else self._exit_code
        if child in self._leaving:
            self._leaving.remove(child)
        elif child is self._current:
            self._current = None
            self._stopped_at = time.monotonic() if child.released is None else child.released
            self._replace_again |= child.wants_replacement and self.successor is not None
            if not is_expected:
                self._on_died(child)
        else:
            self.successor = None
            if is_expected:
                return
            if self._current is not None and not self._current.stop_requested:
                self._refuse(child.exit_reason(), child.started)
            else:
                self._on_died(child)

    def _refuse(self, why: str, started: float) -> None:
        log.error("process_replace_failed", why=why, next=NEXT)
        if self._current is not None:
            self._current.report_refused(why, started)

    def _on_died(self, child: ChildProcess) -> None:
        uptime = 0.0 if child.ready_at is None else time.monotonic() - child.ready_at
        self._restart_delay = next_restart_delay(self._restart_delay, uptime)
        self._restart_at = time.monotonic() + self._restart_delay
        log.error(
            "process_died",
            process=child.pid,
            number=child.number,
            why=child.exit_reason(),
            lived=round(uptime, 1),
            again_in=self._restart_delay,
        )

    # actions

    def _advance(self, selector: selectors.BaseSelector) -> None:
        """Do what is due now."""
        self._kill_late()
        if self._stopping:
            return
        if self.successor is not None:
            self._advance_successor(self.successor)
        if self._replace_again and self.successor is None:
            self._replace_again = False
            self._replace(selector)
        if self._current is None and self.successor is None and self._restart_at <= time.monotonic():
            self._current = self._start(selector, is_successor=False)
        if self._current is not None and self._current.ready_at is not None:
            self._serve_requests(self._current, selector)

    def _kill_late(self) -> None:
        now = time.monotonic()
        for child in self._children():
            if child.kill_at and child.kill_at <= now and not child.killed:
                why = "it does not stop in time" if child.stop_requested else "it does not start in time"
                log.error("process_killed", process=child.pid, why=why)
                child.kill()

    def _serve_requests(self, current: ChildProcess, selector: selectors.BaseSelector) -> None:
        """Do what the running process asks for, and what it is asked for."""
        if current.wants_replacement:
            current.wants_replacement = False
            self._replace(selector)
        if self._reload_pending and not current.stop_requested:
            self._reload_pending = False
            current.reload()
        if current.has_reloaded:
            current.has_reloaded = False
            self._service_manager.ready()

    def _advance_successor(self, successor: ChildProcess) -> None:
        current = self._current
        if not successor.has_loaded:
            return
        if not self._has_command:
            if current is None:
                self._let_take_over(successor, self._stopped_at)
            elif current.released is not None and current.has_ended:
                self._let_take_over(successor, current.released)
            elif not current.stop_requested and current.ready_at is not None:
                current.hand_over(timeout=self._stop_timeout(current))
        if successor.ready_at is not None:
            if current is not None:
                self._leaving.append(current)
            self._current, self.successor = successor, None
            self._reload_pending, self._reload_again = self._reload_pending or self._reload_again, False
            log.info("process_replaced", processes=1)

    def _let_take_over(self, successor: ChildProcess, stopped_at: float) -> None:
        self._has_command = True
        successor.take_over(stopped_at)

    def _start(self, selector: selectors.BaseSelector, *, is_successor: bool) -> ChildProcess | None:
        try:
            child = ChildProcess(
                self._number,
                0,
                self.sockets,
                metrics_dir=None,
                start_timeout=START_TIMEOUT,
                command=self.inheritance.command,
                is_only=True,
                is_successor=is_successor,
                configured=self.inheritance.configured,
            )
        except OSError as error:
            why = error.strerror or str(error)
            if is_successor:
                self._refuse(f"a process could not be started: {why}", time.monotonic())
                return None
            self._restart_delay = next_restart_delay(self._restart_delay, 0.0)
            self._restart_at = time.monotonic() + self._restart_delay
            log.error("process_start_failed", number=self._number, why=why, again_in=self._restart_delay)  # noqa: TRY400 (the message is enough)
            return None
        selector.register(child.control, selectors.EVENT_READ, child)
        log.info("process_started", process=child.pid, number=child.number)
        return child
