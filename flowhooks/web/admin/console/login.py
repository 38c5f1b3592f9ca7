"""The pages that log operators in and out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

import falcon
import structlog

from flowhooks.errors import LedgerUnusable, SettingsError, Unavailable
from flowhooks.web.admin import login_audit
from flowhooks.web.admin.console.forms import parse_form
from flowhooks.web.admin.console.page import Page, base_values, choose_language, respond
from flowhooks.web.admin.console.urls import ACTION_ROOT, OPERATIONS_ROOT
from flowhooks.web.admin.login_throttle import LoginThrottle
from flowhooks.web.admin.origin_check import CONSOLE_ROOT, SAFE_METHODS
from flowhooks.web.admin.passwords import TooManyVerifications
from flowhooks.web.server.thread_pool import spare_thread

if TYPE_CHECKING:
    from flowhooks.web.admin.console.page import PageContext
    from flowhooks.web.admin.operators import Operators, PasswordLogin
    from flowhooks.web.admin.sessions import Sessions

LOGIN_PATH: Final = f"{CONSOLE_ROOT}/login"
LOGOUT_PATH: Final = f"{CONSOLE_ROOT}/logout"
MAX_NAME_CHARS: Final = 100
MAX_NEXT_CHARS: Final = 2_000
"""Maximum length of the URL that is opened after a login."""

_log = structlog.get_logger(__name__)


class LoginPage(Page):
    """`/console/login`. It is also shown in place of any other page if the browser is not logged in.

    Args:
        context: shared objects of all pages.
        operators: the operators.
        sessions: the sessions of operators.
    """

    template = "login.html"
    for_limited_roles = for_masked_roles = True

    def __init__(self, context: PageContext, operators: Operators, sessions: Sessions) -> None:
        super().__init__(context)
        self._operators = operators
        self._sessions = sessions
        self._throttle = LoginThrottle(self.app.clock)

    def on_get(self, request: falcon.Request, response: falcon.Response, **_path: str) -> None:
        """Show the form. Redirect to the console if the browser is logged in, or if no login is needed."""
        language = choose_language(request, response)
        try:
            inside = (
                not self._operators
                or request.context.operator is not None
                or self._sessions.operator(request) is not None
            )
        except LedgerUnusable:
            inside = False
        if inside:
            _redirect(response, _safe_next(request.get_param("next", default="") or ""))
        else:
            self.show_form(request, response, language=language, status=200)

    on_head = on_get

    def show_form(
        self, request: falcon.Request, response: falcon.Response, *, language: str, status: int, **values: Any
    ) -> None:
        """Answer with the form, in place of the requested page.

        Args:
            request: the request.
            response: the response.
            language: the language of the page.
            status: the HTTP status.
            **values: values of the form: `wrong`, the key of the error's text; `seconds`, the wait; `who`, the entered
                name.
        """
        if request.path == LOGIN_PATH:
            then = _safe_next(request.get_param("next", default="") or "")
        else:
            # After the end of a session the pages of actions and operations ask again.
            asks_again = request.path.startswith((f"{ACTION_ROOT}/", f"{OPERATIONS_ROOT}/"))
            then = _safe_next(request.relative_uri if request.method in SAFE_METHODS or asks_again else "")
        response.status = falcon.code_to_http_status(status)
        shown = {"wrong": "", "seconds": 0, "who": "", **values}
        shown["action"] = f"{LOGIN_PATH}?{urlencode({'next': then})}"
        respond(response, self.templates.render(self.template, language, **base_values(self.app, request, ""), **shown))
        if status == 401:  # noqa: PLR2004 (HTTP's)
            response.set_header("WWW-Authenticate", "Bearer")

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """Log in, or show the form with the error."""
        language = choose_language(request, response)
        try:
            form = parse_form(request)
        except SettingsError:
            form = {}
        name, password = form.get("name", "")[:MAX_NAME_CHARS], form.get("password", "")
        address = request.remote_addr or ""
        wait = self._throttle.check(name, address)
        if not wait:
            try:
                login = self._operators.authenticate(name, password, while_waiting=partial(spare_thread, request.env))
            except TooManyVerifications:
                self._throttle.cancel(name, address)
                wait = 1
        if wait:
            self.app.metrics.logged_in("delayed")
            self.show_form(request, response, language=language, status=429, wrong="login.wait", seconds=wait, who=name)
            response.set_header("Retry-After", str(wait))
        elif login is None:
            self.app.metrics.logged_in("failed")
            _log.warning("login_failed", operator=name, address=address)
            known = name if self._operators.by_name(name) is not None else None
            login_audit.record_refusal(self.app.ledger, self.app.clock, known, address)
            self.show_form(request, response, language=language, status=401, wrong="login.wrong", who=name)
        else:
            self._throttle.reset(name, address)
            self._create_session(request, response, login, language)

    def _create_session(
        self, request: falcon.Request, response: falcon.Response, login: PasswordLogin, language: str
    ) -> None:
        try:
            self._sessions.create(request, response, login)
        except (LedgerUnusable, Unavailable) as error:
            _log.warning("page_failed", path=LOGIN_PATH, why=str(error))
            self.problem(request, response, status=503, key="problem.ledger", language=language)
            return
        self.app.metrics.logged_in("succeeded")
        _log.info("login_succeeded", operator=login.operator.name, address=request.remote_addr or "", by="password")
        _redirect(response, _safe_next(request.get_param("next", default="") or ""))


class LogoutPage(Page):
    """`POST /console/logout`.

    Args:
        context: shared objects of all pages.
        sessions: the sessions of operators.
    """

    for_limited_roles = for_masked_roles = True

    def __init__(self, context: PageContext, sessions: Sessions) -> None:
        super().__init__(context)
        self._sessions = sessions

    def on_get(self, request: falcon.Request, response: falcon.Response, **_path: str) -> None:  # noqa: ARG002 (as every page)
        """Redirect to the console, because a link must not log anyone out."""
        _redirect(response, f"{CONSOLE_ROOT}/")

    on_head = on_get

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        """Log out."""
        try:
            self._sessions.delete(request, response)
        except (LedgerUnusable, Unavailable) as error:
            _log.warning("page_failed", path=LOGOUT_PATH, why=str(error))
            language = choose_language(request, response)
            self.problem(request, response, status=503, key="problem.ledger", language=language)
            return
        _redirect(response, LOGIN_PATH)


def _redirect(response: falcon.Response, path: str) -> None:
    response.status = falcon.HTTP_303
    response.location = path
    response.set_header("Cache-Control", "no-store")


def _safe_next(path: str) -> str:
    # Only a path of the console: a link must not lead to another site.
    if len(path) > MAX_NEXT_CHARS or "\\" in path or not path.isascii() or not path.isprintable():
        return f"{CONSOLE_ROOT}/"
    try:
        parts = urlsplit(path)
    except ValueError:
        return f"{CONSOLE_ROOT}/"
    ours = not parts.scheme and not parts.netloc and parts.path.startswith(f"{CONSOLE_ROOT}/")
    if not ours or parts.path in {LOGIN_PATH, LOGOUT_PATH, f"{CONSOLE_ROOT}/live"}:
        return f"{CONSOLE_ROOT}/"
    if not {".", ".."}.isdisjoint(unquote(parts.path).split("/")):  # a browser would leave the console
        return f"{CONSOLE_ROOT}/"
    return quote(parts.path, safe="/%:@!$&'()*+,;=-._~") + (f"?{parts.query}" if parts.query else "")
