"""Copy a ledger into another database and verify the copy.

The caller holds the locks of both databases, if they have locks.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.errors import LedgerUnusable
from flowhooks.ledger import copy as copying
from flowhooks.ledger import database, processes
from flowhooks.ledger.copy import DatabaseSnapshot
from flowhooks.ledger.reader import Reader, name_database_in_errors
from flowhooks.ledger.upgrade import upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from flowhooks.ledger.consistency import ConsistencyReport

    ProgressReporter = Callable[[str, Callable[[], int]], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCopyResult:
    """Result of copying one table.

    Attributes:
        rows: number of rows, the same on both sides.
        kept: number of rows that the target already had.
        digest: SHA-256 over all rows, the same on both sides.
    """

    rows: int
    kept: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """A copy of a ledger that was verified to be identical.

    Attributes:
        made: whether the target had no tables before.
        tables: results by table name.
        books: consistency report of the target.
    """

    made: bool
    tables: Mapping[str, TableCopyResult]
    books: ConsistencyReport


def copy(source: str, target: str, *, heartbeat_timeout: float, progress: ProgressReporter) -> CopyResult:
    """Copy a ledger into an empty database, or continue an interrupted copy.

    Args:
        source: URL of a ledger of this version.
        target: URL of the target. Its tables are created or upgraded to this version first.
        heartbeat_timeout: seconds without a heartbeat after which a process that shares one of the databases counts as
            expired.
        progress: shows the progress of a step, given the step's name and a function that counts its total.

    Returns:
        What was copied. Inconsistencies in its report are those of the source.

    Raises:
        LedgerSchemaTooOld: the source is of an older version.
        LedgerUnusable: one of the databases is in use, the target has rows that the source lacks, one of them cannot be
            read or written, or they differ at the end.
    """
    with closing(Reader(source)) as reader:
        _reject_if_in_use(reader, source, heartbeat_timeout)
        before, _ = upgrade(target)
        with _open_snapshot(reader, source) as source_side:
            with closing(Reader(target)) as target_reader:
                _reject_if_in_use(target_reader, target, heartbeat_timeout)
                with (
                    _open_snapshot(target_reader, target) as target_side,
                    progress("compare", lambda: copying.count_rows(target_side.connection)) as advance,
                ):
                    kept = copying.compare(source_side, target_side, advance)
            with progress("copy", lambda: copying.count_rows(source_side.connection)) as advance:
                copied = _copy_rows(source_side, target, advance)
        with closing(Reader(target)) as target_reader, _open_snapshot(target_reader, target) as target_side:
            with progress("verify", lambda: copying.count_rows(target_side.connection)) as advance:
                copy_digests = copying.digest_tables(target_side, advance)
            books = target_reader.verify()
        _reject_if_in_use(reader, source, heartbeat_timeout)
    for name, content in copied.items():
        if copy_digests[name] != content:
            raise LedgerUnusable(
                f"{database.display_name(target)} is not an exact copy of {database.display_name(source)}: its "
                f"table {name} has {copy_digests[name].rows:,} rows with the digest {copy_digests[name].digest}, "
                f"the source has {content.rows:,} rows with {content.digest}. "
                "A program may have changed the copy. Copy into an empty database"
            )
    tables = {
        name: TableCopyResult(rows=content.rows, kept=kept[name], digest=content.digest)
        for name, content in copied.items()
    }
    return CopyResult(made=before is None, tables=tables, books=books)


def _copy_rows(source: DatabaseSnapshot, target: str, advance: Callable[[int], None]) -> dict[str, copying.TableDigest]:
    engine = database.open_engine(target, writing=True)
    try:
        return copying.copy(source, target, engine, advance)
    finally:
        engine.dispose()


@contextmanager
def _open_snapshot(reader: Reader, url: str) -> Iterator[DatabaseSnapshot]:
    with reader.connection() as connection, database.strict_text(connection):
        yield DatabaseSnapshot(url, connection)


def _reject_if_in_use(reader: Reader, url: str, heartbeat_timeout: float) -> None:
    # A SQLite file is protected by its lock instead.
    if not database.is_shared(url):
        return
    with name_database_in_errors(url), reader.connection() as connection:
        live = processes.live_processes(connection, heartbeat_timeout=heartbeat_timeout)
    if live:
        users = ", ".join(f"{process.pid} on {process.host}" for process in live[:5])
        raise LedgerUnusable(
            f"{database.display_name(url)} is in use by process {users}: stop the processes, then copy again "
            f"(a killed process counts as running until {heartbeat_timeout:g} s after its last heartbeat)"
        )
