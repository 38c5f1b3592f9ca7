"""A new ledger has the same tables as one that Alembic creates by all migrations, but does not need Alembic."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import create_engine, text

from flowhooks.ledger.migrations import runner
from flowhooks.ledger.upgrade import upgrade
from support import alembic_tables


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request, tmp_path):
    """A function that returns the URL of a new, empty database."""
    made = []

    def make():
        if request.param == "sqlite":
            return f"sqlite:///{tmp_path / uuid.uuid4().hex}.db"
        made.append(f"flowhooks_{uuid.uuid4().hex}")
        return server.make(made[-1])

    server = request.getfixturevalue("postgresql_server") if request.param == "postgresql" else None
    yield make
    for name in made:
        server.drop(name)


DEFINITIONS = {
    "sqlite": ["SELECT type, name, sql FROM sqlite_master ORDER BY type, name"],
    "postgresql": [
        """
            SELECT table_name, column_name, data_type, column_default, is_nullable
            FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position
        """,
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
        """
            SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
        """,
    ],
}
"""The queries for all that a migration creates."""


def without_spaces(value):
    """The value without spaces, because Alembic writes them in other places."""
    return "".join(value.split()) if isinstance(value, str) else value


def definitions(url):
    """All tables, columns, indexes and constraints of a ledger, and its version."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return [
                [tuple(map(without_spaces, row)) for row in connection.execute(text(query))]
                for query in (*DEFINITIONS[engine.dialect.name], "SELECT version_num FROM alembic_version")
            ]
    finally:
        engine.dispose()


def test_a_new_ledger_has_the_same_tables_as_a_migrated_ledger(new_url, monkeypatch):
    """Tables, columns, indexes, constraints and the version are the same."""
    upgrade(created := new_url())
    monkeypatch.setattr(runner, "create_tables", alembic_tables.create_tables)
    upgrade(by_alembic := new_url())
    *found, version = definitions(by_alembic)
    assert definitions(created) == [*found, version]
    assert version == [(runner.HEAD,)]
    assert all(len(rows) > 20 for rows in found)


def test_two_upgrades_at_once_create_the_tables_once(postgresql_server, together):
    """The second of two upgrades of an empty database waits for the first one, and finds its tables."""
    name = f"flowhooks_{uuid.uuid4().hex}"
    url = postgresql_server.make(name)
    try:
        results = together(lambda: upgrade(url), lambda: upgrade(url))
    finally:
        postgresql_server.drop(name)
    assert sorted(results, key=str) == [(runner.HEAD, runner.HEAD), (None, runner.HEAD)]
