"""When a failed attempt is made again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

DEFAULT_DELAYS: Final = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)
"""Seconds before each further attempt: the schedule that Svix publishes for web-hooks, 27.6 hours in all."""
MAX_ATTEMPTS: Final = 1000
"""So that a slip of the finger does not run for years."""
MAX_DELAY_SECONDS: Final = 30 * 86400


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """Says that running a handler twice is safe, and when a failed attempt is made again.

    Attributes:
        attempts: how many attempts in all, the first one counted, from 1 to 1000; default one more than there
            are delays (8).
        delays: seconds before attempt 2, 3, …; the last one serves for all that follow.
            Default: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h.
        jitter: the part of a delay by which it is lengthened at random, so that what failed
            together does not return together; default 0.1.

    Raises:
        ValueError: something is no number, or a number is out of its range.
    """

    attempts: int
    delays: tuple[float, ...]
    jitter: float

    def __init__(
        self, *, attempts: int | None = None, delays: Iterable[float] = DEFAULT_DELAYS, jitter: float = 0.1
    ) -> None:
        seconds = _to_seconds(delays)
        if attempts is None:
            attempts = len(seconds) + 1
        if type(attempts) is not int or not 1 <= attempts <= MAX_ATTEMPTS:
            raise ValueError(f"attempts must be a whole number of 1 to {MAX_ATTEMPTS}, not {attempts!r}")
        if not (isinstance(jitter, int | float) and 0 <= jitter <= 1):
            raise ValueError(f"jitter must be 0 to 1, not {jitter!r}")
        object.__setattr__(self, "attempts", attempts)
        object.__setattr__(self, "delays", seconds)
        object.__setattr__(self, "jitter", jitter)

    def delay(self, attempts_made: int, random: float) -> float | None:
        """Seconds to wait after attempt number `attempts_made` has failed.

        Args:
            attempts_made: how many attempts have been made, from 1.
            random: a random number of 0 to 1, which the caller draws.

        Returns:
            The delay in seconds, or None when no attempt is left.
        """
        if attempts_made >= self.attempts:
            return None
        delay = self.delays[min(attempts_made, len(self.delays)) - 1]
        return delay * (1 + self.jitter * random)


def _to_seconds(delays: object) -> tuple[float, ...]:
    seconds = tuple(delays) if isinstance(delays, Iterable) else ()
    if not seconds or not all(_is_delay(delay) for delay in seconds):
        raise ValueError(f"delays must be one or more numbers of 0 to {MAX_DELAY_SECONDS} seconds, not {delays!r}")
    return tuple(float(delay) for delay in seconds)


def _is_delay(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_DELAY_SECONDS
