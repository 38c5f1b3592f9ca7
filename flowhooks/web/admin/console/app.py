"""The operators' console: pages on the administration listener; it must not hold rules or SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon

from flowhooks.web.admin.auth import Doorkeeper
from flowhooks.web.admin.console.action_page import ActionPage
from flowhooks.web.admin.console.alerts import AlertsPage
from flowhooks.web.admin.console.audit import AuditPage
from flowhooks.web.admin.console.event import BodyFile, EventPage
from flowhooks.web.admin.console.events import EventsPage
from flowhooks.web.admin.console.handlers import HandlersPage
from flowhooks.web.admin.console.login import LOG_IN, LOG_OUT, LoginPage, Logout
from flowhooks.web.admin.console.overview import LivePart, OverviewPage
from flowhooks.web.admin.console.page import Desk, NoPage
from flowhooks.web.admin.console.parked import ParkedPage
from flowhooks.web.admin.console.rejected_requests import RefusedPage
from flowhooks.web.admin.console.rendering import Templates
from flowhooks.web.admin.console.static_files import Statics
from flowhooks.web.admin.console.urls import DO
from flowhooks.web.admin.operators import Operators
from flowhooks.web.admin.origin_check import ROOT
from flowhooks.web.admin.sessions import Sessions

if TYPE_CHECKING:
    from flowhooks.app import App

__all__ = ["Doorkeeper", "install"]


class Front:
    """`GET /`: the console, for whoever opens the listener's address in a browser."""

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Go there."""
        response.status = falcon.HTTP_302
        response.location = f"{ROOT}/"
        response.set_header("Cache-Control", "no-store")

    on_head = on_get


class _Nothing(NoPage):
    """`NoPage` as Falcon calls what is asked for when no route fits."""

    def __call__(self, req: falcon.Request, resp: falcon.Response, **_path: str) -> None:
        """Say that there is no such page."""
        self.on_get(req, resp)


def install(admin: falcon.App[Any, Any], app: App, token: str) -> None:
    """Have an administration listener serve the console, and let nobody in, to whatever it has, who may not be.

    Args:
        admin: its WSGI app.
        app: a started `App`.
        token: what commands of this machine send.

    Raises:
        SettingsError: an operator's credential cannot be used.
    """
    desk = Desk(app=app, templates=Templates())
    operators = Operators(app)
    sessions = Sessions(app, operators)
    login = LoginPage(desk, operators, sessions)
    admin.add_middleware(Doorkeeper(app, desk, token=token, operators=operators, sessions=sessions, login=login))
    admin.add_route("/", Front())
    admin.add_route(ROOT, Front())
    admin.add_route(f"{ROOT}/", OverviewPage(desk))
    admin.add_route(f"{ROOT}/live", LivePart(desk))
    admin.add_route(f"{ROOT}/events", EventsPage(desk))
    admin.add_route(f"{ROOT}/events/{{event_id}}", EventPage(desk))
    admin.add_route(f"{ROOT}/events/{{event_id}}/body", BodyFile(desk))
    admin.add_route(f"{ROOT}/handlers", HandlersPage(desk))
    admin.add_route(f"{ROOT}/parked", ParkedPage(desk))
    admin.add_route(f"{ROOT}/refused", RefusedPage(desk))
    admin.add_route(f"{ROOT}/alerts", AlertsPage(desk))
    admin.add_route(f"{ROOT}/audit", AuditPage(desk))
    admin.add_route(f"{DO}/{{name}}", ActionPage(desk))
    admin.add_route(LOG_IN, login)
    admin.add_route(LOG_OUT, Logout(desk, sessions))
    admin.add_route(f"{ROOT}/static/{{name}}", Statics())
    admin.add_sink(_Nothing(desk), f"{ROOT}/")
