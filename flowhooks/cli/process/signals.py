"""Signals as something that a loop can wait for."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask for the end."""


class ShutdownSignal:
    """Waits until the end is asked for: by SIGTERM or SIGINT, or by `ask`. A second signal ends the process at once.

    SIGHUP is heard too, and is no end, unless it comes because the terminal has gone at which the process was started.

    What Python does about a signal it does between two steps of the main thread, so a main thread that waits for a
    lock may never hear of one that another thread was given, or that came just before it began to wait. Here it
    waits for a pipe, into which the interpreter writes each signal's number as it comes.
    """

    def __init__(self) -> None:
        self._requested = False
        self._previous_handlers: dict[int, Any] = {}
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def __enter__(self) -> Self:
        self._previous_wakeup_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            self._previous_handlers[number] = signal.signal(number, self._on_signal)
        before = self._previous_handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, _ignore_signal)
        self._had_terminal = before is not signal.SIG_IGN and _has_terminal()  # `nohup` ignores it
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._previous_handlers.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(self._previous_wakeup_fd)

    def request(self) -> None:
        """Ask for the end; from any thread, and as often as one likes."""
        with contextlib.suppress(BlockingIOError):  # full: it has been asked for often enough
            os.write(self._writer, bytes([signal.SIGTERM]))

    def wait(self, timeout: float | None = None, *, on_hangup: Callable[[], None] | None = None) -> bool:
        """Wait until the end is asked for; other signals, of which plugins may make use, do not count.

        Args:
            timeout: seconds to wait at most, from the last signal on; default: for ever.
            on_hangup: called at each SIGHUP, in this thread, as any other function is; default: it does not count.

        Returns:
            Whether it has been asked for. It may be asked for again, and waited for again.
        """
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        while poll.poll(None if timeout is None else timeout * 1000):
            number = os.read(self._reader, 1)[0]
            if number in STOP_SIGNALS:
                return True
            if number == signal.SIGHUP and on_hangup is not None:
                if self._had_terminal and not _has_terminal():
                    return True
                on_hangup()
        return False

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._requested:
            os._exit(128 + number)
        self._requested = True


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


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
