"""Actions: each asks first and says what would happen, then does it, some seconds at a time.

It must not know what an operation allows: it shows what its dry run says, and what its errors say.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

import falcon
import structlog

from flowhooks.errors import IllegalMove, LedgerError, LedgerUnusable, NotFound, SettingsError, Unavailable
from flowhooks.ledger import alarming
from flowhooks.operations import Actor
from flowhooks.operations.calls import perform
from flowhooks.web.console.actions import action, meant
from flowhooks.web.console.addresses import DO, back
from flowhooks.web.console.done import done, figures, plain_figures, remember
from flowhooks.web.console.page import Page, chosen_language
from flowhooks.web.operators import operator_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.web.console.actions import Action, Meant

COUNTING: Final = 1.5
"""Seconds for which is counted what would happen, before it is said to be more."""
WORKING: Final = 3.0
"""Seconds for which one request works; then the page shows how far it has come, and goes on with the next."""
LONGEST_NOTE: Final = 1_000
LONGEST_FORM: Final = 65_536

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How far an operation has come.

    Attributes:
        sums: the figures of its pages, added up.
        after: where it goes on; `""` when all is done.
        last: what its last page answered.
        failed: why it stopped before; None if it did not.
    """

    sums: Mapping[str, int]
    after: str
    last: Mapping[str, Any]
    failed: Unavailable | None = None


class ActionPage(Page):
    """`GET /console/do/{name}` says what would happen; `POST` does it."""

    template = "confirm.html"

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Ask."""
        language = chosen_language(request, response)

        def ask(what: Action, to: Meant) -> None:
            self._ask(request, response, language, path["name"], what, to)

        self._safely(request, response, language, path["name"], ask)

    on_head = on_get

    def on_post(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Do it, or go on with it; then back to where it was asked for."""
        language = chosen_language(request, response)

        def act(what: Action, to: Meant) -> None:
            form = _form(request)
            if what.twice and not form.get("sure"):
                response.status = falcon.HTTP_422
                self._ask(request, response, language, path["name"], what, to, unsure=True)
                return
            self._act(request, response, language, path["name"], what, to, form)

        self._safely(request, response, language, path["name"], act)

    def _safely(
        self, request: falcon.Request, response: falcon.Response, language: str, name: str, work: Any
    ) -> None:
        """Do `work` with what the address means; whatever keeps it from being done is said on a page."""

        def go() -> None:
            what = action(name)
            try:
                work(what, meant(request, what, self.app.clock.now()))
            except LedgerUnusable:
                raise
            except (LedgerError, SettingsError, Unavailable) as error:
                self._refuse(request, response, language, error)

        self.safely(request, response, language, go)

    def _ask(
        self,
        request: falcon.Request,
        response: falcon.Response,
        language: str,
        name: str,
        what: Action,
        to: Meant,
        *,
        unsure: bool = False,
    ) -> None:
        way = self._pages(request, what, {**to.arguments, "dry_run": True}, "", {}, COUNTING)
        if way.failed is not None:
            raise way.failed
        shown = {
            **self._frame(request, name, to),
            "what": what,
            "would": done(name, way.sums),
            "partly": bool(way.after),
            "said": way.last,
            "alert": self._alert(to),
            "total": 0 if way.after else way.sums.get("events", 0),
            "longest_note": LONGEST_NOTE,
            "unsure": unsure,
        }
        self.answer(request, response, language, shown)

    def _act(
        self,
        request: falcon.Request,
        response: falcon.Response,
        language: str,
        name: str,
        what: Action,
        to: Meant,
        form: Mapping[str, str],
    ) -> None:
        note = " ".join(form.get("note", "").split())[:LONGEST_NOTE] if what.note else ""
        arguments = {**to.arguments, **({"note": note} if note else {})}
        way = self._pages(request, what, arguments, form.get("after", ""), plain_figures(form), WORKING)
        self.app.runner.wake()
        if not way.after and way.failed is None:
            remember(response, name, way.sums)
            response.status = falcon.HTTP_303
            response.location = back(request)
            response.set_header("Cache-Control", "no-store")
            return
        if way.failed is not None:
            response.status = falcon.HTTP_503
            response.set_header("Retry-After", str(way.failed.retry_after))
        gone = way.sums.get("events", 0)
        total = plain_figures({"events": form.get("total", "")}).get("events", 0)
        shown = {
            **self._frame(request, name, to),
            "sums": way.sums,
            "after": way.after,
            "note": note,
            "sure": form.get("sure", ""),
            "gone": gone,
            # Another may have made it fewer meanwhile, or more.
            "total": total if total >= gone else 0,
            "did": done(name, way.sums),
            "failed": way.failed is not None,
        }
        self.answer(request, response, language, shown, template="progress.html")

    def _pages(
        self,
        request: falcon.Request,
        what: Action,
        arguments: Mapping[str, Any],
        after: str,
        sums: Mapping[str, int],
        patience: float,
    ) -> _Way:
        """Do page after page, until all is done or the time is over; at least one."""
        desk = replace(self.app.desk, by=Actor(operator_of(request).name, "console"))
        added = dict(sums)
        over = time.monotonic() + patience
        while True:
            try:
                page = perform(desk, what.operation, {**arguments, **({"after": after} if after else {})})
            except Unavailable as error:
                _log.warning("action_failed", operation=what.operation, why=str(error))
                return _Way(sums=added, after=after, last={}, failed=error)
            for name, value in figures(page).items():
                added[name] = added.get(name, 0) + value
            after = str(page.get("next", ""))
            if not after or time.monotonic() > over:
                return _Way(sums=added, after=after, last=page)

    def _frame(self, request: falcon.Request, name: str, to: Meant) -> dict[str, Any]:
        """What is said of an action before it and while it goes on."""
        origin = back(request)
        return {
            "doing": name,
            "meant": to.shown,
            "address": f"{DO}/{name}?{urlencode({**to.query, 'back': origin}, errors='replace')}",
            "back": origin,
        }

    def _alert(self, to: Meant) -> alarming.OpenAlert | None:
        ids = to.arguments.get("alerts")
        if not ids:
            return None
        with self.app.ledger.connection() as connection:
            return next((one for one in alarming.still_open(connection) if one.id in ids), None)

    def _refuse(self, request: falcon.Request, response: falcon.Response, language: str, error: Exception) -> None:
        """Say why it cannot be done, and what to do."""
        kind, status = (
            ("gone", 404)
            if isinstance(error, NotFound)
            else ("moved", 409)
            if isinstance(error, IllegalMove)
            else ("unavailable", 503)
            if isinstance(error, Unavailable)
            else ("unclear", 422)
        )
        response.status = falcon.code_to_http_status(status)
        # The sentence of an `Unavailable` is meant for engines.
        says = "" if isinstance(error, Unavailable) else str(error)
        shown = {"kind": kind, "says": says, "back": back(request)}
        self.answer(request, response, language, shown, template="undone.html")


def _form(request: falcon.Request) -> dict[str, str]:
    """What a form was filled in with.

    Raises:
        SettingsError: it is longer than any form of the console.
    """
    given = request.bounded_stream.read(LONGEST_FORM + 1)
    if len(given) > LONGEST_FORM:
        raise SettingsError("the form is too long")
    try:
        pairs = parse_qsl(given.decode("utf-8", "replace"), max_num_fields=100)
    except ValueError:
        raise SettingsError("the form has too many fields") from None
    return {name: value.replace("\0", "�").encode("utf-8", "replace").decode() for name, value in pairs}
