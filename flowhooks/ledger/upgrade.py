"""Upgrades of a database's tables to this version by the only process that uses the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.ledger import database, file_guard
from flowhooks.ledger.migrations import runner
from flowhooks.ledger.reader import name_database_in_errors
from flowhooks.logger import get_logger

if TYPE_CHECKING:
    from sqlalchemy import Engine

log = get_logger(__name__)


def upgrade_on_open(engine: Engine, url: str) -> str | None:
    """Upgrade the tables of a database file when it is opened for writing.

    Returns:
        The migration before; None for a new database, which is logged.

    Raises:
        LedgerUnusable: the database is damaged, or `upgrade` refuses it.
    """
    file_guard.reject_damaged_log(url)
    file_guard.reject_damaged(engine, url)
    before, _ = runner.upgrade(engine)
    if before is None:
        log.warning("ledger_created", path=database.display_name(url), why="there was no ledger at this path")
    return before


def upgrade(url: str) -> tuple[str | None, str]:
    """Upgrade a database's tables to this version, or create them. The caller holds the lock.

    Returns:
        The migrations before and after; the former is None for a new database.

    Raises:
        LedgerUnusable: the database cannot be opened or written, is not a ledger, or is of a newer version.
    """
    engine = database.open_engine(url, writing=True)
    try:
        with name_database_in_errors(url):
            file_guard.reject_damaged_log(url)
            return runner.upgrade(engine)
    finally:
        engine.dispose()
