"""Compact a SQLite ledger: return the space of deleted rows to the disk, while no server runs."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from flowhooks.errors import LedgerUnusable
from flowhooks.ledger import database, maintenance
from flowhooks.ledger.lock import acquire_lock
from flowhooks.ledger.reader import Reader, name_database_in_errors

# Each page in the write-ahead log has a header of 24 bytes; the index of the log is small.
_COPIES_NEEDED: Final = 2.02
_SPARE_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionPlan:
    """Space that a compaction would need and return.

    Attributes:
        database: path of the ledger's file.
        file_bytes: size of the file.
        unused_bytes: bytes of its pages without data, which a compaction returns to the disk at least.
        needed_bytes: bytes that must be free on the disk meanwhile.
        free_bytes: bytes that are free on the disk; None if they cannot be read.
    """

    database: str
    file_bytes: int
    unused_bytes: int
    needed_bytes: int
    free_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionResult:
    """A compaction that is complete and on disk.

    Attributes:
        database: path of the ledger's file.
        before_bytes: size of the file before.
        after_bytes: size of the file now.
        microseconds: how long the compaction took.
    """

    database: str
    before_bytes: int
    after_bytes: int
    microseconds: int


def plan_compaction(url: str) -> CompactionPlan:
    """Return the space that a compaction of a ledger would need and return. It only reads, also beside a server.

    Raises:
        LedgerUnusable: the ledger is not a file, or cannot be read.
    """
    file = database.database_file(url)
    if file is None:
        raise LedgerUnusable(
            f"{database.display_name(url)} is a PostgreSQL database. Its autovacuum makes the space of deleted rows "
            "free for new rows, so the database stops growing, and rarely becomes smaller. VACUUM FULL returns the "
            "space to the disk, but blocks each table meanwhile: run it yourself, while no server or worker runs"
        )
    with closing(Reader(url)) as reader, reader.connection() as connection:
        size, unused = maintenance.ledger_size(connection), maintenance.unused_bytes(connection) or 0
    return CompactionPlan(
        database=str(file),
        file_bytes=size,
        unused_bytes=unused,
        needed_bytes=int((size - unused) * _COPIES_NEEDED) + _SPARE_BYTES,
        free_bytes=database.free_disk_bytes(url),
    )


def compact(url: str) -> CompactionResult:
    """Rewrite a ledger's file without unused pages. No server may run; the ledger's lock is held meanwhile.

    Raises:
        LedgerUnusable: the ledger is not a file, is in use by another process, or its disk has too little free space;
            nothing was changed.
        KeyboardInterrupt: Ctrl-C was pressed; nothing was changed.
    """
    plan_compaction(url)  # refuses a missing file, which taking the lock would create
    lock = acquire_lock(url)
    try:
        plan = plan_compaction(url)
        if plan.free_bytes is not None and plan.free_bytes < plan.needed_bytes:
            raise LedgerUnusable(
                f"compacting {plan.database} needs {plan.needed_bytes / 1_000_000:,.1f} MB of free space on its disk, "
                f"which has {plan.free_bytes / 1_000_000:,.1f} MB; nothing was changed"
            )
        started_at = time.monotonic()
        file = database.database_file(url)
        assert file is not None  # noqa: S101 (`plan_compaction` refuses other databases)
        with name_database_in_errors(url):
            database.compact_file(file)
        return CompactionResult(
            database=plan.database,
            before_bytes=plan.file_bytes,
            after_bytes=file.stat().st_size,
            microseconds=round((time.monotonic() - started_at) * 1_000_000),
        )
    finally:
        if lock is not None:
            lock.release()
