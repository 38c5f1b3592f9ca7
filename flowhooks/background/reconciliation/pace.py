"""Let rounds leave the processor to callbacks."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

MAX_SHARE: Final = 1 / 30
"""Maximum share of this process's processor time that a round uses while other threads are busy. All threads share one
core, so accepting becomes slower by this share."""
BUSY_SHARE: Final = 0.02
"""Share of one core from which on other threads count as busy."""
MAX_REST: Final = 20.0
"""Maximum seconds of one rest, which must be much shorter than the lease."""


class Pace:
    """Measures the processor time of a round, and rests between its pages while other threads are busy.

    It is used by the thread of the round; `measured` also by the threads that work for it.
    """

    def __init__(self) -> None:
        self._elsewhere = 0.0
        self._mark()

    def start(self) -> None:
        """Begin to measure: a round starts in this thread."""
        self._mark()

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count what another thread does for the round, which waits for it."""
        before = time.thread_time()
        try:
            yield
        finally:
            self._elsewhere += time.thread_time() - before

    def rest(self, stopping: threading.Event) -> None:
        """Rest in proportion to the work since the last rest, if other threads are busy.

        Args:
            stopping: ends the rest.
        """
        own = time.thread_time() - self._own_before + self._elsewhere
        others = time.process_time() - self._all_before - own
        passed = time.monotonic() - self._since
        if others > BUSY_SHARE * passed:
            # Other processes may leave this one a part of a core only. Then the same work of others takes longer.
            received = min(1.0, (own + others) / passed)
            stopping.wait(min(own * (1 / MAX_SHARE - 1) / received, MAX_REST))
        self._mark()

    def _mark(self) -> None:
        self._since = time.monotonic()
        self._own_before = time.thread_time()
        self._all_before = time.process_time()
        self._elsewhere = 0.0
