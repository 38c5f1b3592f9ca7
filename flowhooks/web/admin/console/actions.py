"""The table of all actions of the console, and the selections that they apply to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from flowhooks.clock import to_datetime
from flowhooks.errors import NotFound, SettingsError
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.operations.registry import OPERATIONS
from flowhooks.web.admin.console.filters import (
    CONDITIONS,
    MAX_VALUE_CHARS,
    TIMES,
    filter_from_request,
    query_text,
    to_query_text,
)
from flowhooks.web.admin.console.urls import query_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import falcon


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action that an operator can start from the console.

    Attributes:
        operation: the operation's name, a key of `flowhooks.operations.registry.OPERATIONS`.
        target: the type of its selection: `"events"` (a filter), `"delivery"`, `"handler"`, `"source"`,
            `"alert"`, `"conflict"` (a conflicting body of an event), or `""` (none).
        bulk: the change that it makes to each selected delivery, as an operation with a plan; None if it is executed at
            once.
        counts: the name of the figure in the operation's result that states how much it changes; `""` if it always
            changes one item.
        also: further figures of items that it changes.
        arguments: fixed arguments of the operation.
        note: whether it takes a note.
        needs_note: whether it is refused without a note.
        paged: whether the operation processes one page per call.
        twice: whether the operator must confirm it twice; only for an operation with a plan.
        danger: whether it cannot be undone, and may do harm.
        shown: arguments of the operation that have the value which its preview has returned and shown.
    """

    operation: str
    target: str
    bulk: BulkAction | None = None
    counts: str = ""
    also: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    note: bool = False
    needs_note: bool = False
    paged: bool = False
    twice: bool = False
    danger: bool = False
    shown: tuple[str, ...] = ()


ACTIONS: Final[Mapping[str, Action]] = {
    "replay": Action(operation="plan_operation", target="events", bulk=BulkAction.REPLAY, counts="deliveries"),
    "replay_again": Action(
        operation="plan_operation",
        target="events",
        bulk=BulkAction.RERUN,
        counts="deliveries",
        twice=True,
        danger=True,
    ),
    "mark_done": Action(
        operation="plan_operation", target="events", bulk=BulkAction.MARK_DONE, counts="deliveries", danger=True
    ),
    "mark_not_done": Action(
        operation="plan_operation", target="events", bulk=BulkAction.MARK_NOT_DONE, counts="deliveries", danger=True
    ),
    "close_all": Action(
        operation="plan_operation", target="events", bulk=BulkAction.CLOSE, counts="deliveries", danger=True
    ),
    "run_now": Action(operation="plan_operation", target="events", bulk=BulkAction.RUN_NOW, counts="deliveries"),
    "did": Action(operation="resolve", target="delivery", arguments={"verdict": "did"}, note=True),
    "did_not": Action(operation="resolve", target="delivery", arguments={"verdict": "did-not"}, note=True, danger=True),
    "close": Action(operation="resolve", target="delivery", arguments={"verdict": "close"}, note=True, danger=True),
    "correct": Action(operation="accept_correction", target="conflict", note=True, needs_note=True, danger=True),
    "reroute_parked": Action(
        operation="reroute_parked", target="", counts="delivered", also=("dismissed",), paged=True
    ),
    "dismiss": Action(operation="dismiss", target="events", counts="dismissed", note=True, paged=True),
    "reroute": Action(
        operation="reroute", target="events", counts="delivered", also=("parked", "dismissed"), paged=True
    ),
    "pause": Action(operation="pause", target="handler", counts="handlers", note=True),
    "resume": Action(operation="resume", target="handler", counts="handlers"),
    "confirm_reconciliation": Action(
        operation="confirm_reconciliation",
        target="source",
        counts="instances",
        danger=True,
        shown=("instances", "seen_until"),
    ),
    "decline_reconciliation": Action(
        operation="decline_reconciliation",
        target="source",
        counts="instances",
        note=True,
        danger=True,
        shown=("instances", "seen_until"),
    ),
    "close_gaps": Action(
        operation="close_gaps", target="source", counts="gaps", note=True, danger=True, shown=("found_until",)
    ),
    "acknowledge": Action(operation="acknowledge", target="alert", counts="alerts", note=True),
}
"""All actions by name. The name is also used in the URL, the button and the texts (`do.NAME.…`)."""
NAME_OF_BULK: Final[Mapping[BulkAction, str]] = {
    action.bulk: name for name, action in ACTIONS.items() if action.bulk is not None
}
"""The action that plans each kind of operation."""


def find_action(name: str) -> Action:
    """Return the action of this name.

    Raises:
        NotFound: no action has this name.
    """
    action = ACTIONS.get(name)
    if action is None or action.operation not in OPERATIONS:
        raise NotFound("there is no such action")
    return action


