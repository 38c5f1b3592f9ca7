"""The threads of a server that must end before its ledger is closed."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_TIMEOUT: Final = 2.0
"""Seconds that each background service gets to finish its current work when the server stops."""

SIGNAL_INTERVAL: Final = 0.2
"""Seconds after which the main thread handles a signal that did not interrupt its wait for the threads.

Such a signal arrived just before the wait, or in another thread.
"""


class Service(Protocol):
    """A component that works in the background from `start` to `stop`."""

    def start(self) -> None:
        """Start."""

    def stop(self, timeout: float) -> object:
        """Stop; the current work gets at most `timeout` seconds."""


class ThreadGroup:
    """Starts threads, and waits for all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._died: dict[str, str] = {}

    def start(self, name: str, function: Callable[[], object]) -> None:
        """Call `function` in a thread of its own."""
        thread = threading.Thread(target=self._call, args=(name, function), name=name, daemon=True)
        with self._lock:
            thread.start()  # before it is added to the list, because `join` joins every thread in the list
            self._threads = [*(started for started in self._threads if started.is_alive()), thread]

    def _call(self, name: str, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            self._died[name] = type(error).__name__
            raise

    def why_died(self, name: str) -> str | None:
        """Return which exception has ended a thread, and what to do; None if none has."""
        error = self._died.get(name)
        return error and f"{error} has ended the thread {name}; restart the server"

    def join(self, timeout: float) -> bool:
        """Wait for all threads, for at most `timeout` seconds altogether; return whether all have ended."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            while thread.is_alive() and (remaining := deadline - time.monotonic()) > 0:
                thread.join(min(remaining, SIGNAL_INTERVAL))
        return not any(thread.is_alive() for thread in self._threads)
