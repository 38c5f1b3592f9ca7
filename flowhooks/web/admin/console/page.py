"""What every page has in common: language, headers, and an answer whatever goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote, urlencode

import falcon
import structlog

from flowhooks import __version__
from flowhooks.errors import EventPurged, LedgerUnusable, NewerSelectorsError, NotFound, Unavailable
from flowhooks.messages import LANGUAGES
from flowhooks.operations.registry import OPERATIONS
from flowhooks.web import errors, negotiation
from flowhooks.web.admin.console.actions import ACTIONS
from flowhooks.web.admin.console.flash import pop_flash
from flowhooks.web.admin.console.rendering import HEADERS
from flowhooks.web.admin.console.urls import ACTION_ROOT, current_url, query_of
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.app import App
    from flowhooks.web.admin.console.rendering import Templates
    from flowhooks.web.admin.operators import Operator

LANGUAGE_COOKIE: Final = "flowhooks_language"
"""Which language somebody has chosen; besides it only the session of whoever has logged in is kept in a browser."""
LANGUAGE_COOKIE_MAX_AGE: Final = 365 * 86400
RETRY_AFTER_SECONDS: Final = 5
"""Seconds after which to ask again for a page for which the ledger could not be read."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContext:
    """What pages are made of.

    Attributes:
        app: a started `App`.
        templates: makes pages.
    """

    app: App
    templates: Templates


class Page:
    """A page that is asked for with GET; each kind says what it shows in `show`."""

    template: ClassVar[str]
    place: ClassVar[str] = ""
    """Which entry of the navigation it belongs to."""
    whole: ClassVar[bool] = True
    """Whether it is a page of its own, which says what was done just now."""

    def __init__(self, context: PageContext) -> None:
        self.app = context.app
        self.templates = context.templates

    def show(self, request: falcon.Request, path: Mapping[str, str], /) -> Mapping[str, Any]:
        """What the template is given.

        Args:
            request: what was asked.
            path: the variable parts of its path.

        Raises:
            NotFound: there is nothing of that name.
            LedgerUnusable: the ledger cannot be read.
        """
        raise NotImplementedError

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Answer with the page, or with one that says why not."""
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
        """Do `work`, which answers; whatever goes wrong in it, answer with a page that says so."""
        try:
            work()
        except EventPurged:
            self.problem(request, response, status=404, key="problem.purged", language=language)
        except NotFound:
            self.problem(request, response, status=404, key="problem.nothing", language=language)
        except NewerSelectorsError as error:
            _log.warning("page_failed", path=errors.raw_path(request.env), why=str(error))
            self.problem(request, response, status=503, key="problem.newer", language=language)
        except (LedgerUnusable, Unavailable) as error:
            _log.warning("page_failed", path=errors.raw_path(request.env), why=str(error))
            self.problem(request, response, status=503, key="problem.ledger", language=language)
        except Exception as error:  # noqa: BLE001 (logged with its traceback; whoever looks still gets a page)
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
        """Answer with this page's template, or with another of its own."""
        values = {**base_values(self.app, request, self.place), **shown}
        if self.whole:
            values["just_done"] = pop_flash(request, response)
        respond(response, self.templates.render(template or self.template, language, **values))

    def problem(
        self, request: falcon.Request, response: falcon.Response, *, status: int, key: str, language: str
    ) -> None:
        """Answer with a page that says what is wrong and what to do."""
        response.status = falcon.code_to_http_status(status)
        if status == 503:  # noqa: PLR2004 (Service Unavailable)
            response.set_header("Retry-After", str(RETRY_AFTER_SECONDS))
        shown = {"status": status, "what": f"{key}.what", "then": f"{key}.then"}
        respond(
            response, self.templates.render("problem.html", language, **base_values(self.app, request, ""), **shown)
        )


class NotFoundPage(Page):
    """Every path under the console that is none of its pages."""

    def show(self, _request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Nothing is there."""
        raise NotFound("there is no such page")


def respond(response: falcon.Response, body: bytes) -> None:
    """Make `response` a page."""
    response.data = body
    response.content_type = "text/html; charset=utf-8"
    response.set_headers(HEADERS)


def choose_language(request: falcon.Request, response: falcon.Response) -> str:
    """The language of a page: what its address asks for, which is remembered; else what was; else the browser's."""
    if (requested := request.get_param("lang")) in LANGUAGES:
        # Not `secure`: it tells nothing, and pages may come without TLS.
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
    """What every template is given."""
    operator: Operator | None = request.context.operator  # nobody yet, where somebody is asked to log in
    return {
        "operator": operator,
        "may_operate": operator is not None and operator.may_operate,
        "logged_in": request.context.logged_in,
        "place": place,
        "version": __version__,
        "database": "PostgreSQL" if app.ledger.shared else "SQLite",
        "now": app.clock.now(),
        "in_language": lambda language: _with_language(request, language),
        "just_done": None,
        "acts": _allowed_actions(request),
        "do": lambda name, **to: (
            f"{ACTION_ROOT}/{name}?{urlencode({**to, 'back': current_url(request)}, errors='replace')}"
        ),
    }


def _allowed_actions(request: falcon.Request) -> frozenset[str]:
    operator = getattr(request.context, "operator", None)
    if operator is None or not operator.may_operate:
        return frozenset()
    return frozenset(name for name, action in ACTIONS.items() if action.operation in OPERATIONS)


def _with_language(request: falcon.Request, language: str) -> str:
    path = request.path if request.path.startswith(CONSOLE_ROOT) else CONSOLE_ROOT
    return f"{quote(path)}?{urlencode({**query_of(request, 'lang'), 'lang': language})}"
