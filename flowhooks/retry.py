"""When a failed attempt is made again; it must not know what failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

DEFAULT_DELAYS: Final = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)
"""Seconds before each further attempt: the schedule that Svix publishes for web-hooks, 27.6 hours in all."""
MOST_ATTEMPTS: Final = 1000
"""So that a slip of the finger does not run for years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Says that running a handler twice is safe, and when a failed attempt is made again.

    Attributes:
        attempts: how many attempts in all, the first one counted; default one more than
            there are delays (8).
        delays: seconds before attempt 2, 3, …; the last one serves for all that follow.
            Default: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h.
        jitter: the part of a delay by which it is lengthened at random, so that what failed
            together does not return together; default 0.1.

    Raises:
        ValueError: a number is out of its range.
    """

    attempts: int = field(default=0)
    delays: tuple[float, ...] = DEFAULT_DELAYS
    jitter: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "delays", tuple(float(delay) for delay in self.delays))
        if not self.delays or any(not 0 <= delay <= 30 * 86400 for delay in self.delays):
            raise ValueError(f"delays must be one or more numbers of 0 to {30 * 86400} seconds, not {self.delays!r}")
        if self.attempts == 0:
            object.__setattr__(self, "attempts", len(self.delays) + 1)
        if type(self.attempts) is not int or not 1 <= self.attempts <= MOST_ATTEMPTS:
            raise ValueError(f"attempts must be a whole number of 1 to {MOST_ATTEMPTS}, not {self.attempts!r}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be 0 to 1, not {self.jitter!r}")

    def delay(self, made: int, chance: float) -> float | None:
        """Seconds to wait after attempt number `made` has failed.

        Args:
            made: how many attempts have been made, from 1.
            chance: a random number of 0 to 1, which the caller draws.

        Returns:
            The delay in seconds, or None when no attempt is left.
        """
        if made >= self.attempts:
            return None
        delay = self.delays[min(made, len(self.delays)) - 1]
        return delay * (1 + self.jitter * chance)
