"""Everything that can be done by clicking, in one table; it must not know what an operation allows, or how it works."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from flowhooks.clock import to_datetime
from flowhooks.errors import NotFound, SettingsError
from flowhooks.operations.registry import CALLS
from flowhooks.web.admin.console.filters import asked, text
from flowhooks.web.admin.console.urls import query_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that can be done.

    Attributes:
        operation: the operation's name, of `flowhooks.operations.registry.CALLS`.
        of: what it is done to: `"events"` (a filter), `"delivery"`, `"handler"`, `"alert"`, or `""`: it takes nothing.
        counts: which figure of the operation's answer says how much it changes; `""`: it is one thing.
        also: further figures of things that it changes.
        arguments: what the operation is always given.
        note: whether it takes a note.
        paged: whether the operation does a page at a time.
        twice: whether it has to be said a second time that this is meant.
        danger: whether it cannot be undone, and may do harm.
    """

    operation: str
    of: str
    counts: str = ""
    also: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    note: bool = False
    paged: bool = False
    twice: bool = False
    danger: bool = False


ACTIONS: Final[Mapping[str, Action]] = {
    "replay": Action(operation="replay", of="events", counts="deliveries", paged=True),
    "replay_again": Action(
        operation="replay",
        of="events",
        counts="deliveries",
        arguments={"again": True},
        paged=True,
        twice=True,
        danger=True,
    ),
    "did": Action(operation="resolve", of="delivery", arguments={"verdict": "did"}, note=True),
    "did_not": Action(operation="resolve", of="delivery", arguments={"verdict": "did-not"}, note=True, danger=True),
    "close": Action(operation="resolve", of="delivery", arguments={"verdict": "close"}, note=True, danger=True),
    "drain": Action(operation="drain", of="", counts="delivered", also=("dismissed",), paged=True),
    "dismiss": Action(operation="dismiss", of="events", counts="dismissed", note=True, paged=True),
    "reroute": Action(operation="reroute", of="events", counts="delivered", also=("parked", "dismissed"), paged=True),
    "pause": Action(operation="pause", of="handler", counts="handlers", note=True),
    "resume": Action(operation="resume", of="handler", counts="handlers"),
    "acknowledge": Action(operation="acknowledge", of="alert", counts="alerts", note=True),
}
"""Every action by its name, under which its address, its button and its texts (`do.NAME.…`) are found."""


def action(name: str) -> Action:
    """The action of this name.

    Raises:
        NotFound: there is none.
    """
    found = ACTIONS.get(name)
    if found is None or found.operation not in CALLS:
        raise NotFound("there is no such action")
    return found


PROGRESS: Final = ("after", "gone", "started", "total")
"""What the address of a stopped action says besides what it was done to: how far it had come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
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


def meant(request: falcon.Request, what: Action, now: int) -> Meant:
    """What an address says that an action is to be done to.

    Args:
        request: whose query is read.
        what: the action.
        now: microseconds since 1970; events that come later are not meant.

    Raises:
        SettingsError: it says nothing, or makes no sense.
    """
    match what.of:
        case "events":
            return _events(request, what, now)
        case "delivery":
            return _one(request, what, "delivery", lambda given: {"delivery_id": given})
        case "handler":
            return _one(request, what, "handler", lambda given: {"handlers": [given]})
        case "alert":
            return _one(request, what, "alert", lambda given: {"alerts": [given]})
    return Meant(arguments=dict(what.arguments), query={}, shown=())


def _one(request: falcon.Request, what: Action, name: str, as_argument: Any) -> Meant:
    given = text(request, name)
    if not given:
        raise SettingsError(f"the address names no {name}")
    key = "handler" if name == "handler" else f"do.{name}"
    return Meant(arguments={**what.arguments, **as_argument(given)}, query={name: given}, shown=((key, given),))


def _events(request: falcon.Request, what: Action, now: int) -> Meant:
    look = asked(request)
    event_id = text(request, "id")
    if look.wanted is None:
        raise SettingsError(f"{' and '.join(look.wrong)} cannot be used")
    # A name that is misspelt must not come to mean more than what was meant.
    odd = sorted(set(query_of(request, "lang", "back", "id", *PROGRESS)) - set(look.given))
    if odd or not (look.given or event_id):
        raise SettingsError("the address does not say which events")
    wanted = look.wanted.to_json() | ({"ids": [event_id]} if event_id else {})
    shown: list[tuple[str, str | int]] = [("event.id", event_id)] if event_id else []
    shown += [(name, wanted[name] if name in {"since", "until"} else value) for name, value in look.given.items()]
    query = {**look.given, **({"id": event_id} if event_id else {})}
    if not event_id:
        # What comes after somebody was told how many there are is not among them; `2h` means the same all along.
        wanted.setdefault("until", now + 1)
        query |= {name: to_datetime(wanted[name]).isoformat() for name in ("since", "until") if name in wanted}
    return Meant(arguments={**what.arguments, "wanted": wanted}, query=query, shown=tuple(shown))
