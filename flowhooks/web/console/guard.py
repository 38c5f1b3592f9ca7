"""Who may see the console: only this machine, until there is a log-in; it must not know what a page shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.settings import is_loopback

if TYPE_CHECKING:
    import falcon

ROOT: Final = "/console"
"""Under which every page lies."""


def is_page(path: str) -> bool:
    """Whether a path is one of the console's."""
    return path in {"/", ROOT} or path.startswith(f"{ROOT}/")


class Guard:
    """Says why a request is not shown a page.

    A browser on this machine can be made to ask for a page by any web site whose name has been pointed at 127.0.0.1,
    and that site could then read it: it is of the same origin. Its name is in `Host`, which no page can forge.

    Args:
        listens_on: the host on which the administration listener was asked to listen.
    """

    def __init__(self, listens_on: str) -> None:
        self._loopback = is_loopback(listens_on)

    def refusal(self, request: falcon.Request) -> str | None:
        """The text that says why not, by its key; None where nothing speaks against it."""
        if not self._loopback:
            return "refused.bound"
        return None if is_loopback(_host(request)) else "refused.host"


def _host(request: falcon.Request) -> str:
    given = (request.get_header("Host") or "").strip().lower()
    if given.startswith("["):
        return given[1:].partition("]")[0]
    return given.partition(":")[0]
