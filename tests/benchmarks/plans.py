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
from flowhooks.ledger import database
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
"""Callbacks in the transaction."""


class _Leaves:
    """A runner that reserves nothing and notifies nobody."""

    def reserve(self, _transaction: WriteTransaction, _deliveries: Sequence[ReadyDelivery]) -> list[ReadyDelivery]:
        return []

    def enqueue(self, _transaction: WriteTransaction, _deliveries: Sequence[ReadyDelivery], _not_before: int) -> None:
        pass


def of(url: str) -> str:
    """The plans as Markdown: a heading for each step, and a block for each of its statements."""
    clock, text = Clock(), "{}"
    runner: Any = _Leaves()
    engine = database.open_engine(url, writing=True)
    taken: list[tuple[str, Any]] = []
    steps: list[tuple[str, list[tuple[str, Any]]]] = []
    try:
        with _taking_down(engine, taken), engine.connect() as connection:
            began = connection.begin()
            transaction = WriteTransaction(connection)
            hands = InFlightAttempts()
            accepting = EventInserter(runner=runner, process="plans", in_flight=hands)
            settling = ResultRecorder(runner=runner, in_flight=hands)
            news = [stations._new(clock, text) for _ in range(BATCH)]

            def step(name: str) -> None:
                steps.append((name, taken.copy()))
                taken.clear()

            accepting(transaction, news)
            step("Accept")
            accepting(transaction, [replace(new, event=replace(new.event, id=clock.new_id())) for new in news])
            step("A repeated callback")
            due_deliveries(connection, clock.now(), lambda _handler: 1000)
            step("Poll for due deliveries")
            queued = [ReadyDelivery(delivery, handler, 0) for new in news for delivery, handler in new.deliveries]
            claim(transaction, [ClaimRequest(one, clock.now()) for one in queued], hands, process="plans")
            step("Claim")
            settling(transaction, [stations._settlement(new) for new in news])
            step("Settle")
            shown = []
            for name, statements in steps:
                shown.append(f"### {name}\n")
                for statement, parameters in statements:
                    asked = connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {statement}", parameters)
                    lines = [line for (line,) in asked if not line.strip().startswith("Output:")]
                    shown.append("```text\n" + "\n".join(_short(line) for line in lines) + "\n```\n")
            began.rollback()
    finally:
        engine.dispose()
    return "\n".join(shown).rstrip()


def _short(line: str) -> str:
    """A line without its batch of values."""
    return line if len(line) <= 160 else f"{line[:157]}..."


@contextmanager
def _taking_down(engine: Engine, taken: list[tuple[str, Any]]) -> Iterator[None]:
    def take(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: Any) -> None:
        if not statement.startswith("EXPLAIN"):
            taken.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", take)
    yield
    event.remove(engine, "before_cursor_execute", take)
