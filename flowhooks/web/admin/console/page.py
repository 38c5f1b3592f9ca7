"""The base class of all pages: language, headers, and error pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote, urlencode

import falcon
import structlog

from flowhooks import __version__
from flowhooks.errors import EventPurged, Forbidden, LedgerUnusable, NewerSelectorsError, NotFound, Unavailable
from flowhooks.messages import LANGUAGES
from flowhooks.operations.access import FULL
from flowhooks.operations.operation_access import is_allowed
from flowhooks.operations.registry import OPERATIONS
from flowhooks.web import errors, negotiation
from flowhooks.web.admin.console.actions import ACTIONS
from flowhooks.web.admin.console.filters import query_text
from flowhooks.web.admin.console.flash import pop_flash
from flowhooks.web.admin.console.rendering import HEADERS
from flowhooks.web.admin.console.urls import ACTION_ROOT, current_url, query_of
from flowhooks.web.admin.operators import LOCAL
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.app import App
    from flowhooks.web.admin.console.rendering import Templates
    from flowhooks.web.admin.operators import Operator

LANGUAGE_COOKIE: Final = "flowhooks_language"
"""Cookie with the chosen language. Otherwise a browser keeps only the session of a logged-in operator and, for a
minute, the result of an action."""
LANGUAGE_COOKIE_MAX_AGE: Final = 365 * 86400
RETRY_AFTER_SECONDS: Final = 5
"""Seconds after which a browser may retry if the ledger could not be read."""

LIMITED_PLACES: Final = frozenset({"events", "errors", "handlers", "operations", "alerts", "audit"})
"""Entries of the navigation for roles limited to plugins."""
UNMASKED_PLACES: Final = frozenset({"overview", "errors", "parked", "sources", "rejected_requests"})
"""Entries of the navigation that are not for masked roles."""
PLACES: Final = LIMITED_PLACES | UNMASKED_PLACES | {"engines"}
"""All entries of the navigation."""
PLANNED_ACTIONS: Final = frozenset(name for name, action in ACTIONS.items() if action.bulk is not None)
"""Actions whose button makes a plan, which a form has to do."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContext:
    """Shared objects of all pages.

    Attributes:
        app: a started `App`.
        templates: renders pages.
    """

    app: App
    templates: Templates


