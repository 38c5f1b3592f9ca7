"""Query plans of a purge: rows are found by key and by time, and no large table is scanned."""

from __future__ import annotations

import re

import pytest

from flowhooks.clock import DAY, id_lower_bound
from flowhooks.ledger import checksums, database, operation_retention, purge
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.transaction import WriteTransaction
from support.sent_statements import record_statements

MANY = 20_000
OLD = 100
FILL = (
    """
    INSERT INTO events (id, source, kind, flow_instance_id, callback_class, body, digest, state, route,
        route_size, repeats, received_at, identity_sha256)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'ID' || CAST(100000 + i AS TEXT), 'default', 'complete', 'i' || CAST(i AS TEXT), '', '{}', 'd',
        'routed', '{}', 1, 0, i, CAST(i AS TEXT) FROM n
    """,
    """
    INSERT INTO deliveries (id, event_id, handler, state, attempt, retry_base, due_at, comment, created_at,
        changed_at, order_position)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'd' || CAST(100000 + i AS TEXT), 'ID' || CAST(100000 + i AS TEXT), 'p:h',
        CASE WHEN i / 2 * 2 = i THEN 'dead' ELSE 'succeeded' END, 1, 0, NULL, '', i, i, 0 FROM n
    """,
    """
    INSERT INTO attempts (delivery_id, number, process, started_at, finished_at, outcome, error, traceback)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'd' || CAST(100000 + i AS TEXT), 1, 'x', i, i, 'succeeded', '', '' FROM n
    """,
    """
    INSERT INTO conflicts (event_id, digest, body, received_at)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'ID' || CAST(100000 + i AS TEXT), 'x', '{}', i FROM n
    """,
    """
    INSERT INTO event_fields (event_id, field, value, number)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'ID' || CAST(100000 + i AS TEXT), '/amount', CAST(i AS TEXT), i FROM n
    """,
    """
    INSERT INTO purged_identities (identity_sha256, event_id, digest, received_at)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'p' || CAST(100000 + i AS TEXT), 'e', 'd', i FROM n
    """,
    """
    INSERT INTO audit_log (id, at, actor, interface, action, target, detail)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'ID' || CAST(100000 + i AS TEXT), i, 'ann', 'cli', 'reroute_parked', '', '{}' FROM n
    """,
    """
    INSERT INTO operations (id, action, event_filter, note, state, actor, interface, created_at, changed_at, planned,
        released, changed)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= ? / 1000)
    SELECT 'o' || CAST(i AS TEXT), 'close', '{}', '', 'planned', 'ann', 'cli', i, i, 1, 0, 0 FROM n
    """,
    """
    INSERT INTO operation_items (operation_id, delivery_id, planned_state, attempt, status)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'o' || CAST(1 + i / 1000 AS TEXT), CAST(i AS TEXT), 'dead', 1, 'planned' FROM n
    """,
)
TABLES = "events|deliveries|attempts|conflicts|event_fields|purged_identities|audit_log|operation_items"


def whole(connection, statement, parameters):
    """The lines of a statement's plan that scan a table or an index."""
    if connection.dialect.name == "sqlite":
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        return [
            line for line in plan if re.match(rf"SCAN ({TABLES})\b(?! USING INDEX purged_identities_received)", line)
        ]
    plan = [line for (line,) in connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {statement}", parameters)]
    return [
        line
        for line, following in zip(plan, [*plan[1:], ""], strict=True)
        if re.search(rf"Seq Scan on ({TABLES})", line)
        or (re.search(rf"Index (Only )?Scan .*({TABLES})", line) and "Index Cond" not in following)
    ]


@pytest.mark.parametrize("analyzed", [True, False])
def test_no_table_is_scanned(harness, analyzed):
    """No table is scanned to find or delete old events, to find a callback, for the limit or the rest of a purge."""
    harness.check_at_end = False
    flow = harness.open(start=False)
    time = flow.clock.now()
    common = id_lower_bound(time)[:-6]
    for statement in FILL:
        flow.sql(statement.replace("ID", common), MANY)
    if analyzed:
        flow.sql("ANALYZE")
    before = {"succeeded": time + 1, "dead": time + 1}
    identity = ("default", "complete", "i77", "")
    engine = database.open_engine(flow.address, writing=True)
    with engine.connect() as connection:
        began = connection.begin()
        transaction = WriteTransaction(connection)
        page = purge.find_purgeable(connection, before, event_filter=EventFilter(), after="", limit=OLD)
        assert (page.examined, len(page.ids)) == (OLD, OLD)
        steps = {
            "look": lambda: purge.find_purgeable(
                connection, before, event_filter=EventFilter(), after=page.next, limit=OLD
            ),
            "purge": lambda: purge.purge(transaction, page.ids, before, kept_from=0, process="x"),
            "known": lambda: purge.find_purged(connection, [checksums.texts_sha256(identity)]),
            "of event": lambda: purge.find_purged_event(connection, flow.clock.new_id()),
            "operations": lambda: operation_retention.delete_expired(transaction, DAY + 4, ended_before=0, limit=OLD),
            "forget": lambda: purge.delete_expired(
                transaction, identities=50, audits=time, closed_alerts=time, signatures=time, limit=OLD
            ),
        }
        found = {}
        for name, step in steps.items():
            with record_statements(connection) as taken:
                result = step()
            if name == "purge":
                assert result == (OLD, OLD)
            for statement, parameters in taken:
                if lines := whole(connection, statement, parameters):
                    found.setdefault(name, []).extend([statement, *lines])
        began.rollback()
        with record_statements(flow.app.ledger._engine) as taken:
            flow.app.retention._max_rows()
        found |= {statement: lines for statement, given in taken if (lines := whole(connection, statement, given))}
    engine.dispose()
    assert not found
