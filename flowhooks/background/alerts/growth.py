"""The rule by which listeners are notified again of an open alert that has grown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND

if TYPE_CHECKING:
    from flowhooks.ledger.alert_queries import OpenAlert

GROWTH_FACTOR: Final = 2
"""How many times as many must share an alert as at its last notification."""
MIN_GROWTH: Final = 10
"""How many more must share it: from one to two is twice as many, and no reason for a phone call."""
QUIET_SECONDS: Final = 3600
"""Seconds without a new one after which each new one counts as growth, however few there are."""
MIN_INTERVAL_SECONDS: Final = 600
"""Seconds between two notifications of one alert, however fast it grows."""


def has_grown(alert: OpenAlert, count: int, last_at: int, now: int) -> bool:
    """Whether listeners should be notified again.

    Args:
        alert: the alert as the look before left it.
        count: how many share it now.
        last_at: when the newest of them joined, in microseconds since 1970.
        now: microseconds since 1970.
    """
    # A clock that was set back must not silence an alert: a notification from the future was long ago.
    if count <= alert.notified_count or 0 <= now - alert.notified_at < MIN_INTERVAL_SECONDS * SECOND:
        return False
    if count >= max(GROWTH_FACTOR * alert.notified_count, alert.notified_count + MIN_GROWTH):
        return True
    return alert.acknowledged_at is None and last_at - alert.last_at >= QUIET_SECONDS * SECOND