MAX_SHOWN_IDS: Final = 3
"""Maximum number of ids of selected events that a page shows; for more, it shows their number."""
MAX_IDS: Final = 1_000
"""Maximum number of rows that can be selected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The items that an action applies to.

    Attributes:
        arguments: the arguments of the operation.
        query: the same as query parameters, with relative times made absolute, so that the meaning does not change.
        shown: the same for display: pairs of a text's key and a value; times in microseconds since 1970.
    """

    arguments: Mapping[str, Any]
    query: Mapping[str, str | Sequence[str]]
    shown: tuple[tuple[str, str | int], ...]


_SINGLE: Final[Mapping[str, Callable[[str], dict[str, Any]]]] = {
    "delivery": lambda value: {"delivery_id": value},
    "handler": lambda value: {"handlers": [value]},
    "source": lambda value: {"source": value},
    "alert": lambda value: {"alerts": [value]},
}
"""The arguments of an action on one object, by the name of its query parameter."""


def parse_selection(request: falcon.Request, action: Action, now: int, rows: Sequence[str] = ()) -> Selection:
    """Return the selection that the query of a request states.

    Args:
        request: the request.
        action: the action.
        now: the time in microseconds since 1970; events received later are not selected.
        rows: ids of events that a form selects, besides those in the query.

    Raises:
        SettingsError: the query selects nothing, or is invalid.
    """
    if action.target == "events":
        return _select_events(request, action, now, rows)
    if action.target == "conflict":
        return _select_conflict(request, action)
    if action.target in _SINGLE:
        return _select_single(request, action, action.target, _SINGLE[action.target])
    return Selection(arguments=dict(action.arguments), query={}, shown=())


def _select_single(request: falcon.Request, action: Action, name: str, as_argument: Any) -> Selection:
    value = query_text(request, name)
    if not value:
        raise SettingsError(f"the address names no {name}")
    key = name if name in {"handler", "source"} else f"do.{name}"
    return Selection(arguments={**action.arguments, **as_argument(value)}, query={name: value}, shown=((key, value),))


def _select_conflict(request: falcon.Request, action: Action) -> Selection:
    event_id, digest = query_text(request, "event"), query_text(request, "digest")
    if not (event_id and digest):
        raise SettingsError("the address names no conflicting body of an event")
    return Selection(
        arguments={**action.arguments, "event_id": event_id, "digest": digest},
        query={"event": event_id, "digest": digest},
        shown=(("event.id", event_id), ("event.digest", digest)),
    )


def _select_events(request: falcon.Request, action: Action, now: int, rows: Sequence[str]) -> Selection:
    parsed = filter_from_request(request)
    ids = _selected_ids(request, rows)
    delivery_id = query_text(request, "delivery") if action.bulk else ""
    if parsed.event_filter is None:
        raise SettingsError(f"{' and '.join(parsed.problems)} cannot be used")
    # A misspelt parameter must not widen the selection.
    ours = ("lang", "back", "id", "selected", *(("delivery",) if action.bulk else ()))
    unknown = sorted(set(query_of(request, *ours)) - set(parsed.given))
    if unknown or not (parsed.given or ids or delivery_id):
        raise SettingsError("the address does not say which events")
    if query_text(request, "selected") and not ids:
        raise SettingsError("no row is selected")
    filter_json = parsed.event_filter.to_json() | ({"ids": ids} if ids else {})
    filter_json |= {"delivery_ids": [delivery_id]} if delivery_id else {}
    shown: list[tuple[str, str | int]] = [("event.id", event_id) for event_id in ids[:MAX_SHOWN_IDS]]
    shown += [("do.selected", f"{len(ids):,}")] if len(ids) > MAX_SHOWN_IDS else []
    shown += [("do.delivery", delivery_id)] if delivery_id else []
    shown += [(name, filter_json[name] if name in TIMES else value) for name, value in parsed.given.items()]
    query: dict[str, str | list[str]] = {**parsed.given, **({"id": ids} if ids else {})}
    query |= {CONDITIONS: parsed.given[CONDITIONS].split("\n")} if CONDITIONS in parsed.given else {}
    query |= {"delivery": delivery_id} if delivery_id else {}
    if not ids and not delivery_id:
        # Events received after the operator saw the number are left out. Relative times such as `2h` are fixed.
        filter_json.setdefault("until", now + 1)
        query |= {name: to_datetime(filter_json[name]).isoformat() for name in TIMES if name in filter_json}
    return Selection(arguments={**action.arguments, "event_filter": filter_json}, query=query, shown=tuple(shown))


def _selected_ids(request: falcon.Request, rows: Sequence[str]) -> list[str]:
    given = [*(request.get_param_as_list("id") or ()), *rows]
    ids = list(dict.fromkeys(to_query_text(value.strip()[:MAX_VALUE_CHARS]) for value in given if value.strip()))
    if len(ids) > MAX_IDS:
        raise SettingsError(f"at most {MAX_IDS:,} rows can be selected")
    return ids
