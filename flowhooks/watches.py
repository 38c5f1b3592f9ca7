"""Lets an HTTP thread wait until the deliveries of its event have settled; it must not know how they do."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from flowhooks.clock import SECOND
from flowhooks.delivery import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowhooks.clock import Clock
    from flowhooks.ledger.reading import Standing


class Watch:
    """One waiter for one event.

    Attributes:
        standings: the latest known standing of each delivery, by its id.
    """

    __slots__ = ("_deadline", "_done", "_pending", "standings")

    def __init__(self, deadline: int, delivery_ids: Iterable[str]) -> None:
        self._deadline = deadline
        self._pending = set(delivery_ids)
        self._done = threading.Event()
        self.standings: dict[str, Standing] = {}

    def tell(self, standing: Standing) -> None:
        """Learn how a delivery stands now."""
        self.standings[standing.delivery_id] = standing
        if not self._may_settle(standing):
            self._pending.discard(standing.delivery_id)
            if not self._pending:
                self._done.set()

    def tell_before(self, standings: Iterable[Standing]) -> None:
        """Learn how deliveries stood when they were read, which may be older than what `tell` has told."""
        for standing in standings:
            if standing.delivery_id not in self.standings:
                self.tell(standing)

    def release(self) -> None:
        """Stop waiting, whatever has settled."""
        self._done.set()

    def wait(self, seconds: float) -> None:
        """Wait until nothing more can settle in time, `seconds` at the most."""
        self._done.wait(seconds)

    def _may_settle(self, standing: Standing) -> bool:
        """Whether a delivery may still settle before this waiter's deadline."""
        if standing.state is State.RUNNING:
            return True
        return standing.state is State.WAITING and standing.due_at is not None and standing.due_at < self._deadline


class Watches:
    """Who waits for what, and who is told.

    Args:
        clock: tells deadlines.
        most: how many may wait at once; more are not let in, so that accepting goes on.
    """

    def __init__(self, *, clock: Clock, most: int) -> None:
        self._clock = clock
        self._places = threading.BoundedSemaphore(most) if most > 0 else None
        self._lock = threading.Lock()
        self._watches: dict[str, list[Watch]] = {}
        self._closed = False

    def open(self, event_id: str, delivery_ids: Iterable[str], seconds: float) -> Watch | None:
        """A watch on deliveries of an event; None if too many wait already or the server is stopping.

        Everything told of the event from now on reaches the watch. `close` gives its place back.
        """
        if self._closed or self._places is None or not self._places.acquire(blocking=False):
            return None
        watch = Watch(self._clock.now() + int(seconds * SECOND), delivery_ids)
        with self._lock:
            self._watches.setdefault(event_id, []).append(watch)
        if self._closed:
            watch.release()
        return watch

    def close(self, event_id: str, watch: Watch) -> None:
        """Stop watching."""
        with self._lock:
            several = self._watches[event_id]
            several.remove(watch)
            if not several:
                del self._watches[event_id]
        assert self._places is not None  # noqa: S101 (a watch exists, so there are places)
        self._places.release()

    def tell(self, event_id: str, standing: Standing) -> None:
        """A delivery of this event has changed; called after that is durable."""
        if event_id in self._watches:
            with self._lock:
                several = list(self._watches.get(event_id, ()))
            for watch in several:
                watch.tell(standing)

    def release(self) -> None:
        """Let everybody go, now and from now on: the server is stopping."""
        self._closed = True
        with self._lock:
            everybody = [watch for several in self._watches.values() for watch in several]
        for watch in everybody:
            watch.release()
