"""Statistics: the contents and the state of the ledger in numbers.

Numbers that are read periodically come from indexes of open deliveries, or from the newest events and deliveries, which
are at the end of an index. Only `totals` reads everything that is stored.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import and_, case, func, literal, select, union_all

from flowhooks.clock import id_lower_bound, id_time
from flowhooks.ledger import alert_queries, circuit_state, pauses
from flowhooks.ledger.counters import counter_sums
from flowhooks.ledger.damaged_rows import repair, shown_time
from flowhooks.ledger.queries import OPEN_STATES
from flowhooks.ledger.tables import (
    IS_BLOCKED,
    IS_OPEN_OPERATION,
    IS_PARKED,
    IS_RUNNING_OR_FAILED,
    IS_SCHEDULED,
    IS_SUSPENDED,
    IS_WAITING,
    alerts,
    attempts,
    deliveries,
    events,
    handlers,
    operations,
    processes,
)
from flowhooks.model.bulk_operation import OperationState
from flowhooks.model.delivery import OutcomeKind, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, GenerativeSelect, Subquery

MAX_COUNTED: Final = 10_000
"""Maximum number of rows that are counted; above it, the caller reports that there are more."""
# Each row is fetched from the table, wherever it is stored.
MAX_GROUPED: Final = 3_000
"""The same for counts by group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerBacklog:
    """Numbers of a handler's deliveries that are neither succeeded nor closed, by state, and of its parked events.

    Attributes:
        waiting: deliveries that wait until they are due, or for their handler.
        running: deliveries that run now.
        unknown: deliveries whose last attempt was lost.
        dead: deliveries that failed for good.
        parked: parked events that this handler matches now, and for which it has no delivery yet.
    """

    waiting: int = 0
    running: int = 0
    unknown: int = 0
    dead: int = 0
    parked: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether all numbers are 0."""
        return self == HandlerBacklog()


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStats:
    """The open work of the ledger. Succeeded and closed deliveries are not read for it.

    Attributes:
        backlog: the backlog of each handler, by its id.
        oldest_due: for each handler with deliveries that wait although they could run, since when the first of them
            could, in microseconds since 1970.
        oldest_failed: for each handler and state, *dead* or *unknown*, when the first of its deliveries entered that
            state, in microseconds since 1970.
        parked: number of parked events.
        oldest_parked: when the oldest parked event was received, in microseconds since 1970; None if there is none.
        alerts: number of open alerts by cause.
        alerted: number of deliveries and events that share them, by cause, as last counted.
        processes: number of processes that have neither stopped nor expired.
        paused: the ids of the paused handlers.
        circuit_open: the ids of the paused handlers whose circuits are open.
        operations: number of bulk operations that are planned, running and paused, by state.
        accepted: events accepted since the ledger was created, as counted in the transactions that accepted them.
        purged: events purged since then, as counted in the transactions that purged them.
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
    operations: Mapping[str, int]
    accepted: int
    purged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Numbers of accepted, purged and stored events. All events are counted for it.

    Attributes:
        accepted: events accepted, as counted in the transactions that accepted them.
        purged: events purged, as counted in the transactions that purged them.
        stored: events that are stored now.
    """

    accepted: int
    purged: int
    stored: int

    @property
    def unaccounted(self) -> int:
        """Events that were accepted and are neither stored nor purged; 0 if none is lost."""
        return self.accepted - self.purged - self.stored


class RecentDelivery(NamedTuple):
    """One of the newest deliveries.

    Attributes:
        handler: its handler's id.
        state: its state.
        created_at: when it was created, in microseconds since 1970.
        outcome: the outcome of its last attempt; None if there was none, or it is running.
        started_at: when its last attempt started, in microseconds since 1970; None if there was none.
        finished_at: when its last attempt ended, in microseconds since 1970; None if it has not.
    """

    handler: str
    state: State
    created_at: int
    outcome: OutcomeKind | None
    started_at: int | None
    finished_at: int | None


class HandlerCount(NamedTuple):
    """Number of deliveries of a handler among the newest deliveries.

    Attributes:
        handler: the handler's id.
        deliveries: number of its deliveries.
        last_at: when the last of them was created, in microseconds since 1970.
    """

    handler: str
    deliveries: int
    last_at: int


def read_stats(connection: Connection, now: int) -> LedgerStats:
    """Return the open work of the ledger at `now`, in microseconds since 1970."""
    parked = select(func.count(), func.min(events.c.received_at)).where(IS_PARKED)
    n_parked, since = connection.execute(parked).one()
    per_cause = (
        select(alerts.c.cause, func.count().label("alerts"), func.sum(alerts.c.count).label("alerted"))
        .where(alerts.c.closed_at.is_(None))
        .group_by(alerts.c.cause)
    )
    open_alerts = connection.execute(per_cause).all()
    live = select(func.count()).select_from(processes).where(processes.c.stopped_at.is_(None))
    sums = counter_sums(connection)
    return LedgerStats(
        backlog=backlog(connection),
        oldest_due={issue.handler: issue.since for issue in alert_queries.overdue(connection, now)},
        oldest_failed={
            (issue.handler, state): issue.since
            for state in (State.DEAD, State.UNKNOWN)
            for issue in alert_queries.failed(connection, state)
        },
        parked=n_parked,
        oldest_parked=None if since is None else shown_time(since),
        alerts={row.cause: row.alerts for row in open_alerts},
        alerted={row.cause: int(row.alerted) for row in open_alerts},
        processes=connection.execute(live).scalar_one(),
        paused=frozenset(pauses.paused(connection)),
        circuit_open=frozenset(circuit_state.open_circuits(connection)),
        operations={
            **dict.fromkeys(COUNTED_OPERATIONS, 0),
            **dict(connection.execute(_OPERATIONS).all()),
        },
        accepted=sums.get("accepted", 0),
        purged=sums.get("purged", 0),
    )


COUNTED_OPERATIONS: Final = (OperationState.PLANNED.value, OperationState.RUNNING.value, OperationState.PAUSED.value)
"""The states of bulk operations that are counted."""
_OPERATIONS: Final = (
    select(operations.c.state, func.count())
    .where(IS_OPEN_OPERATION, operations.c.state.in_(COUNTED_OPERATIONS))
    .group_by(operations.c.state)
)


def totals(connection: Connection) -> Totals:
    """Return the numbers of accepted, purged and stored events."""
    sums = counter_sums(connection)
    stored = connection.execute(select(func.count()).select_from(events)).scalar_one()
    return Totals(accepted=sums.get("accepted", 0), purged=sums.get("purged", 0), stored=stored)


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
    """Return the number of open deliveries by state, and of parked events.

    Succeeded and closed deliveries are not read.

    Args:
        connection: any connection.
        limit: maximum number that is counted exactly; if there are more, `limit + 1` is returned. None: no limit.
    """
    most = None if limit is None else limit + 1
    return {
        name: int(connection.execute(select(func.count()).select_from(query.limit(most).subquery(name))).scalar_one())
        for name, query in _COUNT_QUERIES.items()
    }


def backlog(connection: Connection, *, limit: int | None = None) -> Mapping[str, HandlerBacklog]:
    """Return the backlog of each handler that has one.

    It reads the four indexes of open deliveries one after the other, so succeeded and closed deliveries cost nothing.

    Args:
        connection: any connection.
        limit: maximum number of rows that are counted of each index; None: all of them.
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
    """Return when the newest events were received, in milliseconds since 1970, newest first.

    The times are read from their ids.

    Args:
        connection: any connection.
        since: the earliest time, in microseconds since 1970.
        limit: maximum number of times.
    """
    newest = select(events.c.id).where(events.c.id >= id_lower_bound(since)).order_by(events.c.id.desc()).limit(limit)
    times = map(id_time, connection.execute(newest).scalars())
    return [time // 1000 for time in times if time is not None]


def recent_deliveries(connection: Connection, *, limit: int) -> list[RecentDelivery]:
    """Return the newest deliveries, each with its last attempt, newest first."""
    newest = _newest(limit)
    first = connection.execute(select(func.min(newest.c.id))).scalar()
    # The same bound on the attempts' own ids: otherwise PostgreSQL reads all attempts to find those of a few
    # deliveries.
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
    columns = (deliveries.c.handler, deliveries.c.state, deliveries.c.created_at)
    repaired = (repair(row, (*columns, attempts.c.outcome))[0] for row in rows)
    return [
        RecentDelivery(
            row.handler,
            State(row.state),
            row.created_at,
            OutcomeKind(row.outcome) if row.outcome else None,
            None if row.started_at is None else shown_time(row.started_at),
            None if row.finished_at is None else shown_time(row.finished_at),
        )
        for row in repaired
    ]


def count_by_handler(connection: Connection, *, limit: int = MAX_COUNTED) -> tuple[dict[str, HandlerCount], int | None]:
    """Return how many of the newest deliveries each handler has, and when the oldest of them was created.

    The time is None if the newest deliveries are all there are.
    """
    newest = _newest(limit)
    by_handler = select(newest.c.handler, func.count(), func.max(newest.c.created_at)).group_by(newest.c.handler)
    counts = {
        handler: HandlerCount(handler, deliveries, shown_time(last_at))
        for handler, deliveries, last_at in connection.execute(by_handler)
    }
    if sum(count.deliveries for count in counts.values()) < limit:
        return counts, None
    return counts, shown_time(connection.execute(select(func.min(newest.c.created_at))).scalar_one())


def _newest(limit: int) -> Subquery:
    columns = (deliveries.c.id, deliveries.c.handler, deliveries.c.state, deliveries.c.attempt, deliveries.c.created_at)
    return select(*columns).order_by(deliveries.c.id.desc()).limit(limit).subquery("newest")


def oldest_parked_event(connection: Connection) -> tuple[str, int] | None:
    """Return the id of the oldest parked event, and when it was received; None if none is parked."""
    row = connection.execute(
        select(events.c.id, events.c.received_at).where(IS_PARKED).order_by(events.c.id).limit(1)
    ).one_or_none()
    return None if row is None else (row.id, shown_time(row.received_at))


def started_at(connection: Connection, process: str) -> int | None:
    """Return when a process started, in microseconds since 1970; None if it is not known."""
    row = connection.execute(select(processes.c.started_at).where(processes.c.id == process)).one_or_none()
    return None if row is None else shown_time(row.started_at)


class WaitingCounts(NamedTuple):
    """Number of waiting deliveries by the reason why they wait. Suspended ones are not counted.

    Attributes:
        due: they could run now, and wait for a thread.
        retrying: they failed, and run again at a later time.
        blocked: an earlier delivery of the same order key or a concurrency limit comes first.
        paused: their handler is paused, or its circuit is open.
    """

    due: int = 0
    retrying: int = 0
    blocked: int = 0
    paused: int = 0


def count_waiting(connection: Connection, now: int, *, limit: int = MAX_GROUPED) -> WaitingCounts:
    """Return why deliveries wait at `now`, in microseconds since 1970.

    Blocked deliveries are found by one index, the others by another one. Of each of the two, at most `limit` plus one
    are read, so that the time is bounded; a sum above `limit` then stands for more.
    """
    scheduled = (
        select(deliveries.c.handler, deliveries.c.due_at)
        .where(IS_WAITING & IS_SCHEDULED)
        .limit(limit + 1)
        .subquery("scheduled")
    )
    reason = case(
        (handlers.c.paused_at.is_not(None), "paused"), (scheduled.c.due_at > now, "retrying"), else_="due"
    ).label("reason")
    by_reason = (
        select(reason, func.count().label("many"))
        .select_from(scheduled.outerjoin(handlers, handlers.c.id == scheduled.c.handler))
        .group_by(reason)
    )
    blocked = select(deliveries.c.id).where(IS_WAITING & IS_BLOCKED).limit(limit + 1).subquery("blocked")
    rows = connection.execute(
        union_all(by_reason, select(literal("blocked"), func.count().label("many")).select_from(blocked))
    )
    return WaitingCounts(**{row.reason: int(row.many) for row in rows})


def count_due_later(connection: Connection, now: int) -> dict[str, int]:
    """Return the number of waiting deliveries of each handler whose retry is due after `now`."""
    query = (
        select(deliveries.c.handler, func.count())
        .where(IS_SCHEDULED, deliveries.c.due_at > now, deliveries.c.state == State.WAITING.value)
        .group_by(deliveries.c.handler)
    )
    return dict(connection.execute(query).all())


def oldest_in_state(connection: Connection, state: State, *, limit: int = MAX_COUNTED) -> tuple[str, str, int] | None:
    """Return the delivery that has been in a state for the longest time.

    Args:
        connection: any connection.
        state: *running*, *dead* or *unknown*.
        limit: maximum number of deliveries that are compared.

    Returns:
        Its event's id, its handler's id, and since when, in microseconds since 1970; None if there is no such delivery.
    """
    some = (
        select(deliveries.c.event_id, deliveries.c.handler, deliveries.c.changed_at)
        .where(IS_RUNNING_OR_FAILED, deliveries.c.state == state.value)
        .limit(limit)
        .subquery("some")
    )
    row = connection.execute(select(some).order_by(some.c.changed_at, some.c.event_id).limit(1)).one_or_none()
    return None if row is None else (row.event_id, row.handler, shown_time(row.changed_at))
