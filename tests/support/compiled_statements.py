"""Compiled SQL, and facts about databases, that all engines of a test process share.

Each engine of SQLAlchemy compiles its statements itself, and tests open thousands of engines. In the model test, nearly
half of the processor time was spent on compiling the same statements again. With its first connection an engine also
asks the server for its version and its defaults, which is a third of the processor time of a start on PostgreSQL.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.util import LRUCache

from flowhooks.ledger.database import engines

SIZE = 4000
"""The maximum number of statements for each kind of database; flowhooks has a few hundred."""


class _Cache:
    """The statements of one kind of database. The keys of SQLAlchemy begin with an engine's own dialect."""

    def __init__(self) -> None:
        self._compiled: LRUCache[Any, Any] = LRUCache(SIZE)

    def get(self, key: tuple[Any, ...]) -> Any:
        return self._compiled.get(key[1:])

    def __setitem__(self, key: tuple[Any, ...], compiled: Any) -> None:
        self._compiled[key[1:]] = compiled


_CACHES: dict[tuple[Any, ...], _Cache] = {}
_FACTS: dict[tuple[Any, ...], dict[str, Any]] = {}
"""The attributes that a dialect has learnt from its first connection, by URL and isolation level."""


def share() -> None:
    """Let all engines that flowhooks opens from now on share their compiled statements."""
    engines.create_engine = _create_engine


def _create_engine(*arguments: Any, **given: Any) -> Any:
    engine = create_engine(*arguments, **given)
    kind = (type(engine.dialect), engine.dialect.dbapi, engine.dialect.paramstyle)
    engine._compiled_cache = _CACHES.setdefault(kind, _Cache())
    if engine.dialect.name == "postgresql":
        _share_facts(engine.dialect, (engine.url, given.get("isolation_level")))
    return engine


def _share_facts(dialect: Any, key: tuple[Any, ...]) -> None:
    ask = dialect.initialize

    def initialize(connection: Any) -> None:
        if key in _FACTS:
            vars(dialect).update(_FACTS[key])
            return
        before = dict(vars(dialect))
        ask(connection)
        _FACTS[key] = {name: it for name, it in vars(dialect).items() if name not in before or it is not before[name]}

    dialect.initialize = initialize
