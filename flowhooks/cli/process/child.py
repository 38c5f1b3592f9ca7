"""A child process, as seen by its supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from flowhooks.cli.process.inherited import (
    HAND_OVER_COMMAND,
    REFUSED_COMMAND,
    RETIRE_COMMAND,
    STOP_COMMAND,
    SUPERVISED_COMMAND,
    TAKE_OVER_COMMAND,
    child_environ,
)
from flowhooks.forks import close_in_children
from flowhooks.sockets import socket_pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_MESSAGE_BYTES: Final = 65536
"""Maximum size of the buffered messages of a child process."""


def own_command() -> list[str]:
    """Return the command line with which this process was started.

    A script is executed as it is, so that its first line names the interpreter. If a symbolic link in its path was
    changed, this is the interpreter of another environment, which has other packages.
    """
    python, *words = sys.orig_argv
    if words and os.sep in words[0] and words[0] == sys.argv[0] and _is_script(words[0]):
        return words
    return [sys.executable or python, *words]


def _is_script(path: str) -> bool:
    with suppress(OSError), Path(path).open("rb") as file:
        return os.access(path, os.X_OK) and file.read(2) == b"#!"
    return False


class ChildProcess:
    """A child process that executes flowhooks again instead of only forking, so it loads current code and packages.

    It has a process group of its own, so Ctrl-C reaches only the supervisor.

    Args:
        number: number of the slot, from 0.
        generation: number of replacements requested from the supervisor before the start.
        sockets: sockets to inherit, by name.
        metrics_dir: folder of the metrics that the processes share; None if they share none.
        metrics_number: number of the files in this folder in which the process counts.
        start_timeout: maximum seconds until the process has loaded its plugins.
        command: command line; default: that of this process.
        environ: environment; default: that of this process.
        folder: working folder; default: that of this process.
        is_only: whether it is the only process, and not one of several.
        is_successor: whether it loads first, and waits until its predecessor has released the ledger.
        parent_is_predecessor: whether this process is the predecessor.
        configured: the addresses in the settings with which the sockets were opened, by the same name.

    Attributes:
        pid: process id.
        control: socket for messages in both directions.
        started: when it was started, by `time.monotonic`.
        ready_at: time when the process became ready, by `time.monotonic`; None if it is not ready.
        stop_timeout: seconds that it may take for an orderly end, by the settings with which it became ready; None if
            it is not ready.
        has_loaded: whether it has loaded everything. A successor can take the ledger over.
        released: since when it accepts no connections, by `time.monotonic`, once it has released the ledger; otherwise
            None.
        has_ended: whether all attempts had ended when it released the ledger.
        wants_replacement: whether it has asked to be replaced.
        has_reloaded: whether it has reloaded its settings, on request.
        start_error: why the process cannot start, as it reported; `""` if it reported nothing.
        exit_code: exit code of the command after this error.
        stop_requested: whether the process was commanded to retire or to stop.
        kill_at: time when a process that still runs is killed, by `time.monotonic`.
    """

    def __init__(
        self,
        number: int,
        generation: int,
        sockets: Mapping[str, socket.socket],
        *,
        metrics_dir: str | None,
        metrics_number: int | None = None,
        start_timeout: float,
        command: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        is_only: bool = False,
        is_successor: bool = False,
        parent_is_predecessor: bool = False,
        configured: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.number = number
        self.generation = generation
        self.metrics_number = metrics_number
        self.control, child_end = socket_pair()
        try:
            self._process: subprocess.Popen[bytes] | _AdoptedProcess = subprocess.Popen(  # noqa: S603 (the command with which this process was started)
                command or own_command(),
                env=child_environ(
                    os.environ if environ is None else environ,
                    number,
                    sockets,
                    child_end,
                    metrics_dir,
                    only=is_only,
                    successor=is_successor,
                    parent_is_predecessor=parent_is_predecessor,
                    configured=dict(configured),
                    metrics_number=metrics_number,
                ),
                cwd=folder,
                pass_fds=[sock.fileno() for sock in (*sockets.values(), child_end)],
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        except BaseException:
            self.control.close()
            raise
        finally:
            child_end.close()
        self._reset(start_timeout)

    @classmethod
    def adopt(cls, pid: int, number: int, control: socket.socket) -> Self:
        """Return a child process that this process started, and that loaded, before it executed another program."""
        child = cls.__new__(cls)
        child.number, child.generation, child.control = number, 0, control
        child.metrics_number = None
        child._process = _AdoptedProcess(pid)  # noqa: SLF001 (its own class)
        child._reset(0.0)  # noqa: SLF001 (as above)
        child._note_loaded()  # noqa: SLF001 (as above)
        return child

    def _reset(self, start_timeout: float) -> None:
        close_in_children(self.control, socket.socket.close)
        self.control.setblocking(False)
        self.pid = self._process.pid
        self.ready_at: float | None = None
        self.stop_timeout: float | None = None
        self.released: float | None = None
        self.has_loaded = self.has_ended = self.wants_replacement = self.has_reloaded = False
        self.start_error, self.exit_code = "", 1
        self.stop_requested = self.killed = False
        self.started = time.monotonic()
        self.kill_at = self.started + start_timeout
        self._received = b""

    def receive(self) -> bool:
        """Read the messages of the process; return whether more may follow."""
        try:
            return self._receive()
        except BlockingIOError:
            return True
        except OSError:
            return False

    def receive_last(self) -> None:
        """Read the last messages of a process that exited. Its own children may have the other end open."""
        with suppress(OSError):
            while self._receive():
                pass

    def _receive(self) -> bool:
        part = self.control.recv(MAX_MESSAGE_BYTES)
        *lines, self._received = (self._received + part)[-MAX_MESSAGE_BYTES:].split(b"\n")
        for line in lines:
            with suppress(ValueError):
                self._note(json.loads(line))
        return bool(part)

    def _note(self, message: Mapping[str, Any]) -> None:
        if "ready" in message:
            self.ready_at = time.monotonic()
            self.stop_timeout = message.get("stop_timeout")
        elif "failed" in message:
            self.start_error, self.exit_code = message["failed"], message["code"]
        elif "released" in message:
            self.released, self.has_ended = message["released"], message["ended"]
        else:
            if "loaded" in message:
                self._note_loaded()
            self.wants_replacement |= "replace" in message
            self.has_reloaded |= "reloaded" in message

    def _note_loaded(self) -> None:
        self.has_loaded = True
        if not self.stop_requested:
            self.kill_at = 0.0  # the rest of the start may take long

    def retire(self, *, timeout: float) -> None:
        """Tell the process to retire because a successor has taken over."""
        self._send_command(RETIRE_COMMAND, timeout)

    def stop(self, *, timeout: float) -> None:
        """Tell the process to stop because all processes stop."""
        self.receive()  # a second signal, after one of the service manager, would end a process that is ready at once
        if self.ready_at is None:
            self._process.terminate()  # it does not read commands yet
        self._send_command(STOP_COMMAND, timeout)

    def hand_over(self, *, timeout: float) -> None:
        """Tell the only process to hand the ledger over to a successor that has loaded."""
        self._send_command(HAND_OVER_COMMAND, timeout)

    def take_over(self, stopped_at: float) -> None:
        """Tell a successor that its predecessor has released the ledger.

        Args:
            stopped_at: since when no connection is accepted, by `time.monotonic`.
        """
        self._send(TAKE_OVER_COMMAND + f": {stopped_at}\n".encode())

    def report_refused(self, why: str, started: float) -> None:
        """Tell the only process why it was not replaced.

        Args:
            why: the reason.
            started: when the process was started that has failed, by `time.monotonic`.
        """
        self._send(REFUSED_COMMAND + f": {json.dumps([why, started])}\n".encode())

    def report_supervised(self) -> None:
        """Tell a process that its parent is a supervisor from now on."""
        self._send(SUPERVISED_COMMAND)

    def reload(self) -> None:
        """Tell the process to reload its settings."""
        self._process.send_signal(signal.SIGHUP)

    def _send_command(self, command: bytes, timeout: float) -> None:
        self.stop_requested = True
        self.kill_at = time.monotonic() + timeout
        self._send(command)

    def _send(self, command: bytes) -> None:
        with suppress(OSError):  # it has just exited
            self.control.sendall(command)

    def kill(self) -> None:
        """Kill the process."""
        self.killed = True
        self._process.kill()

    def has_exited(self) -> bool:
        """Tell whether the process has exited."""
        return self._process.poll() is not None

    @property
    def succeeded(self) -> bool:
        """Whether the process exited with code 0."""
        return self._process.returncode == 0

    def exit_reason(self) -> str:
        """Return why the process exited."""
        if self.start_error:
            return self.start_error
        code = self._process.returncode or 0
        if code >= 0:
            return f"it exited with code {code}"
        try:
            return f"it was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"it was killed by signal {-code}"

    def close(self) -> None:
        """Close the control socket."""
        self.control.close()


class _AdoptedProcess:
    """A child process that this process started before it executed another program, as `subprocess` shows one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
