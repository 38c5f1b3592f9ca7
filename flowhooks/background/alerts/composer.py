"""Make the alert that listeners receive of the alert that the ledger stores."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.background.alerts.console_page import handler_page
from flowhooks.clock import to_datetime, to_text
from flowhooks.model.alert import Alert

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.ledger.alert_queries import OpenAlert
    from flowhooks.ledger.alert_resolutions import DueResolution
    from flowhooks.plugins.plugins import Plugins


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertComposer:
    """Makes alerts for listeners.

    Attributes:
        plugins: the plugins, with their versions.
        public_url: returns the origin of the console; `""` if it is not set.
    """

    plugins: Plugins
    public_url: Callable[[], str]

    def raised(self, alert: OpenAlert) -> Alert:
        """Return an open alert, in the form in which a listener is notified of it."""
        # The count may have fallen since the alert has grown.
        new = max(0, alert.count - alert.grown_from) if alert.notifications > 1 else 0
        message = f"{alert.message} {new:,} of them are new since the last notification." if new else alert.message
        return self._compose(alert, message, new_count=new)

    def resolved(self, resolution: DueResolution) -> Alert:
        """Return a closed alert, in the form in which a listener is notified of its end."""
        alert = resolution.alert
        message = (
            f"Resolved: the cause {alert.cause} of {alert.subject} has ended. It lasted from "
            f"{to_text(alert.started_at)} to {to_text(resolution.closed_at)}, and the last count was {alert.count:,}."
        )
        return self._compose(alert, message, closed_at=resolution.closed_at)

    def _compose(self, alert: OpenAlert, message: str, *, new_count: int = 0, closed_at: int | None = None) -> Alert:
        return Alert(
            id=alert.id,
            cause=alert.cause,
            subject=alert.subject,
            message=message,
            started_at=to_datetime(alert.started_at),
            count=alert.count,
            event_id=alert.event_id,
            notification=alert.notifications,
            new_count=new_count,
            last_at=to_datetime(alert.last_at),
            last_error=alert.last_error,
            host=socket.gethostname(),
            plugin_version=self._plugin_version(alert.subject),
            console_url=f"{self.public_url()}{handler_page(alert.cause, alert.subject, alert.event_id)}",
            resolved_at=None if closed_at is None else to_datetime(closed_at),
        )

    def _plugin_version(self, subject: str) -> str:
        handler = self.plugins.handlers.get(subject)
        name = subject if handler is None else handler.plugin
        return next((info.version for info in self.plugins.infos if info.name == name), "")
