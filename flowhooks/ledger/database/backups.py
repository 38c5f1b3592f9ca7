"""A database's file copied while it is written, as it is at one moment."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import LedgerUnusable
from flowhooks.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGES_PER_STEP: Final = 1000
"""Pages copied between two signs of progress, 4 MB."""
_BUSY_SECONDS: Final = 5.0


def count_pages(file: Path) -> int:
    """How many pages a database has.

    Raises:
        LedgerUnusable: it cannot be read.
    """
    try:
        with closing(_open(file)) as connection:
            return int(connection.execute("PRAGMA page_count").fetchone()[0])
    except sqlite3.Error as error:
        raise LedgerUnusable(str(error)) from None


def copy_file(source: Path, target: Path, advance: Callable[[int], None]) -> None:
    """Copy a database of SQLite; whoever writes to it goes on.

    Args:
        source: the database's file.
        target: an empty file.
        advance: is told how many pages more are there.

    Raises:
        LedgerUnusable: one of them cannot be used, or the copy is not whole.
    """
    copied = 0

    def progress(_status: int, remaining: int, total: int) -> None:
        nonlocal copied
        advance(total - remaining - copied)
        copied = total - remaining

    try:
        with closing(_open(source)) as connection, closing(sqlite3.connect(target, isolation_level=None)) as copy:
            # One moment from beginning to end: else SQLite would begin anew whenever somebody has written meanwhile.
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.backup(copy, pages=PAGES_PER_STEP, progress=progress, sleep=0)
            connection.execute("ROLLBACK")
            # One file, with no log beside it.
            copy.execute("PRAGMA journal_mode=DELETE").fetchone()
            answer: Any = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise LedgerUnusable(str(error)) from None
    if answer != "ok":
        raise LedgerUnusable(f"the copy is not whole: {one_line(str(answer))}")


def _open(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None)
    connection.execute("PRAGMA query_only=ON")
    return connection
