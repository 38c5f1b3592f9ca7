"""Metrics that are read when Prometheus scrapes: the state of the ledger and of this process.

Metrics read from the ledger have the same value in every process: take the maximum over processes, not the sum.
"""

from __future__ import annotations

import platform
import shutil
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from flowhooks.clock import SECOND
from flowhooks.errors import LedgerUnusable
from flowhooks.ledger import database
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from flowhooks.clock import Clock
    from flowhooks.ledger.engine_queries import EngineStats
    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.stats import LedgerStats, Totals
    from flowhooks.plugins.loading import PluginInfo

STATS_TTL_SECONDS: Final = 5.0
TOTALS_TTL_SECONDS: Final = 60.0
"""Seconds for which values read from the ledger are reused, however often they are scraped.

The totals have a longer time. Open deliveries are found through indexes, but for the totals every event is counted
(0.03 s for 1,000,000 events on SQLite)."""
COUNT_COST: Final = 20
"""The totals are read again only after this many times the time that it took."""
OPEN_STATES: Final = (State.WAITING, State.RUNNING, State.UNKNOWN, State.DEAD)
"""States whose deliveries are counted. There may be millions of deliveries in the other states."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class ProcessInfo(NamedTuple):
    """The values that a process reports about itself when it is scraped.

    Attributes:
        version: the version of flowhooks.
        plugins: all plugins that were found.
        running: returns the number of deliveries that are running.
        processes: returns the number of processes of isolated handlers.
        queued: returns the number of write requests that wait for the ledger's writer.
        notifications_dropped: returns the number of notifications that were not given to a plugin.
        is_single_process: whether the metrics are those of this process alone; if not, its current activity is left
            out.
    """

    version: str
    plugins: Sequence[PluginInfo]
    running: Callable[[], int]
    processes: Callable[[], int]
    queued: Callable[[], int]
    notifications_dropped: Callable[[], int]
    is_single_process: bool = True


class ProcessCollector(Collector):
    """A collector of the metrics of this process."""

    def __init__(self, info: ProcessInfo) -> None:
        self._info = info

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        process = self._info
        build = GaugeMetricFamily(
            "flowhooks_build_info",
            "Always 1. The labels are the versions of flowhooks and Python.",
            labels=["version", "python"],
        )
        build.add_metric([process.version, platform.python_version()], 1)
        yield build
        plugins = GaugeMetricFamily(
            "flowhooks_plugin_info", "1 for each plugin that was found, by its state.", labels=["plugin", "state"]
        )
        for (name, state), many in sorted(Counter((info.name, info.state) for info in process.plugins).items()):
            plugins.add_metric([name, state], many)
        yield plugins
        if not process.is_single_process:
            return
        yield GaugeMetricFamily(
            "flowhooks_running_deliveries", "Deliveries that this process is running now.", process.running()
        )
        yield GaugeMetricFamily("flowhooks_handler_processes", "Processes of isolated handlers.", process.processes())
        yield GaugeMetricFamily(
            "flowhooks_writes_queued",
            "Write requests that wait for the next transaction of this process.",
            process.queued(),
        )
        yield CounterMetricFamily(
            "flowhooks_hook_notifications_dropped",
            "Notifications that were dropped because a plugin was too slow.",
            process.notifications_dropped(),
        )


class LedgerCollector(Collector):
    """A collector of the metrics of the ledger.

    Args:
        ledger: the ledger to read.
        url: the URL of its database.
        clock: the clock that ages are measured with.
        handler_label: returns the label value for a handler's id.
        engine_intervals: returns `reconcile_every` of each source that has an engine now, by present and former names.
    """

    def __init__(
        self,
        ledger: Reader,
        *,
        url: str,
        clock: Clock,
        handler_label: Callable[[str], str],
        engine_intervals: Callable[[], Mapping[str, float]],
    ) -> None:
        self._clock = clock
        self._handler_label = handler_label
        self._engine_intervals = engine_intervals
        file = database.database_file(url)
        self._file = file and file.resolve()  # SQLite's write-ahead log is beside the file that a link leads to
        self._stats = _TTLCache(lambda: ledger.read_stats(clock.now()), STATS_TTL_SECONDS)
        self._totals = _TTLCache(_or_none(ledger.totals), TOTALS_TTL_SECONDS, cost=COUNT_COST)
        self._engines = _TTLCache(ledger.read_engine_stats, STATS_TTL_SECONDS)
        self._book = _TTLCache(_or_none(ledger.book_totals), TOTALS_TTL_SECONDS, cost=COUNT_COST)
        self._ignored = _TTLCache(ledger.ignored_counts, STATS_TTL_SECONDS)

    def describe(self) -> Iterator[Metric]:
        """Return nothing, because otherwise registration would call `collect` and read the ledger."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; only `flowhooks_ledger_up` if the ledger cannot be read.

        The totals are left out if they cannot be read, as in a database that does not count all events in time.
        """
        try:
            condition, engines, ignored = self._stats.read(), self._engines.read(), self._ignored.read()
            totals, book = self._totals.read(), self._book.read()
        except LedgerUnusable as error:
            log.warning("ledger_metrics_failed", why=str(error))
            yield GaugeMetricFamily("flowhooks_ledger_up", "1 if the ledger can be read.", 0)
            return
        yield GaugeMetricFamily("flowhooks_ledger_up", "1 if the ledger can be read.", 1)
        yield from self._open(condition)
        yield from self._parked(condition)
        operations = GaugeMetricFamily(
            "flowhooks_operations", "Bulk operations that are planned, running or paused, by state.", labels=["state"]
        )
        for state, many in condition.operations.items():
            operations.add_metric([state], many)
        yield operations
        yield CounterMetricFamily(
            "flowhooks_accepted", "Events accepted since the ledger was created.", condition.accepted
        )
        yield CounterMetricFamily("flowhooks_purged", "Events purged since the ledger was created.", condition.purged)
        if totals is not None:
            yield from _counted(totals)
        yield from self._engine_gauges(engines)
        if book is not None:
            yield _instances(book)
        yield _ignored(ignored)
        alerts = GaugeMetricFamily("flowhooks_alerts", "Open alerts, by cause.", labels=["cause"])
        for cause, many in sorted(condition.alerts.items()):
            alerts.add_metric([cause], many)
        yield alerts
        alerted = GaugeMetricFamily(
            "flowhooks_alert_items", "Deliveries and events that open alerts concern, by cause.", labels=["cause"]
        )
        for cause, many in sorted(condition.alerted.items()):
            alerted.add_metric([cause], many)
        yield alerted
        yield GaugeMetricFamily(
            "flowhooks_processes", "Processes that use the ledger and have not expired.", condition.processes
        )
        if self._file is not None:
            yield GaugeMetricFamily(
                "flowhooks_wal_bytes", "Size of SQLite's write-ahead log in bytes.", _size(self._file, "-wal")
            )
            yield GaugeMetricFamily(
                "flowhooks_database_bytes", "Size of the SQLite database file in bytes.", _size(self._file)
            )
            yield from _disk(self._file.parent)

    def _open(self, condition: LedgerStats) -> Iterator[Metric]:
        deliveries = GaugeMetricFamily(
            "flowhooks_deliveries",
            "Deliveries that are waiting, running, unknown or dead, by handler and state.",
            labels=["handler", "state"],
        )
        counted: Counter[tuple[str, State]] = Counter()
        for handler, backlog in condition.backlog.items():
            for state in OPEN_STATES:
                counted[self._handler_label(handler), state] += getattr(backlog, state.value)
        for (handler, state), many in sorted(counted.items()):
            deliveries.add_metric([handler, state.value], many)
        yield deliveries
        ages = GaugeMetricFamily(
            "flowhooks_oldest_delivery_age_seconds",
            "Seconds that the oldest delivery has been in its state; for waiting: since it was due.",
            labels=["handler", "state"],
        )
        since: dict[tuple[str, State], int] = {}
        for (handler, state), timestamp in (
            *(((handler, State.WAITING), timestamp) for handler, timestamp in condition.oldest_due.items()),
            *condition.oldest_failed.items(),
        ):
            key = self._handler_label(handler), state
            since[key] = min(timestamp, since.get(key, timestamp))
        for (handler, state), timestamp in sorted(since.items()):
            ages.add_metric([handler, state.value], self._age(timestamp))
        yield ages
        yield self._handler_gauge("flowhooks_handler_paused", "that is paused", condition.paused)
        yield self._handler_gauge(
            "flowhooks_handler_circuit_open", "whose circuit breaker is open", condition.circuit_open
        )

    def _handler_gauge(self, name: str, what: str, handlers: Iterable[str]) -> Metric:
        gauge = GaugeMetricFamily(name, f"1 for each handler {what}.", labels=["handler"])
        for handler in sorted({self._handler_label(handler_id) for handler_id in handlers}):
            gauge.add_metric([handler], 1)
        return gauge

    def _parked(self, condition: LedgerStats) -> Iterator[Metric]:
        yield GaugeMetricFamily("flowhooks_parked_events", "Events that are parked.", condition.parked)
        yield GaugeMetricFamily(
            "flowhooks_oldest_parked_seconds",
            "Seconds since the oldest parked event was parked; 0 if there is none.",
            0.0 if condition.oldest_parked is None else self._age(condition.oldest_parked),
        )

    def _engine_gauges(self, engines: EngineStats) -> Iterator[Metric]:
        # The ledger keeps the position of a removed engine, which nobody reads any more.
        intervals = self._engine_intervals()
        known = {source: position for source, position in engines.positions.items() if source in intervals}
        for name, text, values in (
            (
                "flowhooks_engine_up",
                "1 if the last reconciliation with the engine had no error, by source.",
                {source: float(position.failed_since is None) for source, position in known.items()},
            ),
            (
                "flowhooks_engine_position_age_seconds",
                "Seconds since the end time until which the history of the engine was read, by source.",
                {source: self._age(position.read_until) for source, position in known.items()},
            ),
            (
                "flowhooks_engine_last_success_age_seconds",
                "Seconds since the last reconciliation without an error ended, or since the first contact, by source.",
                {
                    source: self._age(position.since if position.succeeded_at is None else position.succeeded_at)
                    for source, position in known.items()
                },
            ),
            (
                "flowhooks_engine_reconcile_every_seconds",
                "Seconds between two reconciliations with the engine, by source: the setting reconcile_every.",
                {source: intervals[source] for source in known},
            ),
            (
                "flowhooks_engine_clock_skew_seconds",
                "The clock of the engine minus ours, in seconds, by source.",
                {source: position.skew / SECOND for source, position in known.items() if position.skew is not None},
            ),
            (
                "flowhooks_engine_to_confirm",
                "Instances that wait until an operator confirms the reconciliation, by source.",
                {source: float(position.unconfirmed) for source, position in known.items()},
            ),
            (
                "flowhooks_engine_history_gaps",
                "Open gaps in the history of the engine, by source.",
                {source: float(engines.gaps.get(source, 0)) for source in known},
            ),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["source"])
            for source, value in values.items():
                gauge.add_metric([source], value)
            yield gauge

    def _age(self, timestamp: int) -> float:
        return max(0.0, (self._clock.now() - timestamp) / SECOND)


def _counted(totals: Totals) -> Iterator[Metric]:
    yield GaugeMetricFamily("flowhooks_events", "Events that are stored now.", totals.stored)
    yield GaugeMetricFamily(
        "flowhooks_unaccounted_events",
        "Accepted events that are neither stored nor purged. Any other value than 0 is an emergency.",
        totals.unaccounted,
    )


def _instances(book: Mapping[tuple[str, str, str], int]) -> Metric:
    gauge = GaugeMetricFamily(
        "flowhooks_engine_instances",
        "Finished instances that were read in the history of the engine, by source, disposition and rule.",
        labels=["source", "disposition", "rule"],
    )
    for labels, count in sorted(book.items()):
        gauge.add_metric(labels, count)
    return gauge


def _ignored(counts: Mapping[tuple[str, str], int]) -> Metric:
    counter = CounterMetricFamily(
        "flowhooks_ignored_requests",
        "Requests to fixed URLs that were answered and not stored, by source and rule.",
        labels=["source", "rule"],
    )
    for labels, count in sorted(counts.items()):
        counter.add_metric(labels, count)
    return counter


def _disk(folder: Path) -> Iterator[Metric]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return
    yield GaugeMetricFamily(
        "flowhooks_disk_available_bytes", "Free space of the file system of the SQLite database in bytes.", usage.free
    )
    yield GaugeMetricFamily(
        "flowhooks_disk_size_bytes", "Size of the file system of the SQLite database in bytes.", usage.total
    )


def _size(file: Path, suffix: str = "") -> int:
    try:
        return file.with_name(file.name + suffix).stat().st_size
    except FileNotFoundError:
        return 0


class _TTLCache(Generic[T]):
    """A cache of one value that expires. If several threads need it at once, one reads it and the others wait.

    The value is kept for some seconds, or for `cost` times the time that it took to read it if that is longer.
    """

    def __init__(self, read: Callable[[], T], seconds: float, *, cost: int = 0) -> None:
        self._read = read
        self._seconds = seconds
        self._cost = cost
        self._lock = threading.Lock()
        self._cached: tuple[float, T] | None = None

    def read(self) -> T:
        with self._lock:
            began = time.monotonic()
            if self._cached is None or began >= self._cached[0]:
                value = self._read()
                self._cached = began + max(self._seconds, (time.monotonic() - began) * self._cost), value
            return self._cached[1]


def _or_none(read: Callable[[], T]) -> Callable[[], T | None]:
    """Return a function that returns None if `read` cannot read the ledger."""

    def read_or_none() -> T | None:
        try:
            return read()
        except LedgerUnusable as error:
            log.warning("ledger_metrics_failed", why=str(error))
            return None

    return read_or_none
