"""PostgreSQL's plans for the statements that process a callback.

The statements are those that flowhooks sends: they are recorded while a few callbacks are processed in a transaction
that is then rolled back.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import stations
from sqlalchemy import event

from flowhooks.clock import Clock
from flowhooks.ledger import database, processes
from flowhooks.ledger.attempt_starts import InFlightAttempts
from flowhooks.ledger.attempts import ResultRecorder, claim
from flowhooks.ledger.deliveries import ClaimRequest
from flowhooks.ledger.due_deliveries import due_deliveries
from flowhooks.ledger.events import EventInserter
from flowhooks.ledger.transaction import WriteTransaction
from flowhooks.model.ready_delivery import ReadyDelivery

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

BATCH = 8
"""The number of callbacks in the transaction."""


class _IdleRunner:
    """A runner that reserves nothing and notifies nobody."""

    def reserve(self, _transaction: WriteTransaction, _deliveries: Sequence[ReadyDelivery]) -> list[ReadyDelivery]:
        return []

    def enqueue(self, _transaction: WriteTransaction, _deliveries: Sequence[ReadyDelivery], _not_before: int) -> None:
        pass


def collect_plans(url: str) -> str:
    """Return the plans as Markdown: a heading for each step, and a block for each of its statements."""
    clock, text = Clock(), "{}"
    runner: Any = _IdleRunner()
    engine = database.open_engine(url, writing=True)
    statements_so_far: list[tuple[str, Any]] = []
    steps: list[tuple[str, list[tuple[str, Any]]]] = []
    try:
        with _record_statements(engine, statements_so_far), engine.connect() as connection:
            database_transaction = connection.begin()
            transaction = WriteTransaction(connection)
            in_flight = InFlightAttempts()
            processes.register(transaction, "plans", kind="command", handlers=(), now=clock.now())
            accepting = EventInserter(runner=runner, process="plans", in_flight=in_flight)
            settling = ResultRecorder(runner=runner, in_flight=in_flight)
            new_events = [stations._new_event(clock, text) for _ in range(BATCH)]

            statements_so_far.clear()

            def step(name: str) -> None:
                steps.append((name, statements_so_far.copy()))
                statements_so_far.clear()

            accepting(transaction, new_events)
            step("Accept")
            accepting(
                transaction,
                [replace(new_event, event=replace(new_event.event, id=clock.new_id())) for new_event in new_events],
            )
            step("A repeated callback")
            due_deliveries(connection, clock.now(), lambda _handler: 1000)
            step("Poll for due deliveries")
            queued = [
                ReadyDelivery(delivery, handler, 0)
                for new_event in new_events
                for delivery, handler in new_event.deliveries
            ]
            claim(
                transaction,
                [ClaimRequest(ready_delivery, clock.now()) for ready_delivery in queued],
                in_flight,
                process="plans",
            )
            step("Claim")
            settling(transaction, [stations._attempt_result(new_event) for new_event in new_events])
            step("Settle")
            lines_of_page = []
            for name, statements in steps:
                lines_of_page.append(f"### {name}\n")
                for statement, parameters in statements:
                    plan = connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {statement}", parameters)
                    lines = [line for (line,) in plan if not line.strip().startswith("Output:")]
                    lines_of_page.append("```text\n" + "\n".join(_truncate(line) for line in lines) + "\n```\n")
            database_transaction.rollback()
    finally:
        engine.dispose()
    return "\n".join(lines_of_page).rstrip()


def _truncate(line: str) -> str:
    """A line without its batch of values."""
    return line if len(line) <= 160 else f"{line[:157]}..."


@contextmanager
def _record_statements(engine: Engine, recorded: list[tuple[str, Any]]) -> Iterator[None]:
    def record(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: Any) -> None:
        if not statement.startswith("EXPLAIN"):
            recorded.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", record)
    yield
    event.remove(engine, "before_cursor_execute", record)
