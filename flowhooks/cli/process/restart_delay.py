"""The times after which a supervisor gives up a start, and starts a process again."""

from __future__ import annotations

from typing import Final

START_TIMEOUT: Final = 120.0
"""Seconds in which a process must have loaded its plugins. Otherwise it is killed and counts as failed.

Its work on the ledger after that has no limit. A kill would roll it back, and the next start would take as long again.
"""
MIN_RESTART_DELAY: Final = 0.2
"""Seconds until a failed process is restarted; doubled each time that it soon fails again."""
MAX_RESTART_DELAY: Final = 30.0
STABLE_SECONDS: Final = 60.0
"""Seconds of uptime after which the restart delay of a process starts at `MIN_RESTART_DELAY` again."""


def next_restart_delay(previous: float, uptime: float) -> float:
    """Return the seconds until a process is restarted.

    Args:
        previous: previous delay; 0 if the process has not failed before.
        uptime: seconds for which the process was ready.
    """
    return MIN_RESTART_DELAY if not previous or uptime >= STABLE_SECONDS else min(MAX_RESTART_DELAY, previous * 2)
