"""What has gone on lately, out of so many rows at the most; it must not go through everything that is stored.

A rate and a share need no more than the newest events and deliveries, and those are at the end of an index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import and_, bindparam, func, select, union_all

from flowhooks.ledger.search import first_id
from flowhooks.ledger.tables import HAS_TIME, HELD, NOT_AT_REST, attempts, deliveries, events
from flowhooks.model.delivery import OutcomeKind, State

if TYPE_CHECKING:
    from sqlalchemy import Connection, GenerativeSelect, Subquery

MOST_COUNTED: Final = 10_000
"""Where there are more, they are said to be more."""

MOST_GROUPED: Final = 3_000
"""The same for what is counted by groups, for which each row has to be fetched from wherever it lies."""


class Recent(NamedTuple):
    """One of the newest deliveries.

    Attributes:
        handler: its handler.
        state: its state.
        created_at: when it was made, in microseconds since 1970.
        outcome: how its last attempt ended; None if there was none, or while it runs.
        started_at: when its last attempt began, or None.
        finished_at: when that ended, or None.
    """

    handler: str
    state: State
    created_at: int
    outcome: OutcomeKind | None
    started_at: int | None
    finished_at: int | None


class Called(NamedTuple):
    """How often a handler is among the newest deliveries.

    Attributes:
        handler: its id.
        deliveries: how many of them are for it.
        last_at: when the last of those was made, in microseconds since 1970.
    """

    handler: str
    deliveries: int
    last_at: int


def arrivals(connection: Connection, since: int, *, most: int) -> list[int]:
    """When the newest events came, out of their ids: in milliseconds since 1970, the newest first.

    Args:
        connection: any connection.
        since: those that came at or after, in microseconds since 1970.
        most: how many at the most.
    """
    newest = select(events.c.id).where(events.c.id >= first_id(since)).order_by(events.c.id.desc()).limit(most)
    return [int(one[:8] + one[9:13], 16) for one in connection.execute(newest).scalars()]


def recent(connection: Connection, *, most: int) -> list[Recent]:
    """The newest deliveries, each with its last attempt, the newest first."""
    newest = _newest(most)
    first = connection.execute(select(func.min(newest.c.id))).scalar()
    # The same again of the attempts' own ids: else PostgreSQL reads all attempts to find those of a few deliveries.
    of_newest = attempts.c.delivery_id >= (first or "")
    of_last = and_(attempts.c.delivery_id == newest.c.id, attempts.c.number == newest.c.attempt)
    found = connection.execute(
        select(
            newest.c.handler,
            newest.c.state,
            newest.c.created_at,
            attempts.c.outcome,
            attempts.c.started_at,
            attempts.c.finished_at,
        )
        .outerjoin(attempts, and_(of_last, of_newest))
        .order_by(newest.c.id.desc())
    )
    return [
        Recent(
            row.handler,
            State(row.state),
            row.created_at,
            OutcomeKind(row.outcome) if row.outcome else None,
            row.started_at,
            row.finished_at,
        )
        for row in found
    ]


def called(connection: Connection, *, most: int = MOST_COUNTED) -> tuple[dict[str, Called], int | None]:
    """Which handlers the newest deliveries are for; and from when those are, None if they are all there are."""
    newest = _newest(most)
    by_handler = select(newest.c.handler, func.count(), func.max(newest.c.created_at)).group_by(newest.c.handler)
    found = {row[0]: Called(*row) for row in connection.execute(by_handler)}
    if sum(one.deliveries for one in found.values()) < most:
        return found, None
    return found, connection.execute(select(func.min(newest.c.created_at))).scalar()


def _newest(most: int) -> Subquery:
    columns = (deliveries.c.id, deliveries.c.handler, deliveries.c.state, deliveries.c.attempt, deliveries.c.created_at)
    return select(*columns).order_by(deliveries.c.id.desc()).limit(most).subquery("newest")


_WAITING: Final = deliveries.c.state == bindparam("waiting", State.WAITING.value, literal_execute=True)
_PARKED: Final = events.c.state == bindparam("parked", "parked", literal_execute=True)
_COUNTED: Final[dict[str, GenerativeSelect]] = {
    "waiting": union_all(
        select(deliveries.c.id).where(_WAITING, HAS_TIME), select(deliveries.c.id).where(_WAITING, HELD)
    ),
    "shelved": select(deliveries.c.id).where(_WAITING, deliveries.c.due_at.is_(None)),
    **{
        state.value: select(deliveries.c.id).where(NOT_AT_REST, deliveries.c.state == state.value)
        for state in (State.RUNNING, State.UNKNOWN, State.DEAD)
    },
    "parked": select(events.c.id).where(_PARKED),
}


def bounded_tally(connection: Connection, *, most: int = MOST_COUNTED) -> dict[str, int]:
    """How many deliveries are not at rest, and events parked, by state; `most + 1` where there are more than `most`."""
    return {
        name: int(
            connection.execute(select(func.count()).select_from(query.limit(most + 1).subquery(name))).scalar_one()
        )
        for name, query in _COUNTED.items()
    }


def oldest_parked(connection: Connection) -> tuple[str, int] | None:
    """The event that has been parked longest, and when it came; None if none is."""
    row = connection.execute(
        select(events.c.id, events.c.received_at).where(_PARKED).order_by(events.c.id).limit(1)
    ).one_or_none()
    return None if row is None else (row.id, row.received_at)


def oldest(connection: Connection, state: State, *, most: int = MOST_COUNTED) -> tuple[str, str, int] | None:
    """Of the deliveries in a state, the one that has been in it longest.

    Args:
        connection: any connection.
        state: *running*, *dead* or *unknown*.
        most: out of how many at the most.

    Returns:
        Its event, its handler and since when, in microseconds since 1970; None if there is none.
    """
    some = (
        select(deliveries.c.event_id, deliveries.c.handler, deliveries.c.changed_at)
        .where(NOT_AT_REST, deliveries.c.state == state.value)
        .limit(most)
        .subquery("some")
    )
    row = connection.execute(select(some).order_by(some.c.changed_at, some.c.event_id).limit(1)).one_or_none()
    return None if row is None else (row.event_id, row.handler, row.changed_at)
