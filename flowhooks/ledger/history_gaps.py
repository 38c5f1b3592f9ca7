"""Intervals of the histories of engines that could not be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, delete, func, insert, or_, select, update

from flowhooks.clock import DAY
from flowhooks.ledger.tables import history_gaps as table

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction

DELETED: Final = "deleted"
"""The reason of a gap in which the engine has deleted its history."""
DELETED_PERIOD: Final = 7 * DAY
"""Microseconds for which a gap of deleted history is extended and keeps its alert open: nothing can close it."""
KEPT_GAPS: Final = 90 * DAY
"""Microseconds for which a closed gap, or a gap of deleted history, is kept."""


def record(
    transaction: WriteTransaction, source: str, interval: tuple[int, int], *, reason: str, detail: str, now: int
) -> bool:
    """Record an interval of the history that could not be read, or extend a known one; return whether it is new.

    An interval that an operator has closed is not recorded as deleted history again: after a restart, the engine is
    asked about the same callbacks once more. A gap of deleted history is extended as long as the last callback without
    an instance is recent: each round may find another one. Other gaps are extended if they overlap; what was read
    meanwhile is no part of them any more.
    """
    since, until = interval
    columns, connection = table.c, transaction.connection
    _delete_old(connection, source, now)
    is_deleted = reason == DELETED
    if is_deleted:
        since = max(since, _closed_until(connection, source, interval) + 1)
        if since > until:
            return False
    overlaps = and_(columns.since <= until, columns.until >= since)
    extends = columns.found_at >= now - DELETED_PERIOD if is_deleted else overlaps
    same = (columns.source == source, columns.reason == reason, columns.closed_at.is_(None), extends)
    known = connection.execute(select(table).where(*same).order_by(columns.since.desc()).limit(1)).one_or_none()
    found_at = now
    if known is not None:
        since, until = (min(since, known.since) if is_deleted else since), max(until, known.until)
        found_at = now if is_deleted else known.found_at
        connection.execute(delete(table).where(columns.source == source, columns.since == known.since))
    at_since = (columns.source == source, columns.since == since)
    replaced = connection.execute(delete(table).where(*at_since)).rowcount
    connection.execute(
        insert(table).values(
            source=source, since=since, until=until, reason=reason, detail=detail, found_at=found_at, closed_at=None
        )
    )
    return known is None and not replaced


def _closed_until(connection: Connection, source: str, interval: tuple[int, int]) -> int:
    """Return until when an operator has closed gaps of deleted history that overlap an interval; 0: there is none."""
    since, until = interval
    columns = table.c
    closed = select(func.max(columns.until)).where(
        columns.source == source,
        columns.reason == DELETED,
        columns.closed_at.is_not(None),
        columns.since <= until,
        columns.until >= since,
    )
    return connection.execute(closed).scalar() or 0


def _delete_old(connection: Connection, source: str, now: int) -> None:
    columns, before = table.c, now - KEPT_GAPS
    is_old = or_(columns.closed_at < before, and_(columns.reason == DELETED, columns.found_at < before))
    connection.execute(delete(table).where(columns.source == source, is_old))


def rename(connection: Connection, former: str, source: str) -> None:
    """Let the gaps of a source's former name be its own."""
    columns = table.c
    known = select(columns.since).where(columns.source == source)
    connection.execute(delete(table).where(columns.source == former, columns.since.in_(known)))
    connection.execute(update(table).where(columns.source == former).values(source=source))


def shift(connection: Connection, source: str, skew: int) -> None:
    """Let the gaps of a source be by the engine's clock; until it has answered, they were by ours.

    Args:
        connection: a writing connection.
        source: the source.
        skew: the engine's clock minus ours, in microseconds.
    """
    columns = table.c
    ours = update(table).where(columns.source == source)
    connection.execute(ours.values(since=columns.since + skew, until=columns.until + skew))


def close_seen(transaction: WriteTransaction, source: str, found_until: int, now: int) -> int:
    """Close the open gaps that an operator has looked at; return their number.

    Args:
        transaction: the open transaction.
        source: the source.
        found_until: gaps that were found, or last extended, until then are closed.
        now: microseconds since 1970.
    """
    columns = table.c
    seen = update(table).where(columns.source == source, columns.closed_at.is_(None), columns.found_at <= found_until)
    return int(transaction.connection.execute(seen.values(closed_at=now)).rowcount)


def trim(transaction: WriteTransaction, source: str, interval: tuple[int, int], now: int) -> int:
    """Take an interval that was read from the gaps that begin in it: close a gap or move its start.

    A gap of deleted history stays as it is.

    Args:
        transaction: the open transaction.
        source: the source.
        interval: its first and last end time.
        now: microseconds since 1970.

    Returns:
        The number of closed gaps.
    """
    since, until = interval
    columns, connection = table.c, transaction.connection
    is_begun = and_(
        columns.source == source,
        columns.since.between(since, until),
        columns.closed_at.is_(None),
        columns.reason != DELETED,
    )
    closed = connection.execute(update(table).where(is_begun, columns.until <= until).values(closed_at=now)).rowcount
    left = select(columns.since).where(is_begun).order_by(columns.since.desc())
    for start in connection.execute(left).scalars().all():
        _move_start(connection, source, start, until)
    return int(closed)


def _move_start(connection: Connection, source: str, start: int, until: int) -> None:
    """Let a gap begin at `until`, or a microsecond earlier for each other gap that begins there."""
    columns = table.c
    between = select(columns.since).where(columns.source == source, columns.since > start, columns.since <= until)
    taken = set(connection.execute(between).scalars())
    while until in taken:
        until -= 1
    gap = update(table).where(columns.source == source, columns.since == start)
    connection.execute(gap.values(since=until))


def close(transaction: WriteTransaction, source: str, since: int, now: int) -> int:
    """Close the gaps that were read after all, because the history was read from `since` on; return their number.

    A gap of deleted history stays open.
    """
    columns = table.c
    read = update(table).where(
        columns.source == source, columns.since >= since, columns.closed_at.is_(None), columns.reason != DELETED
    )
    return int(transaction.connection.execute(read.values(closed_at=now)).rowcount)
