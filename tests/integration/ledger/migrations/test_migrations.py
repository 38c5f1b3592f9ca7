"""Migrations create the schema of `ledger/tables/`; a foreign or newer database is refused and unchanged."""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
import warnings
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, insert, select

from flowhooks import Retry
from flowhooks.clock import SECOND
from flowhooks.errors import IdentityConflict, LedgerSchemaTooOld, LedgerUnusable
from flowhooks.ledger import database
from flowhooks.ledger.checksums import texts_sha256
from flowhooks.ledger.migrations import runner
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.tables import metadata
from flowhooks.ledger.upgrade import upgrade
from flowhooks.ledger.value_checks import EARLIEST
from flowhooks.model.delivery import State
from flowhooks.operations.context import Actor
from flowhooks.operations.purge import purge
from support import alembic_tables, engine_rows, operation_rows
from support.waiting import WAIT_TIMEOUT


@pytest.fixture(autouse=True)
def _by_alembic(monkeypatch):
    """Let Alembic create each ledger by all migrations, which flowhooks does only for existing ledgers."""
    monkeypatch.setattr(runner, "create_tables", alembic_tables.create_tables)


def url(file):
    """The URL of a file."""
    return f"sqlite:///{file}"


def make(file, *statements):
    """A database of these statements."""
    with closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return file


@pytest.fixture
def writing(tmp_path):
    """An engine that writes a new database."""
    engine = database.open_engine(url(tmp_path / "new.db"), writing=True)
    yield engine
    engine.dispose()


def test_head_is_the_newest_alembic_migration():
    """HEAD, with which a start need not load Alembic, is Alembic's head; there is one line of migrations."""
    assert ScriptDirectory.from_config(runner._config()).get_heads() == [runner.HEAD]


@pytest.fixture(params=["sqlite", "postgresql"])
def two_engines(request, tmp_path):
    """Engines that write two new databases of a kind."""
    if request.param == "sqlite":
        engines = [database.open_engine(url(tmp_path / f"{name}.db"), writing=True) for name in ("one", "two")]
        yield engines
    else:
        server = request.getfixturevalue("postgresql_server")
        names = [f"made_{uuid.uuid4().hex}" for _ in range(2)]
        engines = [database.open_engine(server.make(name), writing=True) for name in names]
        yield engines
    for engine in engines:
        engine.dispose()
    if request.param == "postgresql":
        for name in names:
            server.drop(name)


def is_comparable(engine, index):
    """Whether an index is on columns only, or its database reports its expressions, for which it has no collation."""
    if engine.dialect.name != "sqlite":
        return index.name != "events_business_key"
    return all(isinstance(expression, Column) for expression in index.expressions)


def test_migrations_create_the_schema_of_the_tables(two_engines):
    """After all migrations Alembic finds no difference to `ledger/tables/`, on either database.

    Comments on columns are for readers of `ledger/tables/` only.
    """
    engine, _ = two_engines
    runner.upgrade(engine)
    # Alembic does not see SQLite's indexes on expressions, nor collations in others: the next tests compare them.
    options = {
        "compare_type": True,
        "include_object": lambda thing, _name, kind, *_more: kind != "index" or is_comparable(engine, thing),
    }
    with engine.begin() as connection, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*expression-based index")
        different = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    assert [
        difference
        for difference in different
        if not (isinstance(difference, list) and difference[0][0] == "modify_comment")
    ] == []


