"""All engines of a process share the compiled statements for a database system, and only those."""

from __future__ import annotations

from sqlalchemy import event, literal, select

from flowhooks.ledger import database
from flowhooks.ledger.database import statement_cache

COLUMN = "of_this_test"


def execute(url, value, *, writing=False):
    """Select a value over a new engine; returns it, and whether its statement was compiled."""
    engine = database.open_engine(url, writing=writing)
    cached = []
    event.listen(engine, "after_cursor_execute", lambda *given: cached.append(given[-2].cache_hit.name))
    with engine.connect() as connection:
        found = connection.execute(select(literal(value).label(COLUMN))).scalar_one()
    engine.dispose()
    return found, cached[-1]


def test_a_statement_is_compiled_once(tmp_path):
    """A second engine, of another file, uses what the first one has compiled, with its own parameters."""
    assert execute(f"sqlite:///{tmp_path / 'one.db'}", "first", writing=True) == ("first", "CACHE_MISS")
    assert execute(f"sqlite:///{tmp_path / 'two.db'}", "second", writing=True) == ("second", "CACHE_HIT")


def test_each_database_system_has_its_own_compiled_statements(tmp_path, postgresql_url):
    """A statement that SQLite has executed is compiled again for PostgreSQL."""
    execute(f"sqlite:///{tmp_path / 'one.db'}", 7, writing=True)
    assert execute(postgresql_url, 8) == (8, "CACHE_MISS")
    assert execute(postgresql_url, 9) == (9, "CACHE_HIT")


def test_the_cache_has_a_limited_size(monkeypatch):
    """When it is full, the cache starts again, and the next statement is in it."""
    monkeypatch.setattr(statement_cache, "MAX_STATEMENTS", 3)
    cache = statement_cache.StatementCache()
    for number in range(4):
        cache["dialect", number] = f"compiled {number}"
    assert len(cache) == 1
    assert cache.get(("another dialect", 3)) == "compiled 3"
    assert cache.get(("dialect", 0)) is None
