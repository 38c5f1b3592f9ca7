"""Query plans of trends: with many counts, the rows of a subject and a time are found by the key."""

from __future__ import annotations

import re

import pytest

from flowhooks.clock import SECOND
from flowhooks.ledger import database, source_queries, trends
from flowhooks.ledger.transaction import WriteTransaction
from flowhooks.ledger.trend_queries import read_trend, trend_marks
from flowhooks.model.error_group import identify
from flowhooks.model.trend import MINUTE, TrendKey
from support.sent_statements import record_statements

MANY = 20_000
START = 1_767_268_800 * SECOND
FILL = (
    f"""
    INSERT INTO trends (kind, subject, resolution, started_at, outcome, bucket, count)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'handler', 'p:h' || CAST(CAST(MOD(i, 50) AS INTEGER) AS TEXT), CASE MOD(i, 4) WHEN 0 THEN 3600 ELSE 60 END,
        {START} + (i / 50) * CASE MOD(i, 4) WHEN 0 THEN 3600000000 ELSE 60000000 END, 'succeeded', 5, 1 FROM n
    """,
    f"""
    INSERT INTO processes (id, host, pid, started_at, stopped_at, kind)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'p' || CAST(100000 + i AS TEXT), 'h', 1, {START} + i, {START} + i, 'command' FROM n
    """,
    f"""
    INSERT INTO error_groups (fingerprint, handler, error_type, message, frame, first_seen_at, last_seen_at, count,
        sample_delivery_id, sample_attempt, versions)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'f' || CAST(100000 + i AS TEXT), 'p:h', 'E', 'm', '', {START}, {START}, 1, 'd', 1, '[]' FROM n
    """,
    f"""
    INSERT INTO audit_log (id, at, actor, interface, action, target, detail)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'a' || CAST(100000 + i AS TEXT), {START} + i, 'ann', 'api', 'replay', '', '{{}}' FROM n
    """,
)
TABLES = "trends|processes|audit_log|error_groups"


def whole(connection, statement, parameters):
    """The lines of a statement's plan that scan a large table, or an index of it, or sort many rows."""
    if isinstance(parameters, list):
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
    """A trend, its marks, an addition, and each step of the retention find their rows by the primary key."""
    harness.check_at_end = False
    flow = harness.open(start=False)
    for statement in FILL:
        flow.sql(statement, MANY)
    if analyzed:
        flow.sql("ANALYZE")
    until = START + 400 * MINUTE * SECOND

    def add(connection):
        transaction = WriteTransaction(connection)
        trends.add(transaction, {TrendKey("handler", "p:h1", MINUTE, START, "succeeded", 5): 1})
        transaction.run_before_commit()

    def combine(connection):
        kind, subject = "handler", "p:h1"
        assert trends.combine(WriteTransaction(connection), kind=kind, subject=subject, before=until, limit=50) == 50

    def delete(connection):
        options = {"resolution": MINUTE, "before": until, "limit": 50}
        assert trends.delete_older(WriteTransaction(connection), kind="handler", subject="p:h2", **options) == 50

    calls = (
        lambda connection: read_trend(connection, "handler", "p:h1", since=START, until=until, step=3_600),
        lambda connection: trend_marks(connection, since=START, until=until),
        lambda connection: list(trends.subjects(connection)),
        lambda connection: source_queries.last_success(connection, "oa", until),
        lambda connection: trends.has_older(connection, "handler", "p:h3", resolution=MINUTE, before=START),
        lambda connection: trends.group_fingerprints(connection, [identify("p:h", "E", "m")]),
        add,
        combine,
        delete,
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
