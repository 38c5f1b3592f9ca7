"""Ctrl-C in a command: the first one lets the current step finish, and the exit code is 130."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from flowhooks.cli import output
from flowhooks.errors import FlowhooksError

if TYPE_CHECKING:
    from collections.abc import Mapping

EXIT_INTERRUPTED: Final = 130
"""Exit code of a command that Ctrl-C interrupted."""


class OperationStopped(FlowhooksError):
    """An operation stopped after some of its pages.

    Args:
        why: what stopped the operation.
        done: sums over the completed pages.
        after: where to continue.
        interrupted: whether Ctrl-C stopped the operation.
    """

    def __init__(self, why: str, *, done: Mapping[str, Any], after: str, interrupted: bool) -> None:
        super().__init__(why)
        self.done = done
        self.after = after
        self.interrupted = interrupted


class InterruptHandler:
    """Lets the current page finish at the first Ctrl-C, so that the report is true; the second Ctrl-C aborts."""

    def __init__(self) -> None:
        self.requested = False
        self._sleeping = False
        self._previous_handler: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)

    def sleep(self, seconds: float) -> None:
        """Sleep between two pages; Ctrl-C ends the sleep."""
        self._sleeping = True
        try:
            with suppress(KeyboardInterrupt):
                if not self.requested:
                    time.sleep(seconds)
        finally:
            self._sleeping = False

    def _on_interrupt(self, _number: int, _frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._sleeping:  # `time.sleep` continues after a handler that returns
            raise KeyboardInterrupt
        # RuntimeError: the signal has interrupted a write to the same stream, such as that of a progress bar.
        with suppress(RuntimeError, OSError):
            output.print_line("Stopping after this step. Press Ctrl-C again to stop at once.", err=True)
