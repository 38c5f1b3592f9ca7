"""What has gone on lately, out of so many rows at the most; it must not go through everything that is stored.

A rate and a share need no more than the newest events and deliveries, and those are at the end of an index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import and_, bindparam, func, select, union_all

from flowhooks.ledger.search import id_lower_bound
from flowhooks.ledger.tables import IS_BLOCKED, IS_RUNNING_OR_FAILED, IS_SCHEDULED, attempts, deliveries, events
from flowhooks.model.delivery import OutcomeKind, State

if TYPE_CHECKING:
    from sqlalchemy import Connection, GenerativeSelect, Subquery

MAX_COUNTED: Final = 10_000
"""Where there are more, they are said to be more."""

MAX_GROUPED: Final = 3_000
"""The same for what is counted by groups, for which each row has to be fetched from wherever it lies."""


class RecentDelivery(NamedTuple):
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


class HandlerCount(NamedTuple):
    """How often a handler is among the newest deliveries.

    Attributes:
        handler: its id.
        deliveries: how many of them are for it.
        last_at: when the last of those was made, in microseconds since 1970.
    """

    handler: str
    deliveries: int
    last_at: int


def arrival_times(connection: Connection, since: int, *, limit: int) -> list[int]:
    """When the newest events came, out of their ids: in milliseconds since 1970, the newest first.

    Args:
        connection: any connection.
        since: those that came at or after, in microseconds since 1970.
        limit: how many at the most.
    """
    newest = select(events.c.id).where(events.c.id >= id_lower_bound(since)).order_by(events.c.id.desc()).limit(limit)
    return [int(event_id[:8] + event_id[9:13], 16) for event_id in connection.execute(newest).scalars()]


def recent_deliveries(connection: Connection, *, limit: int) -> list[RecentDelivery]:
    """The newest deliveries, each with its last attempt, the newest first."""
    newest = _newest(limit)
    first = connection.execute(select(func.min(newest.c.id))).scalar()
    # The same again of the attempts' own ids: else PostgreSQL reads all attempts to find those of a few deliveries.
    of_newest = attempts.c.delivery_id >= (first or "")
    of_last = and_(attempts.c.delivery_id == newest.c.id, attempts.c.number == newest.c.attempt)
    rows = connection.execute(
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
        RecentDelivery(
            row.handler,
            State(row.state),
            row.created_at,
            OutcomeKind(row.outcome) if row.outcome else None,
            row.started_at,
            row.finished_at,
        )
        for row in rows
    ]


def count_by_handler(connection: Connection, *, limit: int = MAX_COUNTED) -> tuple[dict[str, HandlerCount], int | None]:
    """Which handlers the newest deliveries are for; and from when those are, None if they are all there are."""
    newest = _newest(limit)
    by_handler = select(newest.c.handler, func.count(), func.max(newest.c.created_at)).group_by(newest.c.handler)
    counts = {row[0]: HandlerCount(*row) for row in connection.execute(by_handler)}
    if sum(count.deliveries for count in counts.values()) < limit:
        return counts, None
    return counts, connection.execute(select(func.min(newest.c.created_at))).scalar()


def _newest(limit: int) -> Subquery:
    columns = (deliveries.c.id, deliveries.c.handler, deliveries.c.state, deliveries.c.attempt, deliveries.c.created_at)
    return select(*columns).order_by(deliveries.c.id.desc()).limit(limit).subquery("newest")


_WAITING: Final = deliveries.c.state == bindparam("waiting", State.WAITING.value, literal_execute=True)
_PARKED: Final = events.c.state == bindparam("parked", "parked", literal_execute=True)
_COUNT_QUERIES: Final[dict[str, GenerativeSelect]] = {
    "waiting": union_all(
        select(deliveries.c.id).where(_WAITING, IS_SCHEDULED), select(deliveries.c.id).where(_WAITING, IS_BLOCKED)
    ),
    "shelved": select(deliveries.c.id).where(_WAITING, deliveries.c.due_at.is_(None)),
    **{
        state.value: select(deliveries.c.id).where(IS_RUNNING_OR_FAILED, deliveries.c.state == state.value)
        for state in (State.RUNNING, State.UNKNOWN, State.DEAD)
    },
    "parked": select(events.c.id).where(_PARKED),
}


def count_by_state_bounded(connection: Connection, *, limit: int = MAX_COUNTED) -> dict[str, int]:
    """How many deliveries are not at rest, and events parked, by state; `limit + 1` where there are more."""
    return {
        name: int(
            connection.execute(select(func.count()).select_from(query.limit(limit + 1).subquery(name))).scalar_one()
        )
        for name, query in _COUNT_QUERIES.items()
    }


def oldest_parked_event(connection: Connection) -> tuple[str, int] | None:
    """The event that has been parked longest, and when it came; None if none is."""
    row = connection.execute(
        select(events.c.id, events.c.received_at).where(_PARKED).order_by(events.c.id).limit(1)
    ).one_or_none()
    return None if row is None else (row.id, row.received_at)


def oldest_in_state(connection: Connection, state: State, *, limit: int = MAX_COUNTED) -> tuple[str, str, int] | None:
    """Of the deliveries in a state, the one that has been in it longest.

    Args:
        connection: any connection.
        state: *running*, *dead* or *unknown*.
        limit: out of how many at the most.

    Returns:
        Its event, its handler and since when, in microseconds since 1970; None if there is none.
    """
    some = (
        select(deliveries.c.event_id, deliveries.c.handler, deliveries.c.changed_at)
        .where(IS_RUNNING_OR_FAILED, deliveries.c.state == state.value)
        .limit(limit)
        .subquery("some")
    )
    row = connection.execute(select(some).order_by(some.c.changed_at, some.c.event_id).limit(1)).one_or_none()
    return None if row is None else (row.event_id, row.handler, row.changed_at)
