"""The link of a child process to its supervisor: inherited sockets and messages."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from flowhooks.errors import FlowhooksError, SettingsError
from flowhooks.signals import ignore_signal
from flowhooks.web.server.sockets import bound_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

    from flowhooks.cli.process.signals import ShutdownSignal
    from flowhooks.settings import Settings

SUPERVISOR_VARIABLE: Final = "FLOWHOOKS_SUPERVISOR_FD"
"""Environment variable in which a supervisor passes the numbers of inherited file descriptors to a child process."""
METRICS_DIR_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that tells prometheus-client where several processes share their metrics."""
RETIRE_COMMAND: Final = b"leave\n"
"""Command of the supervisor to a process whose successor has taken over."""
STOP_COMMAND: Final = b"end\n"
"""Command of the supervisor to stop, sent to all processes."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class InheritedSockets:
    """Sockets inherited from the supervisor.

    Attributes:
        number: number of the slot, from 0; a successor has the number of its predecessor.
        sockets: listening sockets by the name of their setting, shared with the other processes.
        control: socket for messages in both directions; closed as soon as the supervisor exits, for any reason.
        is_replaced: whether a successor has taken over, so that this process retires without closing the service.
    """

    number: int
    sockets: Mapping[str, socket.socket]
    control: socket.socket
    is_replaced: bool = field(default=False, init=False)

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
            files = {name: socket.socket(fileno=number) for name, number in message["sockets"].items()}
            control = files.pop("control")
            for sock in (control, *files.values()):
                sock.set_inheritable(False)
            return cls(message["number"], files, control)
        except (ValueError, LookupError, TypeError, OSError):
            raise SettingsError(f"{SUPERVISOR_VARIABLE} is for internal use: unset it") from None

    def apply_addresses(self, settings: Settings) -> Settings:
        """Return the settings with the addresses of the inherited sockets in place of the configured ones."""
        addresses: dict[str, Any] = {name: bound_address(sock) for name, sock in self.sockets.items()}
        return replace(settings, **addresses)

    @contextmanager
    def report_failure(self) -> Iterator[None]:
        """Report a failed start to the supervisor and exit. The process itself prints nothing."""
        try:
            yield
        except FlowhooksError as error:
            code = 2 if isinstance(error, SettingsError) else 1
            self._send({"failed": str(error), "code": code})
            raise SystemExit(code) from None

    def report_ready(self) -> None:
        """Report to the supervisor that this process is ready."""
        self._send({"ready": True})

    def watch_supervisor(self, shutdown_signal: ShutdownSignal) -> None:
        """From now on, request shutdown on a command of the supervisor, or when it has exited."""
        signal.signal(signal.SIGHUP, ignore_signal)  # the supervisor handles it
        threading.Thread(target=self._watch, args=(shutdown_signal,), name="supervisor", daemon=True).start()

    def _send(self, message: Mapping[str, object]) -> None:
        with suppress(OSError):  # the supervisor has exited, which `_watch` detects
            self.control.sendall(json.dumps(message).encode() + b"\n")

    def _watch(self, shutdown_signal: ShutdownSignal) -> None:
        received = b""
        while True:
            try:
                part = self.control.recv(1024)
            except OSError:
                part = b""
            received += part
            if not part:
                log.warning(
                    "supervisor_lost",
                    why="the supervisor has exited without a stop command",
                    next="this process shuts down gracefully",
                )
            self.is_replaced = bool(part) and STOP_COMMAND not in received
            shutdown_signal.request()
            if not part:
                return


def child_environ(
    number: int, sockets: Mapping[str, socket.socket], control: socket.socket, metrics_dir: str
) -> dict[str, str]:
    """Return the environment of a child process, with its inherited files and the shared folder of metrics."""
    files = {name: sock.fileno() for name, sock in {**sockets, "control": control}.items()}
    return {
        **os.environ,
        METRICS_DIR_VARIABLE: metrics_dir,
        SUPERVISOR_VARIABLE: json.dumps({"number": number, "sockets": files}),
    }
