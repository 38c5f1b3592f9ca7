"""Record requests that the server rejects before it calls the callback app, such as those that arrive too slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks import messages

if TYPE_CHECKING:
    from flowhooks.app import App
    from flowhooks.web.server.channel import Rejection

CALLBACK_PREFIXES: Final = ("/flow/", "/in/")


class EarlyRejectionLog:
    """Counts early rejections, logs them, and records those of callbacks for operators. May be used from any thread.

    Args:
        app: a started `App`.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def record(self, rejection: Rejection) -> None:
        """Record a rejected request."""
        error, status = rejection.error, rejection.error.status_code
        self._app.metrics.refused(status)
        reasons = {language: messages.text(error.key, language, **error.params) for language in ("en", "zh")}
        self._app.rejected_requests.record(
            path=rejection.path,
            address=rejection.address,
            status=status,
            english=reasons["en"],
            chinese=reasons["zh"],
            user_agent=rejection.user_agent,
            method=rejection.method,
            is_callback=is_callback(rejection.path),
        )


def is_callback(path: str) -> bool:
    """Return whether a path is meant for callbacks: also a fixed URL, and a path with several slashes at its start."""
    return path.startswith("/") and f"/{path.lstrip('/')}".startswith(CALLBACK_PREFIXES)
