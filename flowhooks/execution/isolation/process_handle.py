"""One handler process, as the server sees it."""

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
    from flowhooks.model.delivery import Delivery

TRACEBACK_TIMEOUT: Final = 1.0
"""Seconds that a process gets to print its tracebacks before it is killed."""
KILL_TIMEOUT: Final = 10.0
"""Seconds to wait for the exit status of a killed process."""
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
        number: identifies the process in messages to and from the fork server.
        stream: the connection to the process.
        output: the output of the process.

    Attributes:
        handler: id of the handler whose deliveries the process runs; `""`: none assigned yet.
        pid: the process id; None until the fork server has reported it.
        runs: number of deliveries that the process has received.
        busy: whether the process is running a delivery.
        closing_reason: why the server is ending the process, in one word; `""`: the server is not ending it.
        code: the exit code, as in `subprocess`; None: still running, or not known.
        spawn_error: why the process could not be started; `""`: it was started.
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
        self._log_contexts: dict[int, dict[str, Any]] = {}

    @property
    def is_alive(self) -> bool:
        """Whether the process is running and its connection is open."""
        if self.ended_event.is_set() or self.closing_reason:
            return False
        try:
            self.stream.setblocking(False)
            return bool(self.stream.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def begin_run(self, delivery: Delivery) -> None:
        """Count a run, and attribute the output of the process to its delivery from now on."""
        self.runs += 1
        context = {"handler": delivery.handler, "delivery": delivery.id, "attempt": delivery.attempt}
        # The previous run as well: a thread that it left running may have logged before this run.
        self._log_contexts.pop(self.runs - 2, None)
        self._log_contexts[self.runs] = context
        self.output.clear_tail()
        self.output.log_context.update(context)

    def log_context(self, run: object) -> Mapping[str, Any]:
        """Return the log fields of the delivery of a run; only those of the handler if the run is too long ago."""
        context = self._log_contexts.get(run) if isinstance(run, int) else None
        return {"handler": self.handler} if context is None else context

    def send(self, message: bytes, until: float) -> None:
        """Send the process an encoded request.

        Raises:
            TimeoutError: the process did not read the request by `until`, in `time.monotonic`.
            OSError: the process exited. In both cases the handler has not started.
        """
        self.stream.settimeout(max(0.001, until - time.monotonic()))
        self.stream.sendall(message)

    def receive(self, until: float) -> dict[str, Any]:
        """Return the next message of the process.

        Raises:
            TimeoutError: no message arrived by `until`, in `time.monotonic`.
            ConnectionClosed: the process exited or closed its connection.
            ProtocolError: the message is malformed.
        """
        return self._frames.next(until)

    def mark_ended(self, *, code: int | None, spawn_error: str = "") -> None:
        """Mark the process as exited, and wake the thread that waits for its reply."""
        self.code = code
        self.spawn_error = spawn_error
        self.ended_event.set()
        with suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)

    def exit_text(self, memory_mib: int) -> str:
        """Describe the exit of a process that the server had not ended."""
        if not self.ended_event.is_set() or self.code is None:
            return "its process ended together with the fork server"
        if self.code >= 0:
            return f"its process exited with code {self.code} without an answer"
        by = f"signal {-self.code} ({_signal_name(-self.code)})"
        tail = self.output.tail
        if any(hint in tail for hint in _OUT_OF_MEMORY_TEXTS):
            return f"its process ran out of memory (limit {memory_mib} MiB): {by}"
        if self.code == -signal.SIGKILL and self.closing_reason:
            return "killed because its process closed its connection without an answer"
        if self.code == -signal.SIGKILL:
            return f"its process was killed by {by} from outside, perhaps because this machine was out of memory"
        return f"its process was killed by {by}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "no name"
