"""Rules of each database: durable writes, readers that cannot write, batches as one statement."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import Integer, Text, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError

from flowhooks.errors import SettingsError
from flowhooks.ledger import database
from flowhooks.ledger.tables import alerts, attempts


@pytest.fixture
def engines(tmp_path):
    """An engine that writes and one that reads."""
    url = f"sqlite:///{tmp_path}/a b%.db".replace("%", "%25").replace(" ", "%20")
    writing, reading = database.open_engine(url, writing=True), database.open_engine(url, writing=False)
    database.enable_wal(writing)
    with writing.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE words (word TEXT)")
    yield writing, reading
    writing.dispose()
    reading.dispose()


def pragma(connection, name):
    """The value of a pragma."""
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def test_commits_on_sqlite_are_durable(engines):
    """The writing connection syncs the write-ahead log at every commit (2 is FULL), and checks foreign keys."""
    with engines[0].connect() as connection:
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == 2
        assert pragma(connection, "foreign_keys") == 1


def test_a_sync_on_macos_reaches_the_disk(engines):
    """Readers have the pragma too, because the last connection that closes may copy the log into the database."""
    for engine in engines:
        with engine.connect() as connection:
            assert pragma(connection, "fullfsync") == 1


@pytest.mark.parametrize("lent", [0, 2])
def test_commits_on_postgresql_are_durable(postgresql_url, lent):
    """Each COMMIT waits until the log is on the disk, even if the URL requests less."""
    asks = f"{postgresql_url}{'&' if '?' in postgresql_url else '?'}options=-csynchronous_commit%3Doff"
    writing = database.open_engine(asks, writing=True, handler_sessions=lent)
    with writing.connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
    writing.dispose()


def test_a_url_that_asks_for_the_primary_server_can_be_used(postgresql_url):
    """`target_session_attrs=read-write` selects the primary server for writers and for readers."""
    url = f"{postgresql_url}{'&' if '?' in postgresql_url else '?'}target_session_attrs=read-write"
    for writing in (True, False):
        engine = database.open_engine(url, writing=writing)
        try:
            with engine.connect() as connection:
                state = connection.exec_driver_sql("SHOW transaction_read_only").scalar_one()
                assert state == ("off" if writing else "on")
        finally:
            engine.dispose()


def test_there_is_one_writing_connection(engines):
    """The writer has the only writing connection."""
    writing, _ = engines
    with writing.connect():
        assert writing.pool.size() == 1
        assert writing.pool._max_overflow == 0


def test_a_reader_cannot_write(engines):
    """A reading connection refuses writes."""
    with engines[1].connect() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.exec_driver_sql("INSERT INTO words VALUES ('x')")


def test_a_reader_sees_one_snapshot(engines):
    """A reading connection keeps the snapshot of its first query."""
    writing, reading = engines
    with reading.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM words").scalar_one() == 0
        with writing.begin() as other:
            other.exec_driver_sql("INSERT INTO words VALUES ('x')")
        assert connection.exec_driver_sql("SELECT count(*) FROM words").scalar_one() == 0
    with reading.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM words").scalar_one() == 1


def test_a_failed_transaction_is_rolled_back(engines):
    """Rows written before an error are rolled back, and the connection can be used again."""
    writing, _ = engines

    def cut():
        with writing.begin() as connection:
            connection.exec_driver_sql("INSERT INTO words VALUES ('x')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cut()
    with writing.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM words").scalar_one() == 0


def test_a_batch_of_rows_is_a_table(engines):
    """Rows passed as JSON keep their types, nulls and order."""
    rows = database.row_array("given", number=Integer, text=Text)
    values = [[1, "a'b"], [2, None], [None, ""], [-(2**62), '\U0001f40d \n\\" 日本'], [0, "1"]]
    with engines[1].connect() as connection:
        found = connection.execute(select(rows.c.number, rows.c.text), {"given": json.dumps(values)}).all()
        assert [list(row) for row in found] == values
        assert connection.execute(select(rows.c.text), {"given": "[]"}).all() == []


def test_a_batch_of_keys_is_a_list(engines):
    """Any number of keys passed as JSON can be looked up with IN."""
    with engines[0].begin() as connection:
        connection.exec_driver_sql("INSERT INTO words VALUES ('a'), ('b'), ('1')")
    with engines[1].connect() as connection:
        keys = json.dumps(["a", "1", *map(str, range(100_000, 200_000))])
        query = select(database.string_array("given").subquery().c.value)
        assert len(connection.execute(query, {"given": keys}).all()) == 100_002


@pytest.mark.parametrize(
    "upsert",
    [
        lambda rows: rows.on_conflict_do_nothing(),
        lambda rows: rows.on_conflict_do_nothing(
            index_elements=["cause", "subject"], index_where=alerts.c.closed_at.is_(None)
        ),
        lambda rows: rows.on_conflict_do_update(
            index_elements=[alerts.c.id],
            set_={"subject": rows.excluded.subject, "cause": alerts.c.cause},
            where=alerts.c.closed_at.is_(None),
        ),
    ],
    ids=["nothing", "nothing for one index", "update"],
)
def test_an_upsert_is_compiled_for_each_dialect(upsert):
    """ON CONFLICT is compiled for both databases as the INSERT of their own dialect is."""
    for dialect in (postgresql, sqlite):
        expected = upsert(dialect.insert(alerts)).compile(dialect=dialect.dialect())
        assert str(upsert(database.insert(alerts)).compile(dialect=dialect.dialect())) == str(expected)


def test_the_file_name_of_a_url(tmp_path):
    """The file's name is read from the URL as SQLAlchemy opens it; a database without a file has none."""
    assert database.database_file(f"sqlite:///{tmp_path}/f.db") == tmp_path / "f.db"
    assert database.database_file("sqlite://") is None


