"""The tables of Procrastinate, which does not record its migrations: so we do; it must not know what jobs are for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from procrastinate.schema import SchemaManager

from flowhooks.crashpoints import reached
from flowhooks.errors import LedgerOutdated, LedgerUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK: Final = 7_021_845_551
"""Held while tables change, so that two who bring them up do not do so at once."""
_RECORD: Final = "CREATE TABLE IF NOT EXISTS job_migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL)"
_INDEX: Final = (
    "CREATE INDEX IF NOT EXISTS procrastinate_jobs_delivery ON procrastinate_jobs ((args ->> 'delivery_id'))"
)


def upgrade(url: str) -> int:
    """Bring the tables of jobs up to the version that is installed.

    Args:
        url: the ledger's database.

    Returns:
        How many migrations were applied; a database without any counts as one.

    Raises:
        LedgerUnusable: the database cannot be reached or changed, or a newer version has changed it.
    """
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            connection.execute(_RECORD)
            applied, known = _applied(connection), _known()
            if not applied:
                connection.execute(SchemaManager.get_schema())
                missing, done = sorted(known), 1
            else:
                _refuse_newer(applied, set(known))
                missing = sorted(set(known) - applied)
                done = len(missing)
                for name in missing:
                    connection.execute(known[name])
            for name in missing:
                connection.execute("INSERT INTO job_migrations VALUES (%s, now())", (name,))
            connection.execute(_INDEX)
            reached("migrate.jobs")
    except psycopg.Error as error:
        raise LedgerUnusable(f"the tables of jobs cannot be made: {' '.join(str(error).split())}") from None
    return done


def check(url: str) -> None:
    """Refuse a database whose tables of jobs are not those of the version that is installed.

    Raises:
        LedgerOutdated: they are missing or older.
        LedgerUnusable: the database cannot be reached, or they are newer.
    """
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            applied = _applied(connection)
    except psycopg.errors.UndefinedTable:
        applied = set()
    except psycopg.Error as error:
        raise LedgerUnusable(f"the tables of jobs cannot be read: {' '.join(str(error).split())}") from None
    known = set(_known())
    _refuse_newer(applied, known)
    if known - applied:
        what = "older than the Procrastinate that is installed" if applied else "missing"
        raise LedgerOutdated(f"the tables of jobs are {what}: run `flowhooks db upgrade`")


def _applied(connection: psycopg.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM job_migrations")}


def _known() -> dict[str, bytes]:
    return dict(_migrations())


def _migrations() -> Iterator[tuple[str, bytes]]:
    for file in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql")):
        yield file.stem, file.read_bytes()


def _refuse_newer(applied: set[str], known: set[str]) -> None:
    if newer := sorted(applied - known):
        raise LedgerUnusable(f"its tables of jobs were made by a newer Procrastinate (migration {newer[-1]})")
