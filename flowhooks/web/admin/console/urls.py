"""Addresses within the console: where somebody is, and where they came from; it must not lead anywhere else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlencode

from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    import falcon

ACTION_ROOT: Final = f"{CONSOLE_ROOT}/do"
"""Under which every action stands."""
_CONSOLE_URL: Final = re.compile(re.escape(CONSOLE_ROOT) + r"/[A-Za-z0-9._~%/:-]*(\?[A-Za-z0-9._~%/:?&=+-]*)?")
"""As `current_url` writes them: without a character that a browser might read in its own way."""


def query_of(request: falcon.Request, *without: str) -> dict[str, str]:
    """What the query of a request says, other than under the names in `without`."""
    return {
        name: value
        for name in request.params
        if name not in without and isinstance(value := request.get_param(name), str)
    }


def current_url(request: falcon.Request) -> str:
    """The address of the page that is asked for, whatever its language."""
    query = urlencode(query_of(request, "lang"), errors="replace")
    path = quote(request.path.encode("utf-8", "replace"))
    return f"{path}?{query}" if query else path


def back_url(request: falcon.Request, default: str = f"{CONSOLE_ROOT}/") -> str:
    """Where somebody goes back to: what the query says, if that is a page of the console that only shows.

    Args:
        request: what was asked.
        default: where to, if it is not.
    """
    url = request.get_param("back", default="") or ""
    if not _CONSOLE_URL.fullmatch(url):
        return default
    path = unquote(url.partition("?")[0])
    # A browser takes `..` for the folder above, and so would leave the console.
    steps = path.split("/")[2:]
    if any(step in {".", ".."} for step in steps) or "\\" in path or "//" in path or path.startswith(f"{ACTION_ROOT}/"):
        return default
    return url
