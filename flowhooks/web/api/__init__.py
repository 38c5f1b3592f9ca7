"""The administration API: what console and commands show, as JSON; it must not hold rules or SQL, or change anything.

What changes something is asked for with `POST /api/operations/{name}`, which `flowhooks.web.admin` takes.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from flowhooks.settings import host_and_port
from flowhooks.web import errors
from flowhooks.web.api.openapi import openapi
from flowhooks.web.api.resources import RESOURCES
from flowhooks.web.console.guard import Guard

if TYPE_CHECKING:
    import falcon

    from flowhooks.app import App

__all__ = ["install"]

ROOT: Final = "/api/"
OPERATIONS: Final = "/api/operations/"
"""Under which operations are asked for, by whoever has the token: those who have it are let in from anywhere."""
_REFUSED: Final = {"refused.bound": "api_bound", "refused.host": "api_host"}


class Gate:
    """Falcon middleware: nothing is read by those whom the console would not show a page.

    Args:
        listens_on: the host on which the administration listener was asked to listen.
    """

    def __init__(self, listens_on: str) -> None:
        self._guard = Guard(listens_on)

    def process_request(self, request: falcon.Request, _response: falcon.Response) -> None:
        """Answer with 403, and say what to do.

        Raises:
            HTTPRefusal: whoever asks is not let in.
        """
        if not request.path.startswith(ROOT) or request.path.startswith(OPERATIONS):
            return
        if (key := self._guard.refusal(request)) is not None:
            raise errors.HTTPRefusal(403, _REFUSED[key])


class OpenApi:
    """`GET /openapi.json`: everything that can be asked of the administration listener, made when somebody asks."""

    def __init__(self, app: App) -> None:
        self._app = app

    @cached_property
    def _text(self) -> bytes:
        return json.dumps(openapi(self._app.schemas), ensure_ascii=False).encode()

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Give it."""
        response.data = self._text
        response.content_type = "application/json; charset=utf-8"

    on_head = on_get


def install(admin: falcon.App[Any, Any], app: App) -> None:
    """Have an administration listener serve the API.

    Args:
        admin: its WSGI app.
        app: a started `App`.
    """
    admin.add_middleware(Gate(host_and_port(app.settings.admin)[0]))
    for resource in RESOURCES:
        admin.add_route(resource.path, resource(app))
    admin.add_route("/openapi.json", OpenApi(app))
    admin.add_sink(_nothing, ROOT)


def _nothing(req: falcon.Request, resp: falcon.Response, **_path: str) -> None:  # noqa: ARG001 (Falcon's names)
    raise errors.HTTPRefusal(404, "no_such_path")
