"""The queues of the embedded runner: waiting deliveries per handler, and the running attempt of each thread."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flowhooks.model.ready_delivery import ReadyDelivery

SLOT_REPLACED: Final = "another thread takes its place; find out what the handler waits for"
SLOT_KEPT: Final = (
    "too many attempts are overdue, so it keeps its place; find out what the handler waits for, or restart the server"
)
SLOT_LOST: Final = "it is tried again in a moment; until then fewer deliveries run at a time"


class HandlerQueue:
    """The deliveries of one handler in memory, and how many of them run."""

    __slots__ = ("abandoned", "deliveries", "has_more", "is_scheduled", "max_running", "running")

    def __init__(self, max_running: int) -> None:
        self.max_running = max_running
        self.deliveries: deque[ReadyDelivery] = deque()
        self.running = 0
        self.abandoned = 0
        self.is_scheduled = False
        self.has_more = False

    @property
    def size(self) -> int:
        """Number of deliveries in memory: waiting, running and abandoned."""
        return len(self.deliveries) + self.running + self.abandoned


class RunningAttempt:
    """The delivery that a thread is running.

    Attributes:
        queued: the delivery.
        is_claimed: whether it was stored as running together with its event.
        began: when the thread took it, in `time.monotonic`.
        overdue: whether the attempt has been logged as overdue.
        abandoned: whether another thread has taken this thread's slot.
    """

    __slots__ = ("abandoned", "began", "is_claimed", "overdue", "queued")

    def __init__(self, queued: ReadyDelivery, *, is_claimed: bool) -> None:
        self.queued = queued
        self.is_claimed = is_claimed
        self.began = time.monotonic()
        self.overdue = False
        self.abandoned = False


def log_fields(attempt: RunningAttempt, now: float) -> dict[str, Any]:
    """Return an attempt's log fields; `now` is in `time.monotonic`."""
    queued = attempt.queued
    return {"handler": queued.handler, "delivery": queued.delivery_id, "seconds": round(now - attempt.began, 3)}
