"""Copies of a SQLite database that is being written, as of one moment."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import LedgerUnusable
from flowhooks.ledger.database.engines import SYNC_TO_DRIVE
from flowhooks.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGES_PER_STEP: Final = 1000
"""Pages (4 MB) copied between two progress reports."""
_BUSY_SECONDS: Final = 5.0


def count_pages(file: Path) -> int:
    """Return the number of pages of a database.

    Raises:
        LedgerUnusable: the database cannot be read.
    """
    try:
        with closing(_open(file)) as connection:
            return int(connection.execute("PRAGMA page_count").fetchone()[0])
    except sqlite3.Error as error:
        raise LedgerUnusable(str(error)) from None


def copy_file(source: Path, target: Path, advance: Callable[[int], None]) -> None:
    """Copy a SQLite database while other connections write to it.

    Args:
        source: the database's file.
        target: an empty file.
        advance: called with the number of pages copied since its last call.

    Raises:
        LedgerUnusable: one of the files cannot be used, or the copy is damaged.
        OSError: the disk of `target` is full.
    """
    copied = 0

    def progress(_status: int, remaining: int, total: int) -> None:
        nonlocal copied
        advance(total - remaining - copied)
        copied = total - remaining

    try:
        with closing(_open(source)) as connection, closing(sqlite3.connect(target, isolation_level=None)) as copy:
            # One read transaction for the whole copy. Without it SQLite would start again after each write of another
            # connection.
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.backup(copy, pages=PAGES_PER_STEP, progress=progress, sleep=0)
            connection.execute("ROLLBACK")
            # The copy is one file, without a write-ahead log.
            copy.execute("PRAGMA journal_mode=DELETE").fetchone()
            answer: Any = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        # Only the target is written.
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise LedgerUnusable(str(error)) from None
    if answer != "ok":
        raise LedgerUnusable(f"the copy is damaged: {one_line(str(answer))}")


def _open(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None)
    connection.execute(SYNC_TO_DRIVE)
    connection.execute("PRAGMA query_only=ON")
    return connection
