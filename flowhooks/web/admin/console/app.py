"""The operators' console: HTML pages on the administration listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon

from flowhooks.web.admin.console.action_page import ActionPage
from flowhooks.web.admin.console.alerts import AlertsPage
from flowhooks.web.admin.console.audit import AuditPage
from flowhooks.web.admin.console.engines import EnginesPage
from flowhooks.web.admin.console.errors import ErrorPage, ErrorsPage
from flowhooks.web.admin.console.event import BodyFile, EventPage
from flowhooks.web.admin.console.events import EventsPage
from flowhooks.web.admin.console.handlers import HandlerPage, HandlersPage
from flowhooks.web.admin.console.login import LOGIN_PATH, LOGOUT_PATH, LoginPage, LogoutPage
from flowhooks.web.admin.console.operations import OperationLive, OperationPage, OperationsPage, OperationStep
from flowhooks.web.admin.console.overview import LivePart, OverviewPage
from flowhooks.web.admin.console.page import NotFoundPage, PageContext
from flowhooks.web.admin.console.parked import ParkedPage
from flowhooks.web.admin.console.rejected_requests import RejectedRequestsPage
from flowhooks.web.admin.console.sources import SourcePage, SourcesPage
from flowhooks.web.admin.console.static_files import StaticFilesResource
from flowhooks.web.admin.console.storage import StoragePage
from flowhooks.web.admin.console.urls import ACTION_ROOT, OPERATIONS_ROOT
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from flowhooks.web.admin.sessions import Sessions


class RootRedirect:
    """`GET /`: redirects to the console, for browsers that open the listener's address."""

    for_limited_roles = for_masked_roles = True

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Redirect to the console."""
        response.status = falcon.HTTP_302
        response.location = f"{CONSOLE_ROOT}/"
        response.set_header("Cache-Control", "no-store")

    on_head = on_get


class _NotFoundSink(NotFoundPage):
    """An adapter from `NotFoundPage` to a Falcon sink."""

    def __call__(self, req: falcon.Request, resp: falcon.Response, **_path: str) -> None:
        """Answer with the page for an unknown path."""
        self.on_get(req, resp)


def install(admin: falcon.App[Any, Any], context: PageContext, *, sessions: Sessions, login: LoginPage) -> None:
    """Add the console to an administration listener.

    Args:
        admin: its WSGI app, which authenticates each request.
        context: shared objects of all pages.
        sessions: the sessions of operators.
        login: the login page.
    """
    admin.add_route("/", RootRedirect())
    admin.add_route(CONSOLE_ROOT, RootRedirect())
    admin.add_route(f"{CONSOLE_ROOT}/", OverviewPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/live", LivePart(context))
    admin.add_route(f"{CONSOLE_ROOT}/events", EventsPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/events/{{event_id}}", EventPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/events/{{event_id}}/body", BodyFile(context))
    admin.add_route(f"{CONSOLE_ROOT}/errors", ErrorsPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/errors/{{error_id}}", ErrorPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/handlers", HandlersPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/handlers/{{handler_id}}", HandlerPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/parked", ParkedPage(context))
    admin.add_route(OPERATIONS_ROOT, OperationsPage(context))
    admin.add_route(f"{OPERATIONS_ROOT}/{{operation_id}}", OperationPage(context))
    admin.add_route(f"{OPERATIONS_ROOT}/{{operation_id}}/live", OperationLive(context))
    admin.add_route(f"{OPERATIONS_ROOT}/{{operation_id}}/{{step}}", OperationStep(context))
    admin.add_route(f"{CONSOLE_ROOT}/sources", SourcesPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/sources/{{name}}", SourcePage(context))
    admin.add_route(f"{CONSOLE_ROOT}/engines", EnginesPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/rejected-requests", RejectedRequestsPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/alerts", AlertsPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/audit", AuditPage(context))
    admin.add_route(f"{CONSOLE_ROOT}/storage", StoragePage(context))
    admin.add_route(f"{ACTION_ROOT}/{{name}}", ActionPage(context))
    admin.add_route(LOGIN_PATH, login)
    admin.add_route(LOGOUT_PATH, LogoutPage(context, sessions))
    admin.add_route(f"{CONSOLE_ROOT}/static/{{name}}", StaticFilesResource())
    admin.add_sink(_NotFoundSink(context), f"{CONSOLE_ROOT}/")
