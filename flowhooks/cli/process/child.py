"""One process that a supervisor has started, as the supervisor sees it."""

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
"""Bytes that are kept of what a process says."""


class ChildProcess:
    """A process of our own, executed anew rather than only forked: it has loaded nothing that has changed since.

    It is in a process group of its own, so that Ctrl-C reaches the supervisor only.

    Args:
        number: which of the supervisor's processes it is, from 0.
        generation: how often the supervisor had been told to replace its processes when it was started.
        sockets: what it inherits, by name.
        metrics_dir: the folder in which it counts what it does, with the others.
        start_timeout: seconds in which it must be ready.

    Attributes:
        pid: its process id.
        control: where it speaks and is spoken to.
        ready_at: since when it does its work, by `time.monotonic`; None if it does not yet.
        start_error: why it cannot start, as it has said; `""` if it has said nothing.
        exit_code: with what exit code that would end a command.
        stop_requested: whether it has been told to leave or to end.
        kill_at: when it is killed if it is still there, by `time.monotonic`.
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
            self._process = subprocess.Popen(  # noqa: S603 (the very command that this process was started with)
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
        """Take what it has said; returns whether it may say more."""
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
        """Tell it that another has taken over."""
        self._send_command(RETIRE_COMMAND, timeout)

    def stop(self, *, timeout: float) -> None:
        """Tell it that all are to end."""
        if self.ready_at is None:
            self._process.terminate()  # it does not listen yet
        self._send_command(STOP_COMMAND, timeout)

    def _send_command(self, command: bytes, timeout: float) -> None:
        self.stop_requested = True
        self.kill_at = time.monotonic() + timeout
        with suppress(OSError):  # it has just ended
            self.control.sendall(command)

    def kill(self) -> None:
        """End it at once."""
        self.killed = True
        self._process.kill()

    def has_exited(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    @property
    def succeeded(self) -> bool:
        """Whether it has ended with 0."""
        return self._process.returncode == 0

    def exit_reason(self) -> str:
        """Why it has ended."""
        if self.start_error:
            return self.start_error
        code = self._process.returncode
        if code >= 0:
            return f"it ended with exit code {code}"
        try:
            return f"it was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"it was ended by signal {-code}"

    def close(self) -> None:
        """Give back what it took here."""
        self.control.close()
