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

from flowhooks.commands import command_line
from flowhooks.errors import InvalidTransition, LedgerError, LedgerUnusable, NotFound, SettingsError, Unavailable
from flowhooks.ledger import alert_queries
from flowhooks.operations.context import Actor
from flowhooks.operations.registry import perform
from flowhooks.web.admin.console.actions import PROGRESS, action, meant
from flowhooks.web.admin.console.filters import text
from flowhooks.web.admin.console.flash import done, figures, plain_figures, remember
from flowhooks.web.admin.console.page import Page, chosen_language
from flowhooks.web.admin.console.urls import DO, back
from flowhooks.web.admin.operators import operator_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.web.admin.console.actions import Action, Meant

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


_NOWHERE: Final = _Way(sums={}, after="", last={})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One request about one action.

    Attributes:
        request: what was asked.
        response: the answer.
        language: of the page.
        name: the action's name.
        what: the action.
        to: what it is to be done to.
    """

    request: falcon.Request
    response: falcon.Response
    language: str
    name: str
    what: Action
    to: Meant


class ActionPage(Page):
    """`GET /console/do/{name}` says what would happen; `POST` does it."""

    template = "confirm.html"

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Ask."""
        self._work(request, response, path["name"], self._ask)

    on_head = on_get

    def on_post(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Do it, or go on with it; then back to where it was asked for."""
        self._work(request, response, path["name"], self._act)

    def _work(
        self, request: falcon.Request, response: falcon.Response, name: str, work: Callable[[_Case], None]
    ) -> None:
        """Do `work` with what the address means; whatever keeps it from being done is said on a page."""
        language = chosen_language(request, response)

        def go() -> None:
            what = action(name)
            try:
                to = meant(request, what, self.app.clock.now())
                work(_Case(request=request, response=response, language=language, name=name, what=what, to=to))
            except LedgerUnusable:
                raise
            except (LedgerError, SettingsError, Unavailable) as error:
                self._refuse(request, response, language, error)

        self.safely(request, response, language, go)

    def _ask(self, case: _Case, *, unsure: bool = False) -> None:
        if case.what.paged and (after := text(case.request, "after")):
            given = {name: text(case.request, name) for name in PROGRESS}
            figures = {"events": given["gone"], case.what.counts: given["started"], "total": given["total"]}
            self._stopped(case, {**figures, "after": after})
            return
        way = self._pages(case, {**case.to.arguments, "dry_run": True}, patience=COUNTING)
        if way.failed is not None:
            raise way.failed
        shown = {
            **_frame(case),
            "what": case.what,
            "would": done(case.name, way.sums),
            "partly": bool(way.after),
            "said": way.last,
            "alert": self._alert(case.to),
            "total": 0 if way.after else way.sums.get("events", 0),
            "longest_note": LONGEST_NOTE,
            "unsure": unsure,
        }
        self.answer(case.request, case.response, case.language, shown)

    def _act(self, case: _Case) -> None:
        form = _form(case.request)
        if case.what.twice and not form.get("sure"):
            case.response.status = falcon.HTTP_422
            if form.get("after"):
                self._stopped(case, form, unsure=True)
            else:
                self._ask(case, unsure=True)
            return
        note = " ".join(form.get("note", "").split())[:LONGEST_NOTE] if case.what.note else ""
        arguments = {**case.to.arguments, **({"note": note} if note else {})}
        before = _Way(sums=plain_figures(form), after=form.get("after", ""), last={})
        way = self._pages(case, arguments, before, patience=WORKING)
        self.app.runner.wake()
        if not way.after and way.failed is None:
            remember(case.response, case.name, way.sums)
            case.response.status = falcon.HTTP_303
            case.response.location = back(case.request)
            case.response.set_header("Cache-Control", "no-store")
            return
        if way.failed is not None:
            case.response.status = falcon.HTTP_503
            case.response.set_header("Retry-After", str(way.failed.retry_after))
        shown = {
            **_progress(case, way.sums, way.after, form.get("total", "")),
            "note": note,
            "sure": form.get("sure", ""),
            "failed": way.failed is not None,
        }
        self.answer(case.request, case.response, case.language, shown, template="progress.html")

    def _stopped(self, case: _Case, given: Mapping[str, str], *, unsure: bool = False) -> None:
        """Say how far an action has come that was stopped, and offer to go on from there."""
        shown = {
            **_progress(case, plain_figures(given), given["after"], given.get("total", "")),
            "command": _command(case, given["after"]),
            "longest_note": LONGEST_NOTE,
            "note": given.get("note", ""),
            "unsure": unsure,
        }
        self.answer(case.request, case.response, case.language, shown, template="stopped.html")

    def _pages(self, case: _Case, arguments: Mapping[str, Any], before: _Way = _NOWHERE, *, patience: float) -> _Way:
        """Do page after page, until all is done or the time is over; at least one."""
        desk = replace(self.app.operation_context, by=Actor(operator_of(case.request).name, "console"))
        sums, after = dict(before.sums), before.after
        over = time.monotonic() + patience
        while True:
            try:
                page = perform(desk, case.what.operation, {**arguments, **({"after": after} if after else {})})
            except Unavailable as error:
                _log.warning("action_failed", operation=case.what.operation, why=str(error))
                return _Way(sums=sums, after=after, last={}, failed=error)
            for name, value in figures(page).items():
                sums[name] = sums.get(name, 0) + value
            after = str(page.get("next", ""))
            if not after or time.monotonic() > over:
                return _Way(sums=sums, after=after, last=page)

    def _alert(self, to: Meant) -> alert_queries.OpenAlert | None:
        ids = to.arguments.get("alerts")
        if not ids:
            return None
        with self.app.ledger.connection() as connection:
            return next((one for one in alert_queries.open_alerts(connection) if one.id in ids), None)

    def _refuse(self, request: falcon.Request, response: falcon.Response, language: str, error: Exception) -> None:
        """Say why it cannot be done, and what to do."""
        kind, status = (
            ("gone", 404)
            if isinstance(error, NotFound)
            else ("moved", 409)
            if isinstance(error, InvalidTransition)
            else ("unavailable", 503)
            if isinstance(error, Unavailable)
            else ("unclear", 422)
        )
        response.status = falcon.code_to_http_status(status)
        if isinstance(error, Unavailable):
            response.set_header("Retry-After", str(error.retry_after))
        # The sentence of an `Unavailable` is meant for engines.
        says = "" if isinstance(error, Unavailable) else str(error)
        shown = {"kind": kind, "says": says, "back": back(request)}
        self.answer(request, response, language, shown, template="undone.html")


def _frame(case: _Case) -> dict[str, Any]:
    """What is said of an action before it and while it goes on."""
    origin = back(case.request)
    return {
        "doing": case.name,
        "meant": case.to.shown,
        "address": f"{DO}/{case.name}?{urlencode({**case.to.query, 'back': origin}, errors='replace')}",
        "back": origin,
    }


def _progress(case: _Case, sums: Mapping[str, int], after: str, total: str) -> dict[str, Any]:
    """How far an action has come, and the address at which it says so after it was stopped."""
    frame, gone, did = _frame(case), sums.get("events", 0), done(case.name, sums)
    expected = plain_figures({"events": total}).get("events", 0)
    # Another may have made it fewer meanwhile, or more.
    expected = expected if expected >= gone else 0
    progress = {"after": after, "gone": gone, "started": did.count, "total": expected}
    return {
        **frame,
        "what": case.what,
        "sums": sums,
        "after": after,
        "gone": gone,
        "total": expected,
        "did": did,
        "stop": f"{frame['address']}&{urlencode(progress, errors='replace')}",
    }


def _command(case: _Case, after: str) -> str:
    """The command that goes on with an action where it was stopped."""
    words = ["events", case.what.operation, *(["--again"] if case.what.arguments.get("again") else [])]
    options = {name.replace("_", "-"): value for name, value in case.to.query.items()}
    # What has nothing to choose from goes on by itself.
    options |= {"after": after} if case.what.of == "events" else {}
    return command_line(*words, *(f"--{name}={value}" for name, value in options.items()))


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
