"""Authenticate requests to the administration listener, or reject them.

Everything is closed by default: a route that is added later needs a credential unless `PUBLIC_PATHS` lists it.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from flowhooks.errors import Forbidden, LedgerUnusable, Unauthorized, Unavailable
from flowhooks.web.admin.console.login import LOGIN_PATH, LOGOUT_PATH
from flowhooks.web.admin.console.page import NotFoundPage, choose_language
from flowhooks.web.admin.login_audit import LoginMethod, LoginRecorder, RefusalLog
from flowhooks.web.admin.operators import LOCAL, NoRole, Operator
from flowhooks.web.admin.origin_check import CONSOLE_ROOT, SAFE_METHODS, OriginCheck, is_page
from flowhooks.web.admin.proxy_login import InvalidLoginHeader

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.app import App
    from flowhooks.operations.access import Access
    from flowhooks.web.admin.console.login import LoginPage
    from flowhooks.web.admin.console.page import PageContext
    from flowhooks.web.admin.operators import Operators
    from flowhooks.web.admin.sessions import Sessions

PUBLIC_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Paths that need no authentication, because load balancers ask them. They reveal nothing about events. `/readyz` shows
why the server is not ready, with the error of the database."""
API_PREFIX: Final = "/api/"
STATIC_PREFIX: Final = f"{CONSOLE_ROOT}/static/"


