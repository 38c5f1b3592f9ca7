"""Query plans for order keys: with a long backlog of one key or many keys, no table is scanned."""

from __future__ import annotations

import re

import pytest

from flowhooks import Retry
from flowhooks.ledger import database
from flowhooks.ledger.deliveries import ClaimRequest
from flowhooks.ledger.due_deliveries import due_deliveries
from flowhooks.ledger.ordering import OrderScheduler, admissible, read_order_groups
from flowhooks.ledger.transaction import OrderGroup, WriteTransaction
from flowhooks.model.ready_delivery import ReadyDelivery
from support.sent_statements import record_statements

BEHIND_ONE = 100_000
KEYS = 10_000
FILL = (
    """
    INSERT INTO events (id, source, kind, flow_instance_id, callback_class, body, digest, state, route,
        route_size, repeats, received_at, identity_sha256)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'eNAME' || CAST(1000000 + i AS TEXT), 'default', 'complete', 'NAME' || CAST(i AS TEXT), '', '{}', 'd',
        'routed', '{}', 1, 0, 1, 'NAME' || CAST(i AS TEXT) FROM n
    """,
    """
    INSERT INTO deliveries (id, event_id, handler, state, attempt, retry_base, due_at, comment, created_at,
        changed_at, order_key, order_position)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'dNAME' || CAST(1000000 + i AS TEXT), 'eNAME' || CAST(1000000 + i AS TEXT), 'p:h', 'waiting', 0, 0, 1, '',
        1, 1, LANE, TURN FROM n
    """,
)


class _Leaves:
    """A runner that reserves nothing."""

    def enqueue(self, _transaction, _deliveries, _not_before):
        """Leave the delivery waiting."""


@pytest.fixture
def fill(harness, listens):
    """A function that stores `count` deliveries of an ordered handler; `lane` and `turn` are SQL of their number."""
    harness.check_at_end = False
    flow = harness.open(listens(lambda event: None, name="h", order_by="business_key", retry=Retry()), start=False)

    def more(name, count, lane, turn):
        for statement in FILL:
            flow.sql(statement.replace("NAME", name).replace("LANE", lane).replace("TURN", turn), count)

    yield more, flow
    assert flow.close()


def whole(connection, statement, parameters, *, small):
    """The lines of a statement's plan that scan a table, or an index other than a `small` one."""
    if connection.dialect.name == "sqlite":
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        read = [line for line in plan if re.match(r"SCAN (deliveries|events|attempts|others)", line)]
    else:
        plan = [line for (line,) in connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {statement}", parameters)]
        read = [
            line
            for line, following in zip(plan, [*plan[1:], ""], strict=True)
            # With the index of routes it would read all rows of a handler.
            if re.search(r"Seq Scan on (deliveries|events|attempts)|deliveries_route", line)
            or (re.search(r"Index (Only )?Scan .*deliveries_", line) and "Index Cond" not in following)
        ]
    return [line for line in read if not any(index in line for index in small)]


@pytest.mark.parametrize("analyzed", [True, False])
@pytest.mark.parametrize("shape", ["one", "many"])
def test_no_table_is_scanned(fill, shape, analyzed):
    """No table is scanned by polling, a claim, the promotion of the next delivery, or the search for missed ones."""
    more, flow = fill
    if shape == "one":
        more("a", BEHIND_ONE, "'k'", "i - 1")
        first, lane = "da1000001", "k"
    else:
        more("a", KEYS, "'k' || CAST(i AS TEXT)", "0")
        more("b", KEYS, "'k' || CAST(i AS TEXT)", "1")
        first, lane = "da1000077", "k77"
    if analyzed:
        flow.sql("ANALYZE")
    now = flow.clock.now()
    engine = database.open_engine(flow.address, writing=True)
    turns = OrderScheduler(runner=_Leaves(), clock=flow.clock, due=None, shared=False, write=None, limits={})
    statements = {}
    with engine.connect() as connection:
        began = connection.begin()
        transaction = WriteTransaction(connection)

        def leave():
            """End the first delivery of the key: the next one is promoted."""
            connection.exec_driver_sql(f"UPDATE deliveries SET state = 'succeeded' WHERE id = '{first}'")
            transaction.freed_groups.add(OrderGroup("p:h", lane))
            turns.promote_next(transaction)

        claim = ClaimRequest(ReadyDelivery(first, "p:h", 0, ordered=True), now)
        steps = {
            "due": lambda: due_deliveries(connection, now, lambda _handler: 1000),
            "claim": lambda: admissible(transaction, [claim], now),
            "call up": leave,
            "sweep": lambda: read_order_groups(connection, OrderGroup("p:h", lane)),
        }
        results = {}
        for name, step in steps.items():
            with record_statements(connection) as taken:
                results[name] = step()
            statements[name] = taken
        assert len(results["due"]) == (1 if shape == "one" else 1000)
        assert results["claim"][:3] == ({first}, set(), set())
        assert bool(results["sweep"].last) == (shape == "many")
        assert not results["sweep"].missed
        called = connection.exec_driver_sql(
            f"SELECT id FROM deliveries WHERE order_key = '{lane}' AND order_position = 0 AND state = 'waiting'"
        ).fetchall()
        assert called == [("da1000002" if shape == "one" else "db1000077",)]
        found = {
            name: lines
            for name, taken in statements.items()
            for statement, parameters in taken
            if (lines := whole(connection, statement, parameters, small=["deliveries_due", "deliveries_open"]))
        }
        began.rollback()
    engine.dispose()
    assert not found
