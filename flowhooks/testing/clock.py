"""A clock that stands still until a test moves it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

STARTS_AT: Final = 1_767_225_600 * SECOND
"""The initial time, 2026-01-01T00:00:00Z, in microseconds since 1970."""


class ManualClock(Clock):
    """A clock that stands still until a test moves it, with random numbers and ids that are the same in each run.

    Attributes:
        time: the time in microseconds since 1970 (UTC). Initially 2026-01-01T00:00:00Z.
        drawn: the number that `random` returns, from 0 up to 1. Initially 0, so that delays have no jitter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.time = STARTS_AT
        self.drawn = 0.0
        self._made = itertools.count(1)

    def now(self) -> int:
        """Return the current setting of the clock, in microseconds since 1970."""
        return self.time

    def sync(self, _database_time: Callable[[], int]) -> int:
        """Do nothing, because this clock follows no other one; return 0."""
        return 0

    def random(self) -> float:
        """Return `drawn`."""
        return self.drawn

    def new_id(self) -> str:
        """Return a UUID version 7 that sorts after the previous one, even while the time stands still."""
        milliseconds = self.time // 1000
        return f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7000-8000-{next(self._made):012x}"

    def advance(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Move the clock forward.

        Args:
            seconds: the distance; the four arguments are added up, as with `timedelta`.
            minutes: as above.
            hours: as above.
            days: as above.

        Raises:
            ValueError: the clock would move backwards, which flowhooks' clocks never do.
        """
        distance = seconds + 60 * minutes + 3600 * hours + 86400 * days
        if distance < 0:
            raise ValueError(f"the clock can only be advanced, not by {distance} seconds")
        self.time += round(distance * SECOND)
