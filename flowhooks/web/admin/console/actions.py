"""Everything that can be done by clicking, in one table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from flowhooks.clock import to_datetime
from flowhooks.errors import NotFound, SettingsError
from flowhooks.operations.registry import OPERATIONS
from flowhooks.web.admin.console.filters import filter_from_request, query_text
from flowhooks.web.admin.console.urls import query_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that can be done.

    Attributes:
        operation: the operation's name, of `flowhooks.operations.registry.OPERATIONS`.
        target: what it is done to: `"events"` (a filter), `"delivery"`, `"handler"`, `"alert"`, or `""`: it takes
            nothing.
        counts: which figure of the operation's answer says how much it changes; `""`: it is one thing.
        also: further figures of things that it changes.
        arguments: what the operation is always given.
        note: whether it takes a note.
        paged: whether the operation does a page at a time.
        twice: whether it has to be said a second time that this is meant.
        danger: whether it cannot be undone, and may do harm.
    """

    operation: str
    target: str
    counts: str = ""
    also: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    note: bool = False
    paged: bool = False
    twice: bool = False
    danger: bool = False


ACTIONS: Final[Mapping[str, Action]] = {
    "replay": Action(operation="replay", target="events", counts="deliveries", paged=True),
    "replay_again": Action(
        operation="replay",
        target="events",
        counts="deliveries",
        arguments={"again": True},
        paged=True,
        twice=True,
        danger=True,
    ),
    "did": Action(operation="resolve", target="delivery", arguments={"verdict": "did"}, note=True),
    "did_not": Action(operation="resolve", target="delivery", arguments={"verdict": "did-not"}, note=True, danger=True),
    "close": Action(operation="resolve", target="delivery", arguments={"verdict": "close"}, note=True, danger=True),
    "reroute_parked": Action(
        operation="reroute_parked", target="", counts="delivered", also=("dismissed",), paged=True
    ),
    "dismiss": Action(operation="dismiss", target="events", counts="dismissed", note=True, paged=True),
    "reroute": Action(
        operation="reroute", target="events", counts="delivered", also=("parked", "dismissed"), paged=True
    ),
    "pause": Action(operation="pause", target="handler", counts="handlers", note=True),
    "resume": Action(operation="resume", target="handler", counts="handlers"),
    "acknowledge": Action(operation="acknowledge", target="alert", counts="alerts", note=True),
}
"""Every action by its name, under which its address, its button and its texts (`do.NAME.…`) are found."""


def find_action(name: str) -> Action:
    """The action of this name.

    Raises:
        NotFound: there is none.
    """
    action = ACTIONS.get(name)
    if action is None or action.operation not in OPERATIONS:
        raise NotFound("there is no such action")
    return action


PROGRESS_PARAMETERS: Final = ("after", "gone", "started", "total")
"""What the address of a stopped action says besides what it was done to: how far it had come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What an action is to be done to.

    Attributes:
        also: further figures of things that it changes.
        arguments: what the operation is given.
        query: the same as an address says it, without anything that would mean something else a minute later.
        shown: the same as people read it: pairs of a text's key and a value; a time in microseconds.
    """

    arguments: Mapping[str, Any]
    query: Mapping[str, str]
    shown: tuple[tuple[str, str | int], ...]


def parse_selection(request: falcon.Request, action: Action, now: int) -> Selection:
    """What an address says that an action is to be done to.

    Args:
        request: whose query is read.
        action: the action.
        now: microseconds since 1970; events that come later are not meant.

    Raises:
        SettingsError: it says nothing, or makes no sense.
    """
    match action.target:
        case "events":
            return _select_events(request, action, now)
        case "delivery":
            return _select_single(request, action, "delivery", lambda value: {"delivery_id": value})
        case "handler":
            return _select_single(request, action, "handler", lambda value: {"handlers": [value]})
        case "alert":
            return _select_single(request, action, "alert", lambda value: {"alerts": [value]})
    return Selection(arguments=dict(action.arguments), query={}, shown=())


def _select_single(request: falcon.Request, action: Action, name: str, as_argument: Any) -> Selection:
    value = query_text(request, name)
    if not value:
        raise SettingsError(f"the address names no {name}")
    key = "handler" if name == "handler" else f"do.{name}"
    return Selection(arguments={**action.arguments, **as_argument(value)}, query={name: value}, shown=((key, value),))


def _select_events(request: falcon.Request, action: Action, now: int) -> Selection:
    parsed = filter_from_request(request)
    event_id = query_text(request, "id")
    if parsed.event_filter is None:
        raise SettingsError(f"{' and '.join(parsed.wrong)} cannot be used")
    # A name that is misspelt must not come to mean more than what was meant.
    unknown = sorted(set(query_of(request, "lang", "back", "id", *PROGRESS_PARAMETERS)) - set(parsed.given))
    if unknown or not (parsed.given or event_id):
        raise SettingsError("the address does not say which events")
    filter_json = parsed.event_filter.to_json() | ({"ids": [event_id]} if event_id else {})
    shown: list[tuple[str, str | int]] = [("event.id", event_id)] if event_id else []
    shown += [
        (name, filter_json[name] if name in {"since", "until"} else value) for name, value in parsed.given.items()
    ]
    query = {**parsed.given, **({"id": event_id} if event_id else {})}
    if not event_id:
        # What comes after somebody was told how many there are is not among them; `2h` means the same all along.
        filter_json.setdefault("until", now + 1)
        query |= {
            name: to_datetime(filter_json[name]).isoformat() for name in ("since", "until") if name in filter_json
        }
    return Selection(arguments={**action.arguments, "event_filter": filter_json}, query=query, shown=tuple(shown))
