"""Cluster membership: send heartbeats to the other processes on a ledger, and react to their changes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from flowhooks.errors import FlowhooksError
from flowhooks.ledger import handlers, pauses, processes
from flowhooks.ledger.notifications import ChangeNotice, NotificationListener

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.waiters import WaiterRegistry

log = structlog.get_logger(__name__)


class ClusterSync:
    """Exchanges heartbeats and change notifications with the other processes that share the ledger.

    Args:
        url: the database.
        ledger: sends the heartbeats.
        waiters: the waiters of this process for deliveries that another process may settle.
        loaded: ids of the handlers that this process has loaded.
        missing: handlers that are registered but not loaded in this process, as last read.
        retired: ids of the retired handlers, as last read.
        on_routes_changed: called with the new values of `missing` and `retired` when they have changed.
        on_runners_changed: called with the ids of the handlers that live processes run, whenever they were read.
        reroute_parked: called after that, to route parked events again.
        wake: called when there may be deliveries to run.
        wake_operations: called when there may be bulk operations to release.

    Attributes:
        handlers_with_runner: ids of the handlers whose deliveries some live process runs, including this process, as
            last read.

    Raises:
        LedgerUnusable: the database cannot be read.
    """

    def __init__(
        self,
        *,
        url: str,
        ledger: Ledger,
        waiters: WaiterRegistry,
        loaded: Collection[str],
        missing: Sequence[RegisteredHandler],
        retired: Collection[str],
        on_routes_changed: Callable[[Sequence[RegisteredHandler], frozenset[str]], None],
        on_runners_changed: Callable[[frozenset[str]], None],
        reroute_parked: Callable[[], None],
        wake: Callable[[], None],
        wake_operations: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._waiters = waiters
        self._loaded = frozenset(loaded)
        self._on_routes_changed = on_routes_changed
        self._on_runners_changed = on_runners_changed
        self._reroute_parked = reroute_parked
        self._wake = wake
        self._wake_operations = wake_operations
        self._stopping = threading.Event()
        self._routing = threading.Lock()
        self._routes = _routes(missing, frozenset(retired))
        self._retired = frozenset(retired)
        self._set_runners(processes.handlers_run_by(ledger.live_processes(ledger.heartbeat_timeout)))
        self._listener = NotificationListener(url, on_change=self._on_change)
        self._heartbeat_thread = threading.Thread(target=self._heartbeat_loop, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Send heartbeats and listen for notifications until `stop`."""
        self._heartbeat_thread.start()
        self._listener.start()

    def stop(self, timeout: float) -> None:
        """Stop; the work in progress gets `timeout` seconds."""
        self._stopping.set()
        self._listener.stop(timeout)
        if self._heartbeat_thread.is_alive():
            self._heartbeat_thread.join(timeout)

    def _heartbeat_loop(self) -> None:
        """Send heartbeats, recover the attempts of expired processes, and poll for missed notifications."""
        while not self._stopping.wait(self._ledger.heartbeat_interval):
            try:
                self._ledger.heartbeat()
                self._log_recovered(self._ledger.recover(missing_handlers=self._retired))
                self.poll()
            except FlowhooksError as error:
                log.warning("heartbeat_failed", reason="database", why=str(error))
            except Exception:
                # A defect in flowhooks must not end the heartbeats: the other processes would expire this one, and this
                # one would not expire any.
                log.exception("heartbeat_failed", reason="fault")

    @staticmethod
    def _log_recovered(recovered: dict[object, int]) -> None:
        if any(recovered.values()):
            log.warning("deliveries_recovered", **{f"now_{state}": count for state, count in recovered.items()})

    def poll(self) -> None:
        """Read everything that other processes may have changed.

        Raises:
            LedgerUnusable: the database cannot be read.
        """
        self._notify_waiters(self._waiters.pending_event_ids())
        if self._rebuild_routes():
            self._reroute_parked()

    def _on_change(self, notice: ChangeNotice) -> None:
        if notice.operations or notice.missed:
            self._wake_operations()
        if notice.missed:
            self._wake()
            self.poll()
            return
        self._notify_waiters(self._waiters.pending_event_ids(notice.events) if notice.events else ())
        if notice.work:
            self._wake()
        if notice.handlers:
            self.poll()

    def _notify_waiters(self, event_ids: Iterable[str]) -> None:
        for event_id in event_ids:
            self._waiters.notify_snapshot(event_id, self._ledger.delivery_statuses(event_id))

    def _set_runners(self, handler_ids: frozenset[str]) -> None:
        self._on_runners_changed(handler_ids)
        self.handlers_with_runner = handler_ids  # last, so that callbacks wait for these when it is read

    def _rebuild_routes(self) -> bool:
        """Read handlers, runners and pauses from the ledger, and apply what has changed; return whether routes have."""
        with self._routing:
            with self._ledger.connection() as connection:
                missing = [
                    handler for handler in handlers.registered_handlers(connection) if handler.id not in self._loaded
                ]
                # A handler that is loaded here still runs here, even if an operator has retired it.
                retired = handlers.retired(connection) - self._loaded
                live = processes.live_processes(connection, heartbeat_timeout=self._ledger.heartbeat_timeout)
                self._set_runners(processes.handlers_run_by(live))
                paused = pauses.paused(connection)
            self._ledger.pauses.replace(paused)
            routes = _routes(missing, retired)
            if routes == self._routes:
                return False
            self._on_routes_changed(missing, retired)
            self._routes, self._retired = routes, retired  # last: if that fails, the next poll repeats it
        log.info("routes_changed", others=len(missing), retired=len(retired))
        return True


def _routes(missing: Iterable[RegisteredHandler], retired: frozenset[str]) -> object:
    # Not last_seen_at: it changes without a change of the routes.
    return [(handler.id, handler.selectors, handler.order_by) for handler in missing], retired
