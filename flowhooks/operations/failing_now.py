"""The problems that the overview names: lasting conditions, circuits, paused handlers, error groups, newest alerts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.clock import SECOND, id_lower_bound
from flowhooks.ledger import audit, circuit_state, error_group_queries, pauses, trend_queries
from flowhooks.model.alert import AlertCause
from flowhooks.model.trend import TrendKind
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.alert_queries import OpenAlert
    from flowhooks.ledger.audit import AuditEntry
    from flowhooks.ledger.error_group_queries import ErrorGroup

MAX_SHOWN: Final = 20
"""Maximum number of conditions, of circuits and of paused handlers that are named."""
CONDITIONS: Final = (
    AlertCause.DISK_NEARLY_FULL,
    AlertCause.LEDGER_GROWTH,
    AlertCause.BACKUP_TOO_OLD,
    AlertCause.QUARANTINED,
    AlertCause.SOURCE_SILENT,
    AlertCause.SOURCE_REJECTED,
    AlertCause.ENGINE_UNREACHABLE,
    AlertCause.HISTORY_GAP,
    AlertCause.RECONCILIATION_UNCONFIRMED,
    AlertCause.CLOCK_SKEW,
    AlertCause.KEY_EXPIRING,
    AlertCause.OVERDUE,
    AlertCause.WAITING,
)
"""Causes of alerts that last until somebody acts, in the order in which they are named. The other causes are counts of
deliveries and events, which the overview has, or occurrences of the last 24 hours."""
_NAMED_CAUSES: Final = frozenset({*CONDITIONS, AlertCause.CIRCUIT_OPEN})
MAX_ALERTS: Final = 3
MAX_ERROR_GROUPS: Final = 5
MAX_RECENT_GROUPS: Final = 500
"""Maximum number of error groups, those seen last, whose failures of the last hour are compared."""
MAX_CHECKED_GROUPS: Final = 50
"""Maximum number of error groups of which the open deliveries are searched."""
RECENT_PERIOD: Final = 3600 * SECOND
"""Microseconds within which the failures of an error group count."""
_MAX_AUDIT_ENTRIES: Final = 100


class OpenCircuitFact(NamedTuple):
    """A handler whose circuit is open.

    Attributes:
        handler: the handler's id.
        since: when the circuit was opened, in microseconds since 1970.
        reason: the error that opened it, on one line.
    """

    handler: str
    since: int
    reason: str


class PausedHandler(NamedTuple):
    """A handler that an operator has paused.

    Attributes:
        handler: the handler's id.
        since: when it was paused, in microseconds since 1970.
        by: the operator who paused it last; `""` if not known.
        note: the operator's note; `""` if there is none.
    """

    handler: str
    since: int
    by: str
    note: str


class GrowingErrorGroup(NamedTuple):
    """An error group with a failure in the last hour, and with a delivery that has not succeeded since.

    Attributes:
        fingerprint: its id.
        handler: the handler's id.
        error: type and message of the error, on one line.
        last_hour: number of attempts that failed in the last hour.
        attempts: number of all its stored attempts.
        last_seen_at: when the last of them failed, in microseconds since 1970.
    """

    fingerprint: str
    handler: str
    error: str
    last_hour: int
    attempts: int
    last_seen_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingNow:
    """The problems of this moment.

    Attributes:
        conditions: the open alerts whose cause is one of `CONDITIONS`, such as silent sources and a full disk, whether
            they are acknowledged or not; at most 20.
        circuits: handlers with an open circuit, at most 20.
        paused: handlers that operators have paused, at most 20.
        left_out: number of conditions, open circuits and paused handlers that are not named because of these limits.
        error_groups: the groups with the most failures in the last hour, at most 5. Groups whose deliveries have all
            succeeded since, or are closed, are left out.
        alerts: of the other alerts, without those about circuits, the three newest that are not acknowledged, newest
            first.
    """

    conditions: tuple[OpenAlert, ...]
    circuits: tuple[OpenCircuitFact, ...]
    paused: tuple[PausedHandler, ...]
    left_out: int
    error_groups: tuple[GrowingErrorGroup, ...]
    alerts: tuple[OpenAlert, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing fails."""
        return not (self.conditions or self.circuits or self.paused or self.error_groups or self.alerts)


