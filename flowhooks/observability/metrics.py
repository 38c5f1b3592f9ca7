"""The counters and histograms of this process, for Prometheus.

Each process counts for itself, so the values of all processes are added up. Processes of one supervisor report their
common sum. The number of label values is bounded: all handlers beyond the first `MAX_HANDLERS` share one, and so do, in
the metrics of requests, all sources beyond the first `MAX_SOURCES`. The other metrics have each source of the settings.
Metrics that are read only at a scrape are in `flowhooks.observability.collectors`.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from flowhooks.clock import SECOND
from flowhooks.model.delivery import State
from flowhooks.observability.shared_counts import SHARED_DIR_VARIABLE, is_private

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric

    from flowhooks.ledger.delivery_settled import DeliverySettled

MAX_HANDLERS: Final = 500
"""Maximum number of handlers with a label value of their own. Each adds about 40 time series, which cost memory in
Prometheus."""
MAX_SOURCES: Final = 100
"""Maximum number of sources with a label value of their own. Each adds about 20 time series."""
OTHERS: Final = "(others)"
"""Label value shared by all further handlers, or sources. No handler id and no source has this form."""
NO_KIND: Final = "(none)"
"""Label value for requests whose path is not that of a callback. No kind has this name."""
NO_SOURCE: Final = "(none)"
"""Label value for requests whose source is not known: they had no valid credential, or were rejected before it was
checked. No source has this name."""

REQUEST_DURATION_BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
ATTEMPT_DURATION_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
DELIVERY_LATENCY_BUCKETS: Final = (
    0.01,
    0.05,
    0.1,
    0.5,
    1.0,
    5.0,
    10.0,
    60.0,
    300.0,
    1800.0,
    7200.0,
    43_200.0,
    172_800.0,
)
"""Upper limits in seconds, up to 48 hours: the retries of `Retry()` take up to 30.4 hours."""
COMMIT_DURATION_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
COMMIT_BATCH_SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters and histograms. Every method is fast and may be called from any thread.

    Attributes:
        registry: the metrics of this process; collectors may be added.
        shared_dir: the directory in which prometheus-client keeps the counts, if a supervisor has this process count
            together with others. The sum over all processes that exist or have existed is then reported. None: this
            process counts alone.
    """

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self._looked_up = CollectorRegistry()
        shared_dir = os.environ.get(SHARED_DIR_VARIABLE)
        self.shared_dir: Final = None if shared_dir is None else Path(shared_dir)
        if self.shared_dir is not None:
            self._looked_up.register(_SharedCounts(self.shared_dir))
        self.handler_label: Final = _BoundedLabels(MAX_HANDLERS)
        self._source_label = _BoundedLabels(MAX_SOURCES)
        self._received = Counter(
            "flowhooks_http_requests",
            "Requests to the callback listener, by kind and source. Kind (none): the path is not that of a callback, "
            "or a request to a fixed URL became none. Source (none): no valid credential, or "
            "rejected before it was checked.",
            ["kind", "source"],
            registry=self.registry,
        )
        self._answered = Counter(
            "flowhooks_http_responses",
            "Responses to these requests, by kind, source and HTTP status.",
            ["kind", "source", "status"],
            registry=self.registry,
        )
        self._answering = self._histogram(
            "flowhooks_http_request_duration_seconds",
            "Time from the arrival of a request to its response, including the wait for handlers.",
            ["kind", "source"],
            REQUEST_DURATION_BUCKETS,
        )
        self._attempts = Counter(
            "flowhooks_attempts",
            "Ended attempts, by handler and outcome.",
            ["handler", "outcome"],
            registry=self.registry,
        )
        self._attempting = self._histogram(
            "flowhooks_attempt_duration_seconds",
            "Run time of an attempt.",
            ["handler"],
            ATTEMPT_DURATION_BUCKETS,
        )
        self._delivering = self._histogram(
            "flowhooks_delivery_latency_seconds",
            "Time from the receipt of a callback until its delivery succeeded or was dead, including retries.",
            ["handler"],
            DELIVERY_LATENCY_BUCKETS,
        )
        self._committing = Histogram(
            "flowhooks_commit_duration_seconds",
            "Time that a transaction of the ledger took, including its commit.",
            buckets=COMMIT_DURATION_BUCKETS,
            registry=self.registry,
        )
        self._committed = Histogram(
            "flowhooks_commit_batch_size",
            "Number of write requests in one transaction of the ledger.",
            buckets=COMMIT_BATCH_SIZE_BUCKETS,
            registry=self.registry,
        )
        self._logins = Counter(
            "flowhooks_logins",
            "Logins to the console, by outcome: succeeded, failed, delayed. refused_token counts requests with a "
            "bearer token of no operator, refused_login_header those with an unusable header of login.proxy, and "
            "refused_no_role those of users whose groups have no role.",
            ["outcome"],
            registry=self.registry,
        )
        self._taken_in = Counter(
            "flowhooks_engine_reconciled",
            "Events that were taken in from the history of an engine, by source.",
            ["source"],
            registry=self.registry,
        )
        self._missed = Counter(
            "flowhooks_engine_missed",
            "These events of sources that can call, by source: their engine sent no callback in time.",
            ["source"],
            registry=self.registry,
        )
        self._processes_ended = Counter(
            "flowhooks_handler_processes_ended",
            "Ended processes of isolated handlers, by reason: overdue, crashed, worn (replaced after many runs or "
            "because its memory had grown), evicted (another handler needed a process), stopped.",
            ["reason"],
            registry=self.registry,
        )
        self._alert_notifications = Counter(
            "flowhooks_alert_notifications",
            "Calls of the hooks alert_raised and alert_resolved, by plugin and result: accepted, failed.",
            ["plugin", "result"],
            registry=self.registry,
        )
        # Shared counts include those of processes that have exited.
        self._answers: dict[int, int] = {}
        self._answers_lock = threading.Lock()
        # Looking up the child of a label value takes longer than counting, so each is looked up once.
        self._by_source = cache(self._new_source)
        self._by_answer = cache(self._answered.labels)
        self._by_handler = cache(lambda label: (self._attempting.labels(label), self._delivering.labels(label)))
        self._by_outcome = cache(self._attempts.labels)

    @property
    def is_multiprocess(self) -> bool:
        """Whether the counts of several processes are reported together."""
        return self.shared_dir is not None

    def answers(self) -> dict[int, int]:
        """Return the number of callback requests answered since the start of this process, by HTTP status."""
        with self._answers_lock:
            return dict(sorted(self._answers.items()))

    def expect(self, kinds: Iterable[str]) -> None:
        """Export kinds of callbacks with the value 0 for requests whose source is not known."""
        for kind in kinds:
            self._by_source(kind, NO_SOURCE)

    def _new_source(self, kind: str, source: str) -> tuple[Counter, Histogram]:
        # Prometheus sees no increase in the first value of a series, so a burst of errors needs a 0 before it.
        if kind != NO_KIND:
            for status in ("401",) if source == NO_SOURCE else ("409", "422", "503"):
                self._by_answer(kind, source, status)
        return self._received.labels(kind, source), self._answering.labels(kind, source)

    def _histogram(self, name: str, text: str, labels: list[str], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def add(self, collector: Collector) -> None:
        """Add a collector, whose metrics are read at each scrape."""
        self.registry.register(collector)
        self._looked_up.register(collector)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format 0.0.4; under a supervisor, the sums over its processes."""
        return generate_latest(_WithoutCreated(self._looked_up if self.is_multiprocess else self.registry))

    def answered(self, kind: str, source: str, status: int, seconds: float) -> None:
        """Count a request that was answered, `seconds` after it arrived."""
        source = self._source_label(source)
        received, answering = self._by_source(kind, source)
        received.inc()
        self._by_answer(kind, source, str(status)).inc()
        answering.observe(seconds)
        if kind != NO_KIND:
            with self._answers_lock:
                self._answers[status] = self._answers.get(status, 0) + 1

    def refused(self, status: int) -> None:
        """Count a request that was rejected before its kind was known."""
        self._by_source(NO_KIND, NO_SOURCE)[0].inc()
        self._by_answer(NO_KIND, NO_SOURCE, str(status)).inc()

    def on_settled(self, settled: DeliverySettled) -> None:
        """Count an attempt, and the time since its callback was received if it was the last of its delivery."""
        if settled.outcome is None:
            return
        status = settled.status
        label = self.handler_label(status.handler)
        attempting, delivering = self._by_handler(label)
        self._by_outcome(label, settled.outcome.kind.value).inc()
        attempting.observe(settled.seconds)
        if status.state in {State.SUCCEEDED, State.DEAD} and status.finished_at is not None:
            delivering.observe(max(0.0, status.finished_at / SECOND - settled.event.received_at.timestamp()))

    def logged_in(self, outcome: str) -> None:
        """Count an attempt to log in as an operator, by an outcome that the metric's description names."""
        self._logins.labels(outcome).inc()

    def taken_in(self, source: str, *, missed: bool) -> None:
        """Count an event that was taken in from the history of an engine; `missed`: a callback was expected."""
        self._taken_in.labels(source).inc()
        if missed:
            self._missed.labels(source).inc()

    def expect_engine(self, source: str) -> None:
        """Export the counts of an engine's history with the value 0; see `_new_source`."""
        self._taken_in.labels(source)
        self._missed.labels(source)

    def expect_notifications(self, plugins: Iterable[str]) -> None:
        """Export the counts of notifications by these plugins with the value 0; see `_new_source`."""
        for plugin in plugins:
            for result in ("accepted", "failed"):
                self._alert_notifications.labels(plugin, result)

    def alert_notified(self, plugin: str, accepted: bool) -> None:
        """Count a notification of an alert that a plugin accepted, or failed to deliver."""
        self._alert_notifications.labels(plugin, "accepted" if accepted else "failed").inc()

    def process_ended(self, reason: str) -> None:
        """Count a handler process that ended: `"overdue"`, `"crashed"`, `"worn"`, `"evicted"`, `"stopped"`."""
        self._processes_ended.labels(reason).inc()

    def committed(self, items: int, seconds: float) -> None:
        """Count a committed transaction of the ledger with this number of write requests."""
        self._committed.observe(items)
        self._committing.observe(seconds)


class _BoundedLabels:
    """The label values of names: each name itself, or `OTHERS` for all names after the first `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._labels: dict[str, str] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str) -> str:
        label = self._labels.get(name)
        if label is None:
            with self._lock:
                label = self._labels.setdefault(name, name if len(self._labels) < self._limit else OTHERS)
        return label


class _SharedCounts(Collector):
    """The sums over all processes that count in a folder; none while another user could have written them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        if is_private(self._folder):
            yield from MultiProcessCollector(None, str(self._folder)).collect()  # type: ignore[no-untyped-call]  # it has no types


class _WithoutCreated(Collector):
    """The metrics of a registry without the series `_created`, which would double the output of each counter."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics. They are new objects at each scrape, so they may be changed."""
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if sample.name != f"{family.name}_created"]
            yield family
