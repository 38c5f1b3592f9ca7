"""Signals as something that a loop can wait for; it must not know what is done about them."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final, Self

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask for the end."""


class SignalPipe:
    """Those that the supervisor is sent, through a pipe into which the interpreter writes each one's number."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, _ignore_signal)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)

    def read(self) -> bytes:
        """The numbers of those that have come."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.reader, 1024)
        return b""


def _ignore_signal(_number: int, _frame: object) -> None:
    """Do nothing: that the signal came is in the pipe."""
