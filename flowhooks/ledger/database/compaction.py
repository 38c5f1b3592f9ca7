"""Rewrite a SQLite database without its unused pages.

`VACUUM` builds the compact database in a temporary file, and copies it over the original in one transaction, which is
first in the write-ahead log. A crash at any moment leaves either the old or the new content. Renaming a compact copy
would need half the space, but another process that has the old file open would then remove the new file's log.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from flowhooks.errors import LedgerUnusable
from flowhooks.ledger.database.engines import SYNC_TO_DRIVE

if TYPE_CHECKING:
    from pathlib import Path

_BUSY_SECONDS: Final = 5.0
_INSTRUCTIONS_PER_CHECK: Final = 100_000
"""Instructions of SQLite after which Python runs, so that Ctrl-C is noticed."""


def compact_file(file: Path) -> None:
    """Remove the unused pages of a database. The caller holds the ledger's lock.

    The folder of the database needs free space for two copies of the used pages: a temporary file and the log.

    Raises:
        LedgerUnusable: the database cannot be read or written; its content is unchanged.
        KeyboardInterrupt: Ctrl-C was pressed; its content is unchanged.
    """
    try:
        with closing(sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            connection.set_progress_handler(_on_progress, _INSTRUCTIONS_PER_CHECK)
            connection.execute(SYNC_TO_DRIVE)
            connection.execute("PRAGMA synchronous=FULL")
            # The default folder is often in memory, such as /tmp, and too small.
            folder = str(file.resolve().parent).replace("'", "''")
            connection.execute(f"PRAGMA temp_store_directory='{folder}'")
            connection.execute("VACUUM")
            # Beside a command that reads an older snapshot, the file becomes smaller when that command has ended.
            connection.execute("PRAGMA busy_timeout=0").fetchone()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            connection.execute("PRAGMA temp_store_directory=''")
    except sqlite3.Error as error:
        # An exception in a progress handler stops the statement, and SQLite reports that it was interrupted.
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from None
        raise LedgerUnusable(str(error)) from None


def _on_progress() -> int:
    return 0
