"""Signals that stop a process, replace it, or make it reload its settings."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING, Final, Self

from flowhooks.signals import STOP_SIGNALS, SignalWaiter

if TYPE_CHECKING:
    from collections.abc import Callable

_INIT: Final = 1
"""Process id in a container, for which the kernel ignores signals without a handler."""


class ShutdownSignal(SignalWaiter):
    """Waits for SIGTERM, SIGINT or `request`. A second signal ends the process at once.

    Until `finish_loading`, the first signal ends the process at once: a plugin's import may never return, and the
    ledger does not know this process yet. SIGHUP requests a reload, or shutdown if the terminal of the process has been
    closed. SIGUSR2 requests a replacement.

    Attributes:
        was_received: whether one of the signals was received after `finish_loading`, and not only requested.
        had_terminal: whether this process had a terminal at its start, and SIGHUP is therefore checked for its end.
    """

    def __init__(self) -> None:
        super().__init__((*STOP_SIGNALS, signal.SIGHUP, signal.SIGUSR2), self._on_signal)
        self._loading = True
        self.was_received = False
        self.had_terminal = False

    def __enter__(self) -> Self:
        super().__enter__()
        if os.getpid() != _INIT:
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)  # works even if a plugin's code never returns to the interpreter
        self.had_terminal = depends_on_terminal(self)
        return self

    def __exit__(self, *error: object) -> None:
        for number in STOP_SIGNALS:  # the handlers of the others stay, so that a late request does not end the process
            signal.signal(number, self.previous_handlers[number])
        stop_timers()
        super().__exit__(*error)

    def finish_loading(self) -> None:
        """From now on, shut down gracefully at the first signal; during the rest of the start, when it is done."""
        self._loading = False
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)

    def request(self) -> None:
        """Request shutdown; may be called from any thread and repeatedly."""
        if self._loading:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.write(signal.SIGTERM)

    def wait(
        self,
        timeout: float | None = None,
        *,
        on_hangup: Callable[[], None] | None = None,
        on_replace: Callable[[], bool] | None = None,
    ) -> bool:
        """Wait until shutdown is requested. Other signals, which plugins may use, are ignored.

        Args:
            timeout: maximum seconds to wait, however many signals arrive meanwhile; default: no limit.
            on_hangup: called in this thread at each SIGHUP; default: SIGHUP is ignored.
            on_replace: called in this thread at each SIGUSR2; returns whether to stop waiting as if shutdown was
                requested. Default: SIGUSR2 is ignored.

        Returns:
            Whether shutdown was requested. It may be requested and waited for again.
        """
        poll = select.poll()
        poll.register(self.reader, select.POLLIN)
        end = None if timeout is None else time.monotonic() + timeout
        while poll.poll(None if end is None else max(0.0, end - time.monotonic()) * 1000):
            for number in self.read(1):
                if number in STOP_SIGNALS:
                    return True
                if number == signal.SIGHUP and on_hangup is not None:
                    if self.had_terminal and not has_terminal():
                        return True
                    on_hangup()
                if number == signal.SIGUSR2 and on_replace is not None and on_replace():
                    return True
        return False

    def _on_signal(self, number: int, _frame: object) -> None:
        if number not in STOP_SIGNALS:
            return
        if self.was_received or self._loading:
            os._exit(128 + number)
        self.was_received = True


def stop_timers() -> None:
    """Stop the timers of plugins. Their signals end a program that does not handle them, or that ends just now."""
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)


def depends_on_terminal(signals: SignalWaiter) -> bool:
    """Tell whether this process has a terminal whose end it does not ignore; `nohup` starts it with SIGHUP ignored."""
    return signals.previous_handlers[signal.SIGHUP] is not signal.SIG_IGN and has_terminal()


def has_terminal() -> bool:
    """Tell whether this process has a terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
