"""Whether the clock can be trusted with what cannot be undone.

A clock that is ahead for a minute makes everything old. So a time that is more than a day beyond the newest thing that
is stored, or a jump ahead by more than a day, is doubted, until an hour has passed by the monotonic clock, which does
not jump. A server that was down for days waits an hour for nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from flowhooks.clock import DAY, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.clock import Clock

MAX_AHEAD: Final = DAY
"""Microseconds by which the clock may be ahead of the newest thing that is stored, or jump, without being doubted."""
DOUBT_SECONDS: Final = 3600.0
"""Seconds, by the monotonic clock, for which a clock is doubted."""
MIN_JUMP: Final = 60 * SECOND
"""Microseconds between two looks from which a difference to the monotonic clock is a jump: NTP slews by less."""


class ClockTrust:
    """Compares a clock with the monotonic one.

    Args:
        clock: the clock.
        newest: the newest time that was stored before this process stored anything, in microseconds since 1970; None if
            nothing was.
        monotonic: the monotonic clock, in seconds.
    """

    def __init__(self, clock: Clock, newest: int | None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._difference = self._read_difference()
        ahead = newest is not None and clock.now() > newest + MAX_AHEAD
        self._doubted_since = monotonic() if ahead else None

    def check_jump(self) -> int:
        """Microseconds by which the clock has jumped since the last look, negative for a jump back; 0 if it has not."""
        before, self._difference = self._difference, self._read_difference()
        jump = self._difference - before
        if jump > MAX_AHEAD:
            self._doubted_since = self._monotonic()
        return jump if abs(jump) >= MIN_JUMP else 0

    @property
    def is_trusted(self) -> bool:
        """Whether the clock has not been ahead by more than a day, or has stayed so for an hour."""
        self.check_jump()
        return self._doubted_since is None or self._monotonic() - self._doubted_since >= DOUBT_SECONDS

    def _read_difference(self) -> int:
        return self._clock.now() - round(self._monotonic() * SECOND)
