"""Migrations: they make what the tables say, and what is not ours or is newer is refused and left as it is."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from flowhooks.delivery import State
from flowhooks.errors import LedgerOutdated, LedgerUnusable
from flowhooks.ledger import Reader, dialects, migrating, upgrade
from flowhooks.ledger.tables import metadata


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
    engine = dialects.open_engine(url(tmp_path / "new.db"), writing=True)
    yield engine
    engine.dispose()


def test_the_newest_migration_is_the_one_we_know():
    """HEAD, which spares a start from loading Alembic, is what Alembic says; and there is one line of migrations."""
    assert ScriptDirectory.from_config(migrating._config()).get_heads() == [migrating.HEAD]


def test_migrations_make_what_the_tables_say(writing):
    """After all migrations nothing differs from what `tables.py` says, as Alembic sees it."""
    migrating.upgrade(writing)
    with writing.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []


def test_migrations_make_the_very_statements_that_the_tables_make(writing, tmp_path):
    """What Alembic does not compare, such as WITHOUT ROWID and partial indexes, is the same too."""

    def made(file):
        with closing(sqlite3.connect(file)) as connection:
            found = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'"
            ).fetchall()
        return {name: "".join(sql.split()) for name, sql in found}

    migrating.upgrade(writing)
    direct = dialects.open_engine(url(tmp_path / "direct.db"), writing=True)
    with direct.begin() as connection:
        metadata.create_all(connection)
    direct.dispose()
    assert made(tmp_path / "new.db") == made(tmp_path / "direct.db")


def test_a_new_database_is_made_and_then_left_alone(writing):
    """The first time every migration is applied, the second time none."""
    assert migrating.upgrade(writing) == (None, migrating.HEAD)
    assert migrating.upgrade(writing) == (migrating.HEAD, migrating.HEAD)


def test_a_migration_that_breaks_off_leaves_nothing(writing, monkeypatch):
    """Migrations are one transaction: when one fails, the database is as it was, and the next start does it."""
    from alembic import command

    real = command.upgrade

    def broken(*given):
        real(*given)
        raise LedgerUnusable("cut")

    monkeypatch.setattr(command, "upgrade", broken)
    with pytest.raises(LedgerUnusable):
        migrating.upgrade(writing)
    with writing.begin() as connection:
        assert migrating.revision(connection) is None
    monkeypatch.undo()
    assert migrating.upgrade(writing) == (None, migrating.HEAD)


def test_an_empty_database_can_be_told_from_a_ledger(tmp_path):
    """Who only reads is told to upgrade an empty database."""
    file = make(tmp_path / "empty.db", "VACUUM")
    with pytest.raises(LedgerOutdated, match="empty"):
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
        f"INSERT INTO alembic_version VALUES ('{migrating.HEAD}')",
        "CREATE TABLE users (id)",
    ],
    "with an empty version": ["CREATE TABLE alembic_version (version_num TEXT)", "CREATE TABLE users (id)"],
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_database_that_is_not_ours_is_refused_and_left_as_it_is(tmp_path, what):
    """Neither reading nor upgrading changes a byte of it, and it is named."""
    file = make(tmp_path / "foreign.db", *FOREIGN[what])
    before = hashlib.sha256(file.read_bytes()).digest()
    for opening in (Reader, upgrade):
        with pytest.raises(LedgerUnusable, match=r"foreign\.db.* not a flowhooks ledger|newer"):
            opening(url(file))
        assert hashlib.sha256(file.read_bytes()).digest() == before


def test_a_newer_database_is_refused(tmp_path, new_database):
    """A database that a newer version wrote is refused, with both versions, and left as it is."""
    file = make(tmp_path / "newer.db")
    file.write_bytes(new_database.read_bytes())
    make(file, "UPDATE alembic_version SET version_num = '9999'")
    for opening in (Reader, upgrade):
        with pytest.raises(LedgerUnusable, match=r"newer\.db.*newer flowhooks.*9999.*" + migrating.HEAD):
            opening(url(file))


@pytest.mark.parametrize("content", [b"not a database" * 300, b"listen = 1"])
def test_what_is_no_database_is_refused(tmp_path, content):
    """A file of something else is refused in one line, and left as it is."""
    file = tmp_path / "text.db"
    file.write_bytes(content)
    for opening in (Reader, upgrade):
        with pytest.raises(LedgerUnusable, match=r"^cannot use the database .*text\.db: [^\n]+$"):
            opening(url(file))
        assert file.read_bytes() == content


def test_a_folder_is_no_database(tmp_path):
    """A folder in the place of the file is refused in one line."""
    with pytest.raises(LedgerUnusable, match=r"^cannot use the database [^\n]+$"):
        upgrade(url(tmp_path))


@pytest.mark.sqlite
def test_a_ledger_of_the_first_version_is_upgraded(house, listens, writing, tmp_path):
    """What the first migration made and a server filled is all there afterwards, and a server goes on with it."""
    from alembic import command

    with writing.begin() as connection:
        command.upgrade(migrating._config(connection), "0001")
    flow = house.open(listens(fail, name="h"))
    dead, parked = flow.take("i1").event_id, flow.take("i2", key="travel").event_id
    flow.settled(dead, State.DEAD)
    flow.close()
    old = tmp_path / "new.db"
    tables = ("events", "conflicts", "deliveries", "attempts", "handlers", "processes", "counters")
    make(
        old,
        f"ATTACH '{house.file}' AS filled",
        *(f"ALTER TABLE filled.processes DROP COLUMN {name}" for name in ("beat_at", "kind", "handlers")),
        "DROP INDEX filled.deliveries_due",
        "DROP INDEX filled.deliveries_turn",
        "DROP INDEX filled.handlers_paused",
        *(f"ALTER TABLE filled.deliveries DROP COLUMN {column}" for column in ("lane", "turn")),
        *(
            f"ALTER TABLE filled.handlers DROP COLUMN {column}"
            for column in ("order_by", "concurrency", "paused_at", "resumed_at")
        ),
        *(f"INSERT INTO main.{table} SELECT * FROM filled.{table}" for table in tables),
    )
    with pytest.raises(LedgerOutdated, match="at version 0001"):
        Reader(url(old))
    house.file.unlink()
    old.rename(house.file)
    held = {table: flow.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables}
    assert len(held["deliveries"]) == 1
    # Who was there before has given no sign of life, and has not said what it runs.
    held["processes"] = [(*row, 0, "", "[]") for row in held["processes"]]
    held["deliveries"] = [(*row, None, 0) for row in held["deliveries"]]  # what is stored already is unordered
    held["handlers"] = [(*row, None, None, None, None) for row in held["handlers"]]
    assert upgrade(url(house.file)) == ("0001", migrating.HEAD)
    assert {table: flow.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables} == held
    again = house.open(listens(fail, name="h"), start=False, alerts={"parked_after": 0.0})
    again.app.alerts.look()
    assert {row[0] for row in again.sql("SELECT event_id FROM alerts")} == {dead, parked}


def fail(event):
    """Fail for good."""
    raise ValueError("no")
