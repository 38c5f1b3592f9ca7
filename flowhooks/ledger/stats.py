"""What the ledger holds and how it fares, in numbers.

What is watched all the time is read by indexes of what is not at rest, or out of the newest events and deliveries,
which are at the end of an index. Only `totals` goes through everything that is stored.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import and_, func, select, union_all

from flowhooks.clock import id_lower_bound, id_time
from flowhooks.ledger import alert_queries, circuit_breaker, pauses
from flowhooks.ledger.queries import OPEN_STATES
from flowhooks.ledger.tables import (
    IS_PARKED,
    IS_RUNNING_OR_FAILED,
    IS_SUSPENDED,
    alerts,
    attempts,
    counters,
    deliveries,
    events,
    processes,
)
from flowhooks.model.delivery import OutcomeKind, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, GenerativeSelect, Subquery

MAX_COUNTED: Final = 10_000
"""Where there are more, they are said to be more."""
MAX_GROUPED: Final = 3_000
"""The same for what is counted by groups, for which each row has to be fetched from wherever it lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerBacklog:
    """How many deliveries of one handler are in each state in which something may still become of them.

    Attributes:
        waiting: they run when their time has come, or their handler.
        running: they run just now.
        unknown: they were cut off while they ran.
        dead: they failed for good.
        parked: parked events that this handler wants by now, and has no deliveries of yet.
    """

    waiting: int = 0
    running: int = 0
    unknown: int = 0
    dead: int = 0
    parked: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all."""
        return self == HandlerBacklog()


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStats:
    """What is open. Nothing that is at rest is read for it.

    Attributes:
        backlog: what is stored for each handler and not done with, by its id.
        oldest_due: of each handler with deliveries that could run and still wait, from when the first of them
            could; microseconds since 1970.
        oldest_failed: of each handler and state, *dead* or *unknown*, since when the first of them is so.
        parked: how many events are parked.
        oldest_parked: when the first of them was received, or None.
        alerts: how many alerts are open, by cause.
        alerted: how many deliveries and events share them, by cause, as last counted.
        processes: how many processes have neither ended nor been taken for dead.
        paused: the ids of the handlers that are paused.
        circuit_open: the ids of those of them whose circuits are open.
    """

    backlog: Mapping[str, HandlerBacklog]
    oldest_due: Mapping[str, int]
    oldest_failed: Mapping[tuple[str, State], int]
    parked: int
    oldest_parked: int | None
    alerts: Mapping[str, int]
    alerted: Mapping[str, int]
    processes: int
    paused: frozenset[str]
    circuit_open: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What the ledger has taken in and still holds. All events are counted for it.

    Attributes:
        accepted: events accepted, as counted in the transactions that accepted them.
        purged: events purged, as counted in the transactions that purged them.
        stored: events that are there.
    """

    accepted: int
    purged: int
    stored: int

    @property
    def unaccounted(self) -> int:
        """Events that were accepted and are neither there nor purged; 0 when nothing is lost."""
        return self.accepted - self.purged - self.stored


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


def read_stats(connection: Connection, now: int) -> LedgerStats:
    """How the ledger fares at `now`, microseconds since 1970."""
    parked = select(func.count(), func.min(events.c.received_at)).where(IS_PARKED)
    n_parked, since = connection.execute(parked).one()
    per_cause = (
        select(alerts.c.cause, func.count().label("alerts"), func.sum(alerts.c.count).label("alerted"))
        .where(alerts.c.closed_at.is_(None))
        .group_by(alerts.c.cause)
    )
    open_alerts = connection.execute(per_cause).all()
    live = select(func.count()).select_from(processes).where(processes.c.stopped_at.is_(None))
    return LedgerStats(
        backlog=backlog(connection),
        oldest_due={issue.handler: issue.since for issue in alert_queries.overdue(connection, now)},
        oldest_failed={
            (issue.handler, state): issue.since
            for state in (State.DEAD, State.UNKNOWN)
            for issue in alert_queries.failed(connection, state)
        },
        parked=n_parked,
        oldest_parked=since,
        alerts={row.cause: row.alerts for row in open_alerts},
        alerted={row.cause: int(row.alerted) for row in open_alerts},
        processes=connection.execute(live).scalar_one(),
        paused=frozenset(pauses.paused(connection)),
        circuit_open=frozenset(circuit_breaker.open_circuits(connection)),
    )


