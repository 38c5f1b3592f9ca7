"""Check the origin of requests to the console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.settings import host_and_port, is_loopback
from flowhooks.web.browser_origin import host_of, is_loopback_name, is_same_origin

if TYPE_CHECKING:
    import falcon

    from flowhooks.app import App

CONSOLE_ROOT: Final = "/console"
"""Path prefix of all pages."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""


def is_page(path: str) -> bool:
    """Return whether a path belongs to the console."""
    return path in {"/", CONSOLE_ROOT} or path.startswith(f"{CONSOLE_ROOT}/")


class OriginCheck:
    """A check of the origin of requests, whichever operator sends them.

    If the settings name no operators, only this machine is admitted. Any web site whose name has been pointed at
    127.0.0.1 can make a browser on this machine request a page, and could then read it, because it has the same origin
    (DNS rebinding). The name of the site is in `Host`, which no page can forge. If operators are named, such a site
    gains nothing, because the browser does not send it the cookie of another name.

    Args:
        app: a started `App`, whose current settings are used.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def why_rejected(self, request: falcon.Request) -> str | None:
        """Return the key of the text that explains the rejection; None if the request is not rejected."""
        settings = self._app.settings
        host = host_of(request.env)
        here = is_loopback_name(host)
        if settings.requires_login:
            expected = settings.public_url.partition("://")[2]
            return "refused.name" if expected and host != expected and not here else None
        if not is_loopback(host_and_port(settings.admin)[0]):
            return "refused.bound"
        return None if here else "refused.host"

    def is_from_console(self, request: falcon.Request) -> bool:
        """Return whether a browser sent the request from a page of this console, and not from another site.

        A request without the headers that state it does not count as sent by a page.
        """
        return is_same_origin(request.env, self._origin(host_of(request.env))) is True

    def _origin(self, host: str) -> str:
        public = self._app.settings.public_url
        return public if public.partition("://")[2] == host else f"http://{host}"
