"""Signals as something that a loop can wait for."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask for the end."""


def ignore_signal(_number: int, _frame: object) -> None:
    """Do nothing. Unlike SIG_IGN, programs that this process starts do not inherit it."""


class SignalWaiter:
    """Receives signals through a pipe, into which the interpreter writes the number of each signal.

    Python calls the handler of a signal between two steps of the main thread. A main thread that waits for a lock may
    never hear of a signal that another thread received, or that came just before the wait. A loop that waits for the
    pipe hears of every signal. Handlers stay installed after `with`: a late signal must not end the process.

    Args:
        numbers: the signals.
        handler: called for each signal in the main thread, too.

    Attributes:
        reader: the non-blocking file to wait for.
        previous_handlers: what handled each signal before.
    """

    def __init__(self, numbers: Iterable[int], handler: Callable[[int, Any], None] = ignore_signal) -> None:
        self._numbers = tuple(numbers)
        self._handler = handler
        self._previous_wakeup_fd = -1
        self.previous_handlers: dict[int, Any] = {}
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)

    def __enter__(self) -> Self:
        self._previous_wakeup_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._numbers:
            self.previous_handlers[number] = signal.signal(number, self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._previous_wakeup_fd)

    def read(self, limit: int = 1024) -> bytes:
        """The numbers of the oldest signals that were received and not read."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.reader, limit)
        return b""

    def write(self, number: int) -> None:
        """Pretend that a signal was received; from any thread."""
        with contextlib.suppress(BlockingIOError):  # the pipe is full of signals that nobody has read
            os.write(self._writer, bytes([number]))

    def close_after_fork(self) -> None:
        """In a child process: leave the pipe to the parent."""
        signal.set_wakeup_fd(-1)
        os.close(self.reader)
        os.close(self._writer)
