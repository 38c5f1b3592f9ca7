"""One of the processes that are to be there, and when it is started again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from flowhooks.cli.process.child import ChildProcess

MIN_RESTART_DELAY: Final = 0.2
"""Seconds after which a process that has died is started again; doubled each time that it dies soon."""
MAX_RESTART_DELAY: Final = 30.0
STABLE_SECONDS: Final = 60.0
"""Seconds after which a process that then dies is started again as if it had never died before."""


def next_restart_delay(previous: float, uptime: float) -> float:
    """Seconds until a process is started again.

    Args:
        previous: what this gave the last time; 0 if it has not died before.
        uptime: for how many seconds it was ready.
    """
    return MIN_RESTART_DELAY if not previous or uptime >= STABLE_SECONDS else min(MAX_RESTART_DELAY, previous * 2)


@dataclass(slots=True)
class Slot:
    """One of the processes that are to be there.

    Attributes:
        number: which, from 0.
        current: the process that does the work, or is starting to; None while it waits to be started again.
        successor: what has been started to take over from it.
        retiring: what it has taken over from, and is not gone yet.
        restart_delay: seconds that were waited the last time.
        restart_at: when it is to be started again, by `time.monotonic`.
    """

    number: int
    current: ChildProcess | None = None
    successor: ChildProcess | None = None
    retiring: ChildProcess | None = None
    restart_delay: float = 0.0
    restart_at: float = 0.0

    def children(self) -> list[ChildProcess]:
        """All of its processes that there are."""
        return [child for child in (self.current, self.successor, self.retiring) if child is not None]