def failing_now(connection: Connection, open_alerts: Sequence[OpenAlert], now: int) -> FailingNow:
    """Return what fails at `now`, in microseconds since 1970.

    Args:
        connection: any connection.
        open_alerts: the open alerts, oldest first.
        now: microseconds since 1970.
    """
    circuits = circuit_state.open_circuits(connection)
    paused = {handler: since for handler, since in pauses.paused(connection).items() if handler not in circuits}
    conditions = sorted(
        (alert for alert in open_alerts if alert.cause in CONDITIONS),
        key=lambda alert: (CONDITIONS.index(alert.cause), alert.subject),
    )
    newest = [
        alert for alert in reversed(open_alerts) if alert.acknowledged_at is None and alert.cause not in _NAMED_CAUSES
    ]
    return FailingNow(
        conditions=tuple(conditions[:MAX_SHOWN]),
        circuits=tuple(
            OpenCircuitFact(handler, circuit.opened_at, printable_line(circuit.reason))
            for handler, circuit in list(circuits.items())[:MAX_SHOWN]
        ),
        paused=paused_handlers(connection, dict(list(paused.items())[:MAX_SHOWN])),
        left_out=sum(max(0, len(problems) - MAX_SHOWN) for problems in (conditions, circuits, paused)),
        error_groups=_growing(connection, now - RECENT_PERIOD),
        alerts=tuple(newest[:MAX_ALERTS]),
    )


def paused_handlers(connection: Connection, paused: Mapping[str, int]) -> tuple[PausedHandler, ...]:
    """Return who paused handlers, and why.

    Args:
        connection: any connection.
        paused: since when each handler is paused, in microseconds since 1970, by its id.
    """
    if not paused:
        return ()

    def pauses_of(target: str, since: int) -> list[AuditEntry]:
        return audit.entries(connection, limit=_MAX_AUDIT_ENTRIES, target=target, action="pause", since=since)

    several = pauses_of("", min(paused.values()))  # the target of a pause of several handlers is empty
    found = []
    for handler, since in paused.items():
        entries = [
            entry
            for entry in (*pauses_of(handler, since), *several)
            if entry.id >= id_lower_bound(since) and handler in entry.detail.get("handlers", ())
        ]
        last = max(entries, key=lambda entry: entry.id, default=None)
        note = str(last.detail.get("note", "")) if last else ""
        found.append(PausedHandler(handler, since, last.actor if last else "", note))
    return tuple(found)


def _growing(connection: Connection, since: int) -> tuple[GrowingErrorGroup, ...]:
    recent = error_group_queries.list_groups(connection, since=since, limit=MAX_RECENT_GROUPS)
    counts = trend_queries.count_since(
        connection, TrendKind.ERROR_GROUP, [group.fingerprint for group in recent], since
    )
    failures = {group.fingerprint: _failures_since(group, counts, since) for group in recent}
    ranked = sorted(recent, key=lambda group: -failures[group.fingerprint])[:MAX_CHECKED_GROUPS]
    failing = (group for group in ranked if error_group_queries.has_open_delivery(connection, group))
    return tuple(
        GrowingErrorGroup(
            group.fingerprint,
            group.handler,
            printable_line(f"{group.error_type}: {group.message}" if group.message else group.error_type),
            failures[group.fingerprint],
            group.count,
            group.last_seen_at,
        )
        for group in islice(failing, MAX_ERROR_GROUPS)
    )


def _failures_since(group: ErrorGroup, counts: Mapping[str, int], since: int) -> int:
    # Processes store the counts of trends a few seconds later. Meanwhile a new group has its own count.
    return group.count if group.first_seen_at >= since else max(1, counts.get(group.fingerprint, 0))
