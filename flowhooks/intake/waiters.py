"""Lets an HTTP thread wait until the deliveries of its event have settled."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from flowhooks.clock import SECOND
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from flowhooks.clock import Clock
    from flowhooks.ledger.queries import DeliveryStatus


class Waiter:
    """One waiter for one event.

    Attributes:
        delivery_statuses: the latest known standing of each delivery, by its id.
    """

    __slots__ = ("_deadline", "_done", "_is_over", "_paused", "_pending", "delivery_statuses")

    def __init__(
        self, deadline: int, delivery_ids: Iterable[str], *, paused: Callable[[], Collection[str]] = frozenset
    ) -> None:
        self._deadline = deadline
        self._paused = paused
        self._pending = set(delivery_ids)
        # A `threading.Event` would cost 2 µs more per callback. The lock only wakes the one thread that waits;
        # `_is_over` is the state, because `release` may be called again while `wait` returns.
        self._is_over = False
        self._done = threading.Lock()
        self._done.acquire()
        self.delivery_statuses: dict[str, DeliveryStatus] = {}

    def notify(self, standing: DeliveryStatus) -> None:
        """Learn how a delivery stands now."""
        self.delivery_statuses[standing.delivery_id] = standing
        if not self._may_settle(standing):
            self.stop_waiting_for(standing.delivery_id)

    def stop_waiting_for(self, delivery_id: str) -> None:
        """Do not wait for a delivery any more."""
        self._pending.discard(delivery_id)
        if not self._pending:
            self.cancel()

    def apply_snapshot(self, delivery_statuses: Iterable[DeliveryStatus]) -> None:
        """Learn how deliveries stood when they were read, which may be older than what `notify` has told."""
        for standing in delivery_statuses:
            if standing.delivery_id in self._pending or standing.delivery_id not in self.delivery_statuses:
                self.notify(standing)

    @property
    def is_pending(self) -> bool:
        """Whether there is something that it waits for."""
        return bool(self._pending)

    def cancel(self) -> None:
        """Stop waiting, whatever has settled."""
        self._is_over = True
        with suppress(RuntimeError):  # it was let go before
            self._done.release()

    def wait(self, seconds: float) -> bool:
        """Wait until nothing more can settle in time, `seconds` at the most; whether that is so."""
        return self._is_over or self._done.acquire(timeout=seconds)

    def _may_settle(self, standing: DeliveryStatus) -> bool:
        if standing.state is State.RUNNING:
            return True
        if standing.state is not State.WAITING or standing.handler in self._paused():
            return False
        return standing.due_at is not None and standing.due_at < self._deadline


class WaiterRegistry:
    """Who waits for what, and who is told.

    Args:
        clock: tells deadlines.
        max_waiters: how many may wait at once; more are not let in, so that accepting goes on.
        paused: the ids of the handlers that are paused: what waits for them settles in nobody's time.
    """

    def __init__(self, *, clock: Clock, max_waiters: int, paused: Callable[[], Collection[str]] = frozenset) -> None:
        self._clock = clock
        self._paused = paused
        self._free_slots = max_waiters
        self._lock = threading.Lock()
        self._waiters: dict[str, list[Waiter]] = {}
        self._closed = False

    def open(self, event_id: str, delivery_ids: Iterable[str], seconds: float) -> Waiter | None:
        """A watch on deliveries of an event; None if too many wait already or the server is stopping.

        Everything told of the event from now on reaches the watch. `close` gives its place back.
        """
        waiter = Waiter(self._clock.now() + int(seconds * SECOND), delivery_ids, paused=self._paused)
        with self._lock:
            if self._closed or self._free_slots <= 0:
                return None
            self._free_slots -= 1
            self._waiters.setdefault(event_id, []).append(waiter)
        return waiter

    def close(self, event_id: str, waiter: Waiter) -> None:
        """Stop watching."""
        with self._lock:
            waiters = self._waiters[event_id]
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[event_id]
            self._free_slots += 1

    def notify(self, event_id: str, standing: DeliveryStatus) -> None:
        """A delivery of this event has changed; called after that is durable."""
        if event_id in self._waiters:
            with self._lock:
                for waiter in self._waiters.get(event_id, ()):
                    waiter.notify(standing)

    def stop_waiting_for(self, event_id: str, delivery_ids: Iterable[str]) -> None:
        """Deliveries of this event settle in nobody's time."""
        with self._lock:
            for waiter in self._waiters.get(event_id, ()):
                for delivery_id in delivery_ids:
                    waiter.stop_waiting_for(delivery_id)

    def pending_event_ids(self, event_ids: Iterable[str] | None = None) -> list[str]:
        """Those of these events, or of all, for which somebody waits who has not been told all."""
        with self._lock:
            candidates = self._waiters if event_ids is None else self._waiters.keys() & set(event_ids)
            return [event_id for event_id in candidates if any(waiter.is_pending for waiter in self._waiters[event_id])]

    def notify_snapshot(self, event_id: str, delivery_statuses: Iterable[DeliveryStatus]) -> None:
        """How an event's deliveries stood when they were read; what `notify` has told meanwhile is newer, and stays."""
        delivery_statuses = tuple(delivery_statuses)
        with self._lock:
            for waiter in self._waiters.get(event_id, ()):
                waiter.apply_snapshot(delivery_statuses)

    def cancel_all(self) -> None:
        """Let everybody go, now and from now on: the server is stopping."""
        with self._lock:
            self._closed = True
            waiters = [waiter for of_event in self._waiters.values() for waiter in of_event]
        for waiter in waiters:
            waiter.cancel()
