"""The retry schedule of a handler."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from flowhooks.errors import MAX_DELAY_SECONDS

DEFAULT_DELAYS: Final = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)
"""Seconds before each further attempt, 27.6 hours in total. Source: the schedule that Svix publishes for webhooks."""
MAX_ATTEMPTS: Final = 1000
"""Maximum of `attempts`, so that a typing error does not cause years of retries."""


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """The retry schedule of a handler. It states that running the handler's function twice is safe.

    Attributes:
        attempts: maximum number of attempts, including the first one, 1 to 1000; default: one more than the number of
            delays, which is 8 with the default delays.
        delays: seconds before attempt 2, 3, …, each 0 to 30 days; the last delay repeats. Default: 5 s, 5 min, 30 min,
            2 h, 5 h, 10 h, 10 h.
        jitter: maximum random lengthening of a delay, as a fraction of it, 0 to 1, so that attempts that failed at the
            same time are not retried at the same time; default: 0.1.

    Raises:
        ValueError: a value is not a number, or is out of range.
        TypeError: a subclass is defined. If its code failed, the result of an attempt could not be recorded.
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

    def __init_subclass__(cls) -> None:
        raise TypeError("Retry cannot be subclassed: write Retry(delays=[...])")

    def delay(self, attempts_made: int, random: float) -> float | None:
        """Return the seconds to wait after attempt number `attempts_made` has failed.

        Args:
            attempts_made: number of attempts made so far, from 1.
            random: a random number between 0 and 1.

        Returns:
            The delay in seconds, or None if no attempt is left.
        """
        if attempts_made >= self.attempts:
            return None
        delay = self.delays[min(attempts_made, len(self.delays)) - 1]
        return delay * (1 + self.jitter * random)


def attempts_made(attempt: int, retry_base: int) -> int:
    """Return the number of attempts that were made in the present retry schedule.

    Args:
        attempt: the number of the last attempt.
        retry_base: the stored number of attempts made before the schedule started; if it is damaged, all attempts
            count.
    """
    is_sound = type(retry_base) is int and 0 <= retry_base <= attempt
    return attempt - retry_base if is_sound else attempt


def _to_seconds(delays: object) -> tuple[float, ...]:
    seconds = tuple(delays) if isinstance(delays, Iterable) else ()
    if not seconds or not all(_is_delay(delay) for delay in seconds):
        raise ValueError(f"delays must be one or more numbers of 0 to {MAX_DELAY_SECONDS} seconds, not {delays!r}")
    return tuple(float(delay) for delay in seconds)


def _is_delay(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_DELAY_SECONDS
