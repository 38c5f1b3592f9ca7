"""The page of the console that shows what an alert is about."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlencode

from flowhooks.background.alerts.causes import OTHERS_SUBJECT
from flowhooks.model.alert import HANDLER_CAUSES, AlertCause

CONSOLE_ROOT: Final = "/console"
_ABOUT_EVENTS: Final = frozenset(
    {
        AlertCause.CONDITION,
        AlertCause.CONCLUSION,
        AlertCause.CONFLICT,
        AlertCause.CALLBACKS_MISSED,
        AlertCause.INSTANCE_ID_REUSED,
    }
)
_ABOUT_SOURCES: Final = frozenset({AlertCause.SOURCE_SILENT, AlertCause.SOURCE_REJECTED, AlertCause.KEY_EXPIRING})
_FIXED_PAGES: Final = {
    AlertCause.PARKED: "parked",
    AlertCause.ENGINE_UNREACHABLE: "engines",
    AlertCause.HISTORY_GAP: "engines",
    AlertCause.INSTANCES_INVALID: "engines",
    AlertCause.RECONCILIATION_UNCONFIRMED: "engines",
    AlertCause.CLOCK_SKEW: "engines",
    AlertCause.DISK_NEARLY_FULL: "storage",
    AlertCause.LEDGER_GROWTH: "storage",
    AlertCause.BACKUP_TOO_OLD: "storage",
}
"""The page of a cause whose page shows all its subjects."""
_STATES: Final = {AlertCause.CIRCUIT_OPEN: "waiting", AlertCause.OVERDUE: "running"}
"""The state of the deliveries that share a cause, if it is not named like the cause."""


def handler_page(cause: AlertCause, subject: str, event_id: str) -> str:
    """Return the path of the page that notifications link to: the handler's page if a handler is concerned."""
    return trend_page(cause, subject) or subject_page(cause, subject, event_id)


def trend_page(cause: AlertCause, subject: str) -> str:
    """Return the path of the page that shows the handler of an alert over time; `""` if it is about no handler."""
    if cause not in HANDLER_CAUSES or subject == OTHERS_SUBJECT:
        return ""
    return f"{CONSOLE_ROOT}/handlers/{quote(subject, safe='')}"


def subject_page(cause: AlertCause, subject: str, event_id: str) -> str:
    """Return the path of the page with the events, sources or plugins that an alert is about."""
    if cause in _FIXED_PAGES:
        return f"{CONSOLE_ROOT}/{_FIXED_PAGES[cause]}"
    if cause in _ABOUT_EVENTS and event_id:
        return f"{CONSOLE_ROOT}/events/{quote(event_id, safe='')}"
    if cause in _ABOUT_SOURCES and subject != OTHERS_SUBJECT:
        return f"{CONSOLE_ROOT}/sources/{quote(subject, safe='')}"
    if cause is AlertCause.QUARANTINED:
        return f"{CONSOLE_ROOT}/handlers?{urlencode({'q': subject})}"
    if cause not in HANDLER_CAUSES:
        return f"{CONSOLE_ROOT}/{'engines' if cause in _ABOUT_SOURCES else 'alerts'}"
    query = {"state": _STATES.get(cause, cause.value)}
    if subject != OTHERS_SUBJECT:
        query["handler"] = subject
    return f"{CONSOLE_ROOT}/events?{urlencode(query)}"
