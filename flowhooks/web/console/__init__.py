"""The operators' console: pages on the administration listener; it must not hold rules or SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon

from flowhooks.settings import host_and_port
from flowhooks.web.console.acting import ActionPage
from flowhooks.web.console.addresses import DO
from flowhooks.web.console.alerts import AlertsPage
from flowhooks.web.console.audit import AuditPage
from flowhooks.web.console.event import BodyFile, EventPage
from flowhooks.web.console.events import EventsPage
from flowhooks.web.console.guard import ROOT, Guard, is_page
from flowhooks.web.console.handlers import HandlersPage
from flowhooks.web.console.overview import LivePart, OverviewPage
from flowhooks.web.console.page import Desk, NoPage, chosen_language
from flowhooks.web.console.parked import ParkedPage
from flowhooks.web.console.refused import RefusedPage
from flowhooks.web.console.rendering import Templates
from flowhooks.web.console.statics import Statics
from flowhooks.web.operators import LOCAL

if TYPE_CHECKING:
    from flowhooks.app import App

__all__ = ["Doorkeeper", "install"]


class Doorkeeper:
    """Falcon middleware: no page, nor any part of one, for whom the guard does not let in.

    Args:
        app: a started `App`.
        desk: what pages are made of.
    """

    def __init__(self, app: App, desk: Desk) -> None:
        self._guard = Guard(host_and_port(app.settings.admin)[0])
        self._page = NoPage(desk)

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        """Answer with 403 and what to do, in place of the page."""
        if is_page(request.path) and (key := self._guard.refusal(request)) is not None:
            language = chosen_language(request, response)
            self._page.problem(request, response, status=403, key=key, language=language)
            response.complete = True
            return
        request.context.operator = LOCAL


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


def install(admin: falcon.App[Any, Any], app: App) -> None:
    """Have an administration listener serve the console.

    Args:
        admin: its WSGI app.
        app: a started `App`.
    """
    desk = Desk(app=app, templates=Templates())
    admin.add_middleware(Doorkeeper(app, desk))
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
    admin.add_route(f"{ROOT}/static/{{name}}", Statics())
    admin.add_sink(_Nothing(desk), f"{ROOT}/")
