"""The rate limit of callbacks: one token bucket per source.

Each process counts for itself, in memory.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND

if TYPE_CHECKING:
    from flowhooks.clock import Clock

MAX_WAIT_SECONDS: Final = 86_400
"""Maximum time after which a caller is asked to try again, also at a rate of one callback in a year."""


class RateLimiter:
    """Token buckets by name. May be used from any thread.

    Args:
        clock: the clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[float, int]] = {}

    def acquire(self, name: str, rate: float, burst: int) -> int:
        """Take a token, if one is available.

        Args:
            name: the source. Only names from the settings are used, so the number of buckets is bounded.
            rate: tokens added per second.
            burst: the maximum number of tokens; 0: the tokens of one second, at least one.

        Returns:
            0 if a token was taken, otherwise the whole seconds until one is available, at most a day.
        """
        capacity = float(burst or max(1, math.ceil(rate)))
        with self._lock:
            now = self._clock.now()
            tokens, updated_at = self._tokens.get(name, (capacity, now))
            # A clock that is set back adds no tokens, and removes none.
            tokens = min(capacity, tokens + max(0, now - updated_at) / SECOND * rate)
            is_acquired = tokens >= 1
            self._tokens[name] = (tokens - 1 if is_acquired else tokens), now
            return 0 if is_acquired else max(1, math.ceil(min(MAX_WAIT_SECONDS, (1 - tokens) / rate)))
