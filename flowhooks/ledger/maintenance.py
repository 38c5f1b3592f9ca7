"""Record and read backups, sizes of the ledger, and jumps of the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import delete, func, select, text

from flowhooks.clock import DAY
from flowhooks.ledger import database
from flowhooks.ledger.counters import counter_sums
from flowhooks.ledger.damaged_rows import shown_time
from flowhooks.ledger.tables import events, maintenance, processes

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction

MAX_ROWS: Final = 1_000
"""Maximum number of observations of one kind that are read."""


class Observation(NamedTuple):
    """An observation of the ledger.

    Attributes:
        at: when it was made, in microseconds since 1970.
        value: bytes, or the microseconds by which the clock jumped.
        detail: the backup's name, or the host of the clock.
    """

    at: int
    value: int
    detail: str


def record(transaction: WriteTransaction, kind: str, at: int, value: int, detail: str = "") -> None:
    """Store an observation, and delete those of its kind that are not needed any more.

    Args:
        transaction: any transaction.
        kind: `"backup"`, `"size"` or `"clock_jump"`.
        at: microseconds since 1970.
        value: bytes, or the microseconds by which the clock jumped.
        detail: the backup's name, or the host of the clock.
    """
    connection = transaction.connection
    # The last backup is the one that was recorded last, even if the clock was ahead at an earlier one.
    is_old = maintenance.c.at != at if kind == "backup" else maintenance.c.at < at - DAY
    connection.execute(delete(maintenance).where(maintenance.c.kind == kind, is_old))
    row = {"kind": kind, "at": at, "value": value, "detail": detail}
    connection.execute(database.insert(maintenance).values(row).on_conflict_do_nothing(index_elements=["kind", "at"]))


def observations(connection: Connection, kind: str, since: int, until: int) -> list[Observation]:
    """Return the observations of a kind from `since` to `until`, in microseconds since 1970, oldest first."""
    rows = connection.execute(
        select(maintenance.c.at, maintenance.c.value, maintenance.c.detail)
        .where(maintenance.c.kind == kind, maintenance.c.at >= since, maintenance.c.at <= until)
        .order_by(maintenance.c.at)
        .limit(MAX_ROWS)
    )
    return [Observation(*row) for row in rows]


def last_backup(connection: Connection) -> int | None:
    """Return when the last recorded backup was made, in microseconds since 1970; None if none is recorded.

    The time is later than now if the clock was ahead.
    """
    newest = select(func.max(maintenance.c.at)).where(maintenance.c.kind == "backup")
    at: int | None = connection.execute(newest).scalar()
    return at


def first_start(connection: Connection) -> int | None:
    """Return when the first known process of the ledger started, in microseconds since 1970."""
    at: int | None = connection.execute(select(func.min(processes.c.started_at))).scalar()
    return at


def ledger_size(connection: Connection) -> int:
    """Return the size of the database in bytes; on SQLite without the write-ahead log."""
    statement = (
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        if connection.dialect.name == "sqlite"
        else "SELECT pg_database_size(current_database())"
    )
    return int(connection.execute(text(statement)).scalar_one())


def unused_bytes(connection: Connection) -> int | None:
    """Return the bytes of free pages in a SQLite database, which new rows fill first; None on PostgreSQL."""
    if connection.dialect.name != "sqlite":
        return None
    statement = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size"
    return int(connection.execute(text(statement)).scalar_one())


def count_stored_events(connection: Connection) -> int:
    """Return the number of stored events, from the counters of accepted and purged events."""
    sums = counter_sums(connection)
    return sums.get("accepted", 0) - sums.get("purged", 0)


def oldest_event_received_at(connection: Connection) -> int | None:
    """Return when the event that was stored first was received, in microseconds since 1970; None without events."""
    received_at = connection.execute(select(events.c.received_at).order_by(events.c.id).limit(1)).scalar()
    return None if received_at is None else shown_time(received_at)
