"""Signals delivered through a pipe, so that a loop can wait for them."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Final, Self

from flowhooks.forks import close_in_children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals that request a stop."""


def ignore_signal(_number: int, _frame: object) -> None:
    """Ignore a signal. Unlike SIG_IGN, this handler is not inherited by programs that this process starts."""


class SignalWaiter:
    """A receiver of signals through a pipe, into which the interpreter writes the number of each signal.

    Python calls a signal handler between two steps of the main thread. A main thread that waits for a lock may
    therefore miss a signal that another thread received, or that arrived just before the wait. A loop that waits for
    the pipe misses none. The handlers stay installed after the `with` block, because a late signal must not end the
    process. A process that is forked from this one has the earlier handlers again, and no pipe.

    Args:
        numbers: the signals to receive.
        handler: also called in the main thread for each signal. Default: does nothing.

    Attributes:
        reader: the non-blocking file descriptor to wait for.
        previous_handlers: the earlier handler of each signal, by number.
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
        close_in_children(self, SignalWaiter._close_after_fork)
        self._previous_wakeup_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._numbers:
            self.previous_handlers[number] = signal.signal(number, self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._previous_wakeup_fd)

    def read(self, limit: int = 1024) -> bytes:
        """Return the numbers of the oldest unread signals, at most `limit`; empty if there are none."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.reader, limit)
        return b""

    def write(self, number: int) -> None:
        """Simulate the receipt of a signal. May be called from any thread."""
        with contextlib.suppress(BlockingIOError):  # the pipe is full of unread signals
            os.write(self._writer, bytes([number]))

    def _close_after_fork(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.reader)
        os.close(self._writer)
        self.reader = self._writer = -1
        for number, before in self.previous_handlers.items():
            if signal.getsignal(number) == self._handler:  # and not that of a plugin
                signal.signal(number, before)
