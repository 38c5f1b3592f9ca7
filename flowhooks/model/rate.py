"""The rate of a handler: how many of its attempts may start in a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final

from flowhooks.clock import DAY, SECOND

MAX_PER_SECOND: Final = 1_000
"""Maximum of a rate. A larger one would limit nothing."""
MAX_INTERVAL: Final = DAY
"""Maximum of microseconds between two starts, so that a typing error does not stop a handler for years."""
MAX_AHEAD: Final = 60 * SECOND
"""Microseconds by which the clock of another process may be ahead of ours."""
_PATTERN: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)/([smh])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Rate:
    """How many attempts of a handler may start in a time, over all processes.

    The ledger stores one time for each handler: from when its next attempt may start. Each start moves it by
    `interval`. While it is in the past, by at most a burst, attempts start at once. So in any time *t* at most
    *t* / `interval` + `burst` attempts start.

    Attributes:
        text: as the plugin gives it, such as `"10/s"`.
        interval: microseconds between two starts.
        burst: number of attempts that may start at once after a pause: those of one second, but at least one.
    """

    text: str
    interval: int
    burst: int

    @classmethod
    def parse(cls, text: object) -> Rate:
        """Return the rate of a text such as `"10/s"`, `"0.5/m"` or `"100/h"`.

        Raises:
            ValueError: the text is not a rate, or the rate is out of range.
        """
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        per_second = Fraction(match[1]) / _SECONDS[match[2]] if match else Fraction(0)
        if match is None or not Fraction(SECOND, MAX_INTERVAL) <= per_second <= MAX_PER_SECOND:
            raise ValueError(
                f'rate= must be a number of attempts per second, minute or hour, such as "10/s", "0.5/m" or "100/h", '
                f"from one a day to {MAX_PER_SECOND}/s, not {text!r}"
            )
        return cls(match[0], ceil(SECOND / per_second), max(1, int(per_second)))

    def next_start(self, stored: int | None, now: int) -> int:
        """Return from when the next attempt may start; times until now mean at once.

        Args:
            stored: the time that the ledger has; None: no attempt has started.
            now: microseconds since 1970.
        """
        earliest = now - (self.burst - 1) * self.interval
        if stored is None:
            return earliest
        # A later time can only have been left by a clock that was ahead: one attempt starts at once.
        return now if stored > now + self.interval + MAX_AHEAD else max(stored, earliest)

    def count(self, stored: int | None, now: int) -> int:
        """Return how many attempts may start now."""
        start = self.next_start(stored, now)
        return 0 if start > now else (now - start) // self.interval + 1

    def after(self, stored: int | None, now: int, starts: int) -> int:
        """Return the time to store when this number of attempts start now."""
        return self.next_start(stored, now) + starts * self.interval
