"""The archive of contracts, a table in an SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS contracts (
    archive_number   INTEGER PRIMARY KEY,
    delivery_id      TEXT NOT NULL UNIQUE,
    source           TEXT NOT NULL,
    flow_instance_id TEXT NOT NULL,
    business_key     TEXT NOT NULL,
    version          INTEGER,
    archived_at      TEXT NOT NULL,
    revoked_at       TEXT,
    revoke_reason    TEXT
)
"""


class ArchiveBusy(Exception):
    """Another program has locked the archive for longer than `busy_timeout`."""


@dataclass(slots=True)
class Archive:
    """The archived contracts. Any number of threads may use the same archive at the same time.

    Attributes:
        database: the SQLite file. It is created on first use; its folder must exist.
        busy_timeout: seconds to wait until another writer has finished.
    """

    database: Path
    busy_timeout: float = 5.0

    def store(
        self, *, delivery_id: str, source: str, flow_instance_id: str, business_key: str, version: int | None
    ) -> int:
        """Archive a contract. Further calls with the same `delivery_id` store nothing.

        Returns:
            The contract's archive number, which is the same in each call with this `delivery_id`.

        Raises:
            ArchiveBusy: nothing was written; retry later.
        """
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO contracts (delivery_id, source, flow_instance_id, business_key, version, archived_at)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (delivery_id) DO NOTHING",
                (delivery_id, source, flow_instance_id, business_key, version, _now()),
            )
            (number,) = connection.execute(
                "SELECT archive_number FROM contracts WHERE delivery_id = ?", (delivery_id,)
            ).fetchone()
        return int(number)

    def revoke(self, *, source: str, flow_instance_id: str, reason: str) -> bool:
        """Mark a flow's contract as revoked. The time and reason of the first revocation are kept.

        Returns:
            Whether the archive has a contract of this flow.

        Raises:
            ArchiveBusy: nothing was written; retry later.
        """
        with self._transaction() as connection:
            cursor = connection.execute(
                "UPDATE contracts SET revoked_at = coalesce(revoked_at, ?),"
                " revoke_reason = coalesce(revoke_reason, ?) WHERE source = ? AND flow_instance_id = ?",
                (_now(), reason, source, flow_instance_id),
            )
            return cursor.rowcount > 0

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        # Each call opens a connection, so threads share none and a forked process inherits none. WAL mode is not
        # used: before SQLite 3.51.3 several writing connections can corrupt a WAL (https://sqlite.org/wal.html).
        try:
            with closing(sqlite3.connect(self.database, timeout=self.busy_timeout, isolation_level=None)) as connection:
                # IMMEDIATE, because a transaction that starts with a read cannot wait for the write lock.
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_TABLE)
                yield connection
                connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname.startswith("SQLITE_BUSY"):
                raise ArchiveBusy(str(error)) from error
            raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
