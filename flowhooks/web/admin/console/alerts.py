"""The page of open and recently closed alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from flowhooks.background.alerts.causes import OTHERS_SUBJECT
from flowhooks.ledger import alert_queries
from flowhooks.model.alert import AlertCause
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.ledger.alert_queries import OpenAlert

MAX_CLOSED_ALERTS: Final = 50
_ABOUT_EVENTS: Final = frozenset(
    {
        AlertCause.CONDITION,
        AlertCause.CONCLUSION,
        AlertCause.CONFLICT,
        AlertCause.CALLBACKS_MISSED,
        AlertCause.INSTANCE_ID_REUSED,
    }
)
_ABOUT_SOURCES: Final = frozenset({AlertCause.SOURCE_SILENT, AlertCause.SOURCE_REJECTED})
_ABOUT_ENGINES: Final = frozenset(
    {
        AlertCause.ENGINE_UNREACHABLE,
        AlertCause.HISTORY_GAP,
        AlertCause.INSTANCES_INVALID,
        AlertCause.RECONCILIATION_UNCONFIRMED,
        AlertCause.CLOCK_SKEW,
    }
)
_STATES: Final = {AlertCause.CIRCUIT_OPEN: "waiting", AlertCause.OVERDUE: "running"}
"""The state of the deliveries that share a cause, if it is not named like the cause."""


class AlertsPage(Page):
    """`GET /console/alerts`."""

    template = "alerts.html"
    place = "alerts"

    def show(self, _request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the open alerts, those that nobody has acknowledged first, and the last closed ones."""
        with self.app.ledger.connection() as connection:
            still_open = sorted(
                alert_queries.open_alerts(connection), key=lambda alert: alert.acknowledged_at is not None
            )
            over = alert_queries.recently_closed(connection, limit=MAX_CLOSED_ALERTS)
        return {
            "open": [{"facts": alert, "address": _address(alert)} for alert in still_open],
            "over": over,
        }


def _address(alert: OpenAlert) -> str:
    if alert.cause is AlertCause.PARKED:
        return f"{CONSOLE_ROOT}/parked"
    if alert.cause in _ABOUT_EVENTS:
        return f"{CONSOLE_ROOT}/events/{quote(alert.event_id, safe='')}"
    if alert.cause in _ABOUT_SOURCES and alert.subject != OTHERS_SUBJECT:
        return f"{CONSOLE_ROOT}/sources/{quote(alert.subject, safe='')}"
    if alert.cause in _ABOUT_ENGINES | _ABOUT_SOURCES:
        return f"{CONSOLE_ROOT}/engines"
    if alert.cause is AlertCause.QUARANTINED:
        return f"{CONSOLE_ROOT}/handlers?{urlencode({'q': alert.subject})}"
    query = {"state": _STATES.get(alert.cause, alert.cause.value)}
    if alert.subject != OTHERS_SUBJECT:
        query["handler"] = alert.subject
    return f"{CONSOLE_ROOT}/events?{urlencode(query)}"
