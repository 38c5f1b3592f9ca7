"""Report a plugin that takes long to load, because nothing else shows which plugin a start waits for."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.plugins.discovery import DiscoveredPlugin

REPORT_INTERVAL: Final = 10.0
"""Seconds until the first report of a plugin, and between its reports."""


class SlowLoadingWatch:
    """Watches the loading of plugins in a thread of its own, because a plugin may never return.

    Args:
        report: called in that thread with a plugin that takes long and the seconds so far, again after each interval.
    """

    def __init__(self, report: Callable[[DiscoveredPlugin, int], None]) -> None:
        self._report = report
        self._current: tuple[DiscoveredPlugin, float] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow-loading", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def begin(self, plugin: DiscoveredPlugin) -> None:
        """Record that `plugin` is loaded from now on."""
        self._current = (plugin, time.monotonic())

    def _run(self) -> None:
        reported: tuple[object, int] = (None, 0)
        while not self._stop.wait(REPORT_INTERVAL / 10):
            if self._current is None:
                continue
            plugin, began = self._current
            seconds = time.monotonic() - began
            intervals = int(seconds / REPORT_INTERVAL)
            if intervals and reported != (self._current, intervals):
                reported = (self._current, intervals)
                self._report(plugin, int(seconds))
