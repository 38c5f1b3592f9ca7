"""The throttle of login attempts: a delay that doubles with each failure.

Each process counts for itself, in memory. The delay of a name stays short, because otherwise anyone who knows an
operator's name could lock that operator out. The delay of an address grows longer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND
from flowhooks.settings import is_loopback
from flowhooks.web.client_network import client_network

if TYPE_CHECKING:
    from flowhooks.clock import Clock

FREE_FAILURES: Final = 5
"""Number of failures of a name before delays start, because people mistype."""
FREE_ADDRESS_FAILURES: Final = 10
MAX_DELAY_SECONDS: Final = 30
"""Maximum delay of a name in seconds, which allows 2,880 guesses a day."""
MAX_ADDRESS_DELAY_SECONDS: Final = 900
FORGET_AFTER_SECONDS: Final = 3600
"""Seconds without a failure after which earlier failures are forgotten."""
MAX_ENTRIES: Final = 10_000
"""Maximum number of names and addresses that are remembered."""
MAX_COUNTED: Final = 32
"""Maximum number of failures that are remembered of each. Fewer lead to the longest delay."""


class LoginThrottle:
    """A counter of failures by name and by address. Every method may be called from any thread.

    IPv6 addresses are counted by their /64. Loopback addresses are not counted: requests from there come through a
    proxy or a tunnel, so from everyone.

    Args:
        clock: the clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # The times of the failures and of the attempts in progress, the newest last.
        self._failures: OrderedDict[tuple[str, str], tuple[int, ...]] = OrderedDict()

    def check(self, name: str, address: str) -> int:
        """Start an attempt, unless it has to wait.

        It counts as failed until `reset` is called, so that attempts in parallel do not bypass the throttle.

        Args:
            name: the name to log in with, even if no operator has it.
            address: the client's address; `""` if it is not known.

        Returns:
            Seconds to wait, or 0 if the attempt may be made. An attempt that has to wait is not counted.
        """
        with self._lock:
            now = self._clock.now()
            keys = self._keys(name, address)
            wait = max(self._blocked_until(key, now) for key in keys) - now
            if wait > 0:
                return -(-wait // SECOND)
            for key in keys:
                self._failures[key] = (*self._recent(key, now), now)[-MAX_COUNTED:]
                self._failures.move_to_end(key)
            while len(self._failures) > MAX_ENTRIES:
                self._failures.popitem(last=False)
            return 0

    def cancel(self, name: str, address: str) -> None:
        """Withdraw an attempt that could not be made."""
        with self._lock:
            for key in self._keys(name, address):
                # Attempts at the same time have almost the same time, so the newest one stands for this attempt.
                if times := self._failures.pop(key, ())[:-1]:
                    self._failures[key] = times

    def reset(self, name: str, address: str) -> None:
        """Forget the failures of a name after a login, and withdraw this attempt from the failures of its address.

        The other failures of the address stay. Otherwise an operator could guess the passwords of others by logging in
        between.
        """
        self.cancel(name, address)
        with self._lock:
            self._failures.pop(("name", name), None)

    def _keys(self, name: str, address: str) -> list[tuple[str, str]]:
        counted = address and not is_loopback(address)
        return [("name", name)] + ([("address", client_network(address))] if counted else [])

    def _recent(self, key: tuple[str, str], now: int) -> tuple[int, ...]:
        times = self._failures.get(key, ())
        if times and times[-1] > now:
            # The clock was set back. Without this, the delay would last until it shows the old time again.
            times = tuple(min(at, now) for at in times)
            self._failures[key] = times
        return () if times and now - times[-1] > FORGET_AFTER_SECONDS * SECOND else times

    def _blocked_until(self, key: tuple[str, str], now: int) -> int:
        free, longest = (
            (FREE_FAILURES, MAX_DELAY_SECONDS)
            if key[0] == "name"
            else (FREE_ADDRESS_FAILURES, MAX_ADDRESS_DELAY_SECONDS)
        )
        times = self._recent(key, now)
        if len(times) < free:
            return 0
        return times[-1] + min(1 << (len(times) - free), longest) * SECOND
