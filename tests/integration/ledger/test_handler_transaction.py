"""`delivery.transaction()`: a handler's rows and the outcome of its attempt are committed together or not at all."""

from __future__ import annotations

import threading
from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ResourceClosedError

from flowhooks import Delivery, FlowhooksError, Reject, Retry, State, hookimpl
from flowhooks.clock import SECOND
from flowhooks.errors import TransactionError
from flowhooks.ledger.database import guarded_session

AGAIN = Retry(attempts=5, delays=[1], jitter=0)
INSERT = text("INSERT INTO contracts (key, attempt) VALUES (:key, :attempt)")

pytestmark = pytest.mark.postgresql


@pytest.fixture
def contracts(harness, monkeypatch):
    """A business table, and a function that reads its rows."""
    monkeypatch.setattr(guarded_session, "_IDLE_MILLISECONDS", 60_000)  # a busy machine may delay a commit for longer
    with psycopg.connect(harness.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS contracts")
        connection.execute(
            "CREATE TABLE contracts (key text NOT NULL, attempt int NOT NULL, CONSTRAINT once UNIQUE (key)"
            " DEFERRABLE INITIALLY IMMEDIATE)"
        )

        def rows():
            return connection.execute("SELECT key, attempt FROM contracts ORDER BY key").fetchall()

        yield rows
        connection.execute("DROP TABLE contracts")


def writes(connection, event, delivery):
    """Write the row of an event."""
    connection.execute(INSERT, {"key": event.flow_instance_id, "attempt": delivery.attempt})


def archive(event, delivery):
    """Write the row of an event in the delivery's transaction, and return a result."""
    with delivery.transaction() as connection:
        writes(connection, event, delivery)
    return {"archived": event.flow_instance_id}


def test_rows_and_outcome_are_committed_together(harness, listens, contracts):
    """Once the answer is *done*, the row exists and the result is stored."""
    flow = harness.open(listens(archive))
    answer = flow.take("i")
    assert answer.status == "done"
    assert contracts() == [("i", 1)]
    (attempt,) = flow.app.ledger.attempts(flow.only(answer.event_id).delivery_id)
    assert (attempt.outcome, attempt.result) == ("succeeded", '{"archived": "i"}')


def test_rows_are_invisible_until_the_handler_returns(harness, listens, contracts, eventually):
    """Code after the block is part of the attempt: until it ends, neither row nor outcome is visible."""
    left, go_on = threading.Event(), threading.Event()

    def slow(event, delivery):
        archive(event, delivery)
        left.set()
        go_on.wait(20)

    flow = harness.open(listens(slow))
    event_id = flow.take("i", wait=0).event_id
    assert left.wait(20)
    assert contracts() == []
    assert flow.only(event_id).state is State.RUNNING
    go_on.set()
    flow.settled(event_id, State.SUCCEEDED)
    assert contracts() == [("i", 1)]


@pytest.mark.parametrize("within", [True, False])
def test_an_exception_in_or_after_the_block_rolls_back(harness, listens, contracts, within):
    """The attempt fails as usual, and the next one writes the rows."""

    def fails_once(event, delivery):
        with delivery.transaction() as connection:
            writes(connection, event, delivery)
            if within and delivery.attempt == 1:
                raise OSError("no paper")
        if delivery.attempt == 1:
            raise OSError("no paper")

    flow = harness.open(listens(fails_once, retry=AGAIN))
    event_id = flow.take("i", wait=0).event_id
    delivery_status = flow.settled(event_id, State.WAITING, attempt=1)
    assert (delivery_status.error, contracts()) == ("OSError: no paper", [])
    flow.advance(1)
    flow.settled(event_id, State.SUCCEEDED)
    assert contracts() == [("i", 2)]


def test_reject_after_the_block_rolls_back(harness, listens, contracts):
    """A rejected delivery is dead and has written nothing."""

    def refuses(event, delivery):
        archive(event, delivery)
        raise Reject("not ours")

    flow = harness.open(listens(refuses))
    assert flow.only(flow.take("i").event_id).state is State.DEAD
    assert contracts() == []


def test_a_wrapper_that_fails_rolls_back(harness, listens, make_plugin, contracts):
    """The transaction is committed after all plugins' wrappers have returned."""

    @hookimpl(wrapper=True)
    def run_handler(handler, event, delivery):
        yield
        raise OSError("no trace")

    flow = harness.open(plugins={"p": make_plugin(listens(archive)), "w": make_plugin(run_handler=run_handler)})
    assert flow.only(flow.take("i").event_id).state is State.DEAD
    assert contracts() == []


def test_an_abandoned_attempt_gets_an_error_and_writes_nothing(harness, listens, contracts, logged, eventually):
    """The block of an abandoned attempt ends with an error, and its rows are not stored."""
    seen = []

    def expired(event, delivery):
        try:
            with delivery.transaction() as connection:
                writes(connection, event, delivery)
                flow.sql("UPDATE deliveries SET attempt = 2 WHERE id = ?", delivery.id)
        except FlowhooksError as error:
            seen.append(str(error))
            raise
        finally:
            flow.sql("UPDATE deliveries SET attempt = 1 WHERE id = ?", delivery.id)

    flow = harness.open(listens(expired))
    assert flow.only(flow.take("i").event_id).state is State.DEAD
    assert "no longer the current one" in seen[0]
    assert contracts() == []


def test_an_attempt_abandoned_after_its_block_writes_nothing(harness, listens, contracts, logged, eventually):
    """An attempt that is not current when it commits writes nothing."""

    def expired(event, delivery):
        archive(event, delivery)
        flow.sql("UPDATE deliveries SET attempt = 2 WHERE id = ?", delivery.id)

    flow = harness.open(listens(expired))
    event_id = flow.take("i", wait=0).event_id
    eventually(lambda: [entry for entry in logged if entry["event"] == "stale_attempt"])
    assert contracts() == []
    assert flow.only(event_id).state is State.RUNNING
    flow.sql("UPDATE deliveries SET attempt = 1, state = 'dead' WHERE event_id = ?", event_id)
    flow.sql("UPDATE attempts SET outcome = 'lost', finished_at = 1")


def one_statement(statement):
    """A block that executes a statement."""
    return lambda connection: connection.exec_driver_sql(statement)


def swallowing(connection):
    """A block that ignores a failed statement."""
    with suppress(IntegrityError):
        connection.execute(INSERT, {"key": None, "attempt": 1})


def by_the_driver(connection):
    """A block that bypasses SQLAlchemy."""
    connection.connection.driver_connection.commit()
    connection.execute(text("SELECT 1"))


def from_another_thread(connection):
    """A block whose connection is used by another thread."""
    errors = []

    def other():
        try:
            connection.execute(text("SELECT 1"))
        except FlowhooksError as error:
            errors.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    raise errors[0]


ENDS = {
    "commit": lambda connection: connection.commit(),
    "rollback": lambda connection: connection.rollback(),
    "close": lambda connection: connection.close(),
    "COMMIT": one_statement("COMMIT"),
    "a comment": one_statement(" -- now\n/* or never */ rollback"),
    "END": one_statement("end work"),
    "two-phase": one_statement("PREPARE TRANSACTION 'x'"),
    "the driver's": by_the_driver,
    "a failure": swallowing,
    "a lost connection": lambda connection: connection.invalidate(),
    "another thread": from_another_thread,
}


@pytest.mark.parametrize("caught", [False, True])
@pytest.mark.parametrize("how", ENDS)
def test_the_block_cannot_end_its_transaction(harness, listens, contracts, how, caught):
    """Ending the transaction by a call or in SQL fails the attempt, even if the handler catches the error."""
    if how == "another thread" and caught:
        pytest.skip("caught, it has done nothing")

    def ends(event, delivery):
        with delivery.transaction() as connection:
            if how != "the driver's":
                writes(connection, event, delivery)
            with suppress(*[FlowhooksError] * caught):
                ENDS[how](connection)

    flow = harness.open(listens(ends))
    delivery_status = flow.only(flow.take("i").event_id)
    assert delivery_status.state is State.DEAD
    assert delivery_status.error.startswith("TransactionError: ")
    assert contracts() == []
    assert flow.take("j", key="other").status == "parked"


def test_a_handler_may_use_savepoints(harness, listens, contracts):
    """A handler may use savepoints, and a statement that fails within one has no other effect."""

    def tries(event, delivery):
        with delivery.transaction() as connection:
            writes(connection, event, delivery)
            with suppress(IntegrityError), connection.begin_nested():
                writes(connection, event, delivery)

    flow = harness.open(listens(tries))
    assert flow.take("i").status == "done"
    assert contracts() == [("i", 1)]


def test_a_statement_may_start_with_many_comments(harness, listens, contracts):
    """They cost no time, and a word after a later comment is no statement of its own."""

    def reads(event, delivery):
        with delivery.transaction() as connection:
            connection.execute(text("/* all rights reserved */\n" * 100 + "SELECT CASE WHEN true THEN 1 /* or */ END"))
            writes(connection, event, delivery)

    flow = harness.open(listens(reads))
    assert flow.take("i").status == "done"
    assert contracts() == [("i", 1)]


def test_deferred_constraints_are_checked_at_the_end_of_the_block(harness, listens, contracts):
    """Deferred constraints fail the attempt, not the commit."""

    def twice(event, delivery):
        with delivery.transaction() as connection:
            connection.execute(text("SET CONSTRAINTS once DEFERRED"))
            writes(connection, event, delivery)
            writes(connection, event, delivery)

    flow = harness.open(listens(twice))
    delivery_status = flow.only(flow.take("i").event_id)
    assert 'violates unique constraint "once"' in delivery_status.error
    assert contracts() == []


def test_session_settings_of_a_block_are_reset(harness, listens, contracts, eventually):
    """Schema, role and settings of a block are reset before settling and for the next attempt."""
    seen = []

    def sets(event, delivery):
        with delivery.transaction() as connection:
            shown = [
                connection.execute(text(f"SHOW {setting}")).scalar() for setting in ("search_path", "lock_timeout")
            ]
            seen.append((connection.connection.driver_connection.info.backend_pid, *shown))
            connection.execute(text("SET search_path = pg_catalog"))
            connection.execute(text("SET lock_timeout = '1h'"))
            connection.execute(text("CREATE TEMP TABLE remembered (id text)"))
            connection.execute(text("SELECT pg_advisory_lock(7)"))

    flow = harness.open(listens(sets), runner={"threads": 1})
    assert [flow.take(f"i{number}").status for number in range(3)] == ["done"] * 3
    assert len(set(seen)) == 1
    assert seen[0][1:] == ('"$user", public', "5s")
    # The answer does not wait for the clean-up of the session.
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7"
    eventually(lambda: flow.sql(held) == [(0,)])


def test_a_second_block_is_rejected(harness, listens, contracts):
    """A second block is refused, and the rows of the first are rolled back."""

    def twice(event, delivery):
        archive(event, delivery)
        with delivery.transaction():
            pass

    flow = harness.open(listens(twice))
    delivery_status = flow.only(flow.take("i").event_id)
    assert "called a second time" in delivery_status.error
    assert contracts() == []


def test_a_block_that_is_never_exited_is_an_error(harness, listens, contracts):
    """A handler that enters the block without `with` writes nothing and gets an error."""
    kept = []

    def opens(event, delivery):
        kept.append(delivery.transaction())
        writes(kept[0].__enter__(), event, delivery)

    flow = harness.open(listens(opens))
    delivery_status = flow.only(flow.take("i").event_id)
    assert "without leaving the block" in delivery_status.error
    assert contracts() == []


def test_a_block_outside_of_a_run_is_rejected(harness, listens, contracts, eventually):
    """A block is refused after the handler has returned, in another thread, and for a delivery that is not running."""
    kept = []

    def keeps(event, delivery):
        with delivery.transaction() as connection:
            kept.append((delivery, connection))

    flow = harness.open(listens(keeps))
    assert flow.take("i").status == "done"
    (delivery, connection) = kept[0]
    with pytest.raises(TransactionError, match="this attempt has ended"), delivery.transaction():
        pass
    assert eventually(lambda: connection.closed)  # after the outcome is published
    with pytest.raises(ResourceClosedError):
        connection.execute(text("SELECT 1"))
    with pytest.raises(TransactionError, match="while the handler runs"):
        Delivery(id="1", event_id="1", handler="p:h", attempt=1).transaction()

    def elsewhere(event, delivery):
        with pytest.raises(TransactionError, match="in the thread"):
            together(delivery)

    def together(delivery):
        errors = []

        def other():
            try:
                with delivery.transaction():
                    pass
            except FlowhooksError as error:
                errors.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        raise errors[0]

    other = harness.open(listens(elsewhere, process_key="elsewhere"))
    assert other.take("j", key="elsewhere").status == "done"


def test_each_runner_thread_may_have_an_open_block(harness, listens, contracts):
    """Each thread of the runner can have an open block, beside the writer's connection."""
    inside = threading.Barrier(3)

    def meets(event, delivery):
        with delivery.transaction() as connection:
            writes(connection, event, delivery)
            inside.wait(20)

    flow = harness.open(listens(meets), runner={"threads": 6})
    events = [flow.take(f"i{number}", wait=0).event_id for number in range(3)]
    for event_id in events:
        flow.settled(event_id, State.SUCCEEDED)
    assert len(contracts()) == 3


def test_a_lost_connection_of_the_pool_is_replaced(harness, listens, contracts):
    """A pooled connection that a restart of PostgreSQL broke is replaced."""
    flow = harness.open(listens(archive))
    assert flow.take("i").status == "done"
    flow.sql(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'flowhooks'"
        " AND query LIKE '%%UNLISTEN%%'"
    )
    assert flow.take("j").status == "done"
    assert len(contracts()) == 2


@pytest.mark.parametrize("came_through", [True, False])
def test_the_outcome_of_a_commit_without_a_reply_is_read_back(
    harness, listens, contracts, *, logged, monkeypatch, eventually, came_through
):
    """After a COMMIT without a reply the ledger shows its result: no second run, and no false failure."""
    from sqlalchemy.engine.default import DefaultDialect

    commit = DefaultDialect.do_commit
    broken = []

    def breaks(dialect, connection):
        if threading.current_thread().name.startswith("runner") and not broken:
            broken.append(True)
            if came_through:
                commit(dialect, connection)
            connection.driver_connection.close()
            raise psycopg.OperationalError("the connection is lost")
        commit(dialect, connection)

    monkeypatch.setattr(DefaultDialect, "do_commit", breaks)
    flow = harness.open(listens(archive, retry=AGAIN))
    event_id = flow.take("i", wait=0).event_id
    delivery_status = flow.settled(event_id, State.SUCCEEDED if came_through else State.WAITING, attempt=1)
    eventually(lambda: "commit_outcome_unknown" in [entry["event"] for entry in logged])
    assert [entry["event"] for entry in logged].count("commit_outcome_unknown") == 1
    assert contracts() == [("i", 1)] * came_through
    if not came_through:
        assert "was lost before the commit" in delivery_status.error
        flow.advance(1)
        flow.settled(event_id, State.SUCCEEDED)
        assert contracts() == [("i", 2)]


def test_waiting_processes_and_plugins_are_notified(harness, listens, make_plugin, contracts, eventually):
    """The accepting process and `delivery_settled` get the outcome as usual."""
    told = []
    waits = harness.open()
    runs = harness.open(
        plugins={
            "p": make_plugin(
                listens(archive),
                delivery_settled=lambda delivery, outcome, state: told.append((delivery.attempt, outcome.kind, state)),
            )
        }
    )
    eventually(lambda: waits.app.router.subscriptions())  # noqa: PLW0108 (another router takes its place)
    assert waits.take("i").status == "done"
    assert eventually(lambda: told) == [(1, "succeeded", State.SUCCEEDED)]
    assert runs.only(runs.events()[0]).finished_at <= runs.clock.now() + SECOND


@pytest.mark.sqlite
class TestOnSqlite:
    """A ledger on SQLite."""

    def test_a_handler_transaction_is_rejected_on_sqlite(self, harness, listens):
        """The attempt fails with the reason; `retry=` decides about the next one."""
        flow = harness.open(listens(archive))
        delivery_status = flow.only(flow.take("i").event_id)
        assert delivery_status.state is State.DEAD
        assert "needs a ledger on PostgreSQL" in delivery_status.error
        assert "flowhooks db copy" in delivery_status.error
