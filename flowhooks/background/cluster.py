"""The other processes on one ledger: signs of life to them, news from them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.errors import FlowhooksError
from flowhooks.ledger import handlers, pauses, processes
from flowhooks.ledger.notifications import ChangeNotice, NotificationListener

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from flowhooks.intake.waiters import WaiterRegistry
    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.ledger import Ledger

PARKED_CHECKS_AFTER_ROUTE_CHANGE: Final = 2
"""How often what is parked is looked through once the routes have changed: at once, and at the next sign of life, for
what was still being stored by the old ones."""

log = structlog.get_logger(__name__)


class ClusterSync:
    """Keeps a process in touch with the others that share its ledger.

    Args:
        url: the database.
        ledger: gives the signs of life.
        waiters: who waits here for what another process may settle.
        loaded: ids of the handlers that are loaded here.
        missing: handlers that are registered and not loaded, as far as this process has heard.
        retired: ids of the handlers that were retired, likewise.
        on_routes_changed: called with those two whenever they have changed.
        reroute_parked: called some time after that, to deliver what was parked and is wanted by now.
        wake: called when there may be something to run.

    Attributes:
        handlers_with_runner: ids of the handlers whose deliveries processes that live run, this one's among them, as
            far as it has heard.

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
        reroute_parked: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._waiters = waiters
        self._loaded = frozenset(loaded)
        self._on_routes_changed = on_routes_changed
        self._reroute_parked = reroute_parked
        self._wake = wake
        self._stopping = threading.Event()
        self._routing = threading.Lock()
        self._routes = _routes(missing, frozenset(retired))
        self._retired = frozenset(retired)
        self._parked_checks = 0
        self.handlers_with_runner = processes.handlers_run_by(ledger.live_processes(ledger.heartbeat_timeout))
        self._listener = NotificationListener(url, on_change=self._on_change)
        self._heartbeat_thread = threading.Thread(target=self._heartbeat_loop, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Give signs of life and listen, until `stop`."""
        self._heartbeat_thread.start()
        self._listener.start()

    def stop(self, timeout: float) -> None:
        """End it; what is being looked after gets `timeout` seconds."""
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
                # A fault of ours must not end this: the others would take this process for dead, and it them for alive.
                log.exception("heartbeat_failed", reason="fault")

    @staticmethod
    def _log_recovered(recovered: dict[object, int]) -> None:
        if any(recovered.values()):
            log.warning("deliveries_recovered", **{f"now_{state}": count for state, count in recovered.items()})

    def poll(self) -> None:
        """Look at all that others may have changed.

        Raises:
            LedgerUnusable: the database cannot be read.
        """
        self._notify_waiters(self._waiters.pending_event_ids())
        self._rebuild_routes()
        if self._parked_checks:
            self._parked_checks -= 1
            self._reroute_parked()

    def _on_change(self, notice: ChangeNotice) -> None:
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

    def _rebuild_routes(self) -> None:
        """Read handlers, runners and pauses from the ledger, and apply what has changed."""
        with self._routing:
            with self._ledger.connection() as connection:
                missing = [
                    handler for handler in handlers.registered_handlers(connection) if handler.id not in self._loaded
                ]
                # A handler that is loaded here still runs here, even if an operator has retired it.
                retired = handlers.retired(connection) - self._loaded
                self.handlers_with_runner = processes.handlers_run_by(
                    processes.live_processes(connection, heartbeat_timeout=self._ledger.heartbeat_timeout)
                )
                paused = pauses.paused(connection)
            self._ledger.pauses.replace(paused)
            routes = _routes(missing, retired)
            if routes == self._routes:
                return
            self._routes, self._retired = routes, retired
            self._on_routes_changed(missing, retired)
            self._parked_checks = PARKED_CHECKS_AFTER_ROUTE_CHANGE
        log.info("routes_changed", others=len(missing), retired=len(retired))


def _routes(missing: Iterable[RegisteredHandler], retired: frozenset[str]) -> object:
    # Not last_seen_at: it changes without a change of the routes.
    return [(handler.id, handler.selectors, handler.order_by) for handler in missing], retired
