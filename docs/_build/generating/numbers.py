"""The list of all metrics, as in a scrape."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from flowhooks.clock import SECOND, Clock
from flowhooks.ledger.delivery_settled import DeliverySettled
from flowhooks.ledger.engine_queries import EnginePosition, EngineStats
from flowhooks.ledger.queries import DeliveryStatus
from flowhooks.ledger.stats import HandlerBacklog, LedgerStats, Totals
from flowhooks.model.delivery import Delivery, Outcome, OutcomeKind, State
from flowhooks.observability.collectors import LedgerCollector, ProcessCollector, ProcessInfo
from flowhooks.observability.metrics import Metrics
from flowhooks.observability.process_resources import ResourceCollector
from flowhooks.testing import make_event
from generating.markdown import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric


def _succeeded(handler: str) -> DeliverySettled:
    """The signal of a delivery whose attempt succeeded."""
    event = make_event()
    status = DeliveryStatus(
        delivery_id="d",
        handler=handler,
        state=State.SUCCEEDED,
        attempt=1,
        due_at=None,
        finished_at=int(event.received_at.timestamp() * SECOND),
    )
    delivery = Delivery(id="d", event_id=event.id, handler=handler, attempt=1)
    return DeliverySettled(event, delivery, status, Outcome(kind=OutcomeKind.SUCCEEDED), 0.1)


def families() -> Iterator[tuple[str, Metric]]:
    """Return every metric family of a scrape, and its origin: a process, or the ledger."""
    metrics = Metrics()
    metrics.answered("complete", "oa", 200, 0.1)
    metrics.on_settled(_succeeded("contracts:archive"))
    metrics.committed(1, 0.1)
    metrics.taken_in("oa", missed=True)
    plugins: Any = [SimpleNamespace(name="contracts", state="loaded")]
    here = ProcessInfo(
        version="1",
        plugins=plugins,
        running=lambda: 0,
        processes=lambda: 0,
        queued=lambda: 0,
        notifications_dropped=lambda: 0,
    )
    metrics.logged_in("succeeded")
    metrics.alert_notified("notice", accepted=True)
    metrics.process_ended("worn")
    metrics.add(ProcessCollector(here))
    metrics.add(ResourceCollector(None))
    yield from (("process", family) for family in metrics.registry.collect())
    one = "contracts:archive"
    condition = LedgerStats(
        backlog={one: HandlerBacklog(waiting=1)},
        oldest_due={one: 0},
        oldest_failed={(one, State.DEAD): 0},
        parked=0,
        oldest_parked=None,
        alerts={"dead": 1},
        alerted={"dead": 1},
        processes=1,
        paused=frozenset({one}),
        circuit_open=frozenset({one}),
        operations={"planned": 0, "running": 1, "paused": 0},
        accepted=0,
        purged=0,
    )
    position = EnginePosition(
        **dict.fromkeys((field.name for field in fields(EnginePosition)), 0)  # type: ignore[arg-type]
    )
    reader: Any = SimpleNamespace(
        read_stats=lambda _now: condition,
        totals=lambda: Totals(accepted=0, purged=0, stored=0),
        read_engine_stats=lambda: EngineStats(positions={"oa": position}, gaps={}),
        book_totals=lambda: {("oa", "skipped", "child"): 1},
        ignored_counts=lambda: {("oa", "/status = 1"): 1},
    )
    ledger = LedgerCollector(
        reader, url="sqlite:///flowhooks.db", clock=Clock(), handler_label=str, engine_intervals=lambda: {"oa": 300.0}
    )
    yield from (("ledger", family) for family in ledger.collect())


def name(family: Metric) -> str:
    """Return the name of a family in queries; of a histogram without `_bucket`, `_sum` and `_count`."""
    return family.name + ("_total" if family.type == "counter" else "")


def numbers() -> str:
    """Every metric with its labels, type and help text; metrics of the process first."""
    out = []
    for whose, heading in (("process", "Of each process"), ("ledger", "Of the ledger")):
        rows = []
        for teller, family in families():
            if teller == whose:
                labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
                rows.append(
                    (f"`{name(family)}`", ", ".join(f"`{one}`" for one in labels), family.type, family.documentation)
                )
        out += ["", f"## {heading}", "", *table(("metric", "labels", "type", "meaning"), rows)]
    return "\n".join(out)
