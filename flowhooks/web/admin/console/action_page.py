"""Actions of the console: a preview that asks for confirmation, then execution in several short requests."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import falcon
import structlog

from flowhooks.errors import InvalidTransition, LedgerError, LedgerUnusable, NotFound, SettingsError, Unavailable
from flowhooks.ledger import alert_queries
from flowhooks.operations.registry import run_operation
from flowhooks.text import command_line, one_line
from flowhooks.web.admin.console.actions import find_action, parse_selection
from flowhooks.web.admin.console.filters import to_query_text
from flowhooks.web.admin.console.flash import figures, parse_figures, set_flash, to_flash
from flowhooks.web.admin.console.forms import parse_fields
from flowhooks.web.admin.console.page import Page, choose_language
from flowhooks.web.admin.console.urls import ACTION_ROOT, OPERATIONS_ROOT, back_url
from flowhooks.web.admin.operators import operation_context, operator_of, run_for_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.web.admin.console.actions import Action, Selection

PREVIEW_TIME_BUDGET: Final = 1.5
"""Seconds for which a preview counts. If it is not finished then, the page shows that there is more."""
REQUEST_TIME_BUDGET: Final = 3.0
"""Seconds for which one request works. Then the page shows the progress, and the next request continues."""
MAX_NOTE_CHARS: Final = 1_000
_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "reroute_parked": ("reroute", "--parked"),
}
"""Words of the command for a paged operation, if it is not named as the operation."""
_OPTIONS: Final = {"q": "query"}
"""Options of commands that are not named as the query parameter."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """The progress of an operation.

    Attributes:
        sums: sums of the figures of its pages.
        after: position of the next page; `""` at the end.
        last: response of the last page.
        failed: why it stopped; None if it did not.
    """

    sums: Mapping[str, int]
    after: str
    last: Mapping[str, Any]
    failed: Unavailable | None = None


_NOT_STARTED: Final = _Progress(sums={}, after="", last={})


@dataclass(frozen=True, slots=True, kw_only=True)
class _ActionRequest:
    """One request of one action.

    Attributes:
        request: the HTTP request.
        response: the HTTP response.
        language: language of the page.
        name: the action's name.
        action: the action.
        selection: the selected items.
        form: the fields of the form; `{}` for a GET request.
    """

    request: falcon.Request
    response: falcon.Response
    language: str
    name: str
    action: Action
    selection: Selection
    form: Mapping[str, str]


class ActionPage(Page):
    """`GET /console/do/{name}` previews an action; `POST` executes it.

    A bulk action is planned by `POST`, and the page of its operation shows the plan and starts it.
    """

    template = "confirm.html"
    for_limited_roles = for_masked_roles = True

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Show the preview, and ask for confirmation."""
        self._handle(request, response, path["name"], self._confirm)

    on_head = on_get

    def on_post(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Plan a bulk action; execute or continue another one, and at its end redirect to the page it started from."""
        self._handle(request, response, path["name"], self._perform)

    def _handle(
        self, request: falcon.Request, response: falcon.Response, name: str, work: Callable[[_ActionRequest], None]
    ) -> None:
        """Call `work` with the selection; show each error on a page."""
        language = choose_language(request, response)

        def go() -> None:
            what = find_action(name)
            try:
                fields = parse_fields(request) if request.method == "POST" else {}
                case = _ActionRequest(
                    request=request,
                    response=response,
                    language=language,
                    name=name,
                    action=what,
                    selection=parse_selection(request, what, self.app.clock.now(), fields.get("id", ())),
                    form={name: to_query_text(values[-1]) for name, values in fields.items()},
                )
                work(case)
            except LedgerUnusable:
                raise
            except (LedgerError, SettingsError, Unavailable) as error:
                show_error(self, request, response, language, error, back=back_url(request))

        self.respond_safely(request, response, language, go)

    def _plan(self, case: _ActionRequest) -> None:
        context = operation_context(self.app, case.request, "console")
        arguments = {"action": case.action.bulk, "event_filter": case.selection.arguments["event_filter"]}
        planned = run_operation(context, "plan_operation", arguments)
        case.response.status = falcon.HTTP_303
        back = urlencode({"back": back_url(case.request)})
        case.response.location = f"{OPERATIONS_ROOT}/{quote(planned['id'], safe='')}?{back}"
        case.response.set_header("Cache-Control", "no-store")

    def _confirm(self, case: _ActionRequest, *, lacks_note: bool = False) -> None:
        if case.action.bulk is not None:
            # Only forms change anything, so the page of an address has a form that makes the plan.
            self.answer(case.request, case.response, case.language, _base_values(case), template="plan_first.html")
            return
        preview = self._run_pages(case, {**case.selection.arguments, "dry_run": True}, time_budget=PREVIEW_TIME_BUDGET)
        if preview.failed is not None:
            raise preview.failed
        shown = {
            **_base_values(case),
            "what": case.action,
            "would": to_flash(case.name, preview.sums),
            "partly": bool(preview.after),
            "said": preview.last,
            "alert": self._alert(case),
            "total": 0 if preview.after else preview.sums.get("events", 0),
            "longest_note": MAX_NOTE_CHARS,
            "lacks_note": lacks_note,
        }
        self.answer(case.request, case.response, case.language, shown)

    def _perform(self, case: _ActionRequest) -> None:
        if case.action.bulk is not None:
            self._plan(case)
            return
        form = case.form
        if form.get("rows"):
            # The form of a list states the selected rows; the page that asks gets them in its address.
            case.response.status = falcon.HTTP_303
            case.response.location = _base_values(case)["address"]
            return
        note = one_line(form.get("note", ""))[:MAX_NOTE_CHARS] if case.action.note else ""
        if form.get("stop"):
            if form.get("after"):
                self._show_stopped(case, note)
            else:
                self._confirm(case)
            return
        if case.action.needs_note and not note:
            case.response.status = falcon.HTTP_422
            self._confirm(case, lacks_note=True)
            return
        arguments = {**case.selection.arguments, **_shown(case.action, form), **({"note": note} if note else {})}
        before = _Progress(sums=parse_figures(form), after=form.get("after", ""), last={})
        progress = self._run_pages(case, arguments, before, time_budget=REQUEST_TIME_BUDGET)
        self.app.runner.wake()
        if not progress.after and progress.failed is None:
            set_flash(case.response, case.name, progress.sums)
            case.response.status = falcon.HTTP_303
            case.response.location = back_url(case.request)
            case.response.set_header("Cache-Control", "no-store")
            return
        if progress.failed is not None:
            case.response.status = falcon.HTTP_503
            case.response.set_header("Retry-After", str(progress.failed.retry_after))
        shown = {
            **_progress_values(case, progress.sums, progress.after, form.get("total", "")),
            "note": note,
            "failed": progress.failed is not None,
        }
        self.answer(case.request, case.response, case.language, shown, template="progress.html")

    def _show_stopped(self, case: _ActionRequest, note: str) -> None:
        """Show the progress of a stopped action with a form that continues it."""
        form = case.form
        shown = {
            **_progress_values(case, parse_figures(form), form["after"], form.get("total", "")),
            "command": _command(case, form["after"]),
            "longest_note": MAX_NOTE_CHARS,
            "note": note,
        }
        self.answer(case.request, case.response, case.language, shown, template="stopped.html")

    def _run_pages(
        self,
        case: _ActionRequest,
        arguments: Mapping[str, Any],
        before: _Progress = _NOT_STARTED,
        *,
        time_budget: float,
    ) -> _Progress:
        """Run at least one page, and further ones until the end or the time budget."""
        context = operation_context(self.app, case.request, "console")
        sums, after = dict(before.sums), before.after
        deadline = time.monotonic() + time_budget
        while True:
            try:
                given = {**arguments, **({"after": after} if after else {})}
                page = run_for_request(case.request, context, case.action.operation, given)
            except Unavailable as error:
                _log.warning("action_failed", operation=case.action.operation, why=str(error))
                return _Progress(sums=sums, after=after, last={}, failed=error)
            for name, value in figures(page).items():
                sums[name] = sums.get(name, 0) + value
            after = str(page.get("next", ""))
            if not after or time.monotonic() > deadline:
                return _Progress(sums=sums, after=after, last=page)

    def _alert(self, case: _ActionRequest) -> alert_queries.OpenAlert | None:
        ids, access = case.selection.arguments.get("alerts"), operator_of(case.request).access
        if not ids:
            return None
        with self.app.ledger.connection() as connection:
            found = alert_queries.open_alerts(connection)
        return next((access.alert(alert) for alert in found if alert.id in ids and access.sees_alert(alert)), None)


def show_error(
    page: Page, request: falcon.Request, response: falcon.Response, language: str, error: Exception, *, back: str
) -> None:
    """Answer with the page that says why an action was not possible, with a link back."""
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
    # The message of an `Unavailable` is meant for engines.
    says = "" if isinstance(error, Unavailable) else str(error)
    page.answer(request, response, language, {"kind": kind, "says": says, "back": back}, template="undone.html")


def _shown(action: Action, form: Mapping[str, str]) -> dict[str, int]:
    """Return the arguments that have the value which the preview has shown."""
    given = {name: form.get(f"shown.{name}", "") for name in action.shown}
    return {name: int(text) for name, text in given.items() if re.fullmatch("[0-9]{1,18}", text)}


def _base_values(case: _ActionRequest) -> dict[str, Any]:
    origin = back_url(case.request)
    return {
        "doing": case.name,
        "meant": case.selection.shown,
        "address": f"{ACTION_ROOT}/{case.name}?"
        + urlencode({**case.selection.query, "back": origin}, doseq=True, errors="replace"),
        "back": origin,
    }


def _progress_values(case: _ActionRequest, sums: Mapping[str, int], after: str, total: str) -> dict[str, Any]:
    gone = sums.get("events", 0)
    expected = parse_figures({"events": total}).get("events", 0)
    # Other operators may have changed the number meanwhile.
    expected = expected if expected >= gone else 0
    return {
        **_base_values(case),
        "what": case.action,
        "sums": sums,
        "after": after,
        "gone": gone,
        "total": expected,
        "did": to_flash(case.name, sums),
    }


def _command(case: _ActionRequest, after: str) -> str:
    """Return the command that continues a stopped action."""
    operation = case.action.operation
    words = ["events", *_COMMANDS.get(operation, (operation,))]
    options = [
        (_OPTIONS.get(name, name.replace("_", "-")), text)
        for name, value in case.selection.query.items()
        for text in ([value] if isinstance(value, str) else value)
    ]
    # An action without a filter continues without a position.
    options += [("after", after)] if case.action.target == "events" else []
    return command_line(*words, *(f"--{name}={value}" for name, value in options))
