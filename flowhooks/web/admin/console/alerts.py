"""The page of open and recently closed alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flowhooks.background.alerts.console_page import subject_page, trend_page
from flowhooks.ledger import alert_queries, alert_resolutions
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.operators import operator_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

MAX_CLOSED_ALERTS: Final = 50


class AlertsPage(Page):
    """`GET /console/alerts`."""

    template = "alerts.html"
    place = "alerts"
    for_limited_roles = for_masked_roles = True

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the open alerts, those that nobody has acknowledged first, and the last closed ones."""
        with self.app.ledger.connection() as connection:
            still_open = sorted(
                alert_queries.open_alerts(connection), key=lambda alert: alert.acknowledged_at is not None
            )
            over = alert_queries.recently_closed(connection, limit=MAX_CLOSED_ALERTS)
            failed = alert_resolutions.failed_notifications(connection, still_open)
        access = operator_of(request).access
        still_open = [access.alert(alert) for alert in still_open if access.sees_alert(alert)]
        return {
            "open": [
                {
                    "facts": alert,
                    "address": subject_page(alert.cause, alert.subject, alert.event_id),
                    "handler_address": trend_page(alert.cause, alert.subject),
                }
                for alert in still_open
            ],
            "over": [(access.alert(alert), closed) for alert, closed in over if access.sees_alert(alert)],
            "failed": failed if access.is_full else (),
        }
