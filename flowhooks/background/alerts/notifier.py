"""Notify one listener of one alert, in a thread of its own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from flowhooks.model.alert import Alert
    from flowhooks.plugins.plugins import Plugins

NOTIFY_TIMEOUT: Final = 20.0
"""Seconds within which a listener must return: twice the default timeout of a step of flowhooks-notice."""
LATE_ERROR: Final = f"it has not returned within {NOTIFY_TIMEOUT:g} seconds, and gets no other alert until it returns"
"""The error of a listener that hangs, as operators see it."""

log = structlog.get_logger(__name__)


class AlertNotification:
    """Calls one plugin's hook `alert_raised` or `alert_resolved` in its own thread, which starts at once.

    A hook that hangs cannot be stopped, but it does not delay other listeners.

    Args:
        plugins: the plugins.
        name: name of the plugin to notify.
        alert: the alert; its hook is `alert_resolved` if it has the time `resolved_at`.

    Attributes:
        alert: the alert.
        error: why the listener did not accept the alert, on one line; None if it returned without an exception.
    """

    def __init__(self, plugins: Plugins, name: str, alert: Alert) -> None:
        self._name = name
        is_raised = alert.resolved_at is None
        self._hook = "alert_raised" if is_raised else "alert_resolved"
        self._call = plugins.alert_raised if is_raised else plugins.alert_resolved
        self._done = threading.Event()
        self._deadline = time.monotonic() + NOTIFY_TIMEOUT
        self.alert = alert
        self.error: str | None = None
        threading.Thread(target=self._run, name=f"alert-{name}", daemon=True).start()

    @property
    def is_done(self) -> bool:
        """Whether the listener has returned or raised."""
        return self._done.is_set()

    def wait(self) -> bool:
        """Wait until `NOTIFY_TIMEOUT` after the start; return whether the listener has finished, and log if not."""
        if self._done.wait(max(0.0, self._deadline - time.monotonic())):
            return True
        log.warning("hook_timeout", plugin=self._name, hook=self._hook, alert=self.alert.id, seconds=NOTIFY_TIMEOUT)
        return False

    def _run(self) -> None:
        try:
            self.error = self._call(self.alert, self._name)
        except BaseException as error:
            # BaseException, too: in this thread a KeyboardInterrupt comes from the plugin, not from the operator.
            self.error = type(error).__name__
            log.exception("hook_failed", plugin=self._name, hook=self._hook)
        finally:
            self._done.set()
