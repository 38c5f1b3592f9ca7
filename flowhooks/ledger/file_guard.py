"""Guard of the open SQLite file: whether it is still the file at its path, and undamaged.

SQLite continues to write to a file that was deleted, moved away or replaced, and reports success. The next process
opens another file and does not find this data. So the guard compares device and inode of the path, and of the path of
the write-ahead log, with those that were open at the start: before a transaction, and after its COMMIT, before the
result is reported. Both files stay the same while a connection is open: another program cannot remove the log without
breaking SQLite's rules.

A file that was truncated keeps its inode, but is smaller. A file that became smaller may also have been vacuumed by
another program, so SQLite checks it before it is reported as damaged.

Between two transactions of the writer, nothing writes to the database file: its COMMITs write to the log, and some of
them move the log into the file. So if the file was modified since the last COMMIT, another program has written to it,
and SQLite checks it before the next transaction. A large file is checked in the background instead.

A file that is intact may still be an older copy. It lacks events that this process has accepted, so the process's own
counter of accepted events in the file is too low.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from flowhooks.errors import LedgerUnusable
from flowhooks.ledger import database
from flowhooks.ledger.tables import counters
from flowhooks.ledger.wal_check import find_log_damage
from flowhooks.logger import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from flowhooks.ledger.transaction import AcceptedCounter

NOT_A_DATABASE: Final = "file is not a database"
"""SQLite's text for a file that does not begin as its files do."""
NOT_A_DATABASE_ADVICE: Final = "correct --database or the setting database, or restore a backup"
RESTORE_ADVICE: Final = "stop the server and restore a backup; callbacks are answered 503 until then"
PUT_BACK_ADVICE: Final = (
    "put the original file back with its -wal, or restart the server on the right file; "
    "callbacks are answered 503 until then"
)

# A file of this size is checked in less than 0.1 s.
MAX_BYTES_CHECKED_AT_ONCE: Final = 16 * 1024 * 1024
"""Maximum size of a database file that is checked before the next write. A larger one is checked in the background."""

_ACCEPTED: Final = select(counters.c.value).where(
    counters.c.name == "accepted", counters.c.process == bindparam("process")
)

log = get_logger(__name__)


class FileGuard:
    """Watches one database file and its write-ahead log. Create it after both are open. All methods are thread-safe.

    Args:
        file: the database file, as it was opened.
        check: returns the damage that SQLite reports over a new connection, or that the counter of accepted events is
            lower than the given one; None if there is none.

    Attributes:
        accepted: the counter of accepted events after the last COMMIT that changed it; None before the first one.
        unconfirmed: whether a transaction was committed but reported as failed, because the file had a problem.
        unchecked: whether `check` is still to be called, because the file is large.
    """

    def __init__(self, file: Path, check: Callable[[AcceptedCounter | None], str | None]) -> None:
        self.accepted: AcceptedCounter | None = None
        self.unchecked = not _is_small(file)
        self.unconfirmed = False
        self._foreign_writes = 0
        self._file = str(file.absolute())
        self._wal = f"{file.resolve()}-wal"  # SQLite keeps it beside the file that a link leads to
        self._check = check
        self._changing = threading.Lock()
        self._problem: str | None = None
        self._damage: str | None = None
        opened, wal = os.stat(self._file), os.stat(self._wal)  # noqa: PTH116 (os.stat costs a third of Path.stat)
        self._opened = opened.st_ino, opened.st_dev
        self._wal_opened = wal.st_ino, wal.st_dev
        self._size = opened.st_size
        self._modified_at_commit = opened.st_mtime_ns

    def find_problem(self, *, committed: bool = False) -> str | None:
        """Return the problem because of which no write may be acknowledged now; None if there is none.

        Args:
            committed: whether the writer has just committed, which may have modified the file.
        """
        modified = None if self._problem else self._modified_in_place()
        if modified is not None and self._has_its_log():
            if committed:
                self._modified_at_commit = modified
            return None
        return self._diagnose()

    def find_problem_quickly(self) -> str | None:
        """Do the same before a transaction, at half the cost. The log is checked after the COMMIT."""
        in_place = self._problem is None and self._modified_in_place() == self._modified_at_commit
        return None if in_place else self._diagnose(before_write=True)

    def check(self) -> None:
        """Let SQLite check the whole file. If it is damaged, no write is acknowledged any more."""
        checked_writes = self._foreign_writes
        if why := self._check(self.accepted):
            self.report_damage(why)
        with self._changing:
            # SQLite reads the file as it was at the start of the check.
            self.unchecked = self._foreign_writes != checked_writes

    def report_damage(self, why: str) -> None:
        """Record damage that SQLite reported while it read or wrote: no write is acknowledged any more.

        If the path leads to another file, the damage is not recorded, because the report may be about that file.
        """
        with self._changing:
            misplaced = self._misplaced()
            if misplaced is None and self._damage is None:
                self._damage = f"the database file {self._file} is damaged: {why}"
            self._log_change(misplaced or self._damage)

    def _modified_in_place(self) -> int | None:
        """Return when the open file was modified; None if it is not the one at its path, or has become smaller."""
        try:
            stat = os.stat(self._file)  # noqa: PTH116 (as above)
        except OSError:
            return None
        if stat.st_size < self._size or (stat.st_ino, stat.st_dev) != self._opened:
            return None
        self._size = stat.st_size
        return stat.st_mtime_ns

    def _has_its_log(self) -> bool:
        try:
            stat = os.stat(self._wal)  # noqa: PTH116 (as above)
        except OSError:
            return False
        return (stat.st_ino, stat.st_dev) == self._wal_opened

    def _diagnose(self, *, before_write: bool = False) -> str | None:
        with self._changing:
            why = self._misplaced() or self._damage or self._find_truncation()
            if before_write and why is None:  # at any other time, the writer may be about to modify the file
                why = self._find_overwriting()
            self._log_change(why)
            return why

    def _misplaced(self) -> str | None:
        for path, opened in ((self._file, self._opened), (self._wal, self._wal_opened)):
            name = f"the database file {path}" if path == self._file else f"{path}, which holds the newest data,"
            try:
                stat = os.stat(path)  # noqa: PTH116 (as above)
            except OSError as error:
                return f"{name} cannot be found: {os.strerror(error.errno or 0)}"
            if (stat.st_ino, stat.st_dev) != opened:
                return f"{name} was replaced by another file"
        return None

    def _find_truncation(self) -> str | None:
        """Return the damage of a file that became smaller; None if the file is complete."""
        try:
            size = os.stat(self._file).st_size  # noqa: PTH116 (as above)
        except OSError as error:
            return f"the database file {self._file} cannot be found: {os.strerror(error.errno or 0)}"
        if size >= self._size:
            return None
        # A new connection to an empty file would delete the log beside it.
        why = self._check(self.accepted) if size else "it is empty"
        if misplaced := self._misplaced():  # during the check, which may have found no file
            return misplaced
        if why is None:
            self._size = size  # vacuumed by another program
            return None
        self._damage = (
            f"the database file {self._file} is damaged: it was truncated from {self._size} to {size} bytes: {why}"
        )
        return self._damage

    def _find_overwriting(self) -> str | None:
        """Return the damage of a file that another program has written to; None if it is intact or too large."""
        try:
            modified = Path(self._file).stat().st_mtime_ns
        except OSError as error:
            return f"the database file {self._file} cannot be found: {os.strerror(error.errno or 0)}"
        if modified == self._modified_at_commit:
            return None
        why = None
        if _is_small(Path(self._file)):
            why = self._check(self.accepted)
            if misplaced := self._misplaced():  # during the check, which may have found no file
                return misplaced
        else:
            self.unchecked = True
            self._foreign_writes += 1
        self._modified_at_commit = modified
        if why:
            self._damage = f"the database file {self._file} is damaged: another program has written to it: {why}"
        return self._damage

    def _log_change(self, why: str | None) -> None:
        if why == self._problem:
            return
        self._problem = why  # first, so that no write is acknowledged after the log says so
        if why is None:
            log.info("database_file_restored", file=self._file)
        elif why == self._damage:
            log.error("database_damaged", why=why, next=RESTORE_ADVICE)
        else:
            log.error("database_file_changed", why=why, next=PUT_BACK_ADVICE)


