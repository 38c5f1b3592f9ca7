"""Statements that the driver executes alone: rows, errors and listeners as with SQLAlchemy."""

from __future__ import annotations

import json

import psycopg
import pytest
from sqlalchemy import bindparam, delete, event, exists, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError

from flowhooks.ledger import database
from flowhooks.ledger.database.driver_statements import MAX_PARAMETERS, DriverStatement, execute
from flowhooks.ledger.tables import counters, events

COLUMNS = [column.name for column in counters.columns]
INSERT = database.BulkInsert(counters)
ADD = DriverStatement(
    database.insert(counters).returning(counters.c.process, counters.c.value), columns=("name", "process", "value")
)
READ = DriverStatement(select(counters).where(counters.c.name == bindparam("name"), counters.c.value > 1))


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path, new_database):
    """An engine that writes into an empty ledger."""
    if request.param == "sqlite":
        file = tmp_path / "flowhooks.db"
        file.write_bytes(new_database.read_bytes())
        url = f"sqlite:///{file}"
    else:
        url = request.getfixturevalue("postgresql_url")
    writing = database.open_engine(url, writing=True)
    yield writing
    writing.dispose()


def test_rows_have_named_columns(engine):
    """Values have the names of their columns; the values that the statement has itself are kept."""
    with engine.begin() as connection:
        assert [row.value for row in ADD(connection, {"name": "%s 100%", "process": "a", "value": 2**40})] == [2**40]
        ADD(connection, {"name": "%s 100%", "process": "b", "value": 1})
    with engine.begin() as connection:
        ((*values,),) = READ(connection, {"name": "%s 100%"})
        assert values == ["%s 100%", "a", 2**40]
        assert READ(connection, {"name": "other"}) == []
        assert DriverStatement(delete(counters))(connection, {}) == []
        assert READ(connection, {"name": "%s 100%"}) == []


def test_a_driver_error_is_raised_as_an_sqlalchemy_error(engine):
    """It is SQLAlchemy's, as are those of other statements, and the transaction can be rolled back."""
    row = {"name": "n", "process": "p", "value": 1}
    with pytest.raises(IntegrityError), engine.begin() as connection:
        INSERT(connection, [row, row])
    with engine.begin() as connection:
        INSERT(connection, [row])


def test_a_statement_without_a_transaction_is_not_executed(engine):
    """Without a transaction a statement is not executed, because SQLite would commit it."""
    with engine.connect() as connection:
        with pytest.raises(InvalidRequestError):
            ADD(connection, {"name": "n", "process": "p", "value": 1})
        assert connection.execute(select(counters)).all() == []


def test_a_lost_connection_is_replaced(postgresql_url):
    """A connection that the database has ended is replaced, as SQLAlchemy replaces it."""
    engine = database.open_engine(postgresql_url, writing=True)
    with engine.connect() as connection:
        with connection.begin():
            pid = connection.connection.driver_connection.info.backend_pid
        with psycopg.connect(postgresql_url.replace("+psycopg", ""), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
        transaction = connection.begin()
        with pytest.raises(DBAPIError) as caught:
            READ(connection, {"name": "n"})
        assert caught.value.connection_invalidated
        assert connection.invalidated
        transaction.rollback()
        with connection.begin():
            assert READ(connection, {"name": "n"}) == []
    engine.dispose()


def test_listeners_are_called_before_the_statement(engine):
    """A listener of the connection or of its engine is called before the statement, and may prevent it."""
    seen = []

    def note(_connection, _cursor, statement, *_rest):
        seen.append(statement.split()[0])
        if len(seen) == 3:
            raise KeyError

    row = {"name": "n", "process": "p", "value": 1}
    event.listen(engine, "before_cursor_execute", note)
    with engine.begin() as connection:
        INSERT(connection, [row])
        assert [tuple(found) for found in READ(connection, {"name": "other"})] == []
        with pytest.raises(KeyError):
            ADD(connection, row)
    event.remove(engine, "before_cursor_execute", note)
    with engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", note)
        READ(connection, {"name": "n"})
    assert seen == ["INSERT", "SELECT", "INSERT", "SELECT"]


def test_bulk_insert_of_many_rows(engine):
    """More rows than one statement may have parameters are inserted; the stored keys are returned if they are read."""
    count = MAX_PARAMETERS // len(COLUMNS) + 5
    ignoring = database.BulkInsert(counters, ignore_conflicts=True)
    rows = [{"name": f"n{number}", "process": "p", "value": number} for number in range(count)]
    with engine.begin() as connection:
        INSERT(connection, rows[:1])
        ignoring(connection, rows[:10])
        stored, _ = ignoring.insert_and_read(connection, rows)
        assert sorted(stored) == sorted(row["name"] for row in rows[10:])
        ignoring(connection, [])
        assert ignoring.insert_and_read(connection, []) == ([], None)
        assert connection.execute(select(func.count()).select_from(counters)).scalar_one() == count


def test_a_statement_that_needs_conversions_is_rejected(engine):
    """A statement whose values SQLAlchemy converts is refused, instead of being executed without the conversion."""
    statement = DriverStatement(select(exists(select(events.c.id))))
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":  # has no booleans
            with pytest.raises(TypeError):
                statement(connection, {})
        assert execute(connection, "SELECT 1", ()) == [(1,)]


def test_arrays_are_passed_as_parameters(engine):
    """A batch of texts is a parameter like others."""
    found = DriverStatement(select(counters.c.name).where(counters.c.name.in_(database.string_array("names"))))
    with engine.begin() as connection:
        INSERT(connection, [{"name": name, "process": "p", "value": 1} for name in "abc"])
        assert sorted(row.name for row in found(connection, {"names": json.dumps(["a", "c", "x"])})) == ["a", "c"]
