"""One process for handlers, as the server sees it."""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from flowhooks.execution.isolation import protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.execution.isolation.output_capture import Output

TRACEBACK_TIMEOUT: Final = 1.0
"""Seconds in which a process that is to be killed says where it was."""
KILL_TIMEOUT: Final = 10.0
"""Seconds in which it is known how a process that was killed has ended."""
_OUT_OF_MEMORY_TEXTS: Final = (
    "MemoryError",
    "out of memory",
    "bad_alloc",
    "cannot allocate memory",
    "memory allocation",
)


class HandlerProcess:
    """A process that runs one delivery at a time.

    Args:
        number: what the nursery knows it by.
        stream: where it is asked, and answers.
        output: what it prints.

    Attributes:
        handler: whose deliveries it runs; `""`: nobody's yet.
        pid: its process id, once that is known.
        runs: how many deliveries it has been given.
        busy: whether it runs one.
        closing_reason: whether it was told to end; then why, in one word.
        code: as `subprocess` has it, once it has ended; None: nobody knows.
        spawn_error: why it was never there; `""`: it was.
    """

    def __init__(self, number: int, stream: socket.socket, output: Output) -> None:
        self.number = number
        self.stream = stream
        self.output = output
        self.handler = ""
        self.pid: int | None = None
        self.runs = 0
        self.busy = False
        self.closing_reason = ""
        self.code: int | None = None
        self.spawn_error = ""
        self.ended_event = threading.Event()
        self._frames = protocol.FrameReader(stream, max_bytes=protocol.MAX_FRAME_BYTES)

    @property
    def is_alive(self) -> bool:
        """Whether it is there, and listens."""
        if self.ended_event.is_set() or self.closing_reason:
            return False
        try:
            self.stream.setblocking(False)
            return bool(self.stream.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def send(self, request: Mapping[str, Any], until: float) -> None:
        """Tell it what to run.

        Raises:
            TimeoutError: it does not listen.
            OSError: it has gone. Neither way it has begun.
        """
        message = protocol.encode_frame(request)
        self.stream.settimeout(max(0.001, until - time.monotonic()))
        self.stream.sendall(message)

    def receive(self, until: float) -> dict[str, Any]:
        """What it says next.

        Raises:
            TimeoutError: nothing in time.
            Gone: it has ended, or has closed its end.
            Nonsense: what nobody can make anything of.
        """
        return self._frames.next(until)

    def mark_ended(self, *, code: int | None, spawn_error: str = "") -> None:
        """It has: whoever waits for its answer is told."""
        self.code = code
        self.spawn_error = spawn_error
        self.ended_event.set()
        with suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)

    def exit_text(self, memory_mib: int) -> str:
        """How it has ended, in words, if nobody here wanted that before it stopped talking."""
        if not self.ended_event.is_set() or self.code is None:
            return "its process ended together with the one that it came from"
        if self.code >= 0:
            return f"its process ended with exit code {self.code}, and no answer"
        by = f"signal {-self.code} ({_signal_name(-self.code)})"
        tail = self.output.tail
        if any(hint in tail for hint in _OUT_OF_MEMORY_TEXTS):
            return f"its process was ended for want of memory (limit {memory_mib} MiB): {by}"
        if self.code == -signal.SIGKILL and self.closing_reason:
            return "killed, for its process has closed its end, and given no answer"
        if self.code == -signal.SIGKILL:
            return f"its process was ended by {by} from elsewhere, perhaps for want of memory on this machine"
        return f"its process was ended by {by}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "no name"
