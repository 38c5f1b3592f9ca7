"""Alerts: problems that need a person's attention, raised once per cause."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime


class AlertSeverity(StrEnum):
    """How urgent an alert is."""

    INFO = "info"
    """Something changed that a person should know. No work is lost or late."""
    WARNING = "warning"
    """Work may be lost or late if nobody acts within a day."""
    ERROR = "error"
    """Work has failed, or does not start, until a person acts."""

    @property
    def rank(self) -> int:
        """Position in the order of urgency, from 0."""
        return tuple(AlertSeverity).index(self)


class AlertCause(StrEnum):
    """The causes of alerts."""

    DEAD = "dead"
    """Deliveries of a handler failed for good."""
    UNKNOWN = "unknown"
    """Deliveries of a handler are *unknown*: they may or may not have done their work."""
    PARKED = "parked"
    """Events that match no handler have been parked for too long."""
    WAITING = "waiting"
    """Deliveries of a handler have been due, or have waited for a plugin that is not loaded, for too long."""
    CIRCUIT_OPEN = "circuit_open"
    """The circuit of a handler is open: its last attempts failed, and flowhooks has paused it."""
    OVERDUE = "overdue"
    """Attempts of a handler have exceeded its timeout and cannot be ended."""
    QUARANTINED = "quarantined"
    """A plugin could not be loaded."""
    CONDITION = "condition"
    """A handler's condition is undecided: a member of the event is absent or of another type."""
    CONCLUSION = "conclusion"
    """Events have a conclusion that no handler of their class or key names."""
    CONFLICT = "conflict"
    """In the last 24 hours, callbacks of a source had the identity of an earlier event but other data."""
    ENGINE_UNREACHABLE = "engine_unreachable"
    """The last three reconciliations with an engine or more could not read its history, or none has ended for long."""
    CALLBACKS_MISSED = "callbacks_missed"
    """In the last 24 hours, events were taken in from an engine's history for which it sent no callback."""
    HISTORY_GAP = "history_gap"
    """An interval of an engine's history could not be read."""
    INSTANCE_ID_REUSED = "instance_id_reused"
    """In the last 24 hours, an engine used the id of an earlier process instance again."""
    SOURCE_SILENT = "source_silent"
    """A source has sent no callback for longer than its setting `silent_after`."""
    SOURCE_REJECTED = "source_rejected"
    """In the last hour, more callbacks of a source were rejected than accepted, and at least 10."""
    RECONCILIATION_UNCONFIRMED = "reconciliation_unconfirmed"
    """Instances of an engine wait for an operator: they are more than `max_new`, or the engine was removed."""
    INSTANCES_INVALID = "instances_invalid"
    """In the last 24 hours, instances of an engine could not become events: their data is invalid or too large."""
    CLOCK_SKEW = "clock_skew"
    """The clock of an engine differs from ours by more than 30 seconds."""
    DISK_NEARLY_FULL = "disk_nearly_full"
    """The disk of the ledger has less free space than the setting `alerts.disk_free_mib`."""
    LEDGER_GROWTH = "ledger_growth"
    """The ledger is larger, or has grown faster, than the settings `alerts.ledger_*_mib` allow."""
    BACKUP_TOO_OLD = "backup_too_old"
    """The last recorded backup is older than the setting `alerts.backup_max_age`."""
    CLOCK_JUMP = "clock_jump"
    """In the last 24 hours, the clock of a host of flowhooks jumped by more than a minute."""
    KEY_EXPIRING = "key_expiring"
    """The last credential of a source expires soon: within the setting `alerts.key_expires_within`."""
    TEST = "test"
    """An operator tests whether messages arrive; nothing is wrong, and no alert is stored."""

    @property
    def severity(self) -> AlertSeverity:
        """How urgent an alert with this cause is."""
        return (
            AlertSeverity.ERROR if self in _ERRORS else AlertSeverity.INFO if self in _INFOS else AlertSeverity.WARNING
        )


_ERRORS: Final = frozenset(
    {
        AlertCause.DEAD,
        AlertCause.UNKNOWN,
        AlertCause.WAITING,
        AlertCause.CIRCUIT_OPEN,
        AlertCause.QUARANTINED,
        AlertCause.ENGINE_UNREACHABLE,
        AlertCause.HISTORY_GAP,
        AlertCause.INSTANCES_INVALID,
        AlertCause.DISK_NEARLY_FULL,
    }
)
_INFOS: Final = frozenset({AlertCause.CONCLUSION, AlertCause.INSTANCE_ID_REUSED, AlertCause.TEST})
"""Causes that are no warnings."""
HANDLER_CAUSES: Final = frozenset(
    {AlertCause.DEAD, AlertCause.UNKNOWN, AlertCause.WAITING, AlertCause.CIRCUIT_OPEN, AlertCause.OVERDUE}
)
"""Causes whose subject is a handler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A problem that needs a person's attention, as passed to the hooks `alert_raised` and `alert_resolved`.

    An alert stays the same while its cause lasts. If the cause ends and occurs again, a new alert with a new id is
    raised.

    Attributes:
        id: the alert's id, the same in all its notifications.
        cause: the kind of problem.
        subject: the object concerned: a handler's id, a plugin's or a source's name, a class and key, or a conclusion.
        message: English text for a person: the problem, since when it exists, what to do next, and how many deliveries
            or events are new.
        started_at: when the cause began, in UTC.
        count: number of deliveries, events, instances or callbacks concerned at present; 1 for a plugin.
        event_id: id of one of these events, as a starting point; `""` if no event is concerned.
        notification: number of this notification: 1 when the alert is raised, and 1 more each time it has grown.
        new_count: growth of `count` since the previous notification; 0 for the first notification.
        last_at: when the newest delivery or event was added, in UTC; None if that is not known.
        last_error: the error of the newest delivery or event, on one line, at most 500 characters; `""` if none failed.
        host: name of the machine whose process notifies.
        plugin_version: version of the plugin concerned, or of the handler's plugin; `""` if it is not loaded or has no
            version.
        console_url: address of the console's page about the alert; only its path, which starts with `/console/`, unless
            the setting `public_url` is set.
        resolved_at: when the alert was closed because its cause had ended, in UTC; None for `alert_raised`.
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
    host: str = ""
    plugin_version: str = ""
    console_url: str = ""
    resolved_at: datetime | None = None

    @property
    def severity(self) -> AlertSeverity:
        """How urgent the alert is, which depends on its cause only."""
        return self.cause.severity
