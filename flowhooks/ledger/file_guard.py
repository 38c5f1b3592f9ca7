"""Whether the open SQLite file is still the file at its path, and whole; it must not know what is in it.

SQLite goes on writing to a file that was deleted, moved away or replaced, and reports success. What it stores then is
not in the file that the next process opens. So the guard compares device and inode of the path, and of the path of the
write-ahead log, with those that were open at the start: before a transaction, and after its COMMIT, before anybody is
told of it. Both files stay the same for as long as a connection is open: nobody else can remove the log meanwhile
without breaking SQLite's rules.

A file that was cut short keeps its inode; its size shows it. A file that became smaller may also have been vacuumed by
another program, so it is checked by SQLite before it is taken for damaged.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from flowhooks.errors import LedgerUnusable
from flowhooks.ledger import database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine

RESTORE: Final = "stop the server and restore a backup; callbacks are answered 503 until then"
PUT_BACK: Final = (
    "put the original file back with its -wal, or restart the server on the right file; "
    "callbacks are answered 503 until then"
)

MAX_BYTES_CHECKED_AT_START: Final = 16 * 1024 * 1024
"""A database file of this size is checked in less than 0.1 s. A larger one is checked while the server works."""

log = structlog.get_logger(__name__)


class FileGuard:
    """Watches one database file and its write-ahead log. Made after both are open; methods may be called by any thread.

    Args:
        file: the database file, as it was opened.
        check: what SQLite reports as wrong with the file, over a new connection; None if it is whole.

    Attributes:
        unconfirmed: whether a transaction was committed of which nobody was told, as something was wrong.
        unchecked: whether the file is so large that `check` is still to be called.
    """

    def __init__(self, file: Path, check: Callable[[], str | None]) -> None:
        self.unchecked = not _is_small(file)
        self.unconfirmed = False
        self._file = str(file.absolute())
        self._wal = f"{file.resolve()}-wal"  # SQLite keeps it beside the file that a link leads to
        self._check = check
        self._changing = threading.Lock()
        self._trouble: str | None = None
        self._damage: str | None = None
        opened, wal = os.stat(self._file), os.stat(self._wal)  # noqa: PTH116 (os.stat costs a third of Path.stat)
        self._opened = opened.st_ino, opened.st_dev
        self._wal_opened = wal.st_ino, wal.st_dev
        self._size = opened.st_size

    def look(self) -> str | None:
        """What is wrong with the file now, so that nothing may be acknowledged; None if nothing is."""
        if self._trouble is None and self._is_in_place() and self._has_its_log():
            return None
        return self._judge()

    def look_before(self) -> str | None:
        """The same before a transaction, at half the cost: its log is looked at afterwards."""
        return None if self._trouble is None and self._is_in_place() else self._judge()

    def check(self) -> None:
        """Have SQLite check the whole file; nothing is acknowledged any more if it is damaged."""
        if why := self._check():
            self.damaged(why)
        self.unchecked = False

    def damaged(self, why: str) -> None:
        """Take note of what SQLite reported while it read or wrote: nothing is acknowledged from now on.

        Not if the path leads to another file: then the report may be about that file.
        """
        with self._changing:
            misplaced = self._misplaced()
            if misplaced is None and self._damage is None:
                self._damage = f"the database file {self._file} is damaged: {why}"
            self._say(misplaced or self._damage)

    def _is_in_place(self) -> bool:
        """Whether the file is the one that is open, and no smaller than it was."""
        try:
            found = os.stat(self._file)  # noqa: PTH116 (as above)
        except OSError:
            return False
        grown = found.st_size >= self._size
        if grown:
            self._size = found.st_size
        return grown and (found.st_ino, found.st_dev) == self._opened

    def _has_its_log(self) -> bool:
        try:
            found = os.stat(self._wal)  # noqa: PTH116 (as above)
        except OSError:
            return False
        return (found.st_ino, found.st_dev) == self._wal_opened

    def _judge(self) -> str | None:
        with self._changing:
            why = self._misplaced() or self._damage or self._cut()
            self._say(why)
            return why

    def _misplaced(self) -> str | None:
        for path, opened in ((self._file, self._opened), (self._wal, self._wal_opened)):
            name = f"the database file {path}" if path == self._file else f"{path}, which holds the newest data,"
            try:
                found = os.stat(path)  # noqa: PTH116 (as above)
            except OSError as error:
                return f"{name} cannot be found: {os.strerror(error.errno or 0)}"
            if (found.st_ino, found.st_dev) != opened:
                return f"{name} was replaced by another file"
        return None

    def _cut(self) -> str | None:
        """What is wrong with a file that became smaller; None if it is whole all the same."""
        try:
            size = os.stat(self._file).st_size  # noqa: PTH116 (as above)
        except OSError as error:
            return f"the database file {self._file} cannot be found: {os.strerror(error.errno or 0)}"
        if size >= self._size:
            return None
        # A new connection to an empty file would delete the log beside it.
        why = self._check() if size else "it is empty"
        if why is None:
            self._size = size  # vacuumed by another program
            return None
        self._damage = f"the database file {self._file} is damaged: it was cut from {self._size} to {size} bytes: {why}"
        return self._damage

    def _say(self, why: str | None) -> None:
        """Log each change once, however many callers are refused meanwhile."""
        if why == self._trouble:
            return
        if why is None:
            log.info("database_file_back", file=self._file)
        elif why == self._damage:
            log.error("database_damaged", why=why, next=RESTORE)
        else:
            log.error("database_file_changed", why=why, next=PUT_BACK)
        self._trouble = why


def guard(url: str) -> FileGuard | None:
    """The guard of a database that is open; None for one that is no file.

    Raises:
        LedgerUnusable: the file or its log cannot be found any more.
    """
    file = database.database_file(url)
    try:
        return None if file is None else FileGuard(file, lambda: database.check_file(url))
    except OSError as error:
        raise LedgerUnusable(str(error)) from error


def refuse_damaged(engine: Engine, url: str) -> None:
    """Refuse a database file that is damaged. A large one is checked later, by `FileGuard.check`.

    Over the engine that writes: to close another connection, the last one, would have SQLite move the write-ahead log
    into the database, for which a full disk has no room.

    Raises:
        LedgerUnusable: it is damaged.
    """
    file = database.database_file(url)
    if file is not None and _is_small(file) and (why := _damage_of(engine)):
        raise LedgerUnusable(f"it is damaged ({why}): restore a backup")


def _damage_of(engine: Engine) -> str | None:
    """What SQLite reports as wrong with the file; what else keeps it from being used is reported later."""
    try:
        return database.quick_check(engine)
    except SQLAlchemyError as error:
        return database.plain(error) if database.is_damage(error) else None


def _is_small(file: Path) -> bool:
    return not file.exists() or file.stat().st_size <= MAX_BYTES_CHECKED_AT_START
