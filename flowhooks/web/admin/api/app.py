"""The read-only part of the administration API: the data of the console and the commands, as JSON.

Changes are made with `POST /api/operations/{name}`, which is in `flowhooks.web.admin.app`. `flowhooks.web.admin.auth`
has authenticated each request before.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from flowhooks.web import errors
from flowhooks.web.admin.api.export_resource import FILES
from flowhooks.web.admin.api.openapi import openapi
from flowhooks.web.admin.api.resources import RESOURCES

if TYPE_CHECKING:
    import falcon

    from flowhooks.app import App

__all__ = ["install"]

API_ROOT: Final = "/api/"


class AdminOpenApiResource:
    """`GET /openapi.json`: the document of the administration listener, generated at the first request."""

    for_limited_roles = for_masked_roles = True

    def __init__(self, app: App) -> None:
        self._app = app

    @cached_property
    def _text(self) -> bytes:
        return json.dumps(openapi(self._app.schemas), ensure_ascii=False).encode()

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Return the document."""
        response.data = self._text
        response.set_headers(errors.HEADERS)

    on_head = on_get


def install(admin: falcon.App[Any, Any], app: App) -> None:
    """Add the API to an administration listener.

    Args:
        admin: its WSGI app.
        app: a started `App`.
    """
    for resource in RESOURCES:
        # The server has decoded %2F.
        path = resource.path.replace("{id}", "{id:path}") if resource.id_has_slashes else resource.path
        admin.add_route(path, resource(app))
    for file in FILES:
        resource_of_file = file(app)
        admin.add_route(file.path, resource_of_file)
        admin.add_route(file.console_path, resource_of_file)
    admin.add_route("/openapi.json", AdminOpenApiResource(app))
    admin.add_sink(_not_found, API_ROOT)


def _not_found(req: falcon.Request, resp: falcon.Response, **_path: str) -> None:  # noqa: ARG001 (Falcon's names)
    raise errors.LocalizedHTTPError(404, "no_such_path")
