"""Notifies one listener of one alert, in a thread of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from flowhooks.model.alert import Alert
    from flowhooks.plugins.plugins import Plugins

NOTIFY_TIMEOUT: Final = 20.0
"""Seconds for which a look waits for one listener: twice the timeout of a step that flowhooks-notice has by default."""

log = structlog.get_logger(__name__)


class AlertNotification:
    """Begins at once. Nothing ends a listener that hangs, but nobody has to wait for it.

    Args:
        plugins: who listens.
        name: the plugin that is told.
        alert: of what.

    Attributes:
        alert: the alert.
        accepted: whether the listener has taken it, once it has come back.
    """

    def __init__(self, plugins: Plugins, name: str, alert: Alert) -> None:
        self._plugins = plugins
        self._name = name
        self._done = threading.Event()
        self.alert = alert
        self.accepted = False
        threading.Thread(target=self._run, name=f"alert-{name}", daemon=True).start()

    @property
    def is_done(self) -> bool:
        """Whether the listener has come back."""
        return self._done.is_set()

    def wait(self) -> bool:
        """Wait a while for the listener; whether it has come back. That it has not is logged."""
        if self._done.wait(NOTIFY_TIMEOUT):
            return True
        log.warning("hook_timeout", plugin=self._name, hook="alert_raised", alert=self.alert.id, seconds=NOTIFY_TIMEOUT)
        return False

    def _run(self) -> None:
        try:
            self.accepted = bool(self._plugins.alert_raised(self.alert, [self._name]))
        except BaseException:
            # Even an interrupt that a plugin raised: in this thread it is no operator's.
            log.exception("hook_failed", plugin=self._name, hook="alert_raised")
        finally:
            self._done.set()
