"""The places of the pool's threads: what waits for them, and what each is at; it must not know who runs anything."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flowhooks.model.delivery import Queued

REPLACED: Final = "another thread takes its place; find out what it waits for"
KEPT: Final = "too many are overdue: it keeps its place; find out what it waits for, or start the server again"
FEWER: Final = "tried again in a moment; until then fewer deliveries run at once"


class Line:
    """The deliveries of one handler that are in memory."""

    __slots__ = ("given_up", "has_turn", "more", "queue", "running", "share")

    def __init__(self, share: int) -> None:
        self.share = share
        self.queue: deque[Queued] = deque()
        self.running = 0
        self.given_up = 0
        self.has_turn = False
        self.more = False

    @property
    def here(self) -> int:
        """How many are here, waiting or running."""
        return len(self.queue) + self.running + self.given_up


class Run:
    """What a thread is at.

    Attributes:
        queued: the delivery.
        began: when its thread took it, by `time.monotonic`.
        overdue: whether it has been told that it takes too long.
        given_up: whether another thread has taken the place of its.
    """

    __slots__ = ("began", "given_up", "overdue", "queued")

    def __init__(self, queued: Queued) -> None:
        self.queued = queued
        self.began = time.monotonic()
        self.overdue = False
        self.given_up = False


def told(run: Run, now: float) -> dict[str, Any]:
    """What a line of the log says of it at `now`, by `time.monotonic`."""
    queued = run.queued
    return {"handler": queued.handler, "delivery": queued.delivery_id, "seconds": round(now - run.began, 3)}
