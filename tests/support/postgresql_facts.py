"""Facts about databases on PostgreSQL that all engines of a test process share.

With its first connection an engine asks the server for its version and its defaults, which is a third of the processor
time of a start on PostgreSQL, and tests open thousands of engines.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine

from flowhooks.ledger.database import engines

_FACTS: dict[tuple[Any, ...], dict[str, Any]] = {}
"""The attributes that a dialect has learnt from its first connection, by URL and isolation level."""


def share() -> None:
    """Let all engines that flowhooks opens from now on share what they learn from a server."""
    engines.create_engine = _create_engine


def _create_engine(*arguments: Any, **given: Any) -> Any:
    engine = create_engine(*arguments, **given)
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
