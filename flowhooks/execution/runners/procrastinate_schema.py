"""Create and upgrade Procrastinate's tables.

Procrastinate does not record which of its migrations are applied, so the table `job_migrations` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from procrastinate.schema import SchemaManager

from flowhooks.errors import LedgerSchemaTooOld, LedgerUnusable
from flowhooks.failpoints import hit
from flowhooks.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADVISORY_LOCK_ID: Final = 7_021_845_551
"""Advisory lock that allows only one upgrade at a time."""
_CREATE_MIGRATIONS_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS job_migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL)"
)


def upgrade(url: str) -> int:
    """Upgrade the tables of jobs to the installed version of Procrastinate.

    Each migration has a transaction of its own. If one fails, the earlier ones stay applied, and the next call
    continues after them.

    Args:
        url: the ledger's database.

    Returns:
        The number of applied migrations; 1 for a new database.

    Raises:
        LedgerUnusable: the database cannot be reached or changed, or a newer version has changed it.
    """
    at = ""
    try:
        with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", (_ADVISORY_LOCK_ID,))  # until the connection is closed
            connection.execute(_CREATE_MIGRATIONS_TABLE)
            steps = _steps(_applied(connection))
            # One transaction each: some migrations use values of an enum type that an earlier one must have committed.
            for names, statements in steps:
                at = f" (migration {names[0]})" if len(names) == 1 else ""
                with connection.transaction():
                    connection.execute(statements)
                    for name in names:
                        connection.execute("INSERT INTO job_migrations VALUES (%s, now())", (name,))
                    hit("migrate.jobs")
    except psycopg.Error as error:
        raise LedgerUnusable(f"the job tables cannot be created: {one_line(str(error))}{at}") from None
    return len(steps)


def _steps(applied: set[str]) -> list[tuple[list[str], bytes]]:
    """Return the statements of the missing migrations; those of a full install if none is applied."""
    available = _available()
    if not applied:
        return [(sorted(available), SchemaManager.get_schema().encode())]
    _refuse_newer(applied, set(available))
    return [([name], available[name]) for name in sorted(available.keys() - applied)]


def check(url: str) -> None:
    """Check that the tables of jobs have the version of the installed Procrastinate.

    Raises:
        LedgerSchemaTooOld: the tables are missing or older.
        LedgerUnusable: the database cannot be reached, or its tables are newer.
    """
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            applied = _applied(connection)
    except psycopg.errors.UndefinedTable:
        applied = set()
    except psycopg.Error as error:
        raise LedgerUnusable(f"the job tables cannot be read: {one_line(str(error))}") from None
    available = set(_available())
    _refuse_newer(applied, available)
    if available - applied:
        what = "older than the installed Procrastinate" if applied else "missing"
        raise LedgerSchemaTooOld(f"the job tables are {what}: run `flowhooks db upgrade`")


def _applied(connection: psycopg.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM job_migrations")}


def _available() -> dict[str, bytes]:
    return dict(_migrations())


def _migrations() -> Iterator[tuple[str, bytes]]:
    for file in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql")):
        yield file.stem, file.read_bytes()


def _refuse_newer(applied: set[str], available: set[str]) -> None:
    if newer := sorted(applied - available):
        raise LedgerUnusable(f"its job tables were created by a newer Procrastinate (migration {newer[-1]})")
