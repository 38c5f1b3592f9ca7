"""Which requests may reach the console by where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.settings import host_and_port, is_loopback
from flowhooks.web.request_origin import host_of, is_loopback_name, is_same_origin

if TYPE_CHECKING:
    import falcon

    from flowhooks.app import App

CONSOLE_ROOT: Final = "/console"
"""Under which every page lies."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""


def is_page(path: str) -> bool:
    """Whether a path is one of the console's."""
    return path in {"/", CONSOLE_ROOT} or path.startswith(f"{CONSOLE_ROOT}/")


class OriginCheck:
    """Says why a request is not let through, whoever sends it.

    Where no operator is named in the settings, only this machine is let in. A browser on it can be made to ask for a
    page by any web site whose name has been pointed at 127.0.0.1, and that site could then read it: it is of the same
    origin. Its name is in `Host`, which no page can forge. Where operators are named, such a site gains nothing, for
    the browser sends it no cookie of another name.

    Args:
        app: a started `App`, whose settings count as they are just now.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def why_rejected(self, request: falcon.Request) -> str | None:
        """The text that says why not, by its key; None where nothing speaks against it."""
        settings = self._app.settings
        host = host_of(request.env)
        here = is_loopback_name(host)
        if settings.operators:
            expected = settings.public_url.partition("://")[2]
            return "refused.name" if expected and host != expected and not here else None
        if not is_loopback(host_and_port(settings.admin)[0]):
            return "refused.bound"
        return None if here else "refused.host"

    def is_from_console(self, request: falcon.Request) -> bool:
        """Whether a request that would change something comes from one of our own pages, and from no other site's.

        A request that says neither is no page's.
        """
        return is_same_origin(request.env, self._origin(host_of(request.env))) is True

    def _origin(self, host: str) -> str:
        public = self._app.settings.public_url
        return public if public.partition("://")[2] == host else f"http://{host}"
