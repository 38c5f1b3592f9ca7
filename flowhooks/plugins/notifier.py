"""Notify plugins of events and settled deliveries in a thread of its own, so that callers never wait for plugins."""

from __future__ import annotations

import threading
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Final

from flowhooks.logger import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowhooks.ledger.delivery_settled import DeliverySettled
    from flowhooks.model.event import Event
    from flowhooks.plugins.plugins import Plugins

MAX_PENDING: Final = 10_000
"""Maximum number of queued notifications. Further ones are dropped and counted."""

log = get_logger(__name__)


class HookNotifier:
    """Calls the hooks `event_accepted` and `delivery_settled`, one after another.

    Args:
        plugins: the plugins to notify.

    Attributes:
        dropped: number of notifications dropped because plugins were too slow.
        has_subscribers: whether any plugin has one of the hooks. It never changes, because plugins are loaded once.
    """

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._queue: Queue[Callable[[], None]] = Queue(MAX_PENDING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="notifier", daemon=True)
        self.has_subscribers = plugins.has_subscribers
        self.dropped = 0

    def start(self) -> None:
        """Start the thread if any plugin has one of the hooks."""
        if self.has_subscribers:
            self._thread.start()

    def stop(self, timeout: float) -> None:
        """Deliver queued notifications for at most `timeout` seconds, then end the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if not self._queue.empty():
            log.warning("hook_notifications_dropped", pending=self._queue.qsize())

    def event_accepted(self, event: Event, handlers: Sequence[str]) -> None:
        """Queue the notification that an event was stored."""
        if self.has_subscribers:
            self._put(lambda: self._plugins.event_accepted(event, handlers))

    def on_settled(self, settled: DeliverySettled) -> None:
        """Queue the notification that an attempt ended. Called only if there are subscribers."""
        event, delivery, status, outcome, *_ = settled
        if outcome is not None:
            self._put(lambda: self._plugins.delivery_settled(event, delivery, outcome, status.state))

    def _put(self, notice: Callable[[], None]) -> None:
        try:
            self._queue.put_nowait(notice)
        except Full:
            self.dropped += 1
            if self.dropped == 1 or self.dropped % 1000 == 0:
                log.warning("hook_notifications_dropped", total=self.dropped, why="a plugin's listener is too slow")

    def _loop(self) -> None:
        while True:
            try:
                notice = self._queue.get(timeout=0.2)
            except Empty:
                if self._stop.is_set():
                    return
                continue
            try:
                notice()
            except BaseException:
                # Also KeyboardInterrupt: in this thread only a plugin can raise it, not the operator.
                log.exception("hook_failed")
