"""The pages of bulk operations: the plan, the progress, the deliveries, and the history of all operations."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import falcon

from flowhooks.errors import InvalidTransition, LedgerError, LedgerUnusable, NotFound, SettingsError, Unavailable
from flowhooks.ledger import circuit_state, pauses
from flowhooks.ledger.bulk_operations import list_operations, operation_items, read_operation
from flowhooks.ledger.operation_summary import MAX_GROUPS, plan_summary
from flowhooks.model.bulk_operation import ITEM_CHOICES, Operation, OperationState, parse_item_choice
from flowhooks.operations.access import sees_operation
from flowhooks.operations.bulk import MAX_RATE, MIN_RATE
from flowhooks.operations.registry import run_operation
from flowhooks.operations.seen_page import seen_page
from flowhooks.text import one_line
from flowhooks.web.admin.console.action_page import MAX_NOTE_CHARS, show_error
from flowhooks.web.admin.console.actions import ACTIONS, MAX_SHOWN_IDS, NAME_OF_BULK
from flowhooks.web.admin.console.filters import CONDITIONS, FIELDS, query_text, to_query_text
from flowhooks.web.admin.console.flash import set_flash
from flowhooks.web.admin.console.forms import parse_form
from flowhooks.web.admin.console.page import Page, choose_language
from flowhooks.web.admin.console.urls import OPERATIONS_ROOT, back_url
from flowhooks.web.admin.operators import operation_context, operator_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.ledger.operation_summary import PlanGroup

PAGE_SIZE: Final = 50
STEPS: Final[Mapping[str, str]] = {
    "start": "start_operation",
    "pause": "pause_operation",
    "resume": "resume_operation",
    "cancel": "cancel_operation",
    "rate": "set_operation_rate",
}
"""Steps that an operator can take with an operation, and the operations of the registry that take them."""
STATES_OF_STEPS: Final[Mapping[str, frozenset[OperationState]]] = {
    "start": frozenset({OperationState.PLANNED}),
    "pause": frozenset({OperationState.RUNNING}),
    "resume": frozenset({OperationState.PAUSED}),
    "cancel": frozenset({OperationState.PLANNED, OperationState.RUNNING, OperationState.PAUSED}),
    "rate": frozenset({OperationState.RUNNING, OperationState.PAUSED}),
}
"""The states in which a page offers each of them."""
SINGLE_WAIT: Final = 1.0
"""Maximum seconds to wait until a started operation has acted on its only delivery, so that the next page shows it.
After that, the next page is that of the operation, which shows its progress."""
_RATE: Final = re.compile(r"[0-9]{1,7}(\.[0-9]{1,9})?", re.ASCII)
"""A rate, also the lowest one with all digits that a form shows."""
_FIELD_NAMES: Final = {field: name for name, field in FIELDS.items()}


class OperationsPage(Page):
    """`GET /console/operations`."""

    template = "operations.html"
    place = "operations"
    for_limited_roles = for_masked_roles = True

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return one page of the operations, the newest first."""
        before = query_text(request, "before")
        access = operator_of(request).access
        with self.app.ledger.connection() as connection:

            def read(before: str, count: int) -> tuple[Operation, ...]:
                return list_operations(connection, limit=count, before=before)

            page = seen_page(read, sees_operation(access), limit=PAGE_SIZE, before=before)
        return {
            "rows": [
                {"facts": access.operation(operation), "name": NAME_OF_BULK[operation.action]}
                for operation in page.items
            ],
            "newest": OPERATIONS_ROOT if before else "",
            "older": f"{OPERATIONS_ROOT}?{urlencode({'before': page.next})}" if page.next else "",
        }