def test_the_database_name_of_a_url():
    """A database without a name is named like its user, as PostgreSQL does; a password is never shown."""
    assert database.display_name("postgresql://u:secret@h/books") == "books on h"
    assert database.display_name("postgresql://u:secret@h") == "u on h"
    assert database.display_name("postgresql:///books") == "books on this machine"


def test_the_integrity_check_reports_a_damaged_file(engines, tmp_path):
    """The check of a file reports nothing for an intact one, and one line for a damaged one."""
    writing, reading = engines
    with writing.begin() as connection:
        for number in range(300):
            connection.exec_driver_sql("INSERT INTO words VALUES (?)", (f"{number}" * 50,))
    assert database.quick_check(reading) is None
    reading.dispose()
    writing.dispose()
    file = tmp_path / "a b%.db"
    content = bytearray(file.read_bytes())
    content[4096 * 2 + 8 : 4096 * 2 + 200] = b"\xff" * 192
    file.write_bytes(content)
    broken = database.open_engine(f"sqlite:///{tmp_path}/a b%25.db".replace(" ", "%20"), writing=False)
    try:
        answer = database.quick_check(broken)
        assert answer
        assert "\n" not in answer
    finally:
        broken.dispose()


def test_keys_are_ordered_by_their_bytes_on_every_database():
    """PostgreSQL uses the C collation, in any language of its database; numbers are ordered as numbers."""
    table = select(attempts).order_by(*map(database.bytewise_order, attempts.primary_key))
    said = str(table.compile(dialect=postgresql.dialect()))
    assert said.endswith('ORDER BY attempts.delivery_id COLLATE "C", attempts.number')
    assert str(table.compile(dialect=sqlite.dialect())).endswith("ORDER BY attempts.delivery_id, attempts.number")


@pytest.mark.parametrize(
    ("url", "other", "same"),
    [
        ("sqlite:////var/a.db", "sqlite:////var/../var/a.db", True),
        ("sqlite:////var/a.db", "sqlite:////var/b.db", False),
        ("sqlite:////var/a.db", "postgresql://h/a", False),
        ("postgresql://h/a", "postgresql://user:secret@h:5432/a", True),
        ("postgresql://h/a", "postgresql://h:5433/a", False),
        ("postgresql://h/a", "postgresql://h/b", False),
        ("postgresql:///a?host=/run&port=1", "postgresql://u@/a?host=/run&port=1", True),
        ("postgresql:///a?host=/run&port=1", "postgresql:///a?host=/run&port=2", False),
    ],
)
def test_urls_that_name_the_same_database(url, other, same):
    """URLs with the same host, port and name are the same database, for any user."""
    assert database.is_same_database(url, other) is same


def test_an_invalid_url_is_recognised():
    """An invalid URL is recognised without a message, which could repeat a password."""
    assert database.is_readable("postgresql://u:secret@h:5432/a")
    assert not database.is_readable("postgresql://u:secret@h:port/a")
    assert not database.is_readable("postgresql:")


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("foo=hidden", 'invalid URI query parameter: "foo"'),
        ("port=zz", "non-integer port"),
        ("host=a&host=b&port=1&port=2&port=3", ""),
    ],
)
def test_an_invalid_url_option_is_a_settings_error(option, why):
    """It is one error of the settings, which names the option and not the password."""
    with pytest.raises(SettingsError, match=r"^database: an option after the ") as caught:
        database.open_engine(f"postgresql://user:hidden@127.0.0.1:1/flows?{option}", writing=False)

    assert "of the URL cannot be used: " in str(caught.value)
    assert why in str(caught.value)
    assert str(caught.value).isprintable()
    assert "hidden" not in str(caught.value)


def test_the_lines_of_an_error_message_become_one_line():
    """The lines of libpq's messages become one line with a full stop between them."""
    reading = database.open_engine("postgresql://user:hidden@127.0.0.1:1/flows", writing=False)
    with pytest.raises(OperationalError) as caught:
        reading.connect()

    text = database.error_text(caught.value)
    assert "Connection refused. Is the server running on that host" in text
    assert "\n" not in text
