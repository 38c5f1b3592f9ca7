"""The administration listener: alive, ready, numbers, operations, console; it must not hold rules of its own."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import falcon
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from flowhooks import schema
from flowhooks.errors import IllegalMove, LedgerError, NotFound, SettingsError, Unauthorized
from flowhooks.operations import Actor
from flowhooks.operations.calls import perform
from flowhooks.web import api, console, errors

if TYPE_CHECKING:
    from flowhooks.app import App

LONGEST_NAME: Final = 100


class Health:
    """`GET /healthz`: the process answers."""

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Say so."""
        response.media = {"alive": True}

    on_head = on_get


class Readiness:
    """`GET /readyz`: 200 while call-backs can be taken and run, else 503 with the reasons."""

    def __init__(self, app: App) -> None:
        self._app = app

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Say whether, and why not."""
        trouble = self._app.trouble()
        response.status = falcon.HTTP_503 if trouble else falcon.HTTP_200
        response.media = {"ready": not trouble, "trouble": trouble}

    on_head = on_get


class Numbers:
    """`GET /metrics`: for Prometheus."""

    def __init__(self, app: App) -> None:
        self._app = app

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Give them."""
        response.data = self._app.metrics.text()
        response.content_type = CONTENT_TYPE_PLAIN_0_0_4

    on_head = on_get


class Operation:
    """`POST /api/operations/{name}`: what operators do, asked for by those who can read the lock file.

    The token keeps web pages out too: a browser that is made to post here does not know it.
    """

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._token = f"Bearer {token}".encode()

    def on_post(self, request: falcon.Request, response: falcon.Response, name: str) -> None:
        """Do it and answer what it did."""
        given = (request.get_header("Authorization") or "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, self._token):
            raise Unauthorized("unauthorized")
        arguments: dict[str, Any] = schema.parse(request.bounded_stream.read())
        try:
            by = _asking(arguments.pop("by", ""))
            response.media = perform(replace(self._app.desk, by=by), name, arguments)
        except (LedgerError, SettingsError) as error:
            status = 404 if isinstance(error, NotFound) else 409 if isinstance(error, IllegalMove) else 422
            errors.answer(request, response, status=status, message=str(error))
        else:
            self._app.runner.wake()


def _asking(name: Any) -> Actor:
    """Who asks: a command of this machine, which can read the lock file, says whose it is.

    Raises:
        SettingsError: that is no name.
    """
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable():
        raise SettingsError(f"by is the name of whoever asks: up to {LONGEST_NAME} characters that can be seen")
    return Actor(name or "somebody", "command")


def create_admin(app: App, token: str) -> falcon.App[Any, Any]:
    """The WSGI app of the administration listener.

    Args:
        app: a started `App`.
        token: what is asked of those who change something.
    """
    admin = falcon.App()
    errors.install(admin)
    admin.add_route("/healthz", Health())
    admin.add_route("/readyz", Readiness(app))
    admin.add_route("/metrics", Numbers(app))
    admin.add_route("/api/operations/{name}", Operation(app, token))
    api.install(admin, app)
    console.install(admin, app)
    return admin
