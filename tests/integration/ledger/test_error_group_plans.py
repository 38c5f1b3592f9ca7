"""Query plans for error groups: with many events and attempts, no table is scanned."""

from __future__ import annotations

import json
import re

import pytest

from flowhooks.ledger import database, error_group_queries, error_groups, search
from flowhooks.ledger.filtered_events import count_events, find
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.transaction import WriteTransaction
from support.sent_statements import record_statements

MANY = 20_000
FAILED = 500
"""Each FAILED-th attempt has an error, of one of two groups."""
GROUPS = ("a" * 64, "b" * 64)
FILL = (
    """
    INSERT INTO events (id, source, kind, flow_instance_id, callback_class, body, digest, state, route,
        route_size, repeats, received_at, identity_sha256)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'e' || CAST(100000 + i AS TEXT), 'default', 'complete', 'i' || CAST(i AS TEXT), '', '{}', 'd',
        'routed', '{}', 1, 0, i, CAST(i AS TEXT) FROM n
    """,
    """
    INSERT INTO deliveries (id, event_id, handler, state, attempt, retry_base, due_at, comment, created_at,
        changed_at, order_position)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'd' || CAST(100000 + i AS TEXT), 'e' || CAST(100000 + i AS TEXT), 'p:h', 'dead', 1, 0, NULL, '',
        i, i, 0 FROM n
    """,
    f"""
    INSERT INTO attempts (delivery_id, number, process, started_at, finished_at, outcome, error, traceback, error_group)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'd' || CAST(100000 + i AS TEXT), 1, 'x', i, i, 'failed', '', '',
        CASE MOD(i, {FAILED}) WHEN 0 THEN '{GROUPS[0]}' WHEN 1 THEN '{GROUPS[1]}' END FROM n
    """,
)
TABLES = "events|deliveries|attempts"


def whole(connection, statement, parameters):
    """The lines of a statement's plan that scan a large table, or an index of it."""
    if isinstance(parameters, list):  # of a statement that was executed several times
        parameters = parameters[0]
    if connection.dialect.name == "sqlite":
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        return [line for line in plan if re.match(rf"SCAN ({TABLES})\b", line)]
    plan = [line for (line,) in connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {statement}", parameters)]
    return [
        line
        for line, following in zip(plan, [*plan[1:], ""], strict=True)
        if re.search(rf"Seq Scan on ({TABLES})", line)
        or (re.search(rf"Index (Only )?Scan .*({TABLES})", line) and "Index Cond" not in following)
    ]


@pytest.mark.parametrize("analyzed", [True, False])
def test_no_table_is_scanned(harness, analyzed):
    """Lists of errors, the events of an error, and the change of groups find their rows by an index."""
    harness.check_at_end = False
    flow = harness.open(start=False)
    for statement in FILL:
        flow.sql(statement, MANY)
    for fingerprint in GROUPS:
        flow.sql(
            "INSERT INTO error_groups VALUES (?, 'p:h', 'E', 'm', '', 1, 9, ?, 'd1', 1, '[]')",
            *(fingerprint, MANY // FAILED),
        )
    if analyzed:
        flow.sql("ANALYZE")
    wanted = EventFilter(error_group=GROUPS[0])

    def change(connection):
        transaction = WriteTransaction(connection)
        connection.execute(error_groups._KNOWN, {"handler": "p:h"}).all()
        error_groups.remove_attempts(transaction, ["d100500", "d100501"])
        transaction.run_before_commit()

    calls = (
        lambda connection: error_group_queries.list_groups(connection, limit=50),
        lambda connection: error_group_queries.list_groups(connection, handler="p:h", since=1, limit=50),
        lambda connection: error_group_queries.activities(
            connection, error_group_queries.list_groups(connection, limit=50), now=MANY
        ),
        lambda connection: error_group_queries.groups_with_prefix(connection, GROUPS[0][:8], limit=2),
        lambda connection: error_group_queries.newest_attempt(
            connection, error_group_queries.list_groups(connection, limit=1)[0]
        ),
        lambda connection: search.search_events(connection, wanted, limit=50),
        lambda connection: search.search_events(connection, EventFilter(error_group=GROUPS[1], state="dead"), limit=50),
        lambda connection: find(connection, wanted, limit=500, newest_first=False),
        lambda connection: count_events(connection, EventFilter(error_group=GROUPS[0], handler="p:h")),
        change,
    )
    engine = database.open_engine(flow.address, writing=True)
    scanned = {}
    with engine.connect() as connection:
        for number, call in enumerate(calls):
            with connection.begin() as transaction:
                with record_statements(connection) as taken:
                    call(connection)
                assert taken
                found = [line for statement in taken for line in whole(connection, *statement)]
                if found:
                    scanned[number] = found, [statement for statement, _ in taken]
                transaction.rollback()
    engine.dispose()
    assert scanned == {}


@pytest.mark.sqlite
def test_a_page_of_errors_takes_two_statements(ledger_steps):
    """The number of statements does not depend on the number of groups."""
    for number in range(30):
        ledger_steps.sql(
            "INSERT INTO error_groups VALUES (?, 'p:h', 'E', 'm', '', 1, 9, 7, 'd1', 1, ?)",
            *(f"{number:064x}", json.dumps(["1.0"])),
        )
    ledger_steps.flow.changed = True
    with ledger_steps.ledger.connection() as connection, record_statements(connection) as taken:
        groups = error_group_queries.list_groups(connection, limit=50)
        assert len(error_group_queries.activities(connection, groups, now=10**15)) == 30
    assert len(taken) == 2
    ledger_steps.sql("DELETE FROM error_groups")
