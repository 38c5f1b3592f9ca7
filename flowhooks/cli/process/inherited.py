"""The link of a child process to its supervisor or predecessor: inherited sockets and messages."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from flowhooks.errors import FlowhooksError, SettingsError
from flowhooks.failpoints import hit
from flowhooks.forks import close_in_children
from flowhooks.observability.shared_counts import SHARED_DIR_VARIABLE
from flowhooks.signals import ignore_signal
from flowhooks.sockets import socket_from_file
from flowhooks.web.server.sockets import bound_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping

    from flowhooks.cli.process.signals import ShutdownSignal
    from flowhooks.settings import Settings

SUPERVISOR_VARIABLE: Final = "FLOWHOOKS_SUPERVISOR_FD"
"""Environment variable in which a supervisor passes the numbers of inherited file descriptors to a child process."""
RETIRE_COMMAND: Final = b"leave\n"
"""Command of the supervisor to a process whose successor has taken over."""
STOP_COMMAND: Final = b"end\n"
"""Command of the supervisor to stop, sent to all processes."""
HAND_OVER_COMMAND: Final = b"hand over\n"
"""Command of the supervisor to the only process: hand the ledger over to a successor that has loaded, and end."""
TAKE_OVER_COMMAND: Final = b"take over"
"""Command to a successor that has loaded, with the time (`time.monotonic`) since which no connection is accepted."""
REFUSED_COMMAND: Final = b"refused"
"""Message of the supervisor to the only process: why it was not replaced, and when the failed process was started."""
SUPERVISED_COMMAND: Final = b"supervised\n"
"""Message to a process that its parent is a supervisor from now on, and its predecessor no more."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class InheritedSockets:
    """Sockets inherited from the supervisor.

    Attributes:
        number: number of the slot, from 0; a successor has the number of its predecessor.
        sockets: listening sockets by the name of their setting, shared with the other processes.
        control: socket for messages in both directions; closed as soon as the supervisor exits, for any reason.
        is_only: whether this is the only process, which hands the ledger over instead of being retired.
        is_successor: whether this process replaces another one, so that it loads first and waits for the ledger.
        parent_is_predecessor: whether the parent is the process that this one replaces, and no supervisor yet.
        configured: the addresses in the settings with which the sockets of the only process were opened.
        metrics_number: number of the files in which this process counts with others; None: it counts alone.
        is_alone: whether the parent died while it was the predecessor, so that this process continues without one.
        is_replaced: whether a successor has taken over, so that this process retires without closing the service.
        hands_over: whether this process has to hand the ledger over to a successor.
        on_refused: called if this process was not replaced, with the reason and the start of the process that failed.
        redact: hides secrets in reported errors.
    """

    number: int
    sockets: Mapping[str, socket.socket]
    control: socket.socket
    is_only: bool = False
    is_successor: bool = False
    parent_is_predecessor: bool = False
    configured: Mapping[str, str] = field(default_factory=dict)
    metrics_number: int | None = None
    is_alone: bool = field(default=False, init=False)
    is_replaced: bool = field(default=False, init=False)
    hands_over: bool = field(default=False, init=False)
    on_refused: Callable[[str, float], object] = field(default=lambda _why, _started: None, init=False)
    redact: Callable[[str], str] = field(default=str, init=False)
    _may_take_over: threading.Event = field(default_factory=threading.Event, init=False)
    _refusing_since: float | None = field(default=None, init=False)

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Self | None:
        """Return the sockets inherited from a supervisor, or None. Handlers do not see the variable.

        The variable is removed from `environ`.

        Raises:
            SettingsError: the variable was not set by a supervisor.
        """
        text = environ.pop(SUPERVISOR_VARIABLE, None)
        if text is None:
            return None
        try:
            message = json.loads(text)
            control = socket_from_file(message["sockets"].pop("control"))
            sockets = {name: socket.socket(fileno=number) for name, number in message["sockets"].items()}
            for sock in (control, *sockets.values()):
                sock.set_inheritable(False)
                close_in_children(sock, socket.socket.close)
            return cls(
                message["number"],
                sockets,
                control,
                is_only=message["only"],
                is_successor=message["successor"],
                parent_is_predecessor=message["parent_is_predecessor"],
                configured=message["configured"],
                metrics_number=message["metrics_number"],
            )
        except (ValueError, LookupError, TypeError, OSError):
            raise SettingsError(f"{SUPERVISOR_VARIABLE} is for internal use: unset it") from None

    def apply_addresses(self, settings: Settings) -> Settings:
        """Return the settings with the addresses of the inherited sockets in place of the configured ones."""
        addresses: dict[str, Any] = {name: bound_address(sock) for name, sock in self.sockets.items()}
        return replace(settings, **addresses)

    def changed_addresses(self, settings: Settings) -> tuple[str, ...]:
        """Return the names of the addresses that the settings have changed since the sockets were opened."""
        return tuple(name for name, address in self.configured.items() if getattr(settings, name) != address)

    @contextmanager
    def report_failure(self) -> Iterator[None]:
        """Report a failed start to the supervisor and exit. The process itself prints nothing."""
        try:
            yield
        except FlowhooksError as error:
            code = 2 if isinstance(error, SettingsError) else 1
            self._send({"failed": self.redact(str(error)), "code": code})
            raise SystemExit(code) from None

    def report_ready(self, stop_timeout: float) -> None:
        """Report to the supervisor that this process is ready.

        Args:
            stop_timeout: seconds that it may take for an orderly end.
        """
        self._send({"ready": True, "stop_timeout": stop_timeout})

    def report_loaded(self) -> None:
        """Report that this process has loaded everything, so that the rest of its start may take long."""
        self._send({"loaded": True})

    def wait_for_predecessor(self) -> None:
        """Report that this process has loaded everything, and wait until its predecessor has released the ledger."""
        hit("restart.loaded")
        self.report_loaded()
        self._may_take_over.wait()

    def seconds_refusing(self) -> float | None:
        """Return the seconds since the predecessor stopped to accept connections; None if there was none."""
        return None if self._refusing_since is None else time.monotonic() - self._refusing_since

    def report_released(self, stopped_at: float, *, ended: bool) -> None:
        """Report that this process has released the ledger.

        Args:
            stopped_at: when it stopped to accept connections, by `time.monotonic`.
            ended: whether all attempts have ended; if not, the successor must wait until this process has exited.
        """
        self._send({"released": stopped_at, "ended": ended})

    def report_reloaded(self) -> None:
        """Report that a reload of the settings has ended."""
        self._send({"reloaded": True})

    def request_replacement(self) -> None:
        """Ask the supervisor to replace this process."""
        self._send({"replace": True})

    def watch_supervisor(self, shutdown_signal: ShutdownSignal) -> None:
        """From now on, request shutdown on a command of the supervisor, or when it has exited."""
        shutdown_signal.had_terminal = False  # its end stops the supervisor
        if not self.is_only:
            signal.signal(signal.SIGHUP, ignore_signal)  # the supervisor handles it
        threading.Thread(target=self._watch, args=(shutdown_signal,), name="supervisor", daemon=True).start()

    def _send(self, message: Mapping[str, object]) -> None:
        with suppress(OSError):  # the supervisor has exited, which `_watch` detects
            self.control.sendall(json.dumps(message).encode() + b"\n")

    def _watch(self, shutdown_signal: ShutdownSignal) -> None:
        received = b""
        while True:
            try:
                part = self.control.recv(4096)
            except OSError:
                part = b""
            if not part:
                break
            *lines, received = (received + part).split(b"\n")
            for line in lines:
                self._obey(line + b"\n", shutdown_signal)
        if self.parent_is_predecessor:
            log.warning(
                "predecessor_lost",
                why="the process that this one replaces has exited without a command",
                next="this process takes over, and continues without a supervisor; restart the service when convenient",
            )
            self.is_alone = True
            self._may_take_over.set()
            return
        log.warning(
            "supervisor_lost",
            why="the supervisor has exited without a stop command",
            next="this process shuts down gracefully",
        )
        self.is_replaced = False
        shutdown_signal.request()

    def _obey(self, command: bytes, shutdown_signal: ShutdownSignal) -> None:
        word, _, value = command.partition(b": ")
        if word == TAKE_OVER_COMMAND:
            self._refusing_since = json.loads(value)
            self._may_take_over.set()
        elif word == REFUSED_COMMAND:
            self.on_refused(*json.loads(value))
        elif command == SUPERVISED_COMMAND:
            self.parent_is_predecessor = False
        else:
            self.is_replaced = command == RETIRE_COMMAND
            self.hands_over = command == HAND_OVER_COMMAND
            shutdown_signal.request()


def child_environ(
    environ: Mapping[str, str],
    number: int,
    sockets: Mapping[str, socket.socket],
    control: socket.socket,
    metrics_dir: str | None,
    **roles: Any,
) -> dict[str, str]:
    """Return the environment of a child process, with its inherited files, and the shared folder of metrics if any."""
    files = {name: sock.fileno() for name, sock in {**sockets, "control": control}.items()}
    return {
        **environ,
        **({} if metrics_dir is None else {SHARED_DIR_VARIABLE: metrics_dir}),
        SUPERVISOR_VARIABLE: json.dumps({"number": number, "sockets": files, **roles}),
    }