class AuthMiddleware:
    """Falcon middleware that sets `request.context.operator`, or answers a request that is not allowed.

    It also sets `context.logged_in`, whether the operator was identified by a session cookie, and `context.by_command`,
    whether by the token in the lock file.

    Args:
        app: a started `App`.
        context: shared objects of all pages.
        token: the token that commands on this machine send.
        operators: the operators.
        sessions: the sessions of operators.
        login: the login page.
    """

    def __init__(
        self, app: App, context: PageContext, *, token: str, operators: Operators, sessions: Sessions, login: LoginPage
    ) -> None:
        self._app = app
        self._origin_check = OriginCheck(app)
        self._not_found_page = NotFoundPage(context)
        self._token = f"Bearer {token}".encode()
        self._operators = operators
        self._sessions = sessions
        self._login = login
        self._logins = LoginRecorder(app)
        self._refusals = RefusalLog(app.clock)

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        """Authenticate the request, or answer it in place of its resource.

        Raises:
            CallbackRejected: the request is not for a page, and is not allowed.
        """
        context = request.context
        context.operator, context.logged_in, context.by_command = None, False, False
        path, authorization = request.path, request.get_header("Authorization") or ""
        if path in PUBLIC_PATHS:
            return
        if path.startswith(STATIC_PREFIX) and request.method in SAFE_METHODS:
            # Pages of refusals use these files, too.
            if (key := self._origin_check.why_rejected(request)) is not None:
                self._reject(request, response, key)
            return
        proxied = self._find_proxied(request, response)
        if response.complete:
            return
        if path.startswith(API_PREFIX) and hmac.compare_digest(authorization.encode("utf-8", "replace"), self._token):
            context.operator, context.by_command = LOCAL, True
        elif self._operators and authorization[:6].lower() == "bearer":
            self._authenticate_token(request, response, authorization, proxied)
        elif proxied is not None:
            self._authenticate_proxied(request, response, proxied)
        elif self._operators or is_page(path) or path.startswith(API_PREFIX):
            self._authenticate_browser(request, response)
        elif self._origin_check.why_rejected(request) == "refused.host":
            raise Forbidden("operator_not_here")

    def process_resource(
        self, request: falcon.Request, response: falcon.Response, resource: object, _path: Mapping[str, str]
    ) -> None:
        """Refuse a resource that is not for the role of the operator.

        A resource is for restricted roles only if its class says so. So a new one shows them nothing by accident.

        Raises:
            Forbidden: the request is not for a page, and is not allowed.
        """
        operator = request.context.operator
        if operator is None:
            return
        access: Access = operator.access
        if (access.is_limited and not getattr(resource, "for_limited_roles", False)) or (
            access.is_masked and not getattr(resource, "for_masked_roles", False)
        ):
            self._refuse(request, response, "scope")

    def _refuse(self, request: falcon.Request, response: falcon.Response, key: str) -> None:
        if not is_page(request.path):
            raise Forbidden(f"operator_{key}")
        language = choose_language(request, response)
        self._not_found_page.problem(request, response, status=403, key=f"refused.{key}", language=language)
        response.complete = True

    def _authenticate_token(
        self, request: falcon.Request, response: falcon.Response, authorization: str, proxied: Operator | None
    ) -> None:
        operator = self._operators.by_token(authorization)
        if operator is None and proxied is not None:
            # Many proxies also pass on a token of their own.
            self._authenticate_proxied(request, response, proxied)
            return
        if operator is None:
            self._app.metrics.logged_in("refused_token")
            self._request_login(request, response)
            return
        request.context.operator = operator
        self._record(request, operator, LoginMethod.TOKEN)
        if is_page(request.path):
            self._check_role(request, response, operator)

    def _record(self, request: falcon.Request, operator: Operator, method: LoginMethod) -> None:
        interface = "console" if is_page(request.path) else "api"
        self._logins.record(operator, method, request.remote_addr or "", interface)

    def _find_proxied(self, request: falcon.Request, response: falcon.Response) -> Operator | None:
        """Return the operator whom the proxy names; None if it names none, or if the request was answered."""
        try:
            return self._operators.by_proxy(request.env)
        except InvalidLoginHeader as error:
            self._refuse_proxied(request, response, "login_header", str(error))
        except NoRole as error:
            self._refuse_proxied(request, response, "no_role", "the user is in no group of login.groups", error.name)
        return None

    def _authenticate_proxied(self, request: falcon.Request, response: falcon.Response, operator: Operator) -> None:
        """Admit the operator whom the proxy names, with the restrictions of a browser.

        The proxy recognises the browser by a cookie, so the request may come from a page of another site.
        """
        if self._is_refused(request, response):
            return
        request.context.operator = operator
        self._record(request, operator, LoginMethod.PROXY)
        if is_page(request.path):
            self._check_role(request, response, operator)

    def _refuse_proxied(
        self, request: falcon.Request, response: falcon.Response, key: str, why: str, name: str = ""
    ) -> None:
        self._app.metrics.logged_in(f"refused_{key}")
        self._refusals.add(name, request.remote_addr or "", why)
        self._refuse(request, response, key)

    def _is_refused(self, request: falcon.Request, response: falcon.Response) -> bool:
        """Answer a request of a browser that is not allowed for any operator; return whether it was answered."""
        page, safe = is_page(request.path), request.method in SAFE_METHODS
        if not page and not safe:
            # API requests that change something need a token, which no web site can make a browser send.
            raise Unauthorized("operator_unauthorized")
        key = self._origin_check.why_rejected(request)
        if key is None and not safe and not self._origin_check.is_from_console(request):
            key = "refused.origin"
        if key is not None:
            self._reject(request, response, key)
        return key is not None

    def _authenticate_browser(self, request: falcon.Request, response: falcon.Response) -> None:
        path, page = request.path, is_page(request.path)
        if self._is_refused(request, response):
            return
        if not self._operators:
            request.context.operator = LOCAL
            return
        if path == LOGIN_PATH:
            return
        try:
            operator = self._sessions.operator(request)
        except LedgerUnusable:
            if not page:
                raise Unavailable("admin_ledger") from None
            language = choose_language(request, response)
            self._not_found_page.problem(request, response, status=503, key="problem.ledger", language=language)
            response.complete = True
            return
        if operator is None:
            self._request_login(request, response)
            return
        request.context.operator, request.context.logged_in = operator, True
        if page:
            self._check_role(request, response, operator)

    def _check_role(self, request: falcon.Request, response: falcon.Response, operator: Operator) -> None:
        # Every role may log out.
        if (
            request.method not in SAFE_METHODS
            and request.path not in {LOGIN_PATH, LOGOUT_PATH}
            and not operator.may_operate
        ):
            self._reject(request, response, "refused.role")

    def _request_login(self, request: falcon.Request, response: falcon.Response) -> None:
        """Ask for a credential; with the login page if a page was requested."""
        if not is_page(request.path):
            raise Unauthorized("operator_unauthorized")
        self._login.show_form(request, response, language=choose_language(request, response), status=401)
        response.complete = True

    def _reject(self, request: falcon.Request, response: falcon.Response, key: str) -> None:
        if not is_page(request.path):
            raise Forbidden("operator_other_name" if key == "refused.name" else "operator_not_here")
        language = choose_language(request, response)
        self._not_found_page.problem(request, response, status=403, key=key, language=language)
        response.complete = True
