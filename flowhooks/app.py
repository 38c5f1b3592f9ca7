"""The composition root: everything but HTTP is wired here, and only here; it must not know who asks."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog

from flowhooks.background.alerts.monitor import Alerts
from flowhooks.background.alerts.routing_causes import RoutingCauses
from flowhooks.background.clock_trust import ClockTrust
from flowhooks.background.clock_watch import ClockWatch
from flowhooks.background.cluster import Neighbours
from flowhooks.background.file_watch import FileWatch
from flowhooks.background.retention import DAY, Retention
from flowhooks.clock import Clock
from flowhooks.errors import FlowhooksError, LedgerUnusable
from flowhooks.execution.circuit_breaker import Holding, releases
from flowhooks.execution.cpu_affinity import Room
from flowhooks.execution.dispatcher import Dispatch
from flowhooks.execution.isolation import ENDED_WITHIN, Pool
from flowhooks.execution.run_options import terms
from flowhooks.execution.runners.embedded import Embedded
from flowhooks.execution.runners.required import jobs_of
from flowhooks.intake import required_credentials
from flowhooks.intake.accept import Intake, Rules
from flowhooks.intake.rejected_requests import Refusals
from flowhooks.intake.waiters import Watches
from flowhooks.ledger import database
from flowhooks.ledger import handlers as known
from flowhooks.ledger.ledger import Ledger
from flowhooks.ledger.lock import LockOwner, acquire_lock
from flowhooks.ledger.pauses import PausedHandlers
from flowhooks.observability.collectors import Here, OfLedger, OfProcess
from flowhooks.observability.metrics import Metrics
from flowhooks.operations.context import Desk
from flowhooks.operations.deliverable_events import log_dismissed
from flowhooks.operations.lookup import build_router
from flowhooks.operations.reroute_parked import drain
from flowhooks.plugins.from_settings import load
from flowhooks.plugins.notifier import Notices
from flowhooks.settings import Settings, database_url

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint

    from flowhooks.execution.runners.procrastinate import Procrastinate
    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.model.delivery import Queued
    from flowhooks.routing.router import Router

log = structlog.get_logger(__name__)

NOTICES_GET: float = 2.0
"""Seconds that pending notices get when the server stops, again alerts, and again what others have told."""


class App:
    """flowhooks without HTTP: opened, started, stopped. Holds the ledger's lock from `__init__` to `close`.

    Args:
        settings: the settings.
        clock: time, ids and chance; default the real ones.
        objects: plugins given directly, by name, besides those that are found.
        entry_points: the entry points to load plugins from; default: the installed ones of the group `flowhooks`.
        cores: the processor cores that handlers may use, where the caller keeps to one; default: no matter.
        environ: the environment that secrets are taken from; default: this process's.
        run: patterns of the ids of the handlers whose deliveries this process runs, out of those that are loaded;
            empty: it runs none. Where the ledger is not shared, it runs all of them whatever is given.
        kind: what this process is to the others that share its ledger: `"server"`, `"worker"` or `"command"`.
        asks_for: kinds of credentials that its listeners ask for as soon as the settings name one, `"sources"` and
            `"operators"`; a start without those that the ledger knows is refused.

    Attributes:
        environ: as given, or this process's.
        runs: the ids of the handlers whose deliveries this process runs.
        terms: on what terms each loaded handler runs, by its id.

    Raises:
        SettingsError: a folder or schema file that the settings name cannot be used, or credentials are missing.
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
        asks_for: Collection[str] = (),
    ) -> None:
        self.settings = settings
        self._asks_for = asks_for
        self.environ = os.environ if environ is None else environ
        self.clock = clock or Clock()
        self._told: list[Callable[[Settings], object]] = []
        self.draining = False
        self._cores = cores
        self._environ = {**os.environ, **(environ or {})}  # as it is before plugins are loaded
        self._kind = kind
        self._over, self._stop = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._spawning, self._changing = threading.Lock(), threading.Lock()
        self._lock = acquire_lock(database_url(settings))
        try:
            self.schemas, self.plugins = load(settings, objects=objects, entry_points=entry_points, environ=environ)
            loaded = self.plugins.handlers
            self.runs = frozenset(one for one in loaded if any(fnmatchcase(one, pattern) for pattern in run))
            self._open()
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise

    def _open(self) -> None:
        settings = self.settings
        self.metrics = Metrics()
        self._pauses = PausedHandlers()
        self.runner = self._runner()
        self.ledger = Ledger(
            database_url(settings),
            runner=self.runner,
            clock=self.clock,
            max_queued=settings.ledger.queue,
            timeout=settings.ledger.timeout,
            stale_after=settings.ledger.stale_after,
            kind=self._kind,
            handler_ids=self.runs,
            on_commit=self.metrics.committed,
            max_handler_transactions=settings.runner.threads,
            pauses=self._pauses,
            identity_retention=settings.retention.identities * DAY or None,
        )
        try:
            required_credentials.check(self.ledger, settings, self._asks_for)
            required_credentials.record(self.ledger, settings, self._asks_for, self.clock)
            self._wire()
        except BaseException:
            self.ledger.close()
            raise

    def _runner(self) -> Embedded | Procrastinate:
        """The runner that the settings name.

        Raises:
            SettingsError: it does not run on this database, or is not installed.
            LedgerUnusable: its tables are not as they should be.
        """

        def due(now: int, most: Callable[[str], int]) -> list[Queued]:
            return self.ledger.due_deliveries(now, most)  # which is made after its runner

        threads, clock = self.settings.runner.threads, self.clock
        if self.settings.runner.kind == "embedded":
            return Embedded(
                threads=threads,
                due=due,
                clock=clock,
                mine=self._has,
                limit=self._limit,
                paused=self._pauses.get,
                timeout=self._timeout,
            )
        jobs = jobs_of(self.settings)
        from flowhooks.execution.runners.procrastinate import Procrastinate  # noqa: PLC0415 (an extra, which most do without)

        url = database_url(self.settings)
        jobs.check(url)
        return Procrastinate(
            url,
            threads=threads,
            due=due,
            write=lambda function: self.ledger.write(function),  # noqa: PLW0108 (as above)
            clock=clock,
            mine=self.runs,
            limit=self._limit,
            paused=self._pauses.get,
        )

    def _limit(self, handler: str) -> int | None:
        """How many of a handler's deliveries run at once at the most, over all processes."""
        loaded = self.plugins.handlers.get(handler)
        return loaded.concurrency if loaded else None

    def _timeout(self, handler: str) -> float:
        """Seconds after which an attempt of a handler is overdue, and nobody ends it."""
        known = self.terms.get(handler)
        timeout = known.timeout if known else self.settings.runner.timeout
        return timeout + ENDED_WITHIN if handler in self.isolation.handlers else timeout

    def _wire(self) -> None:
        settings, handlers = self.settings, self.plugins.handlers
        self.neighbours: Neighbours | None = None
        self.terms = {one: terms(handler, settings) for one, handler in handlers.items()}
        versions = {info.name: info.version for info in reversed(self.plugins.infos)}
        of_release = releases(handlers, lambda plugin: versions.get(plugin, ""))
        remembered = {one.id: one.selectors for one in self.ledger.registered_handlers()}
        self._changed_handlers = [one.id for one in handlers.values() if remembered.get(one.id) != one.selectors]
        missing = self.ledger.register_handlers(list(handlers.values()), of_release)
        self._missing: Sequence[RegisteredHandler] = missing
        with self.ledger.connection() as connection:
            forgotten = known.retired(connection)
        # A retired handler gets nothing more, but what is stored for it must wait for it, too.
        # Where the ledger is shared, another process may have what is missing here.
        missed = [] if self.ledger.shared else missing
        self.absent = frozenset(one.id for one in missed) | forgotten
        for one in missed:
            log.warning(
                "handler_missing", handler=one.id, why="it was loaded before and is not now; its deliveries wait for it"
            )
        recovered = self.ledger.recover(missing_handlers=self.absent)
        if any(recovered.values()):
            log.warning("recovered", **{f"now_{state}": count for state, count in recovered.items()})
        self.router = self._routing(settings, missing)
        self.watches = Watches(clock=self.clock, most=max(1, settings.http.threads // 2), paused=self._pauses.get)
        self._pauses.subscribe(self._pauses_changed)
        if self._pauses.handlers:
            self._log_pauses()
        self.notices = Notices(self.plugins)
        self.file_watch = FileWatch(self.ledger, self._lock) if self._lock is not None else None
        self.refusals = Refusals(ledger=self.ledger, clock=self.clock)
        trust = ClockTrust(self.clock, self.ledger.newest)
        self.clock_watch = ClockWatch(self.ledger, trust)
        self.retention = Retention(ledger=self.ledger, clock=self.clock, settings=settings.retention, trust=trust)
        self.alerts = Alerts(
            ledger=self.ledger,
            plugins=self.plugins,
            clock=self.clock,
            settings=settings.alerts,
            routing=RoutingCauses(
                router=lambda: self.router,
                ignored=lambda: self.settings.routing.ignore_conclusions,
                loaded=frozenset(handlers),
            ),
            timeout=self._timeout,
        )
        self.holding = Holding(
            ledger=self.ledger,
            hold_after={one: self.terms[one].hold_after for one in self.runs},
            releases=of_release,
            try_every=settings.runner.try_every,
            clock=self.clock,
        )
        self.isolation = Pool.of(
            settings, self.plugins, self._environ, cores=self._cores, runs=self._has, ended=self.metrics.process_ended
        )
        self.dispatch = Dispatch(
            ledger=self.ledger,
            plugins=self.plugins,
            handlers=handlers,
            notices=self.notices,
            clock=self.clock,
            told=self.watches.tell,
            pause=self._over.wait,
            ended=self.holding.ended,
            metrics=self.metrics,
            room=Room(self._cores),
            elsewhere=self.isolation.elsewhere(),
        )
        self.intake = Intake(
            ledger=self.ledger,
            rules=Rules(settings=settings, router=self.router, absent=self.absent),
            handlers=handlers,
            runs=self._is_run,
            watches=self.watches,
            notices=self.notices,
            clock=self.clock,
        )
        self.desk = Desk(ledger=self.ledger, router=self.router, absent=self.absent, clock=self.clock)
        self._measure()
        if self.ledger.shared:
            self.neighbours = Neighbours(
                url=database_url(settings),
                ledger=self.ledger,
                watches=self.watches,
                loaded=handlers,
                missing=missing,
                retired=forgotten,
                rerouted=self._route_by,
                drain=lambda: self._spawn("drain", self._drain),
                wake=self.runner.wake,
            )

    def _measure(self) -> None:
        """Have the metrics tell, besides what is counted, what is looked up."""
        here = Here(
            version=version("flowhooks"),
            plugins=self.plugins.infos,
            running=lambda: self.runner.running,
            processes=lambda: self.isolation.alive,
            queued=lambda: self.ledger.queue_size,
            notices_dropped=lambda: self.notices.dropped,
            alone=not self.metrics.together,
        )
        self.metrics.add(OfProcess(here))
        url = database_url(self.settings)
        self.metrics.add(OfLedger(self.ledger, url=url, clock=self.clock, label=self.metrics.label))

    def _route_by(self, missing: Sequence[RegisteredHandler], absent: frozenset[str]) -> None:
        """Go on with another look-up, since other processes have made handlers known."""
        with self._changing:
            self._missing, self.absent = missing, absent
            self._go_by(self.settings, self._routing(self.settings, missing))

    def _go_by(self, settings: Settings, router: Router) -> None:
        self.settings, self.router = settings, router
        self.intake.go_by(Rules(settings=settings, router=router, absent=self.absent))
        self.desk = replace(self.desk, router=router, absent=self.absent)

    def reload(self, settings: Settings) -> None:
        """Go by other settings from now on; a call-back goes by the old ones or by the new ones, never by some of each.

        Args:
            settings: they differ from `self.settings` in nothing but what is live. See `settings.change`.
        """
        required_credentials.record_if_possible(self.ledger, settings, self._asks_for, self.clock)
        for told in self._told:
            told(settings)
        with self._changing:
            ignore = settings.ignore != self.settings.ignore
            self._go_by(settings, self._routing(settings, self._missing) if ignore else self.router)
        self.alerts.go_by(settings.alerts)
        self.retention.go_by(settings.retention)
        if ignore:
            self._spawn("drain", self._drain)  # what was parked may need no handler any more, as at a start

    def follow(self, told: Callable[[Settings], object]) -> None:
        """Have `told` called each time that the settings are read again, before anything goes by them."""
        self._told.append(told)

    def _routing(self, settings: Settings, missing: Sequence[RegisteredHandler]) -> Router:
        """The look-up of the handlers that are loaded, and of those that are only remembered."""
        return build_router(self.plugins.handlers.values(), missing, settings.ignore.process_key)

    def _has(self, handler: str) -> bool:
        """Whether this process is to run a handler's deliveries: where none else can have it, all that come."""
        return handler in self.runs or not self.ledger.shared

    def _is_run(self, handler: str) -> bool:
        """Whether a process that lives runs a handler's deliveries just now, as far as this one has heard."""
        if handler in self._pauses.handlers:
            return False
        return self._has(handler) or (self.neighbours is not None and handler in self.neighbours.run)

    def _pauses_changed(self) -> None:
        """Run what was resumed, and answer those who wait for what was paused; not in the ledger's own thread."""
        self._log_pauses()
        self.runner.wake()
        threading.Thread(target=self._tell_waiting, name="pauses", daemon=True).start()

    def _log_pauses(self) -> None:
        how_many = len(self._pauses.handlers)
        log.info("pauses_changed", paused=how_many, next="`flowhooks handlers list` shows which")

    def _tell_waiting(self) -> None:
        with suppress(LedgerUnusable):  # then they wait for as long as they meant to
            for event_id in self.watches.waited_for():
                self.watches.tell_read(event_id, self.ledger.delivery_statuses(event_id))

    def start(self) -> None:
        """Run what waits, and deliver what was parked and is wanted by now."""
        self.isolation.start()
        self.notices.start()
        self.alerts.start()
        self.refusals.start()
        self.retention.start()
        self.clock_watch.start()
        if self.runs or not self.ledger.shared:
            self._spawn("runner", lambda: self.runner.run(self.dispatch.execute, self._stop))
            self._spawn("holding", lambda: self.holding.run(self.dispatch.execute, self._stop))
        self._spawn("drain", self._drain)
        if self._changed_handlers:
            self._spawn("dismissed", lambda: log_dismissed(self.ledger, self.router, self._changed_handlers))
        for service in (self.neighbours, self.file_watch):
            if service is not None:
                service.start()
        threading.Thread(target=self.dispatch.keep_recording, name="recording", daemon=True).start()

    def _spawn(self, name: str, function: Callable[[], None]) -> None:
        thread = threading.Thread(target=function, name=name, daemon=True)
        with self._spawning:
            thread.start()  # before it is listed: `close` joins what is listed
            self._threads = [*(started for started in self._threads if started.is_alive()), thread]

    def _drain(self) -> None:
        """Deliver what was parked and is wanted by now; in the background, for there may be much of it."""
        after, delivered = "", 0
        try:
            while not self._stop.is_set():
                page = drain(self.desk, after=after)
                after = page.next
                delivered += page.delivered
                if not after:
                    break
        except FlowhooksError as error:
            log.error("drain_failed", why=str(error), next="`flowhooks events drain` tries again")  # noqa: TRY400 (one line says it)
        if delivered:
            log.info("drained", delivered=delivered)

    def describe(self, admin: str, token: str) -> None:
        """Write into the lock file where the administration API is, and the token that it asks for."""
        if self._lock is not None:
            self._lock.write_owner(LockOwner(pid=os.getpid(), admin=admin, token=token))

    def trouble(self) -> list[str]:
        """Why call-backs should go elsewhere just now; empty when all is well."""
        found = []
        if self.draining:
            found.append("the server is stopping")
        if self.ledger.guard is not None and (why := self.ledger.guard.find_problem()):
            found.append(why)
        elif self.ledger.write_error and not self.ledger.probe_writable():
            found.append(f"the last write to the database failed ({self.ledger.write_error})")
        # A small write may succeed where there is no room for a call-back.
        left = database.free_disk_bytes(database_url(self.settings))
        if left is not None and left < self.settings.http.max_body_bytes:
            found.append(f"the disk of the database has {left // 1024} KiB left; make room there")
        if self.router.unreadable:
            found.append(
                f"a newer version of flowhooks has recorded what {', '.join(self.router.unreadable[:3])} listens to; "
                "run that version here, too"
            )
        if why := self.runner.health():
            found.append(f"deliveries cannot be run: {why}")
        return found

    def drain(self) -> None:
        """Take nothing more in, start nothing more, and answer those who wait."""
        self.draining = True
        self._stop.set()
        self.runner.wake()
        self.holding.wake()
        self.intake.drain()

    def close(self, timeout: float = 0.0) -> bool:
        """Stop running deliveries, wait for those that run, record how they ended, let go of the database.

        Args:
            timeout: seconds that running handlers get.

        Returns:
            Whether all of them ended in time. Those that did not are found by the next start.
        """
        with ExitStack() as steps:
            # The last one comes first. Each is done even if one before it fails.
            if self._lock is not None:
                steps.callback(self._lock.release)
            steps.callback(self.ledger.close)
            services = (self.retention, self.refusals, self.alerts, self.notices, self.neighbours, self.clock_watch)
            for service in (*services, self.file_watch):
                if service is not None:
                    steps.callback(service.stop, NOTICES_GET)
            steps.callback(self._over.set)
            steps.callback(self.isolation.close)
            return self._stop_running(timeout)

    def _stop_running(self, timeout: float) -> bool:
        self.drain()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        all_ended = not any(thread.is_alive() for thread in self._threads)
        if not all_ended and self.isolation.stop():
            for thread in self._threads:
                thread.join(NOTICES_GET)
        if any(thread.is_alive() for thread in self._threads):
            log.warning("handlers_still_running", running=self.runner.running, next="the next start recovers them")
        return all_ended
