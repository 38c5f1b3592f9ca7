"""The WSGI app of the callback listener, for `flowhooks serve` or any other WSGI server.

It only translates between HTTP and `intake`, which has the rules.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import falcon

from flowhooks.web import errors
from flowhooks.web.callback.authentication import Authenticator
from flowhooks.web.callback.credentials import CredentialStore
from flowhooks.web.callback.early_rejections import is_callback
from flowhooks.web.callback.ingress import IngressResource
from flowhooks.web.callback.middleware import CallbackMiddleware
from flowhooks.web.callback.openapi import openapi
from flowhooks.web.callback.receivers import ReceiverCalls
from flowhooks.web.callback.resource import CallbackResource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flowhooks.app import App

__all__ = ["create_app"]

_UNKNOWN_KIND: Final = re.compile(r"/flow/[^/]+/call-back/[^/]+$")
"""Paths of callbacks; those of the kinds that exist have routes, which come first."""


class CallbackOpenApiResource:
    """`GET /openapi.json`: the callback contract, generated from the schema files in force."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._text = json.dumps(document, ensure_ascii=False).encode()

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Return the document."""
        response.data = self._text
        response.content_type = "application/json; charset=utf-8"

    on_head = on_get


class _UnknownKind:
    """A sink for callbacks of other kinds: 404 with the kinds that exist. They are no secret."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self._kinds = ", ".join(kinds)

    def __call__(self, req: falcon.Request, resp: falcon.Response, **_path: str) -> None:  # noqa: ARG002 (names of Falcon)
        """Answer 404."""
        raise errors.LocalizedHTTPError(404, "unknown_kind", kinds=self._kinds)


def create_app(app: App) -> falcon.App[Any, Any]:
    """Return the WSGI app that engines call.

    Args:
        app: a started `App`.

    Returns:
        A Falcon app, for `flowhooks serve` or any other WSGI server. Run it in one process.

    Raises:
        SettingsError: a token or a secret of a source cannot be read.
    """
    web: falcon.App[Any, Any] = falcon.App(middleware=[CallbackMiddleware(app.metrics, app.trends)])
    record_rejected = _error_log(app)
    errors.install(web, record_rejected)
    credentials = CredentialStore(app.settings, app.environ)
    app.on_reload(credentials.reload)
    authenticator = Authenticator(credentials, app.clock)
    for kind in app.schemas.kinds:
        resource = CallbackResource(kind=kind, schemas=app.schemas, authenticator=authenticator, intake=app.intake)
        web.add_route(f"/flow/{{flow_instance_id}}/call-back/{kind}", resource)
    ingress = IngressResource(
        schemas=app.schemas,
        authenticator=authenticator,
        intake=app.intake,
        receivers=ReceiverCalls(app.receivers, redact=app.plugins.redact),
        clock=app.clock,
        record_rejected=record_rejected,
    )
    web.add_route("/in/{source}", ingress)
    app.metrics.expect(app.schemas.kinds)
    web.add_sink(_UnknownKind(app.schemas.kinds), _UNKNOWN_KIND)
    web.add_route("/openapi.json", CallbackOpenApiResource(openapi(app.schemas)))
    return web


def _error_log(app: App) -> errors.ErrorLog:
    def noted(request: falcon.Request, status: int, text: Callable[[str], str], event_id: str) -> None:
        if is_callback(path := errors.raw_path(request.env)):
            address = request.env.get("REMOTE_ADDR") or ""
            app.rejected_requests.record(
                path=path,
                address=address,
                status=status,
                english=text("en"),
                chinese=text("zh"),
                source=getattr(request.context, "source", ""),
                user_agent=request.env.get("HTTP_USER_AGENT") or "",
                event_id=event_id,
                method=request.method,
            )

    return noted