def totals(connection: Connection) -> Totals:
    """What the ledger has taken in, and holds."""
    by_name = dict(
        connection.execute(select(counters.c.name, func.sum(counters.c.value)).group_by(counters.c.name)).all()
    )
    stored = connection.execute(select(func.count()).select_from(events)).scalar_one()
    return Totals(accepted=int(by_name.get("accepted", 0)), purged=int(by_name.get("purged", 0)), stored=stored)


_SCHEDULED_OR_BLOCKED: Final = OPEN_STATES[State.WAITING.value][:2]
_COUNT_QUERIES: Final[dict[str, GenerativeSelect]] = {
    State.WAITING.value: union_all(*(select(deliveries.c.id).where(part) for part in _SCHEDULED_OR_BLOCKED)),
    "handler_missing": select(deliveries.c.id).where(IS_SUSPENDED),
    **{
        state.value: select(deliveries.c.id).where(*OPEN_STATES[state.value])
        for state in (State.RUNNING, State.UNKNOWN, State.DEAD)
    },
    "parked": select(events.c.id).where(IS_PARKED),
}


def count_by_state(connection: Connection, *, limit: int | None = None) -> dict[str, int]:
    """How many deliveries are not at rest, by state, and how many events are parked; what is at rest is not read.

    Args:
        connection: any connection.
        limit: where there are more, `limit + 1` is counted; None: all are.
    """
    most = None if limit is None else limit + 1
    return {
        name: int(connection.execute(select(func.count()).select_from(query.limit(most).subquery(name))).scalar_one())
        for name, query in _COUNT_QUERIES.items()
    }


def backlog(connection: Connection, *, limit: int | None = None) -> Mapping[str, HandlerBacklog]:
    """What is stored for each handler that something is stored for; what succeeded or was closed is not read.

    It goes along the four indexes of what is open, one after the other, so deliveries at rest cost nothing.

    Args:
        connection: any connection.
        limit: rows of each index that are counted at the most; None: all of them.
    """
    rows = select(deliveries.c.handler, deliveries.c.state)
    counts: dict[str, HandlerBacklog] = defaultdict(HandlerBacklog)
    for condition in (IS_RUNNING_OR_FAILED, *OPEN_STATES[State.WAITING.value]):
        limited = rows.where(condition).limit(limit).subquery("each")
        by_handler = select(limited.c.handler, limited.c.state, func.count()).group_by(
            limited.c.handler, limited.c.state
        )
        for handler, state, count in connection.execute(by_handler):
            before = counts[handler]
            counts[handler] = replace(before, **{state: getattr(before, state) + count})
    return dict(counts)


def arrival_times(connection: Connection, since: int, *, limit: int) -> list[int]:
    """When the newest events came, out of their ids: in milliseconds since 1970, the newest first.

    Args:
        connection: any connection.
        since: those that came at or after, in microseconds since 1970.
        limit: how many at the most.
    """
    newest = select(events.c.id).where(events.c.id >= id_lower_bound(since)).order_by(events.c.id.desc()).limit(limit)
    times = map(id_time, connection.execute(newest).scalars())
    return [time // 1000 for time in times if time is not None]


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


def oldest_parked_event(connection: Connection) -> tuple[str, int] | None:
    """The event that has been parked longest, and when it came; None if none is."""
    row = connection.execute(
        select(events.c.id, events.c.received_at).where(IS_PARKED).order_by(events.c.id).limit(1)
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
