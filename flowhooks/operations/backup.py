"""Back up a SQLite ledger file while the server keeps running."""

from __future__ import annotations

import errno
import os
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.errors import LedgerEmpty, LedgerSchemaTooOld, LedgerUnusable
from flowhooks.ledger import database
from flowhooks.ledger.reader import Reader, name_database_in_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flowhooks.operations.copy import ProgressReporter


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupResult:
    """A backup that is complete, checked and synced to disk.

    Attributes:
        source: path of the ledger's file.
        target: path of the copy.
        bytes: size of the copy.
        microseconds: how long the backup took.
        events: number of events in the copy; None if its tables are of an older version and were not read.
        problems: inconsistencies found in the copy, which the source has as well.
    """

    source: str
    target: str
    bytes: int
    microseconds: int
    events: int | None
    problems: tuple[str, ...]


def backup(url: str, target: Path, *, progress: ProgressReporter) -> BackupResult:
    """Copy a consistent snapshot of a ledger's file and check the copy. The server is not blocked meanwhile.

    Args:
        url: URL of the ledger.
        target: path of the copy; must not exist.
        progress: shows the progress of a step, given the step's name and a function that counts its total.

    Raises:
        LedgerUnusable: the target exists or cannot be written, the ledger is not a file or cannot be read, or the copy
            is incomplete. No file is left at the target.
    """
    started_at = time.monotonic()
    source = database.database_file(url)
    if source is None:
        raise LedgerUnusable(
            f"{database.display_name(url)} is a PostgreSQL database. Back it up with pg_dump while servers run: "
            f"pg_dump --format=custom --file={target} and the name of the database"
        )
    if not source.exists():
        raise LedgerUnusable(f"there is no database at {source}")
    _check_is_ledger(url)
    with _atomic_target(target) as unfinished:
        with name_database_in_errors(url), progress("copy", lambda: database.count_pages(source)) as advance:
            database.copy_file(source, unfinished, advance)
        events, problems = _verify_copy(database.file_url(unfinished))
    return BackupResult(
        source=str(source),
        target=str(target),
        bytes=target.stat().st_size,
        microseconds=round((time.monotonic() - started_at) * 1_000_000),
        events=events,
        problems=problems,
    )


def _check_is_ledger(url: str) -> None:
    try:
        Reader(url).close()
    except LedgerEmpty:
        raise
    except LedgerSchemaTooOld:
        pass  # a ledger that needs an upgrade must be backed up above all


def _verify_copy(url: str) -> tuple[int | None, tuple[str, ...]]:
    try:
        with closing(Reader(url)) as reader:
            books = reader.verify()
    except LedgerSchemaTooOld:
        return None, ()
    return books.stored, tuple(books.problems)


@contextmanager
def _atomic_target(target: Path) -> Iterator[Path]:
    """Yield a temporary file that gets the target's name once it is complete and synced."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        if target.exists() or target.is_symlink():
            raise LedgerUnusable(f"{target} exists already; a backup needs a new file")
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            yield unfinished
            _fsync(unfinished)
            _publish(unfinished, target)
        finally:
            for suffix in ("", "-journal", "-wal", "-shm"):
                unfinished.with_name(unfinished.name + suffix).unlink(missing_ok=True)
        _fsync(target.parent)
    except OSError as error:
        why = (
            "the disk is full; free some space, or name a file on another disk"
            if error.errno == errno.ENOSPC
            else error.strerror or error
        )
        raise LedgerUnusable(f"cannot write {target}: {why}") from None


def _publish(unfinished: Path, target: Path) -> None:
    """Rename the file unless the target exists by now."""
    try:
        os.link(unfinished, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        unfinished.rename(target)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
