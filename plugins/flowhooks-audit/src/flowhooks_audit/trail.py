"""The audit trail: an append-only file with an index.

The index is an SQLite file beside the trail. It has the keys of all records, so no record is written twice, and the
head of the trail: the position of the last record and the size of the file. A record is synced to the file first and
added to the index afterwards. If the process is killed in between, the index lacks records; they are read from the file
before the next record is written. An incomplete last line does not count as a record and is cut off then.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from flowhooks_audit import chain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BUSY_TIMEOUT: Final = 10.0
"""Seconds to wait until another process has written to the same trail."""
_FILE_MODE: Final = 0o640
"""Mode of new trail and index files, before the umask."""
_KEYS_TABLE: Final = "CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY) WITHOUT ROWID"
_HEAD_TABLE: Final = """
CREATE TABLE IF NOT EXISTS head (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL,
    hash   TEXT NOT NULL,
    size   INTEGER NOT NULL
)
"""


class TrailDamaged(Exception):
    """Another program has changed the file. Nothing is appended until an operator has repaired or moved it."""


class _Head(NamedTuple):
    """The head of the trail in the index: position of the last record, and size in bytes of the file up to its end."""

    position: chain.Position
    size: int


class Trail:
    """Appends records. Any number of threads may use the same trail at the same time.

    Args:
        file: the file of the trail. It is created on first use; its folder must exist. If the file was moved away, a
            new file continues the chain.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = Lock()  # one thread at a time; the transaction of the index excludes other processes

    def append(self, key: str, members: Mapping[str, Any]) -> bool:
        """Append a record durably. Further calls with the same `key` write nothing.

        Args:
            key: identifies the record, and is stored in it.
            members: the other members of the record, with values that JSON can represent.

        Returns:
            True if the record was written now, False if it had been written before.

        Raises:
            TrailDamaged: another program has changed the file.
            OSError: the file cannot be written.
            sqlite3.Error: the index cannot be written.
        """
        with self._lock, self._index() as index, self._open_file() as file:
            head = self._update_index(index, file)
            if index.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone():
                return False
            line, position = chain.encode({"key": key, **members}, after=head.position)
            self._write(file, line, is_first=head.size == 0)
            _store(index, [key], _Head(position, head.size + len(line)))
        return True

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        index = index_path(self.file)
        if not index.exists():
            index.touch(_FILE_MODE)  # SQLite would let all users read it; the journal gets the mode of the index
        # Each record opens a connection, so threads share none and a forked process inherits none.
        with closing(sqlite3.connect(index, timeout=BUSY_TIMEOUT, isolation_level=None)) as connection:
            # IMMEDIATE, because this transaction is also the lock on the file.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_KEYS_TABLE)
            connection.execute(_HEAD_TABLE)
            yield connection
            connection.execute("COMMIT")

    def _open_file(self) -> BinaryIO:
        # Opened once for each record: if the file is moved away meanwhile, the record still goes to the moved file.
        return os.fdopen(os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, _FILE_MODE), "r+b")

    def _update_index(self, index: sqlite3.Connection, file: BinaryIO) -> _Head:
        """Add records that are only in the file to the index, and return the head of the trail.

        Raises:
            TrailDamaged: the file is shorter than its size in the index, or has a line that is not the next record.
        """
        head = _read_head(index)
        size = os.fstat(file.fileno()).st_size
        if size == 0 and head.size > 0:
            # The file was moved away. The index stores this durably before the new file gets a record. Otherwise, after
            # a kill between that record and the index, the new file would be reported as too short.
            head = _Head(head.position, 0)
            _store(index, [], head)
            index.execute("COMMIT")
            index.execute("BEGIN IMMEDIATE")
        if size < head.size:
            raise TrailDamaged(
                f"{self.file} has {size} bytes, but had {head.size} at the end of {head.position}: check it with "
                "`python -m flowhooks_audit verify`, repair it or move it away, then replay"
            )
        return self._index_new_records(index, file, head) if size > head.size else head

    def _index_new_records(self, index: sqlite3.Connection, file: BinaryIO, head: _Head) -> _Head:
        """Index records of a process that was killed before it indexed them, and cut off an incomplete last line."""
        position, size, keys = head.position, head.size, []
        file.seek(size)
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(size)
                break
            try:
                # A new index does not know which record precedes the first one of the file.
                is_unknown = (position, size) == (chain.START, 0)
                members, position = chain.decode(line, after=None if is_unknown else position)
            except chain.InvalidRecord as error:
                raise TrailDamaged(f"{self.file}, after {head.position}: {error}") from None
            size += len(line)
            keys.append(str(members.get("key", "")))
        os.fsync(file.fileno())  # the killed process may not have synced its records
        if head.size == 0:
            _sync_folder(self.file)
        head = _Head(position, size)
        _store(index, keys, head)
        return head

    def _write(self, file: BinaryIO, line: bytes, *, is_first: bool) -> None:
        remaining = memoryview(line)
        while remaining:
            remaining = remaining[os.write(file.fileno(), remaining) :]
        os.fsync(file.fileno())
        if is_first:
            _sync_folder(self.file)


def index_path(file: Path) -> Path:
    """Return the path of the index, which is beside the file of the trail."""
    return file.with_name(f"{file.name}.index")


def last_indexed(file: Path) -> chain.Position | None:
    """Return the position of the last record in the index, or None if there is no index.

    Raises:
        sqlite3.Error: the index cannot be read.
    """
    index = index_path(file)
    # After a kill before its first transaction was committed, the index is empty.
    if not index.exists() or index.stat().st_size == 0:
        return None
    with closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT)) as connection:
        return _read_head(connection).position


def _read_head(index: sqlite3.Connection) -> _Head:
    row = index.execute("SELECT number, hash, size FROM head").fetchone()
    return _Head(chain.Position(row[0], row[1]), row[2]) if row else _Head(chain.START, 0)


def _store(index: sqlite3.Connection, keys: list[str], head: _Head) -> None:
    index.executemany("INSERT INTO keys VALUES (?) ON CONFLICT DO NOTHING", [(key,) for key in keys])
    values = (head.position.number, head.position.hash, head.size)
    index.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?, ?)", values)


def _sync_folder(file: Path) -> None:
    """Sync the folder of a new file, so that the file itself is durable and not only its content."""
    descriptor = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
