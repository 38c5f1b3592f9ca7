"""Supervisor of several equal processes: starts, replaces and stops them.

The supervisor loads no plugin, opens no database and starts no thread. One loop waits for signals, for messages of the
processes, and for the time of the next restart or timeout.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from flowhooks.cli.process import sd_notify
from flowhooks.cli.process.child import ChildProcess
from flowhooks.cli.process.restart_delay import START_TIMEOUT, next_restart_delay
from flowhooks.cli.process.signals import depends_on_terminal, has_terminal
from flowhooks.errors import FlowhooksError, SettingsError
from flowhooks.observability.shared_counts import shared_folder
from flowhooks.settings import check_removed
from flowhooks.signals import STOP_SIGNALS, SignalWaiter
from flowhooks.web.server.sockets import bound_address

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

    from flowhooks.cli.process.sd_notify import ServiceManager
    from flowhooks.settings import Settings

RETIRE_TIMEOUT: Final = 120.0
"""Seconds beyond `shutdown.timeout` and `http.read_timeout` after which a retiring process is killed. By then the
longest wait for a response (60 s) and an orderly shutdown are over.
"""
RESTART_ONLY_SETTINGS: Final = ("processes", "listen", "admin")
"""Settings that the supervisor itself used at its start."""
_NEXT: Final = "the running processes continue; send SIGHUP to try again"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Slot:
    """Place of one of the processes that must run.

    Attributes:
        number: number of the slot, from 0.
        current: process that is ready or starting; None while a restart is due later.
        successor: process started to take over.
        retiring: predecessor that has not exited yet.
        restart_delay: last delay of a restart, in seconds.
        restart_at: time of the next restart, by `time.monotonic`.
    """

    number: int
    current: ChildProcess | None = None
    successor: ChildProcess | None = None
    retiring: ChildProcess | None = None
    restart_delay: float = 0.0
    restart_at: float = 0.0

    @property
    def is_vacant(self) -> bool:
        """Whether a process has to be started: there is none, and no successor."""
        return self.current is None and self.successor is None

    def children(self) -> list[ChildProcess]:
        """Return all existing processes of the slot."""
        return [child for child in (self.current, self.successor, self.retiring) if child is not None]


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Keeps `settings.processes` processes of this command running until SIGTERM or SIGINT.

    Args:
        settings: settings at the start.
        sockets: sockets to inherit, by setting name.
        load: reads and checks the settings again.
        on_settings: called with the new settings of each replacement.
        service_manager: notified when all processes are ready, are being replaced, or stop.
    """

    settings: Settings
    sockets: Mapping[str, socket.socket]
    load: Callable[[], Settings]
    on_settings: Callable[[Settings], None]
    service_manager: ServiceManager
    _slots: list[Slot] = field(init=False, default_factory=list)
    _current: Settings | None = field(init=False, default=None)
    _generation: int = field(init=False, default=0)
    _replacing: bool = field(init=False, default=False)
    _ready_pending: bool = field(init=False, default=True)
    _extend_at: float = field(init=False, default=0.0)
    _stopping: bool = field(init=False, default=False)
    _was_ready: bool = field(init=False, default=False)
    _start_failure: tuple[str, int] | None = field(init=False, default=None)
    _exit_code: int = field(init=False, default=0)
    _metrics_dir: str = field(init=False, default="")
    _had_terminal: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._extend_at = time.monotonic() + sd_notify.EXTENSION_INTERVAL

    def run(self) -> int:
        """Run until shutdown; return the exit code.

        Raises:
            FlowhooksError: no process could be started; a SettingsError if the settings are the reason.
        """
        self._slots = [Slot(number) for number in range(self.settings.processes)]
        # The process that is asked for metrics reports those of all processes, because a client cannot choose one.
        with shared_folder() as self._metrics_dir:
            self._supervise()
        if self._start_failure is not None:
            why, code = self._start_failure
            raise SettingsError(why) if code == 2 else FlowhooksError(why)  # noqa: PLR2004 (the exit code of usage)
        log.info("supervisor_stopped", code=self._exit_code)
        return self._exit_code

    def _supervise(self) -> None:
        numbers = (*STOP_SIGNALS, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
        with SignalWaiter(numbers) as signals, selectors.DefaultSelector() as selector:
            self._had_terminal = depends_on_terminal(signals)
            selector.register(signals.reader, selectors.EVENT_READ)
            log.info("supervisor_started", processes=len(self._slots), **self._addresses())
            while not self._stopping or any(self._children()):
                self._start_due_slots(selector)
                ready = selector.select(self._seconds_until_due())
                for number in signals.read():
                    self._on_signal(signal.Signals(number))
                for key, _ in ready:
                    if isinstance(key.data, ChildProcess):
                        self._receive(key.data, selector)
                for slot in self._slots:
                    for child in slot.children():
                        if child.has_exited():
                            self._close_child(child, selector)
                            self._on_exit(slot, child)
                self._continue_replacement(selector)
                self._extend_start()
                self._notify_when_ready()

    def _addresses(self) -> dict[str, Any]:
        addresses = {name: f"http://{bound_address(sock)}" for name, sock in self.sockets.items()}
        return {"call_backs": addresses.get("listen"), "admin": addresses.get("admin")}

    def _children(self) -> Iterator[ChildProcess]:
        return (child for slot in self._slots for child in slot.children())

    def _seconds_until_due(self) -> float | None:
        """Return the seconds until the next timeout; None if there is none."""
        times = [child.kill_at for child in self._children() if child.kill_at and not child.killed]
        times += [slot.restart_at for slot in self._slots if slot.is_vacant and not self._stopping]
        times += [self._extend_at] if self._extend_at else []
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _stop_timeout(self, child: ChildProcess) -> float:
        if child.stop_timeout is not None:
            return RETIRE_TIMEOUT + child.stop_timeout
        settings = self._current or self.settings
        return RETIRE_TIMEOUT + settings.shutdown.timeout + settings.http.read_timeout

    # events

    def _on_signal(self, number: signal.Signals) -> None:
        if number in STOP_SIGNALS and self._stopping and self._start_failure is None:
            for child in self._children():
                child.kill()
            os._exit(128 + number)
        is_hangup = number == signal.SIGHUP and self._had_terminal and not has_terminal()
        if number in STOP_SIGNALS or (is_hangup and not self._stopping):
            log.info("stopping_all", processes=sum(1 for _ in self._children()))
            self._stop_all()
        elif number in {signal.SIGHUP, signal.SIGUSR2} and not self._stopping:
            self._reload()

    def _stop_all(self) -> None:
        self._stopping = True
        self._extend_at = 0.0
        self.service_manager.stopping()
        for sock in self.sockets.values():
            sock.close()  # connections are refused once the last process has closed it
        for child in self._children():
            child.stop(timeout=self._stop_timeout(child))

    def _reload(self) -> None:
        """Replace the child processes one at a time, so that they load the current packages and settings."""
        self.service_manager.reloading()
        self._ready_pending = True
        try:
            settings = self.load()
            check_removed(self._current or self.settings, settings)
        except FlowhooksError as error:
            log.error("process_replace_failed", why=str(error), next=_NEXT)  # noqa: TRY400 (the message is enough)
            return
        except Exception:
            # A defect in the reload must not stop the processes.
            log.exception("process_replace_failed", why="an error in flowhooks", next=_NEXT)
            return
        ignored = [name for name in RESTART_ONLY_SETTINGS if getattr(settings, name) != getattr(self.settings, name)]
        self._current = settings
        self.on_settings(settings)
        if ignored:
            log.warning(
                "restart_needed", settings=ignored, why="these settings have changed, but are read only at the start"
            )
        self._generation += 1
        self._replacing = True
        for slot in self._slots:
            slot.restart_delay = slot.restart_at = 0.0
        log.info("process_replacing", processes=len(self._slots))

    def _receive(self, child: ChildProcess, selector: selectors.BaseSelector) -> None:
        was_ready, had_loaded = child.ready_at is not None, child.has_loaded
        if not child.receive():
            with contextlib.suppress(KeyError):
                selector.unregister(child.control)
        if child.has_loaded and not had_loaded and self._extend_at:
            self._extend_at = time.monotonic()  # the loading may have taken most of the service manager's limit
        if child.ready_at is None or was_ready or child.stop_requested:
            return
        self._was_ready = True
        slot = self._slots[child.number]
        if child is slot.successor:
            slot.retiring, slot.current, slot.successor = slot.current, child, None
            if slot.retiring is not None:
                slot.retiring.retire(timeout=self._stop_timeout(slot.retiring))

    def _close_child(self, child: ChildProcess, selector: selectors.BaseSelector) -> None:
        """Read the last messages of a child that exited."""
        child.receive_last()
        with contextlib.suppress(KeyError):
            selector.unregister(child.control)
        child.close()

    def _on_exit(self, slot: Slot, child: ChildProcess) -> None:
        # The report that it is ready may have been read only now, after its exit.
        self._was_ready = self._was_ready or child.ready_at is not None
        if child.stop_requested or self._stopping:
            if child.ready_at is not None and not child.succeeded:
                log.warning("process_ended", process=child.pid, number=slot.number, why=child.exit_reason())
                self._exit_code = 1 if self._stopping else self._exit_code
            for name in ("current", "successor", "retiring"):
                if getattr(slot, name) is child:
                    setattr(slot, name, None)
        elif child is slot.successor:
            slot.successor = None
            self._end_replacement(child.exit_reason())
        elif not self._was_ready:
            slot.current = None
            self._start_failure = (
                child.exit_reason() if child.start_error else f"a process could not start: {child.exit_reason()}",
                child.exit_code,
            )
            self._stop_all()
        else:
            slot.current = None
            uptime = 0.0 if child.ready_at is None else time.monotonic() - child.ready_at
            slot.restart_delay = next_restart_delay(slot.restart_delay, uptime)
            slot.restart_at = time.monotonic() + slot.restart_delay
            log.error(
                "process_died",
                process=child.pid,
                number=slot.number,
                why=child.exit_reason(),
                lived=round(uptime, 1),
                again_in=slot.restart_delay,
            )

    def _end_replacement(self, why: str) -> None:
        self._replacing = False
        log.error(
            "process_replace_failed",
            why=why,
            old=sum(other.generation < self._generation for other in self._children()),
            next="the running processes continue; fix the error, then send SIGHUP again",
        )

    # actions

    def _start_due_slots(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if self._stopping:
                return
            if slot.is_vacant and slot.restart_at <= now:
                slot.current = self._start(slot, selector)

    def _start(self, slot: Slot, selector: selectors.BaseSelector) -> ChildProcess | None:
        used = {child.metrics_number for child in self._children()}
        try:
            child = ChildProcess(
                slot.number,
                self._generation,
                self.sockets,
                metrics_dir=self._metrics_dir,
                metrics_number=next(number for number in itertools.count() if number not in used),
                start_timeout=START_TIMEOUT,
            )
        except OSError as error:
            why = error.strerror or str(error)
            if not slot.is_vacant:
                self._end_replacement(f"a process could not be started: {why}")
                return None
            if not self._was_ready:
                self._start_failure = (f"a process could not be started: {why}", 1)
                self._stop_all()
                return None
            slot.restart_delay = next_restart_delay(slot.restart_delay, 0.0)
            slot.restart_at = time.monotonic() + slot.restart_delay
            log.error("process_start_failed", number=slot.number, why=why, again_in=slot.restart_delay)  # noqa: TRY400 (the message is enough)
            return None
        selector.register(child.control, selectors.EVENT_READ, child)
        log.info("process_started", process=child.pid, number=slot.number)
        return child

    def _continue_replacement(self, selector: selectors.BaseSelector) -> None:
        """Kill a child that exceeds its timeout, and start the next successor."""
        now = time.monotonic()
        for child in self._children():
            if child.kill_at and child.kill_at <= now and not child.killed:
                log.error(
                    "process_killed",
                    process=child.pid,
                    why="it does not stop in time" if child.stop_requested else "it does not start in time",
                )
                child.kill()
        if not self._replacing or self._stopping:
            return
        if any(slot.successor is not None or slot.retiring is not None for slot in self._slots):
            return
        if any(slot.current is None or slot.current.ready_at is None for slot in self._slots):
            return  # a process has failed and must be restarted first
        for slot in self._slots:
            if slot.current is not None and slot.current.generation < self._generation:
                slot.successor = self._start(slot, selector)
                return
        self._replacing = False
        log.info("process_replaced", processes=len(self._slots))

    def _extend_start(self) -> None:
        """Extend the first start while a process works on the ledger. A process that loads has a limit of its own."""
        now = time.monotonic()
        if self._extend_at and self._extend_at <= now:
            self._extend_at = now + sd_notify.EXTENSION_INTERVAL
            if any(child.has_loaded and child.ready_at is None for child in self._children()):
                self.service_manager.extend_start()

    def _notify_when_ready(self) -> None:
        ready = all(slot.current is not None and slot.current.ready_at is not None for slot in self._slots)
        if self._ready_pending and ready and not self._replacing and not self._stopping:
            self._ready_pending = False
            self._extend_at = 0.0
            self.service_manager.ready()
