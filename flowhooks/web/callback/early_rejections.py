"""Record requests that the server rejects before it calls the callback app, such as those that arrive too slowly."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks import messages
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.app import App
    from flowhooks.web.server.channel import Rejection

CALLBACK_PREFIX: Final = "/flow/"
LOG_INTERVAL: Final = 60.0
"""Minimum number of seconds between two log records of one status, so that a flood does not fill the log."""
MAX_PATH_CHARS: Final = 200

_log = structlog.get_logger(__name__)


class EarlyRejectionLog:
    """Counts early rejections, logs them, and records those of callbacks for operators. May be used from any thread.

    Args:
        app: a started `App`.
        monotonic: returns the time in seconds.
    """

    def __init__(self, app: App, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._unlogged: dict[int, int] = {}
        self._logged_at: dict[int, float] = {}

    def record(self, rejection: Rejection) -> None:
        """Record a rejected request."""
        error, status = rejection.error, rejection.error.status_code
        self._app.metrics.refused(status)
        reasons = {language: messages.text(error.key, language, **error.params) for language in ("en", "zh")}
        if is_callback(rejection.path):
            self._app.rejected_requests.record(
                path=rejection.path,
                address=rejection.address,
                status=status,
                english=reasons["en"],
                chinese=reasons["zh"],
            )
        if count := self._take_count(status):
            _log.warning(
                "requests_rejected",
                status=status,
                count=count,
                method=rejection.method,
                path=escape_control(rejection.path, MAX_PATH_CHARS),
                address=rejection.address,
                why=reasons["en"],
            )

    def _take_count(self, status: int) -> int:
        """Return the number of rejections with a status since the last log record; 0 if it is too early for another."""
        with self._lock:
            now, count = self._monotonic(), self._unlogged.get(status, 0) + 1
            is_due = status not in self._logged_at or now - self._logged_at[status] >= LOG_INTERVAL
            self._unlogged[status] = 0 if is_due else count
            if is_due:
                self._logged_at[status] = now
            return count if is_due else 0


def is_callback(path: str) -> bool:
    """Return whether a path is meant to be that of a callback, even with more than one slash at its start."""
    return path.startswith("/") and f"/{path.lstrip('/')}".startswith(CALLBACK_PREFIX)
