"""An alert: a cause for which a person should look, raised once however many deliveries share it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class AlertCause(StrEnum):
    """Why a person should look."""

    DEAD = "dead"
    """Deliveries of a handler failed for good."""
    UNKNOWN = "unknown"
    """Deliveries of a handler may or may not have done their work."""
    PARKED = "parked"
    """Events that no handler wants have been parked for too long."""
    WAITING = "waiting"
    """Deliveries of a handler have been able to run, or lacked their plugin, for too long."""
    CIRCUIT_OPEN = "circuit_open"
    """The circuit of a handler is open: its last attempts failed, and flowhooks has paused it."""
    OVERDUE = "overdue"
    """Attempts of a handler run longer than they may, and cannot be ended."""
    QUARANTINED = "quarantined"
    """A plugin could not be loaded."""
    CONDITION = "condition"
    """A handler's condition cannot be decided: a member of the event is absent or of another type."""
    CONCLUSION = "conclusion"
    """Events have a conclusion that no handler of their class or key names."""
    CONFLICT = "conflict"
    """Callbacks of a source had the identity of an earlier event and other data in the last 24 hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A cause for which a person should look, as the hook `alert_raised` is told of it.

    While a cause goes on it is one alert. When the cause has gone and comes again, it is a new alert with a new id.

    Attributes:
        id: of this alert: the same in all its notifications.
        cause: why.
        subject: what it is about: a handler's id, a plugin's or a source's name, a class and key, or a conclusion.
        message: English, for a person: what is the matter, since when, what to do next, and how many are new.
        started_at: when its cause began, in UTC.
        count: how many deliveries or events share it now; 1 for a plugin.
        event_id: one of those events, to begin with; `""` where none is concerned.
        notification: number of this notification: 1 when the alert is raised, and 1 more each time it has grown.
        new_count: how many more share it than at the notification before; 0 for the first notification.
        last_at: when the newest of them joined, in UTC; None where that is not known.
        last_error: how the newest of them failed, on one line, at most 500 characters; `""` where nothing failed.
    """

    id: str
    cause: AlertCause
    subject: str
    message: str
    started_at: datetime
    count: int
    event_id: str = ""
    notification: int = 1
    new_count: int = 0
    last_at: datetime | None = None
    last_error: str = ""
