"""The WSGI app of the administration listener: health, readiness, metrics, operations, the API and the console.

`auth.AuthMiddleware` has authenticated each request before a resource is called.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import falcon
import structlog
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from flowhooks import schema
from flowhooks.errors import (
    Forbidden,
    InvalidTransition,
    LedgerError,
    LedgerUnusable,
    NewerSelectorsError,
    NotFound,
    SettingsError,
    Unavailable,
)
from flowhooks.operations.context import Actor
from flowhooks.operations.registry import OPERATIONS
from flowhooks.web import errors
from flowhooks.web.admin.api import app as api
from flowhooks.web.admin.api.operation_resources import OperationNameMiddleware
from flowhooks.web.admin.auth import AuthMiddleware
from flowhooks.web.admin.console import app as console
from flowhooks.web.admin.console.login import LoginPage
from flowhooks.web.admin.console.page import PageContext
from flowhooks.web.admin.console.rendering import Templates
from flowhooks.web.admin.operators import Operators, operator_of, run_for_request
from flowhooks.web.admin.sessions import Sessions

if TYPE_CHECKING:
    from flowhooks.app import App
    from flowhooks.web.admin.operators import Operator

MAX_NAME_CHARS: Final = 100

_log = structlog.get_logger(__name__)


class HealthResource:
    """`GET /healthz`: 200 as long as the process answers."""

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Answer 200."""
        response.media = {"alive": True}

    on_head = on_get


class ReadinessResource:
    """`GET /readyz`: 200 while callbacks can be accepted and run, otherwise 503 with the reasons."""

    def __init__(self, app: App) -> None:
        self._app = app

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Answer whether the process is ready, with the reasons if it is not."""
        problems = self._app.readiness_problems()
        response.status = falcon.HTTP_503 if problems else falcon.HTTP_200
        response.media = {"ready": not problems, "trouble": problems}
        if self._app.ledger.guard is not None and self._app.ledger.guard.unchecked:
            response.media["checking"] = "the database file is being checked for damage"

    on_head = on_get


class MetricsResource:
    """`GET /metrics`: the metrics for Prometheus."""

    for_masked_roles = True

    def __init__(self, app: App) -> None:
        self._app = app

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Answer with the metrics."""
        response.data = self._app.metrics.text()
        response.content_type = CONTENT_TYPE_PLAIN_0_0_4

    on_head = on_get


class RunOperationResource:
    """`POST /api/operations/{name}`: runs an operation for an operator's program or for a command on this machine.

    Commands read their token from the lock file, and state their user. An operator's token identifies the operator. The
    token also keeps web pages out: a page that makes a browser post here does not know it.
    """

    for_limited_roles = for_masked_roles = True

    def __init__(self, app: App, name: str) -> None:
        self._app = app
        self._name = name

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """Run the operation and answer with its result."""
        operator = operator_of(request)
        if not operator.may_operate:
            raise Forbidden("operator_role")
        arguments: dict[str, Any] = schema.parse(request.bounded_stream.read())
        try:
            by = _actor(request, operator, arguments)
            context = replace(self._app.operation_context, by=by, access=operator.access)
            result = run_for_request(request, context, self._name, arguments)
        except LedgerUnusable as error:
            _log.warning("api_request_failed", path=errors.raw_path(request.env), why=str(error))
            raise Unavailable("ledger_unread") from None
        except (LedgerError, SettingsError) as error:
            # A command shows the text of the error, which names the handlers.
            if isinstance(error, NewerSelectorsError) and not request.context.by_command:
                raise Unavailable("newer_handlers") from None
            status = 404 if isinstance(error, NotFound) else 409 if isinstance(error, InvalidTransition) else 422
            errors.respond(request, response, status=status, message=str(error))
        else:
            response.data = errors.encode(result)
            response.set_headers(errors.HEADERS)
            self._app.runner.wake()


def _actor(request: falcon.Request, operator: Operator, arguments: dict[str, Any]) -> Actor:
    """Return the operator of a request, or the user that a local command reports.

    Raises:
        SettingsError: the name is invalid, or this caller may not state one.
    """
    if not request.context.by_command:
        if "by" in arguments:
            raise SettingsError("leave out by: only commands on this machine send it, and your token identifies you")
        return Actor(operator.name, "api")
    name = arguments.pop("by", "")
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise SettingsError(f"by must be the name of the operator: at most {MAX_NAME_CHARS} printable characters")
    return Actor(name or "somebody", "cli")


def create_admin(app: App, token: str) -> falcon.App[Any, Any]:
    """Return the WSGI app of the administration listener.

    Args:
        app: a started `App`.
        token: the token that commands on this machine read from the lock file.

    Raises:
        SettingsError: an operator's credential cannot be used.
    """
    context = PageContext(app=app, templates=Templates())
    operators = Operators(app)
    sessions = Sessions(app, operators)
    login = LoginPage(context, operators, sessions)
    admin = falcon.App()
    errors.install(admin)
    # Before the first route: no path can be opened without authentication.
    admin.add_middleware(AuthMiddleware(app, context, token=token, operators=operators, sessions=sessions, login=login))
    admin.add_middleware(OperationNameMiddleware())
    admin.add_route("/healthz", HealthResource())
    admin.add_route("/readyz", ReadinessResource(app))
    admin.add_route("/metrics", MetricsResource(app))
    for name in OPERATIONS:  # Falcon prefers these paths to `/api/operations/{id}`
        admin.add_route(f"/api/operations/{name}", RunOperationResource(app, name))
    admin.add_sink(_not_found, "/")
    api.install(admin, app)
    console.install(admin, context, sessions=sessions, login=login)
    return admin


def _not_found(req: falcon.Request, resp: falcon.Response, **_path: str) -> None:  # noqa: ARG001 (Falcon's names)
    raise errors.LocalizedHTTPError(404, "no_such_admin_path")