def open_guard(url: str) -> FileGuard | None:
    """Return the guard of an open database; None if the database is not a file.

    Raises:
        LedgerUnusable: the file or its log cannot be found.
    """
    file = database.database_file(url)
    try:
        return None if file is None else FileGuard(file, lambda accepted: _find_damage(url, accepted))
    except OSError as error:
        raise LedgerUnusable(str(error)) from error


def _find_damage(url: str, accepted: AcceptedCounter | None) -> str | None:
    if (why := database.check_file(url)) or accepted is None:
        return why
    engine = database.open_engine(url, writing=False)
    try:
        with engine.connect() as connection:
            stored = connection.execute(_ACCEPTED, {"process": accepted.process}).scalar() or 0
    except SQLAlchemyError as error:
        return database.error_text(error)
    finally:
        database.dispose(engine)
    if stored >= accepted.value:
        return None
    return f"it is an older copy, with {stored} of the {accepted.value} events that this process has accepted"


def reject_damaged_log(url: str) -> None:
    """Refuse a database whose write-ahead log is damaged. No process may have the database open.

    SQLite would drop the transactions after the damage without an error, and then remove the log.

    Raises:
        LedgerUnusable: the log is damaged.
    """
    file = database.database_file(url)
    if file is None:
        return
    log_file = file.resolve().with_name(f"{file.resolve().name}-wal")
    if why := find_log_damage(log_file):
        raise LedgerUnusable(
            f"its write-ahead log {log_file} is damaged ({why}): keep a copy of the database with its -wal, and "
            f"restore a backup; `sqlite3 {file} 'PRAGMA wal_checkpoint(TRUNCATE)'` drops all transactions from there on"
        )


def reject_damaged(engine: Engine, url: str) -> None:
    """Refuse a damaged database file. A large one is checked later, by `FileGuard.check`.

    Uses the writer's engine: if another connection were the last one to close, SQLite would move the write-ahead log
    into the database file, for which a full disk has no room.

    Raises:
        LedgerUnusable: the file is damaged.
    """
    file = database.database_file(url)
    if file is not None and _is_small(file) and (why := _read_damage(engine)):
        if why == NOT_A_DATABASE:
            raise LedgerUnusable(f"it is no SQLite database, or its header is damaged: {NOT_A_DATABASE_ADVICE}")
        raise LedgerUnusable(f"it is damaged ({why}): restore a backup")


def _read_damage(engine: Engine) -> str | None:
    """Return the damage that SQLite reports; other errors are reported when the file is used."""
    try:
        return database.quick_check(engine)
    except SQLAlchemyError as error:
        return database.error_text(error) if database.is_damage(error) else None


def _is_small(file: Path) -> bool:
    return not file.exists() or file.stat().st_size <= MAX_BYTES_CHECKED_AT_ONCE
