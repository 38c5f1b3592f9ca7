"""What this process counts, for Prometheus.

Each process counts for itself, so what is told is summed over processes; those of one supervisor count together. Values
of labels are bounded: handlers beyond the first `MAX_HANDLERS` share one. What is read only when somebody asks is in
`flowhooks.observability.collectors`.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

MAX_HANDLERS: Final = 500
"""Handlers with lines of their own: each has some 40, and whoever stores them pays by the line."""
OTHER_HANDLERS: Final = "(others)"
"""What stands for all further handlers; no handler's id looks so."""
NO_KIND: Final = "(none)"
"""The kind of requests to no path of a call-back; no kind is called so."""

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
"""Up to the 27 hours and a half that the retries of `Retry()` take."""
COMMIT_DURATION_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
COMMIT_BATCH_SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts. Every method may be called from any thread, and is quick.

    Attributes:
        registry: what this process tells; collectors may be added.
        is_multiprocess: whether a supervisor has this process count together with others: prometheus-client then keeps
            the counts in files, and the sum over all processes that exist or have existed is reported.
    """

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self._looked_up = CollectorRegistry()
        self.is_multiprocess: Final = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        if self.is_multiprocess:
            MultiProcessCollector(self._looked_up)  # type: ignore[no-untyped-call]  # it has no types
        self._labels: dict[str, str] = {}
        self._naming = threading.Lock()
        self._received = Counter(
            "flowhooks_http_requests",
            "Requests to the call-back listener, by kind of call-back; (none): to no path of a call-back.",
            ["kind"],
            registry=self.registry,
        )
        self._answered = Counter(
            "flowhooks_http_responses", "Answers to them, by HTTP status.", ["kind", "status"], registry=self.registry
        )
        self._answering = self._histogram(
            "flowhooks_http_request_duration_seconds",
            "From a request's arrival to its answer, waiting for handlers included.",
            "kind",
            REQUEST_DURATION_BUCKETS,
        )
        self._attempts = Counter(
            "flowhooks_attempts",
            "Attempts that have ended, by handler and outcome.",
            ["handler", "outcome"],
            registry=self.registry,
        )
        self._attempting = self._histogram(
            "flowhooks_attempt_duration_seconds",
            "How long an attempt took in its handler.",
            "handler",
            ATTEMPT_DURATION_BUCKETS,
        )
        self._delivering = self._histogram(
            "flowhooks_delivery_latency_seconds",
            "From the receipt of a call-back until a delivery of it succeeded or was dead, retries included.",
            "handler",
            DELIVERY_LATENCY_BUCKETS,
        )
        self._committing = Histogram(
            "flowhooks_commit_duration_seconds",
            "How long a transaction of the ledger took, its commit included.",
            buckets=COMMIT_DURATION_BUCKETS,
            registry=self.registry,
        )
        self._committed = Histogram(
            "flowhooks_commit_batch_size",
            "How many pieces of work one transaction of the ledger committed together.",
            buckets=COMMIT_BATCH_SIZE_BUCKETS,
            registry=self.registry,
        )
        self._logins = Counter(
            "flowhooks_logins",
            "Attempts to log in to the console, by outcome: succeeded, failed, delayed; refused_token: a bearer token "
            "that no operator has.",
            ["outcome"],
            registry=self.registry,
        )
        self._processes_ended = Counter(
            "flowhooks_handler_processes_ended",
            "Processes of handlers that have ended, by reason: overdue, crashed, worn (replaced after many runs, or "
            "having grown), evicted (another handler needed its place), stopped.",
            ["reason"],
            registry=self.registry,
        )
        # To find what counts a label's values takes longer than to count: each is looked for once.
        self._by_kind = cache(lambda kind: (self._received.labels(kind), self._answering.labels(kind)))
        self._by_answer = cache(lambda kind, status: self._answered.labels(kind, str(status)))
        self._by_handler = cache(lambda label: (self._attempting.labels(label), self._delivering.labels(label)))
        self._by_outcome = cache(self._attempts.labels)

    def answers(self) -> dict[int, int]:
        """How many requests for call-backs this process has answered since its start, by HTTP status."""
        by_status: dict[int, int] = {}
        for family in self._answered.collect():
            for sample in family.samples:
                if sample.name.endswith("_total") and sample.labels["kind"] != NO_KIND:
                    status = int(sample.labels["status"])
                    by_status[status] = by_status.get(status, 0) + int(sample.value)
        return dict(sorted(by_status.items()))

    def _histogram(self, name: str, text: str, label: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, [label], buckets=buckets, registry=self.registry)

    def add(self, collector: Collector) -> None:
        """Have what `collector` finds told, too, each time that somebody asks."""
        self.registry.register(collector)
        self._looked_up.register(collector)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format 0.0.4; of processes that count together, what all have counted."""
        return generate_latest(self._looked_up if self.is_multiprocess else self.registry)

    def received(self, kind: str) -> None:
        """A request has come."""
        self._by_kind(kind)[0].inc()

    def answered(self, kind: str, status: int, seconds: float) -> None:
        """A request was answered, `seconds` after it came."""
        self._by_answer(kind, status).inc()
        self._by_kind(kind)[1].observe(seconds)

    def refused(self, status: int) -> None:
        """A request was answered before it was known what it is for."""
        self.received(NO_KIND)
        self._by_answer(NO_KIND, status).inc()

    def attempted(self, handler: str, outcome: str, seconds: float, *, total: float | None) -> None:
        """An attempt was settled.

        Args:
            handler: its handler's id.
            outcome: how it ended.
            seconds: how long it took in its handler.
            total: seconds since the call-back was received, if this attempt was the delivery's last.
        """
        label = self.handler_label(handler)
        attempting, delivering = self._by_handler(label)
        self._by_outcome(label, outcome).inc()
        attempting.observe(seconds)
        if total is not None:
            delivering.observe(max(0.0, total))

    def logged_in(self, outcome: str) -> None:
        """Somebody has tried to come in as an operator: `"succeeded"`, `"failed"`, `"delayed"`, `"refused_token"`."""
        self._logins.labels(outcome).inc()

    def process_ended(self, reason: str) -> None:
        """A process of a handler has ended: `"overdue"`, `"crashed"`, `"worn"`, `"evicted"`, `"stopped"`."""
        self._processes_ended.labels(reason).inc()

    def committed(self, items: int, seconds: float) -> None:
        """A transaction of the ledger with so many pieces of work was committed."""
        self._committed.observe(items)
        self._committing.observe(seconds)

    def handler_label(self, handler: str) -> str:
        """What a handler is called here: its id, or `OTHER_HANDLERS`."""
        label = self._labels.get(handler)
        if label is None:
            with self._naming:
                label = self._labels.setdefault(
                    handler, handler if len(self._labels) < MAX_HANDLERS else OTHER_HANDLERS
                )
        return label
