"""The methods of a runner that the server uses, and the limits that all runners have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from threading import Event as Flag

    from flowhooks.model.ready_delivery import ClaimedAttempt, LimitReached, ReadyDelivery


# To wake a thread costs more than such a delivery. If one takes longer this time, other threads take the rest.
FAST_THRESHOLD_SECONDS: Final = 0.001
"""Deliveries of a handler whose last attempt took less run one after another in one thread."""
# The delivery is offered again at once, and may fail again.
FAULT_PAUSE_SECONDS: Final = 1.0
"""Seconds that a thread pauses after a delivery that could not be run."""


def max_per_handler(slots: int) -> int:
    """Return how many of a process's slots one handler may take: at most three quarters, but at least one.

    The others are for handlers whose deliveries it would delay, above all if it hangs.
    """
    return max(1, slots * 3 // 4)


class ExecuteFn(Protocol):
    """Runs one attempt if the delivery is unchanged since the runner read it, and is neither blocked nor paused."""

    def __call__(self, queued: ReadyDelivery, claimed: ClaimedAttempt | None, /) -> LimitReached | None:
        """Run the attempt; return `LimitReached` if the handler's concurrency limit or its rate prevented it."""


class Runner(Protocol):
    """Decides when and where `execute` is called.

    The ledger alone decides which attempt is made, so a missing or duplicate call is harmless.
    """

    def run(self, execute: ExecuteFn, stop: Flag) -> None:
        """Call `execute` for ready deliveries in its own threads until `stop` is set; then wait for running attempts.

        For a reserved delivery the runner passes the claimed attempt. If `execute` returns `LimitReached`,
        no delivery of that handler can start until one of them has ended; they are then offered again.
        """

    def wake(self) -> None:
        """Look at once for deliveries that may run, because `stop` was set or the ledger has changed."""

    def health(self) -> str | None:
        """Return why this runner cannot run deliveries at present, or None."""

    @property
    def running(self) -> int:
        """Number of running deliveries."""
