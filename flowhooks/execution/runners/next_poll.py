"""When a runner looks for due deliveries next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND

if TYPE_CHECKING:
    from flowhooks.clock import Clock
    from flowhooks.execution.handler_runtime import HandlerRuntime

# A handler that starts more often has a burst that lasts longer than this.
MIN_RATE_PAUSE_SECONDS: Final = 0.05
"""Minimum seconds between two polls for handlers that are at their rate."""


def seconds_to_poll(runtime: HandlerRuntime, clock: Clock, interval: float) -> float:
    """Return the seconds until the next poll: the interval, or less if a handler at its rate may start before."""
    now = clock.now()
    next_at = runtime.next_start(now)
    return interval if next_at is None else min(interval, max(MIN_RATE_PAUSE_SECONDS, (next_at - now) / SECOND))
