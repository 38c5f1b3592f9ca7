"""Build the components of a process in the order in which they need each other. `flowhooks.app` starts and stops them.

No component refers to one that is built later: it gets the others as arguments, or subscribes to their events.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flowhooks import __version__
from flowhooks.background.alerts.composer import AlertComposer
from flowhooks.background.alerts.engine_causes import EngineCauseFinder
from flowhooks.background.alerts.maintenance_causes import MaintenanceCauseFinder
from flowhooks.background.alerts.monitor import AlertMonitor
from flowhooks.background.alerts.routing_causes import RoutingCauseFinder
from flowhooks.background.alerts.tester import AlertTester
from flowhooks.background.bulk_operations import BulkOperations
from flowhooks.background.clock_trust import ClockTrust
from flowhooks.background.clock_watch import ClockWatch
from flowhooks.background.cluster import ClusterSync
from flowhooks.background.file_watch import FileWatch
from flowhooks.background.order_sweeper import OrderSweeper
from flowhooks.background.pause_watch import PauseWatch
from flowhooks.background.reconciliation.service import Reconciliation
from flowhooks.background.retention import Retention
from flowhooks.background.trends import TrendRecorder
from flowhooks.errors import SettingsError
from flowhooks.execution.circuit_breaker import CircuitBreaker
from flowhooks.execution.cpu_affinity import HandlerAffinity, unpin
from flowhooks.execution.dispatcher import Dispatcher
from flowhooks.execution.handler_runtime import HandlerRuntime
from flowhooks.execution.isolation import ATTEMPT_END_TIMEOUT, ProcessPool, callers
from flowhooks.execution.recorder import OutcomeRecorder
from flowhooks.execution.run_options import resolve_run_options
from flowhooks.execution.runners.selection import build_queue, build_runner
from flowhooks.intake.accept import Intake
from flowhooks.intake.rejected_requests import RejectedRequestLog
from flowhooks.ledger.database import free_disk_bytes, is_shared
from flowhooks.ledger.ledger import Ledger
from flowhooks.ledger.pauses import PausedHandlers
from flowhooks.ledger.start_limits import limits_of
from flowhooks.ledger.waiters import WaiterRegistry
from flowhooks.observability.collectors import LedgerCollector, ProcessCollector, ProcessInfo
from flowhooks.observability.metrics import Metrics
from flowhooks.observability.process_resources import ResourceCollector
from flowhooks.operations.context import OperationContext
from flowhooks.operations.reroute import ParkedRerouter
from flowhooks.plugins.notifier import HookNotifier
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Mapping
    from threading import Event

    from flowhooks.background.threads import ThreadGroup
    from flowhooks.clock import Clock
    from flowhooks.execution.run_options import RunOptions
    from flowhooks.execution.runners.runner import Runner
    from flowhooks.ledger.lock import Lock
    from flowhooks.operations.live_config import LiveConfig
    from flowhooks.operations.registration import Registration
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.schema.schemas import Schemas
    from flowhooks.settings import Settings
    from flowhooks.working_folder import WorkingFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The base of all other components: how handlers run here, the ledger, and the runner."""

    settings: Settings
    plugins: Plugins
    clock: Clock
    kind: str
    cores: frozenset[int]
    runs: frozenset[str]
    run_options: Mapping[str, RunOptions]
    metrics: Metrics
    isolation: ProcessPool
    runtime: HandlerRuntime
    ledger: Ledger
    runner: Runner


def open_base(
    settings: Settings,
    plugins: Plugins,
    clock: Clock,
    *,
    kind: str,
    runs: frozenset[str],
    cores: frozenset[int],
    environ: Mapping[str, str],
    folder: WorkingFolder | None = None,
) -> Base:
    """Open the ledger, with the queue of its deliveries built before it and the runner after it.

    Args:
        settings: the settings.
        plugins: the loaded plugins.
        clock: time, ids and random numbers.
        kind: the role of this process among those that share the ledger.
        runs: ids of the loaded handlers whose deliveries this process runs, if the ledger is shared.
        cores: the CPU cores that handlers may use; empty: any.
        environ: the environment before plugins were loaded.
        folder: the working folder before plugins were loaded; default: that of this process.

    Raises:
        SettingsError: the runner does not support this database, or is not installed; or a route of alerts names a
            plugin that receives none; or the ingress of a source names a kind or a receiver that does not exist.
        LedgerUnusable: the database cannot be opened or written, is of a newer version, or is in use.
    """
    if kind != "command" and not settings.safe_mode:  # commands notify nobody
        check_notifiers(settings, plugins)
    if kind == "server":
        check_ingress(settings, plugins)
    handlers, url = plugins.handlers, database_url(settings)
    metrics, pauses, limits = Metrics(), PausedHandlers(), limits_of(handlers.values())
    run_options = {handler_id: resolve_run_options(handler, settings) for handler_id, handler in handlers.items()}
    handler_ids = runs if is_shared(url) else None
    isolation = ProcessPool.from_settings(
        settings,
        plugins,
        environ,
        folder=folder,
        cores=cores,
        runs=lambda handler_id: handler_ids is None or handler_id in handler_ids,
        on_ended=metrics.process_ended,
    )
    runtime = HandlerRuntime(
        handlers,
        run_options,
        handler_ids=handler_ids,
        pauses=pauses,
        limits=limits,
        default_timeout=settings.runner.timeout,
        kill_timeout=ATTEMPT_END_TIMEOUT,
        isolated=isolation.handlers,
    )
    queue = build_queue(settings, runtime, clock)
    ledger = Ledger(
        url,
        runner=queue,
        clock=clock,
        max_queued_writes=settings.ledger.max_queued_writes,
        write_timeout=settings.ledger.write_timeout,
        heartbeat_timeout=settings.ledger.heartbeat_timeout,
        kind=kind,
        handler_ids=runs,
        on_commit=metrics.committed,
        max_handler_transactions=settings.runner.threads,
        pauses=pauses,
        limits=limits,
    )
    return Base(
        settings=settings,
        plugins=plugins,
        clock=clock,
        kind=kind,
        cores=cores,
        runs=runs,
        run_options=run_options,
        metrics=metrics,
        isolation=isolation,
        runtime=runtime,
        ledger=ledger,
        runner=build_runner(settings, queue, ledger=ledger, runtime=runtime, clock=clock, handler_ids=runs),
    )


