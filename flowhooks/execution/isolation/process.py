"""One process for handlers, as the server sees it; it must not know who needs it."""

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

SIGNALS_GET: Final = 1.0
"""Seconds in which a process that is to be killed says where it was."""
ENDING_GETS: Final = 10.0
"""Seconds in which it is known how a process that was killed has ended."""
_HINTS: Final = ("MemoryError", "out of memory", "bad_alloc", "cannot allocate memory", "memory allocation")


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
        leaving: whether it was told to end; then why, in one word.
        code: as `subprocess` has it, once it has ended; None: nobody knows.
        unmade: why it was never there; `""`: it was.
    """

    def __init__(self, number: int, stream: socket.socket, output: Output) -> None:
        self.number = number
        self.stream = stream
        self.output = output
        self.handler = ""
        self.pid: int | None = None
        self.runs = 0
        self.busy = False
        self.leaving = ""
        self.code: int | None = None
        self.unmade = ""
        self.over = threading.Event()
        self._frames = protocol.Frames(stream, most=protocol.MOST_ANSWER)

    @property
    def usable(self) -> bool:
        """Whether it is there, and listens."""
        if self.over.is_set() or self.leaving:
            return False
        try:
            self.stream.setblocking(False)
            return bool(self.stream.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def ask(self, what: Mapping[str, Any], until: float) -> None:
        """Tell it what to run.

        Raises:
            TimeoutError: it does not listen.
            OSError: it has gone. Neither way it has begun.
        """
        message = protocol.frame(what)
        self.stream.settimeout(max(0.001, until - time.monotonic()))
        self.stream.sendall(message)

    def hear(self, until: float) -> dict[str, Any]:
        """What it says next.

        Raises:
            TimeoutError: nothing in time.
            Gone: it has ended, or has closed its end.
            Nonsense: what nobody can make anything of.
        """
        return self._frames.next(until)

    def ended(self, *, code: int | None, unmade: str = "") -> None:
        """It has: whoever waits for its answer is told."""
        self.code = code
        self.unmade = unmade
        self.over.set()
        with suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)

    def how(self, memory_mib: int) -> str:
        """How it has ended, in words, if nobody here wanted that before it stopped talking."""
        if not self.over.is_set() or self.code is None:
            return "its process ended together with the one that it came from"
        if self.code >= 0:
            return f"its process ended with exit code {self.code}, and no answer"
        by = f"signal {-self.code} ({_named(-self.code)})"
        tail = self.output.tail
        if any(hint in tail for hint in _HINTS):
            return f"its process was ended for want of memory (limit {memory_mib} MiB): {by}"
        if self.code == -signal.SIGKILL and self.leaving:
            return "killed, for its process has closed its end, and given no answer"
        if self.code == -signal.SIGKILL:
            return f"its process was ended by {by} from elsewhere, perhaps for want of memory on this machine"
        return f"its process was ended by {by}"


def _named(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "no name"