class OperationPage(Page):
    """`GET /console/operations/{operation_id}`: the plan of an operation, or its progress."""

    template = "operation.html"
    place = "operations"
    for_limited_roles = for_masked_roles = True

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Answer with the page of the operation's state."""
        language = choose_language(request, response)

        def go() -> None:
            operation = self._operation(request, path["operation_id"])
            if operation.state in {OperationState.PLANNING, OperationState.PLANNED}:
                self.answer(request, response, language, self._plan(request, operation), template="plan.html")
            else:
                self.answer(request, response, language, self._progress(request, operation))

        self.respond_safely(request, response, language, go)

    on_head = on_get

    def _operation(self, request: falcon.Request, operation_id: str) -> Operation:
        access = operator_of(request).access
        with self.app.ledger.connection() as connection:
            operation = read_operation(connection, to_query_text(operation_id))
        if operation is None or not access.sees_filter(operation.event_filter):
            raise NotFound(f"there is no operation {operation_id}")
        return access.operation(operation)

    def _plan(self, request: falcon.Request, operation: Operation) -> dict[str, Any]:
        is_masked = operator_of(request).access.is_masked
        with self.app.ledger.connection() as connection:
            summary = plan_summary(connection, operation.id)
            if is_masked:
                summary = replace(summary, errors=())
            paused, open_circuits = pauses.paused(connection), circuit_state.open_circuits(connection)
        return {
            **operation_values(request, operation),
            "summary": summary,
            "handlers": [self._handler(group, paused, open_circuits) for group in summary.handlers],
            "more_handlers": len(summary.handlers) == MAX_GROUPS,
            "longest_note": MAX_NOTE_CHARS,
            # A start with an empty note keeps the one of the plan.
            "note": "" if is_masked else operation.note,
            "unsure": False,
        }

    def _handler(self, group: PlanGroup, paused: Mapping[str, Any], circuits: Mapping[str, Any]) -> dict[str, Any]:
        state = (
            "circuit_open"
            if group.name in circuits
            else "paused"
            if group.name in paused
            else "missing"
            if group.name in self.app.operation_context.missing_handlers
            else ""
        )
        return {"facts": group, "state": state}

    def _progress(self, request: falcon.Request, operation: Operation) -> dict[str, Any]:
        status, after = query_text(request, "items"), query_text(request, "after")
        chosen = parse_item_choice(status) if status in ITEM_CHOICES else None
        with self.app.ledger.connection() as connection:
            items = operation_items(connection, operation.id, status=chosen, after=after, limit=PAGE_SIZE + 1)
        query = {"items": chosen.value} if chosen else {}
        return {
            **operation_values(request, operation),
            "items": items[:PAGE_SIZE],
            "chosen": chosen.value if chosen else "",
            "first": _items_url(request, operation, **query) if after else "",
            "next": _items_url(request, operation, **query, after=items[PAGE_SIZE - 1].delivery_id)
            if len(items) > PAGE_SIZE
            else "",
        }


