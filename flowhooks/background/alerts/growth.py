"""Decide when listeners are notified again of an open alert that has grown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND

if TYPE_CHECKING:
    from flowhooks.ledger.alert_queries import OpenAlert

GROWTH_FACTOR: Final = 2
"""An alert has grown if its count is at least this multiple of the count at its last notification."""
MIN_GROWTH: Final = 10
"""Minimum increase of the count, because growth from one to two is no reason for a notification."""
QUIET_SECONDS: Final = 3600
"""Seconds without a new delivery or event after which each new one counts as growth, even a single one."""
MIN_INTERVAL_SECONDS: Final = 600
"""Minimum seconds between two notifications of one alert."""


def has_grown(alert: OpenAlert, count: int, last_at: int, now: int) -> bool:
    """Return whether listeners must be notified again.

    Args:
        alert: the alert as stored by the previous poll.
        count: current number of deliveries or events.
        last_at: when the newest of them was added, in microseconds since 1970.
        now: microseconds since 1970.
    """
    # If the clock was set back, `notified_at` may be in the future. That must not suppress notifications.
    if count <= alert.notified_count or 0 <= now - alert.notified_at < MIN_INTERVAL_SECONDS * SECOND:
        return False
    if count >= max(GROWTH_FACTOR * alert.notified_count, alert.notified_count + MIN_GROWTH):
        return True
    return alert.acknowledged_at is None and last_at - alert.last_at >= QUIET_SECONDS * SECOND
