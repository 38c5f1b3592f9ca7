"""Events whose end only an operator or a late callback decides, for alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, func, select

from flowhooks.ledger.damaged_rows import repair, shown_time
from flowhooks.ledger.tables import IS_END_UNDECIDED, events

if TYPE_CHECKING:
    from sqlalchemy import Connection


class UndecidedEnds(NamedTuple):
    """Parked events of one source that only an operator or a late callback decides.

    Attributes:
        source: the source.
        since: when the oldest of them was received, in microseconds since 1970.
        last_at: when the newest of them was received.
        event_id: the id of the newest of them.
    """

    source: str
    since: int
    last_at: int
    event_id: str


_END: Final = select(events.c.source, events.c.received_at, events.c.id).limit(1)


def find_undecided_ends(connection: Connection, before: int) -> list[UndecidedEnds]:
    """Return the sources with events that wait for an operator or a late callback since before `before`."""
    found: list[UndecidedEnds] = []
    first = _END.order_by(events.c.source, events.c.received_at)
    oldest = connection.execute(first.where(IS_END_UNDECIDED)).one_or_none()
    while oldest is not None:
        since = shown_time(oldest.received_at)
        if since <= before:
            last = _END.order_by(events.c.received_at.desc(), events.c.id.desc())
            # A damaged time is found by its source only.
            newest = connection.execute(last.where(_of_source(before, oldest.source))).one_or_none() or oldest
            row, _ = repair(newest, [events.c.source, events.c.received_at, events.c.id])
            found.append(UndecidedEnds(row.source, since, row.received_at, row.id))
        oldest = connection.execute(first.where(IS_END_UNDECIDED, events.c.source > oldest.source)).one_or_none()
    return found


def count_undecided_ends(connection: Connection, before: int, source: str) -> int:
    """Return the number of a source's events that wait for an operator or a late callback since before `before`."""
    of_source = _of_source(before, source)
    return int(connection.execute(select(func.count()).select_from(events).where(of_source)).scalar_one())


def _of_source(before: int, source: str) -> ColumnElement[bool]:
    return and_(IS_END_UNDECIDED, events.c.source == source, events.c.received_at <= before)
