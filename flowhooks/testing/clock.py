"""A clock that stands still until it is moved."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

STARTS_AT: Final = 1_767_225_600 * SECOND
"""2026-01-01T00:00:00Z, in microseconds since 1970."""


class ManualClock(Clock):
    """A clock that stands still until it is moved, and chance that is always the same.

    Attributes:
        time: microseconds since 1970 (UTC); at first 2026-01-01T00:00:00Z.
        drawn: what `random` answers, from 0 up to 1; at first 0, so that delays have no jitter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.time = STARTS_AT
        self.drawn = 0.0
        self._made = itertools.count(1)

    def now(self) -> int:
        """The time to which it was moved, in microseconds since 1970."""
        return self.time

    def sync(self, _told: Callable[[], int]) -> int:
        """It follows nobody."""
        return 0

    def random(self) -> float:
        """The number that was set."""
        return self.drawn

    def new_id(self) -> str:
        """A UUID version 7 that sorts after the last one, though the time stands still."""
        milliseconds = self.time // 1000
        return f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7000-8000-{next(self._made):012x}"

    def advance(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Move it on.

        Args:
            seconds: how far; added to what the others say, as with `timedelta`.
            minutes: as above.
            hours: as above.
            days: as above.

        Raises:
            ValueError: it would go back, which no clock of flowhooks ever does.
        """
        distance = seconds + 60 * minutes + 3600 * hours + 86400 * days
        if distance < 0:
            raise ValueError(f"the clock goes forward only, not by {distance} seconds")
        self.time += round(distance * SECOND)