def check_notifiers(settings: Settings, plugins: Plugins) -> None:
    """Check that the plugins that routes of alerts name can receive alerts.

    Raises:
        SettingsError: one of them cannot; one line for each.
    """
    if problems := plugins.unknown_notifiers(settings.alerts.routes):
        raise SettingsError("\n".join(problems))


def check_ingress(settings: Settings, plugins: Plugins) -> None:
    """Check that the kinds and the receivers of the sources exist, unless the safe mode loads no plugin.

    Raises:
        SettingsError: one of them does not exist; one line for each.
    """
    if not settings.safe_mode and (problems := plugins.ingress_problems(settings.sources)):
        raise SettingsError("\n".join(problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackPath:
    """The components that a callback passes, from its acceptance to its recorded outcome."""

    intake: Intake
    waiters: WaiterRegistry
    notifier: HookNotifier
    dispatcher: Dispatcher
    recorder: OutcomeRecorder
    circuit_breaker: CircuitBreaker
    trends: TrendRecorder
    bulk_operations: BulkOperations
    parked_rerouter: ParkedRerouter
    cluster: ClusterSync | None


def build_path(
    base: Base,
    live: LiveConfig,
    registration: Registration,
    *,
    threads: ThreadGroup,
    stop: Event,
) -> CallbackPath:
    """Build the path of a callback.

    Args:
        base: the ledger and the runner.
        live: the current configuration.
        registration: the registered handlers.
        threads: the threads that end before the ledger is closed.
        stop: when it is set, no more parked events are routed.
    """
    settings, ledger, handlers = base.settings, base.ledger, base.plugins.handlers
    notifier = HookNotifier(base.plugins)
    waiters = WaiterRegistry(
        clock=base.clock,
        max_waiters=settings.http.max_waiting,
        max_unreplaced=max(1, settings.http.threads // 2),
        pauses=ledger.pauses,
    )
    circuit_breaker = CircuitBreaker(
        ledger=ledger,
        max_failures={handler_id: base.run_options[handler_id].max_failures for handler_id in base.runs},
        plugin_versions=registration.versions,
        retry_interval=settings.circuit_breaker.retry_interval,
        clock=base.clock,
    )
    trends = TrendRecorder(ledger, base.clock)
    recorder = OutcomeRecorder(
        ledger=ledger,
        subscribers=(
            base.metrics.on_settled,
            trends.on_settled,
            circuit_breaker.on_settled,
            waiters.on_settled,
            *((notifier.on_settled,) if notifier.has_subscribers else ()),
        ),
    )
    dispatcher = Dispatcher(
        ledger=ledger,
        recorder=recorder,
        plugins=base.plugins,
        handlers=handlers,
        clock=base.clock,
        affinity=HandlerAffinity(base.cores),
        isolated=callers(base.isolation),
    )
    bulk_operations = BulkOperations(ledger, base.clock, lambda: live.current.missing_handlers)
    context = partial(build_operation_context, base, live, notifier, bulk_operations)
    # A callback is in progress for at most the timeout after it was routed. Twice as long is for busy machines.
    parked_rerouter = ParkedRerouter(context, threads, stop, repeat_delay=2 * ledger.write_timeout)
    cluster = None
    if ledger.shared:
        cluster = ClusterSync(
            url=database_url(settings),
            ledger=ledger,
            waiters=waiters,
            loaded=handlers,
            missing=registration.missing,
            retired=registration.retired,
            on_routes_changed=live.change_missing,
            on_runners_changed=base.runtime.set_run_elsewhere,
            reroute_parked=parked_rerouter.start,
            wake=base.runner.wake,
            wake_operations=bulk_operations.wake,
        )
    intake = Intake(
        ledger=ledger,
        config=live.current,
        handlers=handlers,
        runs_somewhere=base.runtime.runs_somewhere,
        waiters=waiters,
        notifier=notifier,
        clock=base.clock,
    )
    live.subscribe(intake.reconfigure)
    return CallbackPath(
        intake=intake,
        waiters=waiters,
        notifier=notifier,
        dispatcher=dispatcher,
        recorder=recorder,
        circuit_breaker=circuit_breaker,
        trends=trends,
        bulk_operations=bulk_operations,
        parked_rerouter=parked_rerouter,
        cluster=cluster,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The components that work in the background, beside the path of a callback."""

    pause_watch: PauseWatch
    rejected_requests: RejectedRequestLog
    clock_watch: ClockWatch
    order_sweeper: OrderSweeper
    retention: Retention
    alerts: AlertMonitor
    file_watch: FileWatch | None


def build_services(base: Base, path: CallbackPath, live: LiveConfig, lock: Lock | None) -> Services:
    """Build the services; `lock` is that of a ledger in a file."""
    ledger, settings = base.ledger, base.settings
    trust = ClockTrust(base.clock, ledger.newest)
    return Services(
        pause_watch=PauseWatch(ledger, path.waiters, base.runner.wake),
        rejected_requests=RejectedRequestLog(ledger=ledger, clock=base.clock),
        clock_watch=ClockWatch(ledger, trust, base.clock),
        order_sweeper=OrderSweeper(ledger),
        retention=Retention(ledger=ledger, settings=settings.retention, trust=trust),
        file_watch=None if lock is None else FileWatch(ledger, lock, unpin=partial(unpin, base.cores)),
        alerts=AlertMonitor(
            ledger=ledger,
            plugins=base.plugins,
            composer=AlertComposer(plugins=base.plugins, public_url=lambda: live.current.settings.public_url),
            clock=base.clock,
            settings=settings.alerts,
            routing=RoutingCauseFinder(
                router=lambda: live.current.router,
                ignored=lambda: live.current.settings.routing.ignore_conclusions,
                loaded=frozenset(base.plugins.handlers),
            ),
            engines=EngineCauseFinder(lambda: live.current.settings),
            maintenance=MaintenanceCauseFinder(
                settings=lambda: live.current.settings, free_disk=lambda: free_disk_bytes(database_url(settings))
            ),
            timeout=base.runtime.timeout,
            safe_mode=settings.safe_mode,
            on_notified=base.metrics.alert_notified,
        ),
    )


def open_reconciliation(
    base: Base, intake: Intake, *, settings: Settings, schemas: Schemas, environ: Mapping[str, str]
) -> Reconciliation:
    """Create the reconciliation of the sources, not started."""
    return Reconciliation(
        settings=settings,
        plugins=base.plugins,
        environ=environ,
        ledger=base.ledger,
        take_in=intake.take_in,
        on_source=base.metrics.expect_engine,
        on_taken_in=base.metrics.taken_in,
        schemas=schemas,
        clock=base.clock,
        is_server=base.kind == "server",
    )


def build_operation_context(
    base: Base,
    live: LiveConfig,
    notifier: HookNotifier,
    bulk_operations: BulkOperations,
    reconciliation: Reconciliation | None = None,
) -> OperationContext:
    """Build what the operations of operators use, with the current settings."""
    current = live.current
    return OperationContext(
        reader=base.ledger,
        router=current.router,
        missing_handlers=current.missing_handlers,
        clock=base.clock,
        settings=current.settings,
        notify_accepted=notifier.event_accepted,
        reconciler=reconciliation,
        wake_operations=bulk_operations.wake,
        alert_tester=AlertTester(plugins=base.plugins, routes=lambda: current.settings.alerts.routes, clock=base.clock),
    )


def register_collectors(base: Base, live: LiveConfig, notifier: HookNotifier) -> None:
    """Add the metrics that are read only at a scrape."""
    metrics, ledger = base.metrics, base.ledger
    info = ProcessInfo(
        version=__version__,
        plugins=base.plugins.infos,
        running=lambda: base.runner.running,
        processes=lambda: base.isolation.alive,
        queued=lambda: ledger.queue_size,
        notifications_dropped=lambda: notifier.dropped,
        is_single_process=not metrics.is_multiprocess,
    )
    metrics.expect_notifications(base.plugins.alert_listeners)
    metrics.add(ProcessCollector(info))
    metrics.add(ResourceCollector(metrics.shared_dir))
    url = database_url(base.settings)
    metrics.add(
        LedgerCollector(
            ledger,
            url=url,
            clock=base.clock,
            handler_label=metrics.handler_label,
            engine_intervals=lambda: live.current.settings.engine_intervals,
        )
    )
