"""A ledger that is created by recorded statements equals one that Alembic creates."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import create_engine, text

from flowhooks.ledger.migrations import runner
from flowhooks.ledger.upgrade import upgrade
from support import recorded_migrations


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


def definitions(url):
    """All tables, columns, indexes and constraints of a ledger, and its version."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return [
                connection.execute(text(query)).all()
                for query in (*DEFINITIONS[engine.dialect.name], "SELECT version_num FROM alembic_version")
            ]
    finally:
        engine.dispose()


def test_both_have_the_same_tables(new_url, monkeypatch):
    """Tables, columns, indexes, constraints and the version are the same."""
    upgrade(new_url())  # recorded, if it is the first of this process
    upgrade(recorded := new_url())
    monkeypatch.setattr(runner, "_alembic", recorded_migrations.ALEMBIC)
    upgrade(by_alembic := new_url())
    *found, version = definitions(by_alembic)
    assert definitions(recorded) == [*found, version]
    assert version == [(runner.HEAD,)]
    assert all(len(rows) > 20 for rows in found)
