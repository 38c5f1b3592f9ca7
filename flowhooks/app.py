"""The composition root: creates and connects all components except HTTP."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import structlog

from flowhooks import __version__
from flowhooks.background.alerts.engine_causes import EngineCauseFinder
from flowhooks.background.alerts.monitor import AlertMonitor
from flowhooks.background.alerts.routing_causes import RoutingCauseFinder
from flowhooks.background.clock_trust import ClockTrust
from flowhooks.background.clock_watch import ClockWatch
from flowhooks.background.cluster import ClusterSync
from flowhooks.background.file_watch import FileWatch
from flowhooks.background.reconciliation.service import Reconciliation
from flowhooks.background.retention import Retention
from flowhooks.clock import DAY, Clock
from flowhooks.errors import LedgerUnusable
from flowhooks.execution.circuit_breaker import CircuitBreaker
from flowhooks.execution.cpu_affinity import HandlerAffinity
from flowhooks.execution.dispatcher import Dispatcher
from flowhooks.execution.isolation import ATTEMPT_END_TIMEOUT, ProcessPool, callers
from flowhooks.execution.recorder import OutcomeRecorder
from flowhooks.execution.run_options import resolve_run_options
from flowhooks.execution.runners.embedded import EmbeddedRunner
from flowhooks.execution.runners.required import procrastinate_schema_of
from flowhooks.intake import required_credentials
from flowhooks.intake.accept import Intake, IntakeConfig
from flowhooks.intake.rejected_requests import RejectedRequestLog
from flowhooks.intake.waiters import WaiterRegistry
from flowhooks.ledger import handlers as registered_handlers
from flowhooks.ledger.ledger import Ledger
from flowhooks.ledger.lock import LockOwner, acquire_lock
from flowhooks.ledger.pauses import PausedHandlers
from flowhooks.observability.collectors import LedgerCollector, ProcessCollector, ProcessInfo
from flowhooks.observability.metrics import Metrics
from flowhooks.operations.context import OperationContext
from flowhooks.operations.deliverable_events import log_dismissed
from flowhooks.operations.lookup import build_router, log_missing
from flowhooks.operations.readiness import find_problems
from flowhooks.operations.reroute import reroute_all_parked
from flowhooks.plugins.from_settings import load
from flowhooks.plugins.notifier import HookNotifier
from flowhooks.plugins.source_digests import plugin_versions
from flowhooks.settings import Settings, database_url

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint

    from flowhooks.execution.runners.procrastinate import ProcrastinateRunner
    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.model.ready_delivery import ReadyDelivery
    from flowhooks.routing.router import Router

log = structlog.get_logger(__name__)

STOP_TIMEOUT: float = 2.0
"""Seconds that each background service gets to finish its current work when the server stops."""


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
        kind: the role of this process among those that share the ledger: `"server"`, `"worker"` or `"command"`.
        credential_kinds: kinds of credentials that the listeners of this process require once the settings name one:
            `"sources"` and `"operators"`. A start without a kind that the ledger records as required is refused.
        on_loaded: called when the plugins are loaded, before this process is registered in the ledger; default:
            nothing.

    Attributes:
        runs: ids of the handlers whose deliveries this process runs.
        run_options: run options of each loaded handler, by handler id.
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
    ) -> None:
        self.settings, self._credential_kinds = settings, credential_kinds
        self.environ = os.environ if environ is None else environ
        self.clock = clock or Clock()
        self._reload_listeners: list[Callable[[Settings], object]] = []
        self.draining = False
        self._environ = {**os.environ, **(environ or {})}  # copied before plugins are loaded, which may change it
        self._cores, self._kind = cores, kind
        self._services_stopping, self._stop = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._spawning, self._changing = threading.Lock(), threading.Lock()
        self._lock = acquire_lock(database_url(settings))
        try:
            self.schemas, self.plugins = load(settings, objects=objects, entry_points=entry_points, environ=environ)
            on_loaded()
            loaded = self.plugins.handlers
            self.runs = frozenset(name for name in loaded if any(fnmatchcase(name, pattern) for pattern in run))
            self._open()
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise

    def _open(self) -> None:
        settings = self.settings
        self.metrics = Metrics()
        self._pauses = PausedHandlers()
        self.runner = self._build_runner()
        self.ledger = Ledger(
            database_url(settings),
            runner=self.runner,
            clock=self.clock,
            max_queued_writes=settings.ledger.max_queued_writes,
            write_timeout=settings.ledger.write_timeout,
            heartbeat_timeout=settings.ledger.heartbeat_timeout,
            kind=self._kind,
            handler_ids=self.runs,
            on_commit=self.metrics.committed,
            max_handler_transactions=settings.runner.threads,
            pauses=self._pauses,
            identity_retention=settings.retention.identities * DAY or None,
        )
        try:
            required_credentials.check(self.ledger, settings, self._credential_kinds)
            required_credentials.record(self.ledger, settings, self._credential_kinds, self.clock)
            self._build_services()
        except BaseException:
            self.ledger.close()
            raise

    def _build_runner(self) -> EmbeddedRunner | ProcrastinateRunner:
        """Return the runner that `runner.kind` names.

        Raises:
            SettingsError: the runner does not support this database, or is not installed.
            LedgerUnusable: the runner's tables are missing or have another version.
        """

        def due(now: int, max_per_handler: Callable[[str], int]) -> list[ReadyDelivery]:
            return self.ledger.due_deliveries(now, max_per_handler)  # a closure, because the ledger is created later

        threads, clock = self.settings.runner.threads, self.clock
        if self.settings.runner.kind == "embedded":
            return EmbeddedRunner(
                threads=threads,
                fetch_due=due,
                clock=clock,
                handles=self._runs_here,
                limit=self._limit,
                paused=self._pauses.get,
                timeout=self._timeout,
            )
        jobs = procrastinate_schema_of(self.settings)
        from flowhooks.execution.runners.procrastinate import ProcrastinateRunner  # noqa: PLC0415 (an optional dependency)

        url = database_url(self.settings)
        jobs.check(url)
        return ProcrastinateRunner(
            url,
            threads=threads,
            fetch_due=due,
            write=lambda function: self.ledger.write(function),  # noqa: PLW0108 (as above)
            clock=clock,
            handlers=self.runs,
            limit=self._limit,
            paused=self._pauses.get,
        )

    def _limit(self, handler: str) -> int | None:
        """Return a handler's concurrency limit over all processes."""
        loaded = self.plugins.handlers.get(handler)
        return loaded.concurrency if loaded else None

    def _timeout(self, handler: str) -> float:
        """Return the seconds after which an attempt of a handler is reported as overdue."""
        options = self.run_options.get(handler)
        timeout = options.timeout if options else self.settings.runner.timeout
        return timeout + ATTEMPT_END_TIMEOUT if handler in self.isolation.handlers else timeout

    def _build_services(self) -> None:
        settings, handlers = self.settings, self.plugins.handlers
        self.cluster: ClusterSync | None = None
        self.run_options = {
            handler_id: resolve_run_options(handler, settings) for handler_id, handler in handlers.items()
        }
        versions = {info.name: info.version for info in reversed(self.plugins.infos)}
        versions_by_handler = plugin_versions(handlers, lambda plugin: versions.get(plugin, ""))
        recorded_selectors = {
            known_handler.id: known_handler.selectors for known_handler in self.ledger.registered_handlers()
        }
        self._changed_handlers = [
            handler.id for handler in handlers.values() if recorded_selectors.get(handler.id) != handler.selectors
        ]
        missing = self.ledger.register_handlers(list(handlers.values()), versions_by_handler)
        self._missing: Sequence[RegisteredHandler] = missing
        with self.ledger.connection() as connection:
            retired = registered_handlers.retired(connection)
        # A retired handler gets no new deliveries, but its stored deliveries are suspended, too.
        # If the ledger is shared, another process may have loaded a handler that is missing here.
        unavailable = [] if self.ledger.shared else missing
        self.missing_handlers = frozenset(handler.id for handler in unavailable) | retired
        log_missing(unavailable, self.plugins)
        recovered = self.ledger.recover(missing_handlers=self.missing_handlers)
        if any(recovered.values()):
            log.warning("deliveries_recovered", **{f"now_{state}": count for state, count in recovered.items()})
        self.router = self._build_router(settings, missing)
        self.waiters = WaiterRegistry(
            clock=self.clock, max_waiters=max(1, settings.http.threads // 2), paused=self._pauses.get
        )
        self._pauses.subscribe(self._on_pauses_changed)
        if self._pauses.handlers:
            self._log_pauses()
        self.notifier = HookNotifier(self.plugins)
        self.file_watch = FileWatch(self.ledger, self._lock) if self._lock is not None else None
        self.rejected_requests = RejectedRequestLog(ledger=self.ledger, clock=self.clock)
        trust = ClockTrust(self.clock, self.ledger.newest)
        self.clock_watch = ClockWatch(self.ledger, trust)
        self.retention = Retention(ledger=self.ledger, settings=settings.retention, trust=trust)
        self.alerts = AlertMonitor(
            ledger=self.ledger,
            plugins=self.plugins,
            clock=self.clock,
            settings=settings.alerts,
            routing=RoutingCauseFinder(
                router=lambda: self.router,
                ignored=lambda: self.settings.routing.ignore_conclusions,
                loaded=frozenset(handlers),
            ),
            engines=EngineCauseFinder(lambda: self.settings),
            timeout=self._timeout,
        )
        self.circuit_breaker = CircuitBreaker(
            ledger=self.ledger,
            max_failures={handler_id: self.run_options[handler_id].max_failures for handler_id in self.runs},
            plugin_versions=versions_by_handler,
            retry_interval=settings.circuit_breaker.retry_interval,
            clock=self.clock,
        )
        self.isolation = ProcessPool.from_settings(
            settings,
            self.plugins,
            self._environ,
            cores=self._cores,
            runs=self._runs_here,
            on_ended=self.metrics.process_ended,
        )
        self.recorder = OutcomeRecorder(
            ledger=self.ledger,
            subscribers=(
                self.metrics.on_settled,
                self.circuit_breaker.on_settled,
                self.waiters.on_settled,
                self.notifier.on_settled,
            ),
            wait_for_shutdown=self._services_stopping.wait,
        )
        self.dispatcher = Dispatcher(
            ledger=self.ledger,
            recorder=self.recorder,
            plugins=self.plugins,
            handlers=handlers,
            clock=self.clock,
            affinity=HandlerAffinity(self._cores),
            isolated=callers(self.isolation),
        )
        self.intake = Intake(
            ledger=self.ledger,
            config=IntakeConfig(settings=settings, router=self.router, missing_handlers=self.missing_handlers),
            handlers=handlers,
            runs_somewhere=self._runs_somewhere,
            waiters=self.waiters,
            notifier=self.notifier,
            clock=self.clock,
        )
        self.reconciliation = self.open_reconciliation() if self._kind == "server" else None
        self.operation_context = OperationContext(
            reader=self.ledger,
            router=self.router,
            missing_handlers=self.missing_handlers,
            clock=self.clock,
            reconciler=self.reconciliation,
        )
        self._register_collectors()
        if self.ledger.shared:
            self.cluster = ClusterSync(
                url=database_url(settings),
                ledger=self.ledger,
                waiters=self.waiters,
                loaded=handlers,
                missing=missing,
                retired=retired,
                on_routes_changed=self._on_routes_changed,
                reroute_parked=lambda: self._spawn("reroute-parked", self._reroute_parked),
                wake=self.runner.wake,
            )

    def open_reconciliation(self) -> Reconciliation:
        """Create the reconciliation of the sources, not started. The caller must stop it, except in a server.

        Raises:
            SettingsError: an engine client cannot be created; one line for each source.
        """
        return Reconciliation(
            settings=self.settings,
            plugins=self.plugins,
            environ=self.environ,
            ledger=self.ledger,
            take_in=self.intake.take_in,
            on_taken_in=self.metrics.taken_in,
            schemas=self.schemas,
            clock=self.clock,
        )

    def _register_collectors(self) -> None:
        info = ProcessInfo(
            version=__version__,
            plugins=self.plugins.infos,
            running=lambda: self.runner.running,
            processes=lambda: self.isolation.alive,
            queued=lambda: self.ledger.queue_size,
            notifications_dropped=lambda: self.notifier.dropped,
            is_single_process=not self.metrics.is_multiprocess,
        )
        self.metrics.add(ProcessCollector(info))
        url = database_url(self.settings)
        self.metrics.add(
            LedgerCollector(self.ledger, url=url, clock=self.clock, handler_label=self.metrics.handler_label)
        )

    def _on_routes_changed(self, missing: Sequence[RegisteredHandler], absent: frozenset[str]) -> None:
        """Rebuild the router after another process has registered or retired handlers."""
        with self._changing:
            self._missing, self.missing_handlers = missing, absent
            self._swap_router(self.settings, self._build_router(self.settings, missing))

    def _swap_router(self, settings: Settings, router: Router) -> None:
        self.settings, self.router = settings, router
        self.intake.reconfigure(IntakeConfig(settings=settings, router=router, missing_handlers=self.missing_handlers))
        self.operation_context = replace(self.operation_context, router=router, missing_handlers=self.missing_handlers)

    def reload(self, settings: Settings) -> None:
        """Apply new settings. Each callback uses either the old settings or the new ones, never a mixture.

        Args:
            settings: the new settings. They differ from `self.settings` only in live settings; see `settings.change`.
        """
        required_credentials.record_if_possible(self.ledger, settings, self._credential_kinds, self.clock)
        for listener in self._reload_listeners:
            listener(settings)
        with self._changing:
            ignore_changed = settings.routing.ignore_process_keys != self.settings.routing.ignore_process_keys
            self._swap_router(settings, self._build_router(settings, self._missing) if ignore_changed else self.router)
        self.alerts.reconfigure(settings.alerts)
        self.retention.reconfigure(settings.retention)
        if self.reconciliation is not None:
            self.reconciliation.reconfigure(settings)
        if ignore_changed:
            self._spawn("reroute-parked", self._reroute_parked)  # parked events may need no handler any more

    def on_reload(self, listener: Callable[[Settings], object]) -> None:
        """Call `listener` with the new settings at each reload, before they are applied."""
        self._reload_listeners.append(listener)

    def _build_router(self, settings: Settings, missing: Sequence[RegisteredHandler]) -> Router:
        """Build the router from the loaded handlers and from those that only the ledger knows."""
        return build_router(self.plugins.handlers.values(), missing, settings.routing.ignore_process_keys)

    def _runs_here(self, handler: str) -> bool:
        """Tell whether this process runs a handler's deliveries; on a ledger of its own it runs all."""
        return handler in self.runs or not self.ledger.shared

    def _runs_somewhere(self, handler: str) -> bool:
        """Tell whether a live process runs a handler's deliveries, as far as this process knows."""
        if handler in self._pauses.handlers:
            return False
        return self._runs_here(handler) or (self.cluster is not None and handler in self.cluster.handlers_with_runner)

    def _on_pauses_changed(self) -> None:
        # In a thread of its own, because this runs in the ledger's writer thread, and waiters take locks.
        self._log_pauses()
        self.runner.wake()
        threading.Thread(target=self._refresh_waiters, name="pauses", daemon=True).start()

    def _log_pauses(self) -> None:
        count = len(self._pauses.handlers)
        log.info("pauses_changed", paused=count, next="`flowhooks handlers list` shows the paused handlers")

    def _refresh_waiters(self) -> None:
        with suppress(LedgerUnusable):  # the waiters then wait until their own timeout
            for event_id in self.waiters.pending_event_ids():
                self.waiters.notify_snapshot(event_id, self.ledger.delivery_statuses(event_id))

    def start(self) -> None:
        """Start the runner and the background services, and route parked events again."""
        self.isolation.start()
        self.notifier.start()
        self.alerts.start()
        self.rejected_requests.start()
        self.retention.start()
        self.clock_watch.start()
        if self.runs or not self.ledger.shared:
            self._spawn("runner", lambda: self.runner.run(self.dispatcher.execute, self._stop))
            self._spawn("circuit-breaker", lambda: self.circuit_breaker.run(self.dispatcher.execute, self._stop))
        self._spawn("reroute-parked", self._reroute_parked)  # in the background: there may be many
        if self._changed_handlers:
            self._spawn("dismissed", lambda: log_dismissed(self.ledger, self.router, self._changed_handlers))
        for service in (self.cluster, self.file_watch, self.reconciliation):
            if service is not None:
                service.start()
        threading.Thread(target=self.recorder.run, name="recording", daemon=True).start()

    def _spawn(self, name: str, function: Callable[[], None]) -> None:
        thread = threading.Thread(target=function, name=name, daemon=True)
        with self._spawning:
            thread.start()  # before it is added to the list, because `close` joins every thread in the list
            self._threads = [*(started for started in self._threads if started.is_alive()), thread]

    def _reroute_parked(self) -> None:
        reroute_all_parked(lambda: self.operation_context, self._stop)

    def publish_admin_address(self, admin: str, token: str) -> None:
        """Write the address of the administration API and its token into the lock file."""
        if self._lock is not None:
            self._lock.write_owner(LockOwner(pid=os.getpid(), admin=admin, token=token))

    def readiness_problems(self) -> list[str]:
        """Return why this server should not receive callbacks at present; empty if it is ready."""
        problems = ["the server is stopping"] if self.draining else []
        problems += find_problems(self.ledger, self.settings, self.router, runner_problem=self.runner.health())
        if problems and self.reconciliation is not None:
            self.reconciliation.report_not_ready()
        return problems

    def begin_shutdown(self) -> None:
        """Stop accepting callbacks and starting attempts, and end all waits for deliveries."""
        self.draining = True
        self._stop.set()
        self.runner.wake()
        self.circuit_breaker.wake()
        if self.reconciliation is not None:
            self.reconciliation.begin_stop()
        self.intake.drain()

    def close(self, timeout: float = 0.0) -> bool:
        """Stop the runner, wait for running attempts, record their outcomes, and close the database.

        Args:
            timeout: seconds that running handlers get.

        Returns:
            Whether all of them ended in time. The next start recovers the others.
        """
        with ExitStack() as steps:
            # The steps run in reverse order. Each one runs even if an earlier one fails.
            if self._lock is not None:
                steps.callback(self._lock.release)
            steps.callback(self.ledger.close)
            services = (self.retention, self.rejected_requests, self.alerts, self.notifier, self.cluster)
            for service in (*services, self.clock_watch, self.file_watch, self.reconciliation):
                if service is not None:
                    steps.callback(service.stop, STOP_TIMEOUT)
            steps.callback(self._services_stopping.set)
            steps.callback(self.isolation.close)
            return self._stop_running(timeout)

    def _stop_running(self, timeout: float) -> bool:
        self.begin_shutdown()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        all_ended = not any(thread.is_alive() for thread in self._threads)
        if not all_ended and self.isolation.stop():
            for thread in self._threads:
                thread.join(STOP_TIMEOUT)
        if any(thread.is_alive() for thread in self._threads):
            log.warning("handlers_still_running", running=self.runner.running, next="the next start recovers them")
        return all_ended
