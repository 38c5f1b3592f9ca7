"""A database's tables brought up to this version by whoever has it to himself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from flowhooks.ledger import database, file_guard
from flowhooks.ledger.migrations import runner
from flowhooks.ledger.reader import name_database_in_errors

if TYPE_CHECKING:
    from sqlalchemy import Engine

log = structlog.get_logger(__name__)


def upgrade_on_open(engine: Engine, url: str) -> str | None:
    """Bring the tables of a database file up to this version when it is opened to be written.

    Returns:
        The migration before; None for a new database, which the log announces.

    Raises:
        LedgerUnusable: it is damaged, or what `upgrade` refuses.
    """
    file_guard.reject_damaged(engine, url)
    before, _ = runner.upgrade(engine)
    if before is None:
        log.warning("ledger_created", path=database.display_name(url), why="there was no ledger at this path")
    return before


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring a database's tables up to this version; one that is not there is made. The caller holds the lock.

    Args:
        url: the database.

    Returns:
        The migrations before, None for a new database, and after.

    Raises:
        LedgerUnusable: it cannot be opened or written, is no ledger, or is of a newer version.
    """
    engine = database.open_engine(url, writing=True)
    try:
        with name_database_in_errors(url):
            return runner.upgrade(engine)
    finally:
        engine.dispose()
