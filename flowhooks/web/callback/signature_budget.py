"""Bound the work that invalid signatures of one client cause.

A signature does not name its secret, and an HMAC covers the whole body. A request with an invalid signature therefore
costs one HMAC over its body for each secret of each source that may call from its address.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.clock import SECOND
from flowhooks.errors import RateLimited
from flowhooks.settings import is_loopback
from flowhooks.web.client_network import client_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.clock import Clock

BUDGET_BYTES: Final = 64 * 1024**2
"""Number of bytes over which HMACs may be computed in vain for one client at once."""
REFILL_BYTES_PER_SECOND: Final = 4 * 1024**2
"""Number of bytes that are added to the budget per second. They take less than a hundredth of a core."""
MIN_COST_BYTES: Final = 4096
"""Least cost of one HMAC, because a short body does not make it free."""
MAX_CLIENTS: Final = 10_000
"""Maximum number of clients that are remembered."""


class _Client(NamedTuple):
    """A client's remaining budget in bytes, when it was computed, and the sources that have signed from there."""

    remaining: float = BUDGET_BYTES
    at: int = 0
    sources: frozenset[str] = frozenset()


class SignatureBudget:
    """Budgets by address, or by /64 network of IPv6. May be used from any thread; each process counts for itself.

    Loopback addresses have no limit: requests from there come through a proxy or a tunnel, so from everyone.

    Args:
        clock: the clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def select(self, address: str | None, names: Sequence[str]) -> tuple[str, ...]:
        """Return the sources whose signatures are to be computed: those that have signed from this address first.

        If the budget is used up, only these are left, so that the work is bounded and they can still call.

        Args:
            address: the client's address; None if it is not known.
            names: the candidates.

        Raises:
            RateLimited: the budget is used up, and no candidate has signed from this address.
        """
        with self._lock:
            network = _network(address)
            client = self._read(network)
            if network in self._clients:
                self._clients[network] = client
        known = tuple(name for name in names if name in client.sources)
        if client.remaining > 0 or address is None or is_loopback(address):
            return (*known, *(name for name in names if name not in client.sources))
        if not known:
            raise self.rejection(address)
        return known

    def rejection(self, address: str | None) -> RateLimited:
        """Return the error for a client whose budget is used up."""
        with self._lock:
            missing = -self._read(_network(address)).remaining
        return RateLimited("too_many_invalid", retry_after=max(1, math.ceil(missing / REFILL_BYTES_PER_SECOND)))

    def record_failure(self, address: str | None, *, signatures: int, body_bytes: int) -> None:
        """Subtract the work that was done in vain."""
        network = _network(address)
        with self._lock:
            client = self._read(network)
            # Bounded below, so that one client is not refused for longer than the time in which the budget is refilled.
            remaining = client.remaining - signatures * max(body_bytes, MIN_COST_BYTES)
            self._store(network, client._replace(remaining=max(remaining, -BUDGET_BYTES)))

    def record_success(self, address: str | None, name: str) -> None:
        """Remember that a source has signed from this address."""
        network = _network(address)
        with self._lock:
            client = self._read(network)
            if name not in client.sources:
                self._store(network, client._replace(sources=client.sources | {name}))

    def _read(self, network: str) -> _Client:
        client, now = self._clients.get(network, _Client()), self._clock.now()
        # A clock that is set back adds nothing, and removes nothing.
        refill = max(0, now - client.at) / SECOND * REFILL_BYTES_PER_SECOND
        return client._replace(remaining=min(BUDGET_BYTES, client.remaining + refill), at=now)

    def _store(self, network: str, client: _Client) -> None:
        self._clients[network] = client
        self._clients.move_to_end(network)
        if len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)


def _network(address: str | None) -> str:
    return client_network(address or "")
