"""How many call-backs a second are taken of whom: a token bucket each.

Each process counts for itself, in memory.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from flowhooks.clock import SECOND

if TYPE_CHECKING:
    from flowhooks.clock import Clock


class RateLimiter:
    """Counts. From any thread.

    Args:
        clock: the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[float, int]] = {}

    def acquire(self, name: str, rate: float, burst: int) -> int:
        """Take one, if there is one.

        Args:
            name: whose; there are only as many as the settings name.
            rate: how many there are more in a second.
            burst: how many there are at the most; 0: as many as in a second, and one at least.

        Returns:
            0: taken. Else the whole seconds after which there is one.
        """
        capacity = float(burst or max(1, math.ceil(rate)))
        with self._lock:
            now = self._clock.now()
            tokens, updated_at = self._tokens.get(name, (capacity, now))
            # A clock that is put back gives nothing, and takes nothing either.
            tokens = min(capacity, tokens + max(0, now - updated_at) / SECOND * rate)
            is_acquired = tokens >= 1
            self._tokens[name] = (tokens - 1 if is_acquired else tokens), now
            return 0 if is_acquired else max(1, math.ceil((1 - tokens) / rate))
