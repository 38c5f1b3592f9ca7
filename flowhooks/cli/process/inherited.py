"""A process's place under a supervisor: what it inherits, says and hears."""

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
"""The environment variable by which a supervisor tells a process that it starts which files it has inherited."""
METRICS_DIR_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which prometheus-client is told where several processes count together."""
RETIRE_COMMAND: Final = b"leave\n"
"""Said by the supervisor when another process has taken over."""
STOP_COMMAND: Final = b"end\n"
"""Said by the supervisor when all are to end."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class InheritedSockets:
    """What a supervisor has given to this process.

    Attributes:
        number: which of its processes this is, from 0; one that takes over from another has its number.
        sockets: the listening sockets, by the name of their setting, which the other processes have too.
        control: where the two speak to each other. It ends when the supervisor does, however that was.
        is_replaced: whether another process has taken over, so that this one is to leave without anybody noticing.
    """

    number: int
    sockets: Mapping[str, socket.socket]
    control: socket.socket
    is_replaced: bool = field(default=False, init=False)

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Self | None:
        """The place that a supervisor has started this process for, or None; handlers do not see the variable.

        Raises:
            SettingsError: somebody else has set the variable.
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
            raise SettingsError(
                f"{SUPERVISOR_VARIABLE} is what processes tell those that they start: take it away"
            ) from None

    def apply_addresses(self, settings: Settings) -> Settings:
        """The settings, with the addresses that were inherited for those that the settings say by now."""
        addresses: dict[str, Any] = {name: bound_address(sock) for name, sock in self.sockets.items()}
        return replace(settings, **addresses)

    @contextmanager
    def report_failure(self) -> Iterator[None]:
        """Tell the supervisor why this process cannot start, if it cannot; it then ends, and prints nothing itself."""
        try:
            yield
        except FlowhooksError as error:
            code = 2 if isinstance(error, SettingsError) else 1
            self._send({"failed": str(error), "code": code})
            raise SystemExit(code) from None

    def report_ready(self) -> None:
        """Tell the supervisor that this process does its work now."""
        self._send({"ready": True})

    def watch_supervisor(self, shutdown_signal: ShutdownSignal) -> None:
        """From now on ask for the end when the supervisor says so, or has ended itself."""
        signal.signal(signal.SIGHUP, ignore_signal)  # which is for the supervisor
        threading.Thread(target=self._watch, args=(shutdown_signal,), name="supervisor", daemon=True).start()

    def _send(self, message: Mapping[str, object]) -> None:
        with suppress(OSError):  # there is no supervisor any more, which `_watch` hears
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
                log.warning("supervisor_lost", why="it has ended without a word", next="this process ends in order")
            self.is_replaced = bool(part) and STOP_COMMAND not in received
            shutdown_signal.request()
            if not part:
                return


def child_environ(
    number: int, sockets: Mapping[str, socket.socket], control: socket.socket, metrics_dir: str
) -> dict[str, str]:
    """The environment of a child process: its inherited files, and the folder that it shares its metrics in."""
    files = {name: sock.fileno() for name, sock in {**sockets, "control": control}.items()}
    return {
        **os.environ,
        METRICS_DIR_VARIABLE: metrics_dir,
        SUPERVISOR_VARIABLE: json.dumps({"number": number, "sockets": files}),
    }