def test_migrations_create_identical_tables_and_indexes_on_postgresql(two_engines):
    """Properties that Alembic does not compare, such as conditions and expressions of indexes, are equal, too."""
    migrated, direct = two_engines
    if migrated.dialect.name != "postgresql":
        pytest.skip("SQLite's statements are compared as they are")
    runner.upgrade(migrated)
    with direct.begin() as connection:
        metadata.create_all(connection)
    columns = (
        "SELECT table_name, column_name, ordinal_position, data_type, is_nullable, column_default"
        " FROM information_schema.columns WHERE table_schema = 'public' AND table_name != 'alembic_version'"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename != 'alembic_version'"
    constraints = (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text != 'alembic_version'"
    )
    for query in (columns, indexes, constraints):
        with migrated.connect() as one, direct.connect() as other:
            expected = sorted(map(tuple, other.exec_driver_sql(query)))
            assert expected
            assert sorted(map(tuple, one.exec_driver_sql(query))) == expected


def test_migrations_create_identical_statements_on_sqlite(writing, tmp_path):
    """Properties that Alembic does not compare, such as WITHOUT ROWID and partial indexes, are equal, too."""

    def made(file):
        with closing(sqlite3.connect(file)) as connection:
            found = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'"
            ).fetchall()
        return {name: "".join(sql.split()) for name, sql in found}

    runner.upgrade(writing)
    direct = database.open_engine(url(tmp_path / "direct.db"), writing=True)
    with direct.begin() as connection:
        metadata.create_all(connection)
    direct.dispose()
    assert made(tmp_path / "new.db") == made(tmp_path / "direct.db")


def test_a_second_upgrade_applies_no_migration(writing):
    """The first run applies every migration, the second none."""
    assert runner.upgrade(writing) == (None, runner.HEAD)
    assert runner.upgrade(writing) == (runner.HEAD, runner.HEAD)


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "existing"])
def test_a_failed_migration_is_rolled_back(writing, monkeypatch, pending_migration, is_new):
    """If a migration fails, its transaction leaves the database unchanged, and the next start repeats it."""
    from alembic import command

    before = None if is_new else runner.upgrade(writing)[1]
    newest = pending_migration()
    real = command.upgrade

    def broken(*given):
        real(*given)
        raise LedgerUnusable("cut")

    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", broken)
        with pytest.raises(LedgerUnusable):
            runner.upgrade(writing)
    with writing.begin() as connection:
        assert runner.revision(connection) == before
    assert runner.upgrade(writing) == (before, newest)


def test_a_reader_of_an_empty_database_gets_an_error(tmp_path):
    """A reader of an empty database gets an error that says to upgrade it."""
    file = make(tmp_path / "empty.db", "VACUUM")
    with pytest.raises(LedgerSchemaTooOld, match="empty"):
        Reader(url(file))


