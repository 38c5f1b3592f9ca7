"""Query plans of claims: the slots of a process limit how many events are read, not the backlog of the handler."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from flowhooks.ledger import database
from flowhooks.ledger.circuit_state import MAX_TRIAL_CANDIDATES, TrialDelivery, claim_trial_delivery
from flowhooks.ledger.due_deliveries import next_due
from flowhooks.ledger.transaction import WriteTransaction
from support.sent_statements import record_statements

# With fewer rows and no statistics, PostgreSQL expects one due delivery, for which it uses the index anyway.
BACKLOG = 12_000
SLOTS = 17
FEW = 1_200
"""More deliveries than a trial chooses from."""
FEWEST = f"d{1_000_000 + MAX_TRIAL_CANDIDATES}"
"""The last delivery that a trial chooses from."""
FILL = (
    """
    INSERT INTO events (id, source, kind, flow_instance_id, callback_class, body, digest, state, route,
        route_size, repeats, received_at, identity_sha256)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'e' || CAST(1000000 + i AS TEXT), 'default', 'complete', CAST(i AS TEXT), '',
        '{}', 'd', 'routed', '{}', 1, 0, 1, CAST(i AS TEXT) FROM n
    """,
    """
    INSERT INTO deliveries (id, event_id, handler, state, attempt, retry_base, due_at, comment, created_at,
        changed_at, order_position)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'd' || CAST(1000000 + i AS TEXT), 'e' || CAST(1000000 + i AS TEXT), 'p:h', 'waiting', 0, 0, i, '', 1, 1, 0
    FROM n
    """,
)


@pytest.fixture
def backlog(harness, listens):
    """The database of a handler with due deliveries."""
    harness.check_at_end = False
    flow = harness.open(listens(lambda event: None, name="h"), start=False)
    if flow.app.ledger.shared:  # statistics of an earlier test
        flow.sql("DELETE FROM pg_statistic WHERE starelid IN ('deliveries'::regclass, 'events'::regclass)")
    for statement in FILL:
        flow.sql(statement, BACKLOG)
    yield flow
    assert flow.close()


def rows_read(plan):
    """The numbers of rows that a plan of PostgreSQL reads, by table."""
    read = {}
    nodes = [plan]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if table := node.get("Relation Name"):
            rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            read[table] = read.get(table, 0) + rows * node["Actual Loops"]
    return read


@pytest.mark.parametrize("lock", [True, False])
@pytest.mark.parametrize("analyzed", [True, False])
def test_a_claim_reads_the_events_of_its_slots_only(backlog, analyzed, lock):
    """A claim reads as many deliveries and events as it has slots, also before the database has statistics."""
    if analyzed:
        backlog.sql("ANALYZE")
    engine = database.open_engine(backlog.address, writing=True)
    with engine.begin() as connection:
        with record_statements(connection) as sent:
            rows = next_due(connection, backlog.clock.now(), "p:h", SLOTS, lock=lock)
        for statement, parameters in sent:
            if not statement.startswith("SELECT"):
                connection.exec_driver_sql(statement)
            elif connection.dialect.name == "sqlite":
                plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
                assert any("INDEX deliveries_due (handler=? AND due_at>? AND due_at<?)" in line for line in plan), plan
                assert [line for line in plan if line.startswith("SCAN events")] == []
            else:
                ((plan,),) = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
                assert rows_read(plan[0]["Plan"]) == {"deliveries": SLOTS, "events": SLOTS}
    engine.dispose()
    assert [row.delivery_id for row in rows] == [f"d{1_000_001 + index}" for index in range(SLOTS)]
    assert [row.id for row in rows] == [f"e{row.delivery_id[1:]}" for row in rows]


def work_of_trial(flow):
    """The work that the start of a trial takes: steps of SQLite's machine, or rows that PostgreSQL reads."""
    engine = database.open_engine(flow.address, writing=True)
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            steps = []
            driver = connection.connection.dbapi_connection
            driver.set_progress_handler(lambda: steps.append(1), 1)
            statements_of_trial(flow, connection)
            driver.set_progress_handler(None, 0)
            work = len(steps)
        else:
            sent = statements_of_trial(flow, connection)
            with connection.begin():
                work = sum(rows_of_statement(connection, *statement) for statement in sent)
    engine.dispose()
    return work


def statements_of_trial(flow, connection):
    """The statements that start a trial; what they change is rolled back."""
    ledger, now = flow.app.ledger, flow.clock.now()
    trial = TrialDelivery("p:h", now + 60_000_000)
    with connection.begin() as transaction, record_statements(connection) as sent:
        started = claim_trial_delivery(WriteTransaction(connection), trial, ledger._in_flight, ledger.process, now)
        transaction.rollback()
    assert started[0].delivery_id == FEWEST
    return sent


def rows_of_statement(connection, statement, parameters):
    """The number of rows that PostgreSQL reads for a query; another statement is executed."""
    if not statement.startswith("SELECT"):
        if statement.startswith("SET"):
            connection.exec_driver_sql(statement)
        return 0
    ((plan,),) = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
    return sum(rows_read(plan[0]["Plan"]).values())


@pytest.mark.parametrize("analyzed", [True, False])
def test_the_start_of_a_trial_reads_a_part_of_the_backlog(backlog, analyzed):
    """A trial chooses the delivery with the fewest attempts among the oldest ones, however many wait behind them."""
    now = backlog.clock.now()
    backlog.sql("UPDATE handlers SET paused_at = ?, circuit_opened_at = ?, circuit_retry_at = ?", now, now, now)
    backlog.sql("UPDATE deliveries SET attempt = 1 WHERE id < ?", FEWEST)
    if analyzed:
        backlog.sql("ANALYZE")
    work_of_many = work_of_trial(backlog)
    backlog.sql("DELETE FROM deliveries WHERE id > ?", f"d{1_000_000 + FEW}")
    if analyzed:
        backlog.sql("ANALYZE")
    assert work_of_many <= 1.1 * work_of_trial(backlog)


def test_a_claim_leaves_the_settings_of_the_session(backlog):
    """Statements after a claim in the same transaction, such as a search with alternatives, may use bitmaps."""
    engine = database.open_engine(backlog.address, writing=True)
    with engine.begin() as connection:
        next_due(connection, backlog.clock.now(), "p:h", SLOTS, lock=True)
        if connection.dialect.name != "sqlite":
            assert connection.execute(text("SHOW enable_bitmapscan")).scalar_one() == "on"
    engine.dispose()
