"""Decide whether the clock can be trusted for deletions, which cannot be undone.

If the clock is wrongly ahead even for a minute, all records look expired. So the clock is in doubt if it is more than a
day ahead of the newest stored record, or jumps ahead by more than a day. The doubt ends after one hour of the monotonic
clock, which does not jump. The cost: a server that was down for days also waits for that hour.
"""

from __future__ import annotations

import threading
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
        # Retention and the clock watch call from their own threads.
        self._lock = threading.Lock()
        now = clock.now()
        self._difference = self._difference_at(now)
        self._unreported = 0
        ahead = newest is not None and now > newest + MAX_AHEAD
        self._doubted_since = monotonic() if ahead else None

    def check_jump(self) -> int:
        """Return the jump of the clock since the last call in microseconds, negative if backwards; 0 if none."""
        with self._lock:
            self._update()
            jump, self._unreported = self._unreported, 0
        return jump if abs(jump) >= MIN_JUMP else 0

    def trusted_now(self) -> int | None:
        """Return the current time in microseconds since 1970; None while the clock is in doubt.

        A deletion uses this time for all its cutoffs. If it read the clock again, the clock could have jumped since.
        """
        with self._lock:
            now = self._update()
            since = self._doubted_since
        return now if since is None or self._monotonic() - since >= DOUBT_SECONDS else None

    def _update(self) -> int:
        now = self._clock.now()
        before, self._difference = self._difference, self._difference_at(now)
        jump = self._difference - before
        if jump > MAX_AHEAD:
            self._doubted_since = self._monotonic()
        self._unreported += jump
        return now

    def _difference_at(self, now: int) -> int:
        return now - round(self._monotonic() * SECOND)
