"""The tables of Procrastinate, which does not record its migrations: so we do."""

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
"""Held while tables change, so that two who bring them up do not do so at once."""
_CREATE_MIGRATIONS_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS job_migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL)"
)
_CREATE_INDEX: Final = (
    "CREATE INDEX IF NOT EXISTS procrastinate_jobs_delivery ON procrastinate_jobs ((args ->> 'delivery_id'))"
)


def upgrade(url: str) -> int:
    """Bring the tables of jobs up to the version that is installed.

    Args:
        url: the ledger's database.

    Returns:
        How many migrations were applied; a database without any counts as one. Those that have been applied before
        one fails stay, and the next call goes on after them.

    Raises:
        LedgerUnusable: the database cannot be reached or changed, or a newer version has changed it.
    """
    at = ""
    try:
        with psycopg.connect(url, connect_timeout=5, autocommit=True) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", (_ADVISORY_LOCK_ID,))  # until the connection is closed
            connection.execute(_CREATE_MIGRATIONS_TABLE)
            steps = _steps(_applied(connection))
            # Each by itself: some need what those before them have committed, such as new values of a type.
            for names, statements in steps:
                at = f" (migration {names[0]})" if len(names) == 1 else ""
                with connection.transaction():
                    connection.execute(statements)
                    connection.execute(_CREATE_INDEX)
                    for name in names:
                        connection.execute("INSERT INTO job_migrations VALUES (%s, now())", (name,))
                    hit("migrate.jobs")
    except psycopg.Error as error:
        raise LedgerUnusable(f"the tables of jobs cannot be made: {one_line(str(error))}{at}") from None
    return len(steps)


def _steps(applied: set[str]) -> list[tuple[list[str], bytes]]:
    """Return the statements of the missing migrations; those of a full install if none is applied."""
    available = _available()
    if not applied:
        return [(sorted(available), SchemaManager.get_schema().encode())]
    _refuse_newer(applied, set(available))
    return [([name], available[name]) for name in sorted(available.keys() - applied)]


def check(url: str) -> None:
    """Refuse a database whose tables of jobs are not those of the version that is installed.

    Raises:
        LedgerSchemaTooOld: they are missing or older.
        LedgerUnusable: the database cannot be reached, or they are newer.
    """
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            applied = _applied(connection)
    except psycopg.errors.UndefinedTable:
        applied = set()
    except psycopg.Error as error:
        raise LedgerUnusable(f"the tables of jobs cannot be read: {one_line(str(error))}") from None
    available = set(_available())
    _refuse_newer(applied, available)
    if available - applied:
        what = "older than the Procrastinate that is installed" if applied else "missing"
        raise LedgerSchemaTooOld(f"the tables of jobs are {what}: run `flowhooks db upgrade`")


def _applied(connection: psycopg.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM job_migrations")}


def _available() -> dict[str, bytes]:
    return dict(_migrations())


def _migrations() -> Iterator[tuple[str, bytes]]:
    for file in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql")):
        yield file.stem, file.read_bytes()


def _refuse_newer(applied: set[str], available: set[str]) -> None:
    if newer := sorted(applied - available):
        raise LedgerUnusable(f"its tables of jobs were made by a newer Procrastinate (migration {newer[-1]})")
