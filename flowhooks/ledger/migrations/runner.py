"""Upgrades of the database's tables to this version: new tables are created, existing ones are migrated by Alembic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect, literal, select, text
from sqlalchemy.exc import DatabaseError, OperationalError

from flowhooks.errors import LedgerEmpty, LedgerSchemaTooOld, LedgerUnusable
from flowhooks.failpoints import hit
from flowhooks.ledger import database
from flowhooks.ledger.migrations.new_tables import VERSION_TABLE, create_tables

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine

# A constant, so that a start with up-to-date tables does not load Alembic.
HEAD: Final = "0001"
"""The newest migration."""
_LEDGER_TABLES: Final = frozenset({VERSION_TABLE, "events", "deliveries", "attempts"})
"""Tables that every version has. They identify a ledger, because other programs also use Alembic."""
_LOCK: Final = database.lock_statement(select(literal("flowhooks db upgrade")))
"""Allows only one upgrade of a PostgreSQL database at a time."""


def revision(connection: Connection) -> str | None:
    """Return the migration of a database; None if the database is empty.

    Raises:
        LedgerUnusable: the database holds other tables.
    """
    if database.existing_tables(connection, _LEDGER_TABLES) == _LEDGER_TABLES:
        versions = connection.execute(select(text("version_num")).select_from(text(VERSION_TABLE))).scalars().all()
        if len(versions) == 1:
            return str(versions[0])
    if tables := inspect(connection).get_table_names():
        raise LedgerUnusable(f"it is not a flowhooks ledger: it has other tables ({', '.join(sorted(tables)[:5])})")
    return None


def upgrade(engine: Engine) -> tuple[str | None, str]:
    """Create the tables of an empty database, or apply the missing migrations.

    Returns:
        The migrations before and after.

    Raises:
        LedgerUnusable: the database cannot be opened or written, is not a ledger, or is of a newer version.
    """
    try:
        with engine.begin() as connection:
            database.lock(connection, _LOCK, {})
            before = revision(connection)
            if before is None:
                create_tables(connection, HEAD)
                hit("migrate.applied")
            elif before != HEAD:
                _migrate(connection, before)
        if before != HEAD:
            hit("migrate.committed")
        database.enable_wal(engine)
    except (OperationalError, DatabaseError) as error:
        raise LedgerUnusable(database.error_text(error)) from None
    return before, HEAD


def check(connection: Connection) -> None:
    """Refuse a database whose tables are not at this version.

    Raises:
        LedgerEmpty: the database has no tables.
        LedgerSchemaTooOld: the database is older.
        LedgerUnusable: the database is newer, or is not a ledger.
    """
    version = revision(connection)
    if version is None:
        # A start that was refused leaves an empty file. Only on SQLite does a start create the tables.
        start = "start the server once, or " if connection.dialect.name == "sqlite" else ""
        raise LedgerEmpty(f"it is empty: {start}run `flowhooks db upgrade`")
    if version != HEAD:
        _reject_newer(version)
        raise LedgerSchemaTooOld(f"its tables are at version {version} of {HEAD}: run `flowhooks db upgrade`")


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config  # noqa: PLC0415 (takes a fifth of a second, and most starts do not need it)

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    attributes: dict[str, Any] = config.attributes
    attributes["connection"] = connection
    return config


def _migrate(connection: Connection, before: str) -> None:
    _reject_newer(before)
    from alembic import command  # noqa: PLC0415 (as above)

    command.upgrade(_config(connection), HEAD)


def _reject_newer(version: str) -> None:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 (as above)

    if version not in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}:
        raise LedgerUnusable(
            f"it was written by a newer flowhooks (its tables are at version {version}, and this version knows {HEAD})"
        )
