"""A child process, as seen by its supervisor."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from flowhooks.cli.process.inherited import RETIRE_COMMAND, STOP_COMMAND, child_environ

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_MESSAGE_BYTES: Final = 65536
"""Maximum size of the buffered messages of a child process."""


class ChildProcess:
    """A child process that executes flowhooks again instead of only forking, so it loads current code and packages.

    It has a process group of its own, so Ctrl-C reaches only the supervisor.

    Args:
        number: number of the slot, from 0.
        generation: number of replacements requested from the supervisor before the start.
        sockets: sockets to inherit, by name.
        metrics_dir: folder of the metrics that the processes share.
        start_timeout: maximum seconds until the process is ready.

    Attributes:
        pid: process id.
        control: socket for messages in both directions.
        ready_at: time when the process became ready, by `time.monotonic`; None if it is not ready.
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
        metrics_dir: str,
        start_timeout: float,
    ) -> None:
        self.number = number
        self.generation = generation
        self.control, child_end = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603 (the command with which this process was started)
                [sys.executable or sys.orig_argv[0], *sys.orig_argv[1:]],
                env=child_environ(number, sockets, child_end, metrics_dir),
                pass_fds=[sock.fileno() for sock in (*sockets.values(), child_end)],
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        except BaseException:
            self.control.close()
            raise
        finally:
            child_end.close()
        self.control.setblocking(False)
        self.pid = self._process.pid
        self.ready_at: float | None = None
        self.start_error, self.exit_code = "", 1
        self.stop_requested = self.killed = False
        self.kill_at = time.monotonic() + start_timeout
        self._received = b""

    def receive(self) -> bool:
        """Read the messages of the process; return whether more may follow."""
        try:
            part = self.control.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        *lines, self._received = (self._received + part)[-MAX_MESSAGE_BYTES:].split(b"\n")
        for line in lines:
            with suppress(ValueError):
                message = json.loads(line)
                if "ready" in message:
                    self.ready_at = time.monotonic()
                else:
                    self.start_error, self.exit_code = message["failed"], message["code"]
        return bool(part)

    def retire(self, *, timeout: float) -> None:
        """Tell the process to retire because a successor has taken over."""
        self._send_command(RETIRE_COMMAND, timeout)

    def stop(self, *, timeout: float) -> None:
        """Tell the process to stop because all processes stop."""
        if self.ready_at is None:
            self._process.terminate()  # it does not read commands yet
        self._send_command(STOP_COMMAND, timeout)

    def _send_command(self, command: bytes, timeout: float) -> None:
        self.stop_requested = True
        self.kill_at = time.monotonic() + timeout
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
        code = self._process.returncode
        if code >= 0:
            return f"it exited with code {code}"
        try:
            return f"it was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"it was killed by signal {-code}"

    def close(self) -> None:
        """Close the control socket."""
        self.control.close()
