"""The queues of the embedded runner: waiting deliveries per handler, and the running attempt of each thread."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.model.ready_delivery import ClaimedAttempt, ReadyDelivery

SLOT_REPLACED: Final = "another thread takes its place; find out what the handler waits for"
SLOT_KEPT: Final = (
    "too many attempts are overdue, so it keeps its place; find out what the handler waits for, or restart the server"
)
SLOT_LOST: Final = "it is tried again in a moment; until then fewer deliveries run at a time"


class HandlerQueue:
    """The deliveries of one handler in memory, and how many of them run.

    While a thread claims deliveries of a fast handler (`is_claiming`), no other thread takes any. So the next claim
    fills all slots that have become free. `has_moved` says whether a delivery was taken since the last poll,
    `was_skipped` whether the last poll did not read its rows in the ledger.
    """

    __slots__ = (
        "abandoned",
        "deliveries",
        "has_more",
        "has_moved",
        "is_claiming",
        "is_scheduled",
        "max_running",
        "running",
        "was_skipped",
    )

    def __init__(self, max_running: int) -> None:
        self.max_running = max_running
        self.deliveries: deque[ReadyDelivery] = deque()
        self.running = 0
        self.abandoned = 0
        self.is_scheduled = False
        self.is_claiming = False
        self.has_more = False
        self.has_moved = False
        self.was_skipped = False

    @property
    def is_stuck(self) -> bool:
        """Whether none of its deliveries could start since the last poll, because all of its slots are taken."""
        return bool(self.deliveries) and self.running >= self.max_running and not self.has_moved

    @property
    def size(self) -> int:
        """Number of deliveries in memory: waiting, running and abandoned."""
        return len(self.deliveries) + self.running + self.abandoned


class RunningAttempt:
    """The delivery that a thread is running.

    Attributes:
        queued: the delivery.
        claimed: its attempt; None until it is claimed.
        others: further deliveries of its handler, which have slots and are claimed together with it; None if it is
            claimed alone.
        began: when the thread took it, or when it was claimed, in `time.monotonic`.
        overdue: whether the attempt has been logged as overdue.
        abandoned: whether another thread has taken this thread's slot.
    """

    __slots__ = ("abandoned", "began", "claimed", "others", "overdue", "queued")

    def __init__(
        self, queued: ReadyDelivery, claimed: ClaimedAttempt | None, others: Sequence[ReadyDelivery] | None = None
    ) -> None:
        self.queued = queued
        self.claimed = claimed
        self.others = others
        self.began = time.monotonic()
        self.overdue = False
        self.abandoned = False

    def begin(self, claimed: ClaimedAttempt) -> None:
        """Begin the attempt, which is claimed."""
        self.claimed = claimed
        self.began = time.monotonic()


def log_fields(attempt: RunningAttempt, now: float) -> dict[str, Any]:
    """Return an attempt's log fields; `now` is in `time.monotonic`."""
    queued = attempt.queued
    return {"handler": queued.handler, "delivery": queued.delivery_id, "seconds": round(now - attempt.began, 3)}
