"""The problems that the overview names: open circuits, paused handlers, error groups, and the newest alerts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.clock import SECOND
from flowhooks.ledger import audit, circuit_state, error_group_queries, pauses
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.alert_queries import OpenAlert

MAX_SHOWN: Final = 20
"""Maximum number of circuits and of paused handlers that are named."""
MAX_ALERTS: Final = 3
MAX_ERROR_GROUPS: Final = 5
MAX_CHECKED_GROUPS: Final = 50
"""Maximum number of error groups of which the open deliveries are searched."""
RECENT_PERIOD: Final = 3600 * SECOND
"""Microseconds within which an error group must have had a failure."""
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
        by: the operator; `""` if not known.
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
        attempts: number of attempts.
        last_seen_at: when the last of them failed, in microseconds since 1970.
    """

    fingerprint: str
    handler: str
    error: str
    attempts: int
    last_seen_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingNow:
    """The problems of this moment.

    Attributes:
        circuits: handlers with an open circuit, at most 20.
        paused: handlers that operators have paused, at most 20.
        error_groups: the groups with the most failures among those with one in the last hour, at most 5. Groups whose
            deliveries have all succeeded since, or are closed, are left out.
        alerts: the three newest alerts that are not acknowledged, newest first. Silent sources and a full disk are
            alerts.
    """

    circuits: tuple[OpenCircuitFact, ...]
    paused: tuple[PausedHandler, ...]
    error_groups: tuple[GrowingErrorGroup, ...]
    alerts: tuple[OpenAlert, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing fails."""
        return not (self.circuits or self.paused or self.error_groups or self.alerts)


def failing_now(connection: Connection, open_alerts: Sequence[OpenAlert], now: int) -> FailingNow:
    """Return what fails at `now`, in microseconds since 1970.

    Args:
        connection: any connection.
        open_alerts: the open alerts, oldest first.
        now: microseconds since 1970.
    """
    circuits = circuit_state.open_circuits(connection)
    paused = {handler: since for handler, since in pauses.paused(connection).items() if handler not in circuits}
    newest = [alert for alert in reversed(open_alerts) if alert.acknowledged_at is None]
    return FailingNow(
        circuits=tuple(
            OpenCircuitFact(handler, circuit.opened_at, printable_line(circuit.reason))
            for handler, circuit in list(circuits.items())[:MAX_SHOWN]
        ),
        paused=_paused(connection, dict(list(paused.items())[:MAX_SHOWN])),
        error_groups=_growing(connection, now - RECENT_PERIOD),
        alerts=tuple(newest[:MAX_ALERTS]),
    )


def _paused(connection: Connection, paused: dict[str, int]) -> tuple[PausedHandler, ...]:
    found = []
    for handler, since in paused.items():
        entries = [
            *audit.entries(connection, limit=_MAX_AUDIT_ENTRIES, target=handler),
            *audit.entries(connection, limit=_MAX_AUDIT_ENTRIES, target=""),
        ]
        pauses_of = [
            entry for entry in entries if entry.action == "pause" and handler in entry.detail.get("handlers", ())
        ]
        last = max(pauses_of, key=lambda entry: entry.id, default=None)
        note = str(last.detail.get("note", "")) if last else ""
        found.append(PausedHandler(handler, since, last.actor if last else "", note))
    return tuple(found)


def _growing(connection: Connection, since: int) -> tuple[GrowingErrorGroup, ...]:
    recent = error_group_queries.list_groups(
        connection, since=since, limit=MAX_CHECKED_GROUPS, most_attempts_first=True
    )
    failing = (group for group in recent if error_group_queries.has_open_delivery(connection, group))
    return tuple(
        GrowingErrorGroup(
            group.fingerprint,
            group.handler,
            printable_line(f"{group.error_type}: {group.message}" if group.message else group.error_type),
            group.count,
            group.last_seen_at,
        )
        for group in islice(failing, MAX_ERROR_GROUPS)
    )
