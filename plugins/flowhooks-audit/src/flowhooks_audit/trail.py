"""The audit trail, a file that is only appended to.

Beside the file lies its index, an SQLite file: the keys of the records, so that none is written twice, and where the
chain stands. The file is what counts. A record is first in the file, durably, and then in the index; whatever the
index lacks because the process was killed in between is read from the file before the next record is written. A line
that was not written to its end has never counted, and is cut off then.
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

BUSY: Final = 10.0
"""Seconds to wait for another process that writes to the same trail."""
_MODE: Final = 0o640
"""Mode of the trail and of its index, before the umask."""
_KEYS: Final = "CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY) WITHOUT ROWID"
_HEAD: Final = """
CREATE TABLE IF NOT EXISTS head (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    number INTEGER NOT NULL,
    hash   TEXT NOT NULL,
    size   INTEGER NOT NULL
)
"""


class TrailDamaged(Exception):
    """Somebody else has changed the file: nothing is appended until a person has looked."""


class _Head(NamedTuple):
    """Where the index says that the trail stands: its last record, and the bytes of the file up to its end."""

    link: chain.Link
    size: int


class Trail:
    """Appends records. Any number of threads may use one trail at once.

    Args:
        file: created on first use; its folder must exist. If it was moved away, a new file continues the chain.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = Lock()  # threads take turns here, processes at the index

    def append(self, key: str, members: Mapping[str, Any]) -> bool:
        """Append a record, durably, once for each `key` however often this is called.

        Args:
            key: what makes the record itself; kept in it.
            members: what JSON can hold.

        Returns:
            Whether it was written now; False where it had been written before.

        Raises:
            TrailDamaged: the file is not as it was left.
            OSError: the file cannot be written.
            sqlite3.Error: the index cannot be written.
        """
        with self._lock, self._index() as index, self._opened() as file:
            head = self._caught_up(index, file)
            if index.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone():
                return False
            line, link = chain.write({"key": key, **members}, after=head.link)
            self._write(file, line, new=head.size == 0)
            _note(index, [key], _Head(link, head.size + len(line)))
        return True

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        index = index_of(self.file)
        if not index.exists():
            index.touch(_MODE)  # SQLite would let everybody read it; its journal gets the mode of the index
        # A connection for each record: nothing to share between threads, nothing for a fork to inherit.
        with closing(sqlite3.connect(index, timeout=BUSY, isolation_level=None)) as connection:
            # IMMEDIATE, because it is also the lock on the file.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_KEYS)
            connection.execute(_HEAD)
            yield connection
            connection.execute("COMMIT")

    def _opened(self) -> BinaryIO:
        # Opened once: if the file is moved away meanwhile, the record still belongs to it.
        return os.fdopen(os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, _MODE), "r+b")

    def _caught_up(self, index: sqlite3.Connection, file: BinaryIO) -> _Head:
        """Where the trail stands, once the index knows all that is in the file."""
        head = _head(index)
        size = os.fstat(file.fileno()).st_size
        if size == 0 and head.size > 0:
            # The file was moved away, to be kept elsewhere. Said durably before the new one is begun: otherwise a
            # process killed after its first record would find a file that is too short.
            head = _Head(head.link, 0)
            _note(index, [], head)
            index.execute("COMMIT")
            index.execute("BEGIN IMMEDIATE")
        if size < head.size:
            raise TrailDamaged(
                f"{self.file} has {size} bytes, but had {head.size} at the end of {head.link}: check it with `python "
                "-m flowhooks_audit verify`, repair it or move it away, then replay"
            )
        return self._read_on(index, file, head) if size > head.size else head

    def _read_on(self, index: sqlite3.Connection, file: BinaryIO, head: _Head) -> _Head:
        """Note what a process has written that was killed before it could note it itself; cut off what it began."""
        link, size, keys = head.link, head.size, []
        file.seek(size)
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(size)
                break
            try:
                # Without an index there is nothing that the first record could be held against.
                members, link = chain.read(line, after=None if (link, size) == (chain.START, 0) else link)
            except chain.Broken as error:
                raise TrailDamaged(f"{self.file}, after {head.link}: {error}") from None
            size += len(line)
            keys.append(str(members.get("key", "")))
        os.fsync(file.fileno())  # a process that was killed may not have done it
        if head.size == 0:
            _sync_folder(self.file)
        head = _Head(link, size)
        _note(index, keys, head)
        return head

    def _write(self, file: BinaryIO, line: bytes, *, new: bool) -> None:
        left = memoryview(line)
        while left:
            left = left[os.write(file.fileno(), left) :]
        os.fsync(file.fileno())
        if new:
            _sync_folder(self.file)


def index_of(file: Path) -> Path:
    """The index that lies beside the file of a trail."""
    return file.with_name(f"{file.name}.index")


def last_noted(file: Path) -> chain.Link | None:
    """Where the index says that the trail stands; None where there is no index.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    index = index_of(file)
    if not index.exists():
        return None
    with closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY)) as connection:
        return _head(connection).link


def _head(index: sqlite3.Connection) -> _Head:
    row = index.execute("SELECT number, hash, size FROM head").fetchone()
    return _Head(chain.Link(row[0], row[1]), row[2]) if row else _Head(chain.START, 0)


def _note(index: sqlite3.Connection, keys: list[str], head: _Head) -> None:
    index.executemany("INSERT INTO keys VALUES (?) ON CONFLICT DO NOTHING", [(key,) for key in keys])
    index.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?, ?)", (*_parts(head.link), head.size))


def _parts(link: chain.Link) -> tuple[int, str]:
    return link.number, link.hash


def _sync_folder(file: Path) -> None:
    """Make it durable that the file is there, not only what is in it."""
    descriptor = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