FOREIGN = {
    "of something else": ["CREATE TABLE users (id)"],
    "of something else that Alembic migrates": [
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES ('8f3a')",
        "CREATE TABLE users (id)",
    ],
    "of something else that is at a migration of our name": [
        "CREATE TABLE alembic_version (version_num TEXT)",
        f"INSERT INTO alembic_version VALUES ('{runner.HEAD}')",
        "CREATE TABLE users (id)",
    ],
    "with an empty version": ["CREATE TABLE alembic_version (version_num TEXT)", "CREATE TABLE users (id)"],
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_database_is_rejected_and_unchanged(tmp_path, what):
    """A foreign database is named, and neither reading nor upgrading changes a byte."""
    file = make(tmp_path / "foreign.db", *FOREIGN[what])
    before = hashlib.sha256(file.read_bytes()).digest()
    for opening in (Reader, upgrade):
        with pytest.raises(LedgerUnusable, match=r"foreign\.db.* not a flowhooks ledger|newer"):
            opening(url(file))
        assert hashlib.sha256(file.read_bytes()).digest() == before


def test_a_newer_database_is_rejected(tmp_path, new_database):
    """A database of a newer version is refused with both versions, and unchanged."""
    file = make(tmp_path / "newer.db")
    file.write_bytes(new_database.read_bytes())
    make(file, "UPDATE alembic_version SET version_num = '9999'")
    for opening in (Reader, upgrade):
        with pytest.raises(LedgerUnusable, match=r"newer\.db.*newer flowhooks.*9999.*" + runner.HEAD):
            opening(url(file))


@pytest.mark.parametrize("content", [b"not a database" * 300, b"listen = 1"])
def test_a_file_that_is_no_database_is_rejected(tmp_path, content):
    """A file that is no database is refused in one line, and unchanged."""
    file = tmp_path / "text.db"
    file.write_bytes(content)
    for opening in (Reader, upgrade):
        with pytest.raises(LedgerUnusable, match=r"^cannot use the database .*text\.db: [^\n]+$"):
            opening(url(file))
        assert file.read_bytes() == content


def test_a_folder_instead_of_a_database_is_rejected(tmp_path):
    """A folder at the file's path is refused in one line."""
    with pytest.raises(LedgerUnusable, match=r"^cannot use the database [^\n]+$"):
        upgrade(url(tmp_path))


ID = "00000000-0000-7000-8000-000000000001"
DIGEST = texts_sha256(("digest",))
RELEASED = sorted((Path(__file__).parents[3] / "data/released_ledgers").glob("*.sql"))
"""Ledgers that released versions have filled, as SQLite dumps them; none so far."""


@pytest.mark.parametrize("dump", [*RELEASED, None], ids=lambda dump: dump.stem if dump else "first migration")
def test_a_ledger_of_a_released_version_is_upgraded(tmp_path, dump, pending_migration):
    """A ledger of a released version is upgraded without loss, and its counts balance."""
    script = dump.read_text() if dump else dumped(tmp_path / "first.db")
    file = tmp_path / "released.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(script)
    engine = database.open_engine(url(file), writing=True)
    tables = tables_of(engine)
    held = rows(engine, tables)
    assert held["events"]
    newest = pending_migration()
    assert upgrade(url(file))[1] == newest
    assert rows(engine, tables) == held
    engine.dispose()
    with closing(Reader(url(file))) as reader:
        assert reader.verify().problems == []


def dumped(file):
    """A ledger of the first migration with an event, as SQLite dumps it."""
    from alembic import command

    engine = database.open_engine(url(file), writing=True)
    with engine.begin() as connection:
        command.upgrade(runner._config(connection), "0001")
    engine.dispose()
    make(
        file,
        "INSERT INTO events (id, source, kind, flow_instance_id, callback_class, body, digest, state, route,"
        " route_size, repeats, received_at, parked_by, identity_sha256)"
        f" VALUES ('{ID}', 's', 'complete', 'i', '', '{{}}', '{DIGEST}', 'parked', '{{}}', 0, 0, {EARLIEST}, 'name',"
        f" '{texts_sha256(('s', 'complete', 'i', ''))}')",
        f"INSERT INTO counters VALUES ('accepted', '{ID}', 1)",
    )
    with closing(sqlite3.connect(file)) as connection:
        return "\n".join(connection.iterdump())


@pytest.fixture
def full(harness, listens):
    """A ledger of this version with rows in every table, its handlers, and the events that need an operator."""
    handlers = [
        listens(fail, name="h"),
        listens(wait_for_nobody, name="ordered", process_key="order", order_by="business_key", retry=Retry()),
        listens(fail, name="concluding", process_key="leave", conclusion="approved"),
    ]
    flow = harness.open(*handlers, alerts={"parked_after": 0.0}, search={"fields": ("/businessKey",)})
    dead, parked = flow.take("i1").event_id, flow.take("i2", key="travel").event_id
    done = [flow.take(f"o{number}", key="order", businessKey="k").event_id for number in range(3)]
    flow.take("l1", key="leave", conclusion="withdrawn")
    with suppress(IdentityConflict):
        flow.take("i1", other=1)
    flow.app.alerts.poll()
    flow.app.rejected_requests.record(path="/x", address="a", status=404, english="no", chinese="无")
    flow.app.rejected_requests.stop(WAIT_TIMEOUT)
    flow.clock.advance(86_400)
    purge(
        replace(flow.app.operation_context, by=Actor("ann", "cli")),
        EventFilter(until=flow.clock.now(), ids=(done[0],)),
    )
    session = "INSERT INTO sessions (digest, operator, created_at, used_at) VALUES (?, 'ann', ?, ?)"
    flow.sql(session, DIGEST, flow.clock.now(), flow.clock.now())
    flow.sql("INSERT INTO required_credentials (kind, since) VALUES ('sources', ?)", flow.clock.now())
    flow.sql(
        "INSERT INTO conclusions (sha256, callback_class, process_definition_key, conclusion, event_id, seen_at)"
        " VALUES (?, '', 'leave', 'lost', ?, ?)",
        texts_sha256(("", "leave", "lost")),
        ID,
        flow.clock.now(),
    )
    # Recent times, because retention deletes old ones.
    signed = "INSERT INTO webhook_ids (source, webhook_id, digest, seen_at) VALUES ('default', 'w', ?, ?)"
    flow.sql(signed, DIGEST, flow.clock.now())
    flow.sql(
        "INSERT INTO ignored_requests VALUES ('oa', '/status = 1', 3, ?, ?, '{}', 'application/json')",
        *[flow.clock.now()] * 2,
    )
    minute = flow.clock.now() - flow.clock.now() % (60 * SECOND)
    flow.sql("INSERT INTO trends VALUES ('handler', 'p:old', 60, ?, 'succeeded', 5, 3)", minute)
    pulled = flow.take_in("pulled", key="travel").event_id
    flow.app.ledger.write(lambda t: operation_rows.fill(t, flow.clock.new_id(), flow.clock.now()))
    flow.app.ledger.write(lambda transaction: engine_rows.fill(transaction, "oa", pulled, flow.clock.now()))
    flow.close()
    return handlers, dead, parked


def rows(engine, tables):
    """The contents of some tables of this database: sets of rows by table."""
    with engine.connect() as connection:
        return {
            name: {frozenset(row.items()) for row in connection.execute(select(table)).mappings()}
            for name, table in tables.items()
        }


def tables_of(engine):
    """The tables of a database."""
    found = MetaData()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index")
        found.reflect(engine)
    return {table.name: table for table in found.sorted_tables if table.name != "alembic_version"}


@pytest.fixture
def other(harness, postgresql_server, tmp_path):
    """The URL of another, empty database."""
    if not harness.url:
        file = harness.file
        yield url(tmp_path / "older.db")
        harness.file = file
        return
    name = f"older_{uuid.uuid4().hex}"
    here = harness.url
    yield postgresql_server.make(name)
    harness.url = here
    postgresql_server.drop(name)


def test_a_filled_ledger_is_upgraded_by_a_pending_migration(harness, full, other, pending_migration):
    """All rows are unchanged after the upgrade, and a server continues with the ledger."""
    handlers, dead, parked = full
    newest, old = (database.open_engine(address, writing=True) for address in (harness.address, other))
    before = runner.HEAD
    runner.upgrade(old)
    tables = tables_of(old)
    with newest.connect() as source, old.begin() as target:
        for name, table in tables.items():
            copied = [dict(row) for row in source.execute(select(metadata.tables[name])).mappings()]
            assert copied, f"there is nothing in {name} to be upgraded"
            target.execute(insert(table), copied)
    after = pending_migration()
    with pytest.raises(LedgerSchemaTooOld, match=f"at version {before} of {after}"):
        Reader(other)
    held = rows(old, tables)
    assert upgrade(other) == (before, after)
    assert rows(old, tables) == held
    assert set(tables_of(old)) == set(metadata.tables)
    assert "further" in tables_of(old)["deliveries"].columns
    for engine in (newest, old):
        engine.dispose()

    goes_on(harness, other, handlers, dead, parked)


def goes_on(harness, address, handlers, dead, parked):
    """Check that a server finds the old data in an upgraded ledger, and accepts new callbacks."""
    if harness.url:
        harness.url = address
    else:
        harness.file = harness.file.with_name(address.rpartition("/")[2])
    flow = harness.open(*handlers, alerts={"parked_after": 0.0})
    assert flow.only(dead).state is State.DEAD
    assert flow.app.ledger.event(parked).state == "parked"
    assert {conflict.body for conflict in flow.app.ledger.conflicts(dead)} == {
        '{"processDefinitionKey": "leave", "other": 1}'
    }
    flow.app.alerts.poll()
    assert {dead, parked} <= {row[0] for row in flow.sql("SELECT event_id FROM alerts")}
    assert flow.take("new", key="order", businessKey="k").status == "done"
    assert flow.take("i1").event_id == dead
    books = flow.app.ledger.verify()
    assert books.problems == []
    flow.close()


def fail(event):
    """Fail finally."""
    raise ValueError("no")


def wait_for_nobody(event):
    """Succeed."""
