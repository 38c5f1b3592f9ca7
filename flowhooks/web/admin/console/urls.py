"""Build console URLs, and reject redirects to other sites."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlencode

from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    import falcon

ACTION_ROOT: Final = f"{CONSOLE_ROOT}/do"
"""Path prefix of all actions."""
OPERATIONS_ROOT: Final = f"{CONSOLE_ROOT}/operations"
"""Path of the list of operations, and path prefix of each."""
EXPORT_PATH: Final = f"{CONSOLE_ROOT}/events/export"
"""Path of the file with the events of a search. A proxy may pass on the console only, and not the API."""
_CONSOLE_URL: Final = re.compile(re.escape(CONSOLE_ROOT) + r"/[A-Za-z0-9._~%/:-]*(\?[A-Za-z0-9._~%/:?&=+-]*)?")
"""The form in which `current_url` writes URLs: without characters that browsers may interpret differently."""


def query_of(request: falcon.Request, *without: str) -> dict[str, list[str]]:
    """Return the query parameters of a request except those in `without`, each with all its values."""
    return {name: request.get_param_as_list(name) or [] for name in request.params if name not in without}


def current_url(request: falcon.Request) -> str:
    """Return the URL of the requested page without its language."""
    query = urlencode(query_of(request, "lang"), doseq=True, errors="replace")
    path = quote(request.path.encode("utf-8", "replace"))
    return f"{path}?{query}" if query else path


def back_url(request: falcon.Request, default: str = f"{CONSOLE_ROOT}/") -> str:
    """Return the page to go back to: the one in the query, if it is a page of the console and not an action.

    Args:
        request: the request.
        default: the URL to return otherwise.
    """
    url = request.get_param("back", default="") or ""
    if not _CONSOLE_URL.fullmatch(url):
        return default
    path = unquote(url.partition("?")[0])
    # A browser resolves `..` to the parent folder, and so could leave the console.
    steps = path.split("/")[2:]
    if any(step in {".", ".."} for step in steps) or "\\" in path or "//" in path or path.startswith(f"{ACTION_ROOT}/"):
        return default
    return url
