"""How the ledger fares just now, in the numbers that are watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from flowhooks.ledger import alert_queries, circuit_breaker, pauses
from flowhooks.ledger.backlog import HandlerBacklog, backlog
from flowhooks.ledger.tables import alerts, counters, events, processes
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection


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
        circuit_open: the ids of those of them that are held.
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


def read_stats(connection: Connection, now: int) -> LedgerStats:
    """How the ledger fares at `now`, microseconds since 1970."""
    parked = select(func.count(), func.min(events.c.received_at)).where(alert_queries.IS_PARKED)
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
