"""The handlers of the model: what each listens to, and what it says of itself; both sides are made from this.

It must not know what either makes of it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SECOND: Final = 1_000_000
IGNORED: Final = "ignored"
"""The process key whose events nobody need want."""


class Retries(NamedTuple):
    """How often, and after how many seconds."""

    attempts: int
    delays: tuple[int, ...]

    def after(self, made: int) -> int | None:
        """Microseconds to the next attempt; None if there is none."""
        return None if made >= self.attempts else self.delays[min(made, len(self.delays)) - 1] * SECOND


UNASKED: Final = Retries(8, (5, 300, 1800, 7200, 18000, 36000, 36000))
"""What is gone by where a handler has declared nothing, and yet an attempt is to be made again."""


class Listener(NamedTuple):
    """A handler: what it listens to, and what it says of itself."""

    keys: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    every: bool = False
    retry: Retries | None = None
    probes: bool = False


HANDLERS: Final = {
    "p:once": Listener(keys=("leave",)),
    "p:again": Listener(keys=("leave", "trip"), classes=("C",), retry=Retries(3, (10, 100))),
    "p:asks": Listener(keys=("trip",), probes=True),
    "q:late": Listener(keys=("late",), retry=Retries(2, (1,))),
    "q:every": Listener(every=True),
}
