"""Send a test message through the plugins that receive alerts."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.background.alerts.notifier import NOTIFY_TIMEOUT, AlertNotification
from flowhooks.clock import to_datetime
from flowhooks.errors import NotFound
from flowhooks.model.alert import Alert, AlertCause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.clock import Clock
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import AlertRoute


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertTester:
    """Calls the hook `alert_raised` with a test message.

    Attributes:
        plugins: the plugins.
        routes: returns the routes of alerts, by name.
        clock: time and ids.
    """

    plugins: Plugins
    routes: Callable[[], Mapping[str, AlertRoute]]
    clock: Clock

    def send(self, route: str, sender: str) -> dict[str, str]:
        """Send a test message, and return the error of each plugin, on one line; `""` for one that accepted it.

        Args:
            route: the route whose plugins are tested; `""`: all plugins that receive alerts.
            sender: the operator who sends it; `""` if not known.

        Raises:
            NotFound: there is no such route.
        """
        names = self.plugins.alert_listeners
        if route:
            routes = self.routes()
            if route not in routes:
                known = (
                    f"; the routes are {', '.join(routes)}" if routes else "; the settings have no [alerts.routes.NAME]"
                )
                raise NotFound(f"there is no route {route!r}{known}")
            names = routes[route].notifiers
        alert = self._alert(route, sender)
        # They run at the same time, so that one that hangs does not delay the others.
        sent = [(name, AlertNotification(self.plugins, name, alert)) for name in names if self._listens(name)]
        errors = {name: "the plugin is not loaded, or receives no alerts" for name in names if not self._listens(name)}
        for name, notification in sent:
            errors[name] = (
                notification.error or ""
                if notification.wait()
                else f"the plugin did not return within {NOTIFY_TIMEOUT:g} seconds"
            )
        return errors

    def _listens(self, name: str) -> bool:
        return name in self.plugins.alert_listeners

    def _alert(self, route: str, sender: str) -> Alert:
        host, by = socket.gethostname(), f" by {sender}" if sender else ""
        now = to_datetime(self.clock.now())
        return Alert(
            id=self.clock.new_id(),
            cause=AlertCause.TEST,
            subject=f"route {route}" if route else "all plugins",
            message=f"This is a test message of flowhooks on {host}, sent{by} with `flowhooks alerts test`. Nothing is "
            "wrong.",
            started_at=now,
            count=0,
            host=host,
        )
