"""One of the processes that are to be there, and when it is started again; it must not know how that is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from flowhooks.cli.process.child import Child

FIRST_DELAY: Final = 0.2
"""Seconds after which a process that has died is started again; doubled each time that it dies soon."""
LONGEST_DELAY: Final = 30.0
LIVED_LONG: Final = 60.0
"""Seconds after which a process that then dies is started again as if it had never died before."""


def delay_after(before: float, lived: float) -> float:
    """Seconds until a process is started again.

    Args:
        before: what this gave the last time; 0 if it has not died before.
        lived: for how many seconds it was ready.
    """
    return FIRST_DELAY if not before or lived >= LIVED_LONG else min(LONGEST_DELAY, before * 2)


@dataclass(slots=True)
class Slot:
    """One of the processes that are to be there.

    Attributes:
        number: which, from 0.
        current: the process that does the work, or is starting to; None while it waits to be started again.
        successor: what has been started to take over from it.
        leaving: what it has taken over from, and is not gone yet.
        delay: seconds that were waited the last time.
        due: when it is to be started again, by `time.monotonic`.
    """

    number: int
    current: Child | None = None
    successor: Child | None = None
    leaving: Child | None = None
    delay: float = 0.0
    due: float = 0.0

    def children(self) -> list[Child]:
        """All of its processes that there are."""
        return [one for one in (self.current, self.successor, self.leaving) if one is not None]
