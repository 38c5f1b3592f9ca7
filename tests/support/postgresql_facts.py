"""Facts about databases on PostgreSQL that all engines of a test process share.

With its first connection an engine asks the server for its version and its defaults, which is a third of the processor
time of a start on PostgreSQL, and tests open thousands of engines.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine

from flowhooks.ledger.database import engines

_FACTS: dict[tuple[Any, ...], dict[str, Any]] = {}
"""The attributes that a dialect has set after its first connection, by URL and isolation level."""


def share() -> None:
    """Make all engines that flowhooks opens from now on share the facts about a server."""
    engines.create_engine = _create_engine


def _create_engine(*arguments: Any, **options: Any) -> Any:
    engine = create_engine(*arguments, **options)
    if engine.dialect.name == "postgresql":
        _share_facts(engine.dialect, (engine.url, options.get("isolation_level")))
    return engine


def _share_facts(dialect: Any, key: tuple[Any, ...]) -> None:
    query_server = dialect.initialize

    def initialize(connection: Any) -> None:
        if key in _FACTS:
            vars(dialect).update(_FACTS[key])
            return
        before = dict(vars(dialect))
        query_server(connection)
        _FACTS[key] = {
            name: value for name, value in vars(dialect).items() if name not in before or value is not before[name]
        }

    dialect.initialize = initialize
