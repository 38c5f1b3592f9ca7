"""Decide whether the clock can be trusted for deletions, which cannot be undone.

If the clock is wrongly ahead even for a minute, all records look expired. So the clock is in doubt if it is more than a
day ahead of the newest stored record, or jumps ahead by more than a day. The doubt ends after one hour of the monotonic
clock, which does not jump. The cost: a server that was down for days also waits for that hour.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from flowhooks.clock import DAY, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.clock import Clock

MAX_AHEAD: Final = DAY
"""Microseconds by which the clock may be ahead of the newest stored record, or jump ahead, without doubt."""
DOUBT_SECONDS: Final = 3600.0
"""Seconds of the monotonic clock after which the doubt ends."""
MIN_JUMP: Final = 60 * SECOND
"""Microseconds by which the clock must differ from the monotonic clock to count as a jump. NTP slews by less."""


class ClockTrust:
    """Compares a clock with the monotonic clock.

    Args:
        clock: the clock.
        newest: the newest time in the ledger before this process stored anything, in microseconds since 1970; None if
            the ledger was empty.
        monotonic: the monotonic clock, in seconds.
    """

    def __init__(self, clock: Clock, newest: int | None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._difference = self._read_difference()
        ahead = newest is not None and clock.now() > newest + MAX_AHEAD
        self._doubted_since = monotonic() if ahead else None

    def check_jump(self) -> int:
        """Return the jump of the clock since the last check in microseconds, negative if backwards; 0 if none."""
        before, self._difference = self._difference, self._read_difference()
        jump = self._difference - before
        if jump > MAX_AHEAD:
            self._doubted_since = self._monotonic()
        return jump if abs(jump) >= MIN_JUMP else 0

    @property
    def is_trusted(self) -> bool:
        """Whether the clock is not in doubt, or the doubt has lasted for an hour."""
        self.check_jump()
        return self._doubted_since is None or self._monotonic() - self._doubted_since >= DOUBT_SECONDS

    def _read_difference(self) -> int:
        return self._clock.now() - round(self._monotonic() * SECOND)
