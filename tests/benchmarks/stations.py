"""Processor time of a callback, each station alone in one thread; no HTTP, no waiting.

`python tests/benchmarks/profiling.py` writes it into `docs/explanation/performance.md`, beside the same under load.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from flowhooks import Delivery, OutcomeKind, State, handler, hookimpl, schema
from flowhooks.clock import Clock
from flowhooks.ledger import database
from flowhooks.ledger.attempt_starts import InFlightAttempts
from flowhooks.ledger.attempts import AttemptResult, ResultRecorder
from flowhooks.ledger.events import EventInserter
from flowhooks.ledger.migrations import runner
from flowhooks.ledger.new_event import NewEvent
from flowhooks.ledger.tables import processes
from flowhooks.ledger.transaction import WriteTransaction
from flowhooks.model.event import digest, from_body
from flowhooks.plugins.plugins import Plugins
from flowhooks.routing.index import Candidate
from flowhooks.routing.router import Router
from flowhooks.schema.schemas import Schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flowhooks.model.ready_delivery import ReadyDelivery

BODY = {
    "businessKey": "HT-2026-0042",
    "callBackProcessClass": "com.cnooc.test.CallbackHandler",
    "processDefinitionId": "contract_approval:3:8f14e45f-ceea-467f-a8d3-1d2b5c0e7a11",
    "processDefinitionKey": "contract_approval",
    "processDefinitionVersion": 3,
}
HANDLER = "bench:nothing"


class _ReservingRunner:
    """A runner that reserves each stored delivery at once, and runs none."""

    def reserve(self, _transaction: WriteTransaction, deliveries: Sequence[ReadyDelivery]) -> Sequence[ReadyDelivery]:
        return deliveries

    def enqueue(self, transaction: WriteTransaction, deliveries: Sequence[ReadyDelivery], not_before: int) -> None:
        raise NotImplementedError


class _Plugin:
    @hookimpl
    def handlers(self) -> list[Any]:
        return [handler(callback_class=BODY["callBackProcessClass"], name="nothing")(lambda _event: None)]


@dataclass(frozen=True, slots=True)
class _BatchCosts:
    """Microseconds of processor time for each callback, by station, in batches of one size."""

    accept: float
    settle: float
    commit: float


def _time_of_call(function: Callable[[], object], times: int = 5_000) -> float:
    """Microseconds of processor time for one call."""
    samples = []
    for _ in range(5):
        started = time.thread_time()
        for _ in range(times):
            function()
        samples.append((time.thread_time() - started) / times * 1e6)
    return median(samples)


def _new_event(clock: Clock, text: str) -> NewEvent:
    event = from_body(
        BODY,
        id=clock.new_id(),
        source="default",
        kind="complete",
        flow_instance_id=clock.new_id(),
        received_at=datetime.now(UTC),
    )
    return NewEvent(
        event=event,
        body=text,
        digest=digest(BODY, ()),
        state="routed",
        route={HANDLER: f"class {BODY['callBackProcessClass']}"},
        deliveries=[(clock.new_id(), HANDLER)],
        now=clock.now(),
    )


def _attempt_result(new: NewEvent) -> AttemptResult:
    ((delivery_id, _),) = new.deliveries
    return AttemptResult(delivery_id, HANDLER, 1, OutcomeKind.SUCCEEDED, "", "", None, State.SUCCEEDED, None, new.now)


def _measure_batches(file: Path, size: int, events: int) -> _BatchCosts:
    clock, text = Clock(), json.dumps(BODY)
    engine = database.open_engine(f"sqlite:///{file}", writing=True)
    runner.upgrade(engine)
    process = clock.new_id()
    accepting, settling = (
        EventInserter(runner=_ReservingRunner(), process=process, in_flight=InFlightAttempts()),
        ResultRecorder(runner=_ReservingRunner(), in_flight=InFlightAttempts()),
    )  # type: ignore[arg-type]  # the runner has only the methods that they call
    spent = [0.0, 0.0, 0.0]
    with engine.connect() as connection:
        with connection.begin():
            connection.execute(database.insert(processes).values(id=process, host="", pid=1, started_at=1))
        before: list[NewEvent] = []
        for _ in range(events // size):
            batch = [_new_event(clock, text) for _ in range(size)]
            opened = connection.begin()
            transaction = WriteTransaction(connection)
            marks = [time.thread_time()]
            accepting(transaction, batch)
            marks.append(time.thread_time())
            if before:
                settling(transaction, [_attempt_result(new) for new in before])
            marks.append(time.thread_time())
            opened.commit()
            marks.append(time.thread_time())
            spent = [total + end - start for total, start, end in zip(spent, marks, marks[1:], strict=False)]
            before = batch
    engine.dispose()
    return _BatchCosts(*(total / events * 1e6 for total in spent))


def measure_stations(events: int) -> Iterator[tuple[str, float]]:
    """Each station, and its microseconds of processor time for each callback.

    Args:
        events: callbacks for each size of batch.
    """
    clock, raw, text = Clock(), json.dumps(BODY).encode(), json.dumps(BODY)
    schemas = Schemas.load()
    plugins = Plugins.load(
        dirs=[], allow=[], deny=[], safe_mode=False, sections={}, entry_points=[], objects={"bench": _Plugin()}
    )
    router = Router(Candidate(bench_handler.id, bench_handler.selectors) for bench_handler in plugins.handlers.values())
    event = _new_event(clock, text).event
    bench_handler = plugins.handlers[HANDLER]
    delivery = Delivery(id=clock.new_id(), event_id=event.id, handler=HANDLER, attempt=1)
    for name, function in {
        "strict JSON": lambda: schema.parse(raw),
        "JSON Schema": lambda: schemas.check_body("complete", BODY),
        "event and digest": lambda: _new_event(clock, text),
        "route": lambda: router.route(event),
        "hook call": lambda: plugins.run_handler(bench_handler, event, delivery),
    }.items():
        yield name, _time_of_call(function)
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 4, 16, 64):
            costs = _measure_batches(Path(folder) / f"{size}.db", size, events)
            yield f"accept, in batches of {size}", costs.accept
            yield f"settle, in batches of {size}", costs.settle
            yield f"commit, in batches of {size}", costs.commit


@click.command()
@click.option("--events", type=int, default=4_000, show_default=True, help="Callbacks for each size of batch.")
def main(events: int) -> None:
    """Print microseconds of processor time for each callback, by station."""
    click.echo("| station | µs |\n|---|---|")
    for name, figure in measure_stations(events):
        click.echo(f"| {name} | {figure:.0f} |")


if __name__ == "__main__":
    main()
