"""The composition root: creates and connects all components except HTTP."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import structlog

from flowhooks import composition
from flowhooks.background.threads import STOP_TIMEOUT, Service, ThreadGroup
from flowhooks.clock import Clock
from flowhooks.failpoints import hit
from flowhooks.intake import required_credentials
from flowhooks.ledger.lock import HAND_OVER_TIMEOUT, acquire_lock
from flowhooks.operations.deliverable_events import log_dismissed
from flowhooks.operations.live_config import LiveConfig
from flowhooks.operations.readiness import find_problems
from flowhooks.operations.registration import register
from flowhooks.plugins.from_settings import load
from flowhooks.settings import database_url
from flowhooks.working_folder import WorkingFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint

    from flowhooks.background.reconciliation.service import Reconciliation
    from flowhooks.composition import Base
    from flowhooks.operations.context import OperationContext
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.routing.router import Router
    from flowhooks.settings import Settings

log = structlog.get_logger(__name__)


class App:
    """flowhooks without HTTP. Holds the ledger's lock from `__init__` to `close`.

    Args:
        settings: the settings.
        clock: time, ids and random numbers; default: the real ones.
        objects: plugins given as objects, by name, in addition to those that are discovered.
        entry_points: the entry points to load plugins from; default: the installed ones of the group `flowhooks`.
        cores: the CPU cores that handlers may use if the caller is pinned to one core; default: any.
        environ: the environment that secrets are read from; default: that of this process.
        run: patterns of the ids of those loaded handlers whose deliveries this process runs; empty: none. If the ledger
            is not shared, the process runs all of them.
        kind: the role of this process among those that share the ledger: `"server"`, `"worker"` or `"command"`, which
            changes no registered handler.
        credential_kinds: kinds of credentials that the listeners of this process require once the settings name one:
            `"sources"` and `"operators"`. A start without a kind that the ledger records as required is refused.
        on_loaded: called when the plugins are loaded, before this process is registered in the ledger.
        before_lock: called with the loaded plugins before the lock is taken; it returns when the predecessor has
            released the lock. Default: the lock is taken first, so that no second process loads plugins.

    Attributes:
        lock: the lock of a ledger in a file; None on PostgreSQL.
        runs: ids of the handlers whose deliveries this process runs.
        run_options: run options of each loaded handler, by handler id.
        registration: the registered handlers, and the versions of their plugins.
        runtime: how this process runs each handler.
        receivers: the plugins that read the requests to the fixed URLs of sources.
        reconciliation: asks the engines of the sources; None if this process is not a server.

    Raises:
        SettingsError: a directory or schema file that the settings name cannot be used, or credentials are missing.
        LedgerUnusable: the database cannot be opened or written, is of a newer version, or is in use.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        objects: Mapping[str, object] | None = None,
        entry_points: Iterable[EntryPoint] | None = None,
        cores: frozenset[int] = frozenset(),
        environ: Mapping[str, str] | None = None,
        run: Sequence[str] = ("*",),
        kind: str = "server",
        credential_kinds: Collection[str] = (),
        on_loaded: Callable[[], object] = lambda: None,
        before_lock: Callable[[Plugins], object] | None = None,
    ) -> None:
        self.environ, self.clock = os.environ if environ is None else environ, clock or Clock()
        self.draining, self._credential_kinds = False, credential_kinds
        self._reload_listeners: list[Callable[[Settings], object]] = []
        self._stop, self._threads = threading.Event(), ThreadGroup()
        saved, folder = {**os.environ, **(environ or {})}, WorkingFolder.current()  # plugins may change both
        with ExitStack() as on_error:
            self.lock = None if before_lock else acquire_lock(database_url(settings))
            on_error.callback(self._release_lock)
            self.schemas, self.plugins = load(settings, objects=objects, entry_points=entry_points, environ=environ)
            if before_lock:
                before_lock(self.plugins)
                self.lock = acquire_lock(database_url(settings), HAND_OVER_TIMEOUT)
                hit("restart.locked")
            on_loaded()
            self.runs = frozenset(key for key in self.plugins.handlers if any(fnmatchcase(key, word) for word in run))
            base = self._base = composition.open_base(
                settings, self.plugins, self.clock, kind=kind, runs=self.runs, cores=cores, environ=saved, folder=folder
            )
            self.ledger, self.runner, self.metrics = base.ledger, base.runner, base.metrics
            self.isolation, self.run_options, self.runtime = base.isolation, base.run_options, base.runtime
            on_error.callback(self.ledger.close)
            required_credentials.check(self.ledger, settings, credential_kinds)
            required_credentials.record(self.ledger, settings, credential_kinds, self.clock)
            self._connect(base)
            if before_lock:
                hit("restart.recovered")
            on_error.pop_all()

    def _connect(self, base: Base) -> None:
        registration = self.registration = register(self.ledger, self.plugins, is_command=base.kind == "command")
        live = self._live = LiveConfig(base.settings, registration.routed, registration.missing, registration.suspended)
        path = composition.build_path(base, live, registration, threads=self._threads, stop=self._stop)
        self.intake, self.waiters, self.notifier = path.intake, path.waiters, path.notifier
        self.dispatcher, self._recorder, self.receivers = path.dispatcher, path.recorder, self.plugins.receivers
        self.circuit_breaker, self.cluster, self.trends = path.circuit_breaker, path.cluster, path.trends
        self.bulk_operations, self._parked_rerouter = path.bulk_operations, path.parked_rerouter
        services = composition.build_services(base, path, live, self.lock)
        self.rejected_requests, self.retention = services.rejected_requests, services.retention
        self.order_sweeper = services.order_sweeper
        self.alerts, self.file_watch, self.clock_watch = services.alerts, services.file_watch, services.clock_watch
        self.reconciliation = self.open_reconciliation() if base.kind == "server" else None
        # They stop in reverse order. `trends` is the last one, because it counts the results of the last attempts.
        writing = (self.trends, self.retention, self.rejected_requests, self.alerts, self.notifier, self.order_sweeper)
        watching = (self.cluster, self.clock_watch, self.bulk_operations, self.file_watch, self.reconciliation)
        self._background: list[Service] = [service for service in (*writing, *watching) if service is not None]
        composition.register_collectors(base, live, self.notifier)

    @property
    def settings(self) -> Settings:
        """The current settings."""
        return self._live.current.settings

    @property
    def router(self) -> Router:
        """Selects the handlers of new events."""
        return self._live.current.router

    @property
    def operation_context(self) -> OperationContext:
        """The objects that the operations of operators use."""
        return composition.build_operation_context(
            self._base, self._live, self.notifier, self.bulk_operations, self.reconciliation
        )

    def open_reconciliation(self) -> Reconciliation:
        """Create the reconciliation of the sources, not started. The caller must stop it, except in a server.

        Raises:
            SettingsError: an engine client cannot be created; one line for each source.
        """
        return composition.open_reconciliation(
            self._base, self.intake, settings=self.settings, schemas=self.schemas, environ=self.environ
        )

    def reload(self, settings: Settings) -> None:
        """Apply settings that differ only in live ones. Each callback uses either the old settings or the new ones.

        Raises:
            SettingsError: the ingress of a source names a kind or a receiver that does not exist. Nothing is applied.
        """
        if self.reconciliation is not None:  # in servers only
            composition.check_ingress(settings, self.plugins)
        required_credentials.record_if_possible(self.ledger, settings, self._credential_kinds, self.clock)
        for listener in self._reload_listeners:
            listener(settings)
        is_routing_changed = self._live.change_settings(settings)
        self.alerts.reconfigure(settings.alerts)
        self.retention.reconfigure(settings.retention)
        if self.reconciliation is not None:
            self.reconciliation.reconfigure(settings)
        if is_routing_changed:
            self._parked_rerouter.start()  # parked events may need no handler any more

    def on_reload(self, listener: Callable[[Settings], object]) -> None:
        """Call `listener` with the new settings at each reload, before they are applied."""
        self._reload_listeners.append(listener)

    def start(self) -> None:
        """Start the runner and the background services, and route parked events again."""
        execute = self.dispatcher.execute
        self.isolation.start()
        for service in self._background:
            service.start()
        if self.runs or not self.ledger.shared:
            self._threads.start("runner", lambda: self.runner.run(execute, self._stop))
            self._threads.start("circuit-breaker", lambda: self.circuit_breaker.run(execute, self._stop))
        self._parked_rerouter.start()  # in the background: there may be many
        if changed := self.registration.changed:
            self._threads.start("dismissed", lambda: log_dismissed(self.ledger, self.router, changed))
        self._recorder.start()

    def readiness_problems(self) -> list[str]:
        """Return why this server should not receive callbacks at present; empty if it is ready."""
        problems = ["the server is stopping"] if self.draining else []
        runner_problem = self._threads.why_died("runner") or self.runner.health()
        problems += find_problems(self.ledger, self.settings, self.router, runner_problem=runner_problem)
        if problems and self.reconciliation is not None:
            self.reconciliation.report_not_ready()
        return problems

    def begin_shutdown(self) -> None:
        """Stop accepting callbacks and starting attempts, and end all waits for deliveries."""
        self.draining = True
        self.stop_starting()
        self.intake.drain()

    def stop_starting(self) -> None:
        """Start no more attempts. Callbacks are still stored, and answered without a wait for their handlers."""
        self._stop.set()
        self._base.runtime.stop()
        self.runner.wake()
        self.circuit_breaker.wake()
        self.bulk_operations.begin_stop()
        if self.reconciliation is not None:
            self.reconciliation.begin_stop()

    def close(self, timeout: float = 0.0) -> bool:
        """Stop the runner, wait for running attempts, record their outcomes, and close the database.

        Args:
            timeout: seconds that running handlers get.

        Returns:
            Whether all of them ended in time. The next start recovers the others.
        """
        deadline = time.monotonic() + timeout
        with ExitStack() as steps:
            # The steps run in reverse order. Each one runs even if an earlier one fails.
            steps.callback(self._release_lock)
            steps.callback(self._recorder.close, STOP_TIMEOUT)
            steps.callback(self.ledger.close)
            for service in self._background:
                steps.callback(service.stop, STOP_TIMEOUT)
            steps.callback(lambda: self._recorder.stop(max(STOP_TIMEOUT, deadline - time.monotonic())))
            steps.callback(self.isolation.close)
            return self._stop_running(timeout)

    def _release_lock(self) -> None:
        if self.lock is not None:
            self.lock.release()

    def _stop_running(self, timeout: float) -> bool:
        self.begin_shutdown()
        all_ended = has_ended = self._threads.join(timeout)
        if not all_ended and self.isolation.stop():
            has_ended = self._threads.join(STOP_TIMEOUT)
        if not has_ended:
            log.warning("handlers_still_running", running=self.runner.running, next="the next start recovers them")
        return all_ended
