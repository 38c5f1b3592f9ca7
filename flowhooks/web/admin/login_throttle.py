"""How often somebody may try to log in: a delay that grows with each failure.

Each process counts for itself, in memory. A name's delay stays short, for whoever knows an operator's name could keep
that operator out; an address's grows longer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND
from flowhooks.settings import is_loopback

if TYPE_CHECKING:
    from flowhooks.clock import Clock

FREE_FAILURES: Final = 5
"""Failures after which there is a delay: people mistype."""
FREE_ADDRESS_FAILURES: Final = 10
MAX_DELAY_SECONDS: Final = 30
"""Seconds that a name is delayed at the most: 2,880 guesses a day."""
MAX_ADDRESS_DELAY_SECONDS: Final = 900
FORGET_AFTER_SECONDS: Final = 3600
"""Seconds without a failure after which all is as if there had been none."""
MAX_ENTRIES: Final = 10_000
"""Names and addresses that are remembered."""


class LoginThrottle:
    """Counts failures by name and by address. Every method may be called from any thread.

    An address of this machine is not counted: behind it are a proxy or a tunnel, and so everybody.

    Args:
        clock: the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def check(self, name: str, address: str) -> int:
        """Begin an attempt, which counts as failed until `succeeded` is called, so that many at once are no way round.

        Args:
            name: who is to be logged in, whether there is such an operator or not.
            address: from where; `""` if that is not known.

        Returns:
            Seconds to wait; 0: go on. An attempt that has to wait is none.
        """
        with self._lock:
            now = self._clock.now()
            keys = self._keys(name, address)
            wait = max(self._blocked_until(key, now) for key in keys) - now
            if wait > 0:
                return -(-wait // SECOND)
            for key in keys:
                failures, _ = self._recent(key, now)
                self._failures[key] = failures + 1, now
                self._failures.move_to_end(key)
            while len(self._failures) > MAX_ENTRIES:
                self._failures.popitem(last=False)
            return 0

    def cancel(self, name: str, address: str) -> None:
        """Take an attempt back that could not be made."""
        with self._lock:
            for key in self._keys(name, address):
                if entry := self._failures.get(key):
                    self._failures[key] = max(0, entry[0] - 1), entry[1]

    def reset(self, name: str, address: str) -> None:
        """Forget a name's failures; an address only gets this attempt back, or an operator could guess for others."""
        self.cancel(name, address)
        with self._lock:
            self._failures.pop(("name", name), None)

    def _keys(self, name: str, address: str) -> list[tuple[str, str]]:
        return [("name", name)] + ([("address", address)] if address and not is_loopback(address) else [])

    def _recent(self, key: tuple[str, str], now: int) -> tuple[int, int]:
        failures, at = self._failures.get(key, (0, 0))
        return (0, 0) if now - at > FORGET_AFTER_SECONDS * SECOND else (failures, at)

    def _blocked_until(self, key: tuple[str, str], now: int) -> int:
        free, longest = (
            (FREE_FAILURES, MAX_DELAY_SECONDS)
            if key[0] == "name"
            else (FREE_ADDRESS_FAILURES, MAX_ADDRESS_DELAY_SECONDS)
        )
        failures, at = self._recent(key, now)
        if failures < free:
            return 0
        return at + min(1 << min(failures - free, 20), longest) * SECOND
