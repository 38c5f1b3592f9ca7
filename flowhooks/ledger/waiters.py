"""Let an HTTP thread wait until the deliveries of its event have settled.

Most statuses arrive in the ledger's writer thread, which only records them here and wakes the thread that waits. That
thread does everything else.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from flowhooks.clock import SECOND
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Future
    from typing import Self

    from flowhooks.clock import Clock
    from flowhooks.ledger.accept_results import AcceptResult
    from flowhooks.ledger.delivery_settled import DeliverySettled
    from flowhooks.ledger.pauses import PausedHandlers
    from flowhooks.ledger.queries import DeliveryStatus


class SpareThreads(Protocol):
    """The threads of a server that can replace a thread while it waits."""

    def add_thread(self) -> bool:
        """Have one more thread while the calling thread waits; return whether there is one."""

    def remove_thread(self) -> None:
        """Have one thread less, because the calling thread no longer waits."""


class Waiter:
    """One waiter for one event. As a context manager it is closed at the end.

    Args:
        registry: the registry that has opened it.
        event_id: the event.
        deadline: when the wait ends, in microseconds since 1970.
        delivery_ids: the deliveries to wait for.
        retried: the attempt after which a dead delivery was requeued, by delivery id. Its death may still be on the way
            to the waiter, from another thread or process, and must not end the wait for its next attempt.

    Attributes:
        delivery_statuses: the latest known status of each delivery, by delivery id.
    """

    __slots__ = ("_deadline", "_done", "_is_over", "_pending", "_registry", "_retried", "delivery_statuses", "event_id")

    def __init__(
        self,
        registry: WaiterRegistry,
        event_id: str,
        deadline: int,
        delivery_ids: Iterable[str],
        retried: Mapping[str, int],
    ) -> None:
        self.event_id = event_id
        self._registry = registry
        self._deadline = deadline
        self._retried = retried
        self._pending = set(delivery_ids)
        # A `threading.Event` would cost 2 µs more per callback. The lock only wakes the one thread that waits.
        # `_is_over` is the state, because `release` may be called again while `wait` returns.
        self._is_over = False
        self._done = threading.Lock()
        self._done.acquire()
        self.delivery_statuses: dict[str, DeliveryStatus] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Unregister, and free the slot for another waiter."""
        self._registry.remove(self)

    def notify(self, status: DeliveryStatus) -> None:
        """Record a delivery's new status; wake the thread if it was the last one to wait for."""
        if self.record(status):
            self.cancel()

    def record(self, status: DeliveryStatus) -> bool:
        """Record a delivery's new status; return whether there is nothing to wait for, so that `cancel` is due."""
        if status.state is not State.DEAD or status.attempt > self._retried.get(status.delivery_id, 0):
            self.delivery_statuses[status.delivery_id] = status
            if not self._may_settle(status):
                self._pending.discard(status.delivery_id)
        return not self._pending

    def stop_waiting_for(self, delivery_id: str) -> None:
        """Stop waiting for a delivery."""
        self._pending.discard(delivery_id)
        if not self._pending:
            self.cancel()

    def wait_from_storing(
        self,
        stored: Future[AcceptResult],
        deliveries: Iterable[tuple[str, str]],
        seconds: float,
        spare_threads: SpareThreads | None = None,
    ) -> None:
        """Wait until the event is stored and, if it is new, until no delivery can settle before the deadline.

        The thread sleeps once. To wait for the result first and then for the deliveries, it would sleep twice, and to
        wake it costs about as much as to insert its event. It returns earlier if a handler is paused: a delivery that
        was stored after the pause does not start, and only the ledger knows whether it was.

        Args:
            stored: the result of the event's transaction.
            deliveries: (delivery id, handler id) for each delivery of the event.
            seconds: maximum duration of the wait.
            spare_threads: as of `wait`.
        """
        stored.add_done_callback(partial(self._on_stored, deliveries))
        if not self._is_over:
            self._sleep(seconds, spare_threads)

    def _on_stored(self, deliveries: Iterable[tuple[str, str]], stored: Future[AcceptResult]) -> None:
        try:
            is_new = stored.result().new
        except BaseException:  # noqa: BLE001 (whatever it is, `wait_for` raises it in the thread that waits)
            is_new = False
        if not is_new:
            self.cancel()
            return
        paused = self._registry.pauses.handlers
        if paused and any(handler in paused and delivery_id in self._pending for delivery_id, handler in deliveries):
            self._wake()

    def apply_snapshot(self, delivery_statuses: Iterable[DeliveryStatus]) -> None:
        """Record statuses that were read from the ledger and may be older than those that `notify` has recorded."""
        for status in delivery_statuses:
            if status.delivery_id in self._pending or status.delivery_id not in self.delivery_statuses:
                self.notify(status)

    @property
    def is_pending(self) -> bool:
        """Whether there are deliveries to wait for."""
        return bool(self._pending)

    def pending_of(self, delivery_ids: set[str]) -> set[str]:
        """Return those of these deliveries that it waits for."""
        return self._pending & delivery_ids

    def cancel(self) -> None:
        """Stop waiting for all deliveries."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the lock was released before
            self._done.release()

    def wait(self, seconds: float, spare_threads: SpareThreads | None = None) -> bool:
        """Wait at most `seconds` until no delivery can settle before the deadline; return whether that is so.

        Do not wait if nothing replaces the calling thread and too many such threads wait already.

        Args:
            seconds: maximum duration of the wait.
            spare_threads: the server that has called this thread; None if it cannot replace the thread.
        """
        while not self._is_over:
            started = time.monotonic()
            if not self._sleep(seconds, spare_threads):
                return self._is_over
            seconds = max(0.0, seconds - (time.monotonic() - started))
        return True

    def _sleep(self, seconds: float, spare_threads: SpareThreads | None) -> bool:
        """Sleep until the thread is woken; return whether it was."""
        if spare_threads is not None and spare_threads.add_thread():
            try:
                return self._done.acquire(timeout=seconds)
            finally:
                spare_threads.remove_thread()
        unreplaced = self._registry.unreplaced
        if not unreplaced.acquire(blocking=False):
            return False
        try:
            return self._done.acquire(timeout=seconds)
        finally:
            unreplaced.release()

    def _may_settle(self, status: DeliveryStatus) -> bool:
        if status.state is State.RUNNING:
            return True
        if status.state is not State.WAITING or status.handler in self._registry.pauses.handlers:
            return False
        return status.due_at is not None and status.due_at < self._deadline


class WaiterRegistry:
    """The waiters of all events.

    Args:
        clock: current time.
        max_waiters: maximum number of waiters.
        max_unreplaced: maximum number of threads that wait although nothing replaces them, so that threads remain free
            to accept callbacks.
        pauses: the paused handlers; waiters do not wait for their deliveries.

    Attributes:
        pauses: as given.
        unreplaced: has a place for each thread that may wait although nothing replaces it.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        max_waiters: int,
        max_unreplaced: int,
        pauses: PausedHandlers,
    ) -> None:
        self._clock = clock
        self.unreplaced = threading.Semaphore(max_unreplaced)
        self.pauses = pauses
        self._free_slots = max_waiters
        self._lock = threading.Lock()
        self._waiters: dict[str, list[Waiter]] = {}
        self._closed = False

    def open(
        self,
        event_id: str,
        delivery_ids: Iterable[str],
        seconds: float,
        *,
        retried: Mapping[str, int] = MappingProxyType({}),
    ) -> Waiter | None:
        """Register a waiter for deliveries of an event; return None if there are too many or the server is stopping.

        All later notifications of the event reach the waiter, except old ones of `retried` deliveries, until it is
        closed.
        """
        deadline = self._clock.now() + int(seconds * SECOND)
        waiter = Waiter(self, event_id, deadline, delivery_ids, retried)
        with self._lock:
            if self._closed or self._free_slots <= 0:
                return None
            self._free_slots -= 1
            self._waiters.setdefault(event_id, []).append(waiter)
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Unregister a waiter, and free its slot."""
        with self._lock:
            waiters = self._waiters[waiter.event_id]
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[waiter.event_id]
            self._free_slots += 1

    def on_settled(self, settled: DeliverySettled) -> None:
        """Notify the waiters of the event that a delivery has settled."""
        self.notify(settled.event.id, settled.status)

    def notify(self, event_id: str, status: DeliveryStatus) -> None:
        """Notify the waiters of an event that a delivery has changed; call it after the change is durable."""
        if event_id in self._waiters:
            with self._lock:
                over = [waiter for waiter in self._waiters.get(event_id, ()) if waiter.record(status)]
            # After the lock is released, which each thread that wakes needs to close its waiter.
            for waiter in over:
                waiter.cancel()

    def pending_event_ids(self, event_ids: Iterable[str] | None = None) -> list[str]:
        """Return the given events, or all, that have a waiter with unsettled deliveries."""
        with self._lock:
            candidates = self._waiters if event_ids is None else self._waiters.keys() & set(event_ids)
            return [event_id for event_id in candidates if any(waiter.is_pending for waiter in self._waiters[event_id])]

    def notify_snapshot(self, event_id: str, delivery_statuses: Iterable[DeliveryStatus]) -> None:
        """Notify the waiters of an event of statuses read from the ledger; newer ones from `notify` are kept."""
        delivery_statuses = tuple(delivery_statuses)
        with self._lock:
            for waiter in self._waiters.get(event_id, ()):
                waiter.apply_snapshot(delivery_statuses)

    def cancel_all(self) -> None:
        """End all waits and refuse new waiters, because the server is stopping."""
        with self._lock:
            self._closed = True
            waiters = [waiter for of_event in self._waiters.values() for waiter in of_event]
        for waiter in waiters:
            waiter.cancel()
