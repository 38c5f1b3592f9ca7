"""Routing problems for alerts: undecided conditions, and callbacks that conflict with an earlier one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, func, select, union_all

from flowhooks.clock import id_lower_bound
from flowhooks.ledger.damaged_rows import repair, shown_time
from flowhooks.ledger.tables import IS_UNDECIDED, PARKED_BY_CONDITION, events
from flowhooks.ledger.tables import conflicts as conflicts_table
from flowhooks.model.event import NoMatch

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

# The check runs every few seconds.
MAX_ROWS: Final = 10_000
"""Maximum number of rows of each kind that one check reads: the newest ones."""


class Undecided(NamedTuple):
    """Events of one class and key for which a condition could not be decided.

    Attributes:
        callback_class: their class; `""` if they have none.
        process_key: their process definition key, or None.
        events: number of events, at most `MAX_ROWS` parked and `MAX_ROWS` routed ones.
        since: when the oldest of them was received, in microseconds since 1970.
        event_id: the id of the newest of them.
        why: a stored reason why a handler does not get that newest event.
    """

    callback_class: str
    process_key: str | None
    events: int
    since: int
    event_id: str
    why: str


class Conflicts(NamedTuple):
    """Callbacks of one source with the identity of an earlier event and other data.

    Attributes:
        source: the source.
        callbacks: number of callbacks, at most `MAX_ROWS`.
        since: when the oldest of them was received, in microseconds since 1970.
        event_id: the id of the newest event among those that they conflict with.
    """

    source: str
    callbacks: int
    since: int
    event_id: str


_COLUMNS: Final = (
    events.c.id,
    events.c.callback_class,
    events.c.process_definition_key,
    events.c.received_at,
    events.c.no_match,
)


def _undecided() -> Select[Any]:
    parked = select(*_COLUMNS).where(PARKED_BY_CONDITION)
    # By id, because the index has the id only.
    routed = select(*_COLUMNS).where(IS_UNDECIDED, events.c.id >= bindparam("first_id"))
    newest = (query.order_by(events.c.id.desc()).limit(MAX_ROWS).subquery() for query in (parked, routed))
    each = union_all(*(select(rows) for rows in newest)).subquery("each")
    group = (each.c.callback_class, each.c.process_definition_key)
    query = select(*group, func.count(), func.min(each.c.received_at), func.max(each.c.id)).group_by(*group)
    return query.order_by(*group)


def _conflicts() -> Select[Any]:
    received = conflicts_table.c.received_at
    newest = (
        select(conflicts_table.c.event_id, received)
        .where(received >= bindparam("since"), conflicts_table.c.corrected_by.is_(None))
        .order_by(received.desc())
        .limit(MAX_ROWS)
        .subquery("newest")
    )
    query = (
        select(events.c.source, func.count(), func.min(newest.c.received_at), func.max(newest.c.event_id))
        .select_from(newest)
        .join(events, events.c.id == newest.c.event_id)
        .group_by(events.c.source)
    )
    return query.order_by(events.c.source)


_UNDECIDED: Final = _undecided()
_CONFLICTS: Final = _conflicts()


def undecided(connection: Connection, *, since: int) -> list[Undecided]:
    """Return events with an undecided condition: all parked ones, and routed ones received at or after `since`."""
    rows = connection.execute(_UNDECIDED, {"first_id": id_lower_bound(since)}).all()
    return [_to_undecided(connection, row) for row in rows]


def _to_undecided(connection: Connection, stored: Any) -> Undecided:
    *_, count, first_at, event_id = stored
    row, _ = repair(stored, [events.c.callback_class, events.c.process_definition_key])
    return Undecided(
        callback_class=row.callback_class,
        process_key=row.process_definition_key,
        events=count,
        since=shown_time(first_at),
        event_id=event_id,
        why=_why(connection, event_id),
    )


def _why(connection: Connection, event_id: str) -> str:
    text = connection.execute(select(events.c.no_match).where(events.c.id == event_id)).scalar()
    no_match = NoMatch.from_json(text) if text else None
    reasons = no_match.reasons.items() if no_match else ()
    return next((f"{handler}: {why}" for handler, why in reasons), "no reason is stored")


def conflicts(connection: Connection, *, since: int) -> list[Conflicts]:
    """Return the callbacks at or after `since` that contradict an event, by source.

    A body that an operator has accepted as a correction is no conflict any more.
    """
    return [_to_conflicts(row) for row in connection.execute(_CONFLICTS, {"since": since})]


def _to_conflicts(stored: Any) -> Conflicts:
    _, count, first_at, event_id = stored
    row, _ = repair(stored, [events.c.source])
    return Conflicts(row.source, count, shown_time(first_at), event_id)
