"""The migrations of a new ledger, run by Alembic once for each kind of database and then repeated by their statements.

Tests create thousands of ledgers. Alembic takes most of the processor time of each, for the same statements. Ledgers of
older versions, and tests that add a migration, are always migrated by Alembic.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from flowhooks import failpoints
from flowhooks.ledger.migrations import runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

ALEMBIC = runner._alembic
"""Migrates by Alembic each time, as flowhooks does."""
_RELEASED = (runner._config, runner.HEAD)
_STEPS: dict[str, list[Callable[[Connection], Any]]] = {}


def share() -> None:
    """Let new ledgers be created by recorded statements from now on."""
    runner._alembic = _create_or_migrate


def _create_or_migrate(connection: Connection, before: str | None) -> None:
    if before is not None or (runner._config, runner.HEAD) != _RELEASED:
        ALEMBIC(connection, before)
        return
    kind = connection.dialect.name
    if kind not in _STEPS:
        with _recorded(connection) as steps:
            ALEMBIC(connection, before)
        _STEPS[kind] = steps
        return
    for step in _STEPS[kind]:
        step(connection)


@contextmanager
def _recorded(connection: Connection) -> Iterator[list[Callable[[Connection], Any]]]:
    """Record the statements that change something, and the failpoints between them."""
    steps: list[Callable[[Connection], Any]] = []
    reach = failpoints.hit

    def executed(_connection: Any, _cursor: Any, statement: str, given: Any, _context: Any, several: bool) -> None:
        assert not several, "a migration that executes one statement for several rows cannot be recorded"
        if not statement.lstrip().upper().startswith(("SELECT", "PRAGMA")):
            steps.append(lambda connection: connection.exec_driver_sql(statement, given or None))

    def reached(name: str) -> None:
        steps.append(lambda _connection: failpoints.hit(name))
        reach(name)

    failpoints.hit = reached  # Alembic loads the module that hits it each time
    event.listen(connection, "before_cursor_execute", executed)
    try:
        yield steps
    finally:
        event.remove(connection, "before_cursor_execute", executed)
        failpoints.hit = reach
