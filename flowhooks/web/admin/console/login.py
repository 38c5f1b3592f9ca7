"""Logging in and out; it must not know what a log-in opens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

import falcon
import structlog

from flowhooks.errors import LedgerUnusable, Unavailable
from flowhooks.web.admin.console.forms import fields
from flowhooks.web.admin.console.page import Page, chosen_language, common, put
from flowhooks.web.admin.login_throttle import Attempts
from flowhooks.web.admin.origin_check import ROOT, SAFE
from flowhooks.web.admin.passwords import Busy

if TYPE_CHECKING:
    from flowhooks.web.admin.console.page import Desk
    from flowhooks.web.admin.operators import Operator, Operators
    from flowhooks.web.admin.sessions import Sessions

LOG_IN: Final = f"{ROOT}/login"
LOG_OUT: Final = f"{ROOT}/logout"
LONGEST_NAME: Final = 100
LONGEST_NEXT: Final = 2_000
"""Characters of the address to which somebody goes on who has logged in."""

_log = structlog.get_logger(__name__)


class LoginPage(Page):
    """`/console/login`; and, for whoever is not logged in, every other page.

    Args:
        desk: what pages are made of.
        operators: who may come in.
        sessions: who has.
    """

    template = "login.html"

    def __init__(self, desk: Desk, operators: Operators, sessions: Sessions) -> None:
        super().__init__(desk)
        self._operators = operators
        self._sessions = sessions
        self._attempts = Attempts(self.app.clock)

    def on_get(self, request: falcon.Request, response: falcon.Response, **_path: str) -> None:
        """The form; for who is in already, or where nobody needs to log in, the console."""
        language = chosen_language(request, response)
        try:
            inside = not self._operators or self._sessions.operator(request) is not None
        except LedgerUnusable:
            inside = False
        if inside:
            _go(response, _safe(request.get_param("next", default="") or ""))
        else:
            self.ask(request, response, language=language, status=200)

    on_head = on_get

    def ask(
        self, request: falcon.Request, response: falcon.Response, *, language: str, status: int, **said: Any
    ) -> None:
        """Answer with the form, in place of the page that was asked for.

        Args:
            request: what was asked.
            response: what is answered.
            language: the page's.
            status: the HTTP status.
            **said: the key of what is wrong, `wrong`; the seconds to wait, `seconds`; the name to begin with, `who`.
        """
        if request.path == LOG_IN:
            then = _safe(request.get_param("next", default="") or "")
        else:
            then = _safe(request.relative_uri if request.method in SAFE else "")
        response.status = falcon.code_to_http_status(status)
        shown = {"wrong": "", "seconds": 0, "who": "", **said}
        shown["action"] = f"{LOG_IN}?{urlencode({'next': then})}"
        put(response, self.templates.render(self.template, language, **common(self.app, request, ""), **shown))
        if status == 401:  # noqa: PLR2004 (HTTP's)
            response.set_header("WWW-Authenticate", "Bearer")

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """Log in, or say why not."""
        language = chosen_language(request, response)
        given = fields(request)
        name, password = given.get("name", "")[:LONGEST_NAME], given.get("password", "")
        address = request.remote_addr or ""
        wait = self._attempts.begin(name, address)
        if not wait:
            try:
                operator = self._operators.with_password(name, password)
            except Busy:
                self._attempts.withdraw(name, address)
                wait = 1
        if wait:
            self.app.metrics.logged_in("delayed")
            self.ask(request, response, language=language, status=429, wrong="login.wait", seconds=wait, who=name)
            response.set_header("Retry-After", str(wait))
        elif operator is None:
            self.app.metrics.logged_in("failed")
            _log.warning("log_in_failed", operator=name, address=address)
            self.ask(request, response, language=language, status=401, wrong="login.wrong", who=name)
        else:
            self._attempts.succeeded(name, address)
            self._begin(request, response, operator, language)

    def _begin(self, request: falcon.Request, response: falcon.Response, operator: Operator, language: str) -> None:
        try:
            self._sessions.begin(request, response, operator)
        except (LedgerUnusable, Unavailable) as error:
            _log.warning("page_failed", path=LOG_IN, why=str(error))
            self.problem(request, response, status=503, key="problem.ledger", language=language)
            return
        self.app.metrics.logged_in("succeeded")
        _log.info("logged_in", operator=operator.name, address=request.remote_addr or "")
        _go(response, _safe(request.get_param("next", default="") or ""))


class Logout(Page):
    """`POST /console/logout`.

    Args:
        desk: what pages are made of.
        sessions: who is logged in.
    """

    def __init__(self, desk: Desk, sessions: Sessions) -> None:
        super().__init__(desk)
        self._sessions = sessions

    def on_get(self, request: falcon.Request, response: falcon.Response, **_path: str) -> None:  # noqa: ARG002 (as every page)
        """Nobody logs out by following a link."""
        _go(response, f"{ROOT}/")

    on_head = on_get

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """Log out."""
        try:
            self._sessions.end(request, response)
        except (LedgerUnusable, Unavailable) as error:
            _log.warning("page_failed", path=LOG_OUT, why=str(error))
            language = chosen_language(request, response)
            self.problem(request, response, status=503, key="problem.ledger", language=language)
            return
        _go(response, LOG_IN)


def _go(response: falcon.Response, path: str) -> None:
    response.status = falcon.HTTP_303
    response.location = path
    response.set_header("Cache-Control", "no-store")


def _safe(path: str) -> str:
    """Where to go on: a page of ours, and never an address that somebody has put into a link."""
    if len(path) > LONGEST_NEXT or "\\" in path or not path.isascii() or not path.isprintable():
        return f"{ROOT}/"
    try:
        parts = urlsplit(path)
    except ValueError:
        return f"{ROOT}/"
    ours = not parts.scheme and not parts.netloc and parts.path.startswith(f"{ROOT}/")
    if not ours or parts.path in {LOG_IN, LOG_OUT, f"{ROOT}/live"}:
        return f"{ROOT}/"
    return quote(parts.path, safe="/%:@!$&'()*+,;=-._~") + (f"?{parts.query}" if parts.query else "")