class OperationLive(OperationPage):
    """`GET /console/operations/{operation_id}/live`: only the part of the page that is refreshed."""

    template = "_operation.html"
    whole = False

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Answer with the progress."""
        language = choose_language(request, response)

        def go() -> None:
            operation = self._operation(request, path["operation_id"])
            self.answer(request, response, language, operation_values(request, operation))

        self.respond_safely(request, response, language, go)

    on_head = on_get


class OperationStep(OperationPage):
    """`POST /console/operations/{operation_id}/{step}`: starts, pauses, resumes or cancels it, or sets its rate."""

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Redirect to the page of the operation, for a browser that logs in or reloads."""
        language = choose_language(request, response)

        def go() -> None:
            _redirect(response, _page_url(request, self._operation(request, path["operation_id"])))

        self.respond_safely(request, response, language, go)

    on_head = on_get

    def on_post(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Take the step and redirect to the page of the operation, or to the page from which it was planned."""
        language = choose_language(request, response)

        def go() -> None:
            if path["step"] not in STEPS:
                raise NotFound("there is no such step")
            operation = self._operation(request, path["operation_id"])
            try:
                self._take(request, response, language, operation, path["step"])
            except LedgerUnusable:
                raise
            except (LedgerError, SettingsError, Unavailable) as error:
                show_error(self, request, response, language, error, back=_page_url(request, operation))

        self.respond_safely(request, response, language, go)

    def _take(
        self, request: falcon.Request, response: falcon.Response, language: str, operation: Operation, step: str
    ) -> None:
        form = {name: to_query_text(value) for name, value in parse_form(request).items()}
        arguments: dict[str, Any] = {"operation_id": operation.id}
        name = NAME_OF_BULK[operation.action]
        if step in {"start", "rate"}:
            rate = parse_rate(form.get("rate", ""))
            unsure = step == "start" and ACTIONS[name].twice and not form.get("sure")
            if rate == 0 or unsure:
                if operation.state not in STATES_OF_STEPS[step]:
                    raise InvalidTransition(f"operation {operation.id} is {operation.state}")
                entered = {"note": form.get("note", ""), "rate": form.get("rate", "")}
                wrong = {"wrong_rate": rate == 0, "unsure": unsure}
                self._ask_again(request, response, language, operation, **entered, **wrong)
                return
            arguments |= {} if rate is None else {"rate": rate}
        if step == "start":
            arguments["note"] = one_line(form.get("note", ""))[:MAX_NOTE_CHARS]
            # A start without a rate keeps the one of the plan, but an empty field means no limit.
            arguments |= {"unlimited": True} if rate is None else {}
        run_operation(operation_context(self.app, request, "console"), STEPS[step], arguments)
        self.app.runner.wake()
        is_single = step == "start" and operation.planned == 1 and request.get_param("back")
        if is_single and (done := self._wait(request, operation)) is not None:
            sums = {"deliveries": done.released, "changed_meanwhile": done.changed}
            set_flash(response, name, sums, operation=operation.id)
            _redirect(response, back_url(request))
        elif step == "cancel" and operation.state is OperationState.PLANNED:
            _redirect(response, back_url(request, OPERATIONS_ROOT))
        else:
            _redirect(response, _page_url(request, operation))

    def _ask_again(
        self, request: falcon.Request, response: falcon.Response, language: str, operation: Operation, **entered: Any
    ) -> None:
        response.status = falcon.HTTP_422
        is_plan = operation.state is OperationState.PLANNED
        shown = (self._plan if is_plan else self._progress)(request, operation)
        self.answer(
            request, response, language, {**shown, **entered}, template="plan.html" if is_plan else self.template
        )

    def _wait(self, request: falcon.Request, operation: Operation) -> Operation | None:
        """Return the operation once it has acted on all its deliveries; None if that takes too long."""
        deadline = time.monotonic() + SINGLE_WAIT
        while time.monotonic() < deadline:
            current = self._operation(request, operation.id)
            if current.released + current.changed >= current.planned:
                return current
            time.sleep(0.02)
        return None


def operation_values(request: falcon.Request, operation: Operation) -> dict[str, Any]:
    """Return the values of an operation that each of its pages shows."""
    name = NAME_OF_BULK[operation.action]
    path, back = _path(operation), back_url(request, "")
    query = _back_query(request)
    return {
        "operation": operation,
        "doing": name,
        "what": ACTIONS[name],
        "meant": selection_values(operation.event_filter),
        "reload": _page_url(request, operation),
        "all_items": _items_url(request, operation),
        "items_by_status": {status: _items_url(request, operation, items=status) for status in ITEM_CHOICES},
        "live": f"{path}/live{query}",
        "steps": {
            step: f"{path}/{step}{query}" for step, states in STATES_OF_STEPS.items() if operation.state in states
        },
        "back": back or OPERATIONS_ROOT,
        "came_from": back,
        "at_rest": _is_at_rest(operation),
        "rate": "" if operation.rate is None else f"{operation.rate:g}",
        "wrong_rate": False,
        "executed": operation.succeeded + operation.failed,
        "unchanged": operation.planned - operation.changed,
    }


def selection_values(event_filter: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return the fields of a filter as pairs of a text's key and a value, as `_meant.html` shows them."""
    shown: list[tuple[str, Any]] = []
    for field, value in event_filter.items():
        if field == "handler_plugins":
            shown += [(field, name) for name in value]
        elif field in {"ids", "delivery_ids"}:
            key = "event.id" if field == "ids" else "do.delivery"
            shown += [(key, item) for item in value[:MAX_SHOWN_IDS]]
            shown += [("do.selected", f"{len(value):,}")] if len(value) > MAX_SHOWN_IDS else []
        elif field == "fields":
            # Hidden conditions are one text.
            shown += [(CONDITIONS, condition) for condition in ([value] if isinstance(value, str) else value)]
        else:
            shown.append((_FIELD_NAMES.get(field, field), value))
    return tuple(shown)


def parse_rate(value: str) -> float | None:
    """Return the deliveries per second that a form states; None: no limit; 0: the value is invalid."""
    value = value.strip()
    if not value:
        return None
    rate = float(value) if _RATE.fullmatch(value) else 0
    return rate if MIN_RATE <= rate <= MAX_RATE else 0


def _is_at_rest(operation: Operation) -> bool:
    """Tell whether the figures of an operation do not change by themselves, so that its page need not refresh."""
    if operation.state is OperationState.CANCELLED:
        return operation.succeeded + operation.failed >= operation.released
    return operation.state in {OperationState.PLANNED, OperationState.FINISHED}


def _path(operation: Operation) -> str:
    return f"{OPERATIONS_ROOT}/{quote(operation.id, safe='')}"


def _back_query(request: falcon.Request, **query: str) -> str:
    if back := back_url(request, ""):
        query["back"] = back
    return f"?{urlencode(query)}" if query else ""


def _page_url(request: falcon.Request, operation: Operation, **query: str) -> str:
    return f"{_path(operation)}{_back_query(request, **query)}"


def _items_url(request: falcon.Request, operation: Operation, **query: str) -> str:
    return f"{_page_url(request, operation, **query)}#items"


def _redirect(response: falcon.Response, url: str) -> None:
    response.status = falcon.HTTP_303
    response.location = url
    response.set_header("Cache-Control", "no-store")