class Page:
    """A page that is requested with GET. Each subclass returns the values of its template in `show`."""

    template: ClassVar[str]
    place: ClassVar[str] = ""
    """Entry of the navigation to which the page belongs."""
    whole: ClassVar[bool] = True
    """Whether it is a complete page, which also shows the result of the last action."""
    for_limited_roles: ClassVar[bool] = False
    """Whether roles limited to plugins get it. It then shows only what concerns their plugins."""
    for_masked_roles: ClassVar[bool] = False
    """Whether masked roles get it. It then shows no hidden values, and no results, errors and logs of handlers."""

    def __init__(self, context: PageContext) -> None:
        self.app = context.app
        self.templates = context.templates

    def show(self, request: falcon.Request, path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the values for the template.

        Args:
            request: the request.
            path: the variable parts of its path.

        Raises:
            NotFound: the requested item does not exist.
            LedgerUnusable: the ledger cannot be read.
        """
        raise NotImplementedError

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Answer with the page, or with an error page."""
        language = choose_language(request, response)
        self.respond_safely(
            request,
            response,
            language,
            lambda: self.answer(request, response, language, self.show(request, path)),
        )

    def respond_safely(
        self, request: falcon.Request, response: falcon.Response, language: str, work: Callable[[], None]
    ) -> None:
        """Call `work`, which sets the response; answer with an error page if it raises an exception."""
        try:
            work()
        except EventPurged:
            self.problem(request, response, status=404, key="problem.purged", language=language)
        except NotFound:
            self.problem(request, response, status=404, key="problem.nothing", language=language)
        except Forbidden as error:
            key = "refused.masked" if error.key == "operator_masked" else "refused.scope"
            self.problem(request, response, status=403, key=key, language=language)
        except NewerSelectorsError as error:
            _log.warning("page_failed", path=errors.raw_path(request.env), why=str(error))
            self.problem(request, response, status=503, key="problem.newer", language=language)
        except (LedgerUnusable, Unavailable) as error:
            _log.warning("page_failed", path=errors.raw_path(request.env), why=str(error))
            self.problem(request, response, status=503, key="problem.ledger", language=language)
        except Exception as error:  # noqa: BLE001 (logged with its traceback; the browser still gets a page)
            _log.error("request_failed", method=request.method, path=errors.raw_path(request.env), exc_info=error)
            self.problem(request, response, status=500, key="problem.ours", language=language)

    on_head = on_get

    def answer(
        self,
        request: falcon.Request,
        response: falcon.Response,
        language: str,
        shown: Mapping[str, Any],
        *,
        template: str = "",
    ) -> None:
        """Answer with the page's own template, or with another one."""
        values = {**base_values(self.app, request, self.place), **shown}
        if self.whole:
            values["just_done"] = pop_flash(request, response)
        respond(response, self.templates.render(template or self.template, language, **values))

    def problem(
        self, request: falcon.Request, response: falcon.Response, *, status: int, key: str, language: str
    ) -> None:
        """Answer with an error page, which explains the error and what to do."""
        response.status = falcon.code_to_http_status(status)
        if status == 503:  # noqa: PLR2004 (Service Unavailable)
            response.set_header("Retry-After", str(RETRY_AFTER_SECONDS))
        shown = {"status": status, "what": f"{key}.what", "then": f"{key}.then"}
        respond(
            response, self.templates.render("problem.html", language, **base_values(self.app, request, ""), **shown)
        )


class NotFoundPage(Page):
    """The page for every unknown path under the console."""

    def show(self, _request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Raise `NotFound`."""
        raise NotFound("there is no such page")


def respond(response: falcon.Response, body: bytes) -> None:
    """Set `response` to a page."""
    response.data = body
    response.content_type = "text/html; charset=utf-8"
    response.set_headers(HEADERS)


def choose_language(request: falcon.Request, response: falcon.Response) -> str:
    """Return the language of a page: that in its URL, which is remembered, or the remembered one, or the browser's."""
    if (requested := request.get_param("lang")) in LANGUAGES:
        # Not `secure`: the cookie reveals nothing, and pages may be served without TLS.
        response.set_cookie(
            LANGUAGE_COOKIE,
            requested,
            max_age=LANGUAGE_COOKIE_MAX_AGE,
            path=CONSOLE_ROOT,
            http_only=True,
            same_site="Strict",
            secure=False,
        )
        return str(requested)
    for stored in request.get_cookie_values(LANGUAGE_COOKIE) or ():
        if stored in LANGUAGES:
            return str(stored)
    return negotiation.parse_accept_language(request.get_header("Accept-Language"))


def base_values(app: App, request: falcon.Request, place: str) -> dict[str, Any]:
    """Return the values that every template gets."""
    operator: Operator | None = request.context.operator  # None on the login page
    return {
        "operator": operator,
        "may_operate": operator is not None and operator.may_operate,
        "logged_in": request.context.logged_in,
        "named": operator is not None and operator is not LOCAL,
        "access": FULL if operator is None else operator.access,
        "place": place,
        "places": _places(operator),
        "search_text": query_text(request, "q") if place == "events" else "",
        "version": __version__,
        "database": "PostgreSQL" if app.ledger.shared else "SQLite",
        "now": app.clock.now(),
        "in_language": lambda language: _with_language(request, language),
        "just_done": None,
        "acts": _allowed_actions(request),
        "planned_acts": PLANNED_ACTIONS,
        "do": lambda name, **to: (
            f"{ACTION_ROOT}/{name}?{urlencode({**to, 'back': current_url(request)}, errors='replace')}"
        ),
    }


def _places(operator: Operator | None) -> frozenset[str]:
    """Return the entries of the navigation that the operator's role may open."""
    access = FULL if operator is None else operator.access
    places = PLACES
    if access.is_limited:
        places &= LIMITED_PLACES
    return places - UNMASKED_PLACES if access.is_masked else places


def _allowed_actions(request: falcon.Request) -> frozenset[str]:
    operator = getattr(request.context, "operator", None)
    if operator is None or not operator.may_operate:
        return frozenset()
    return frozenset(
        name
        for name, action in ACTIONS.items()
        if action.operation in OPERATIONS and is_allowed(operator.access, action.operation)
    )


def _with_language(request: falcon.Request, language: str) -> str:
    path = request.path if request.path.startswith(CONSOLE_ROOT) else CONSOLE_ROOT
    return f"{quote(path)}?{urlencode({**query_of(request, 'lang'), 'lang': language}, doseq=True)}"
