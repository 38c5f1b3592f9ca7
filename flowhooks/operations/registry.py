"""Each operation by its name, with JSON in and out: how commands and the administration API ask for one.

It must not know who asks.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import SettingsError
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.acknowledge import acknowledge
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.purge import purge
from flowhooks.operations.replay import replay
from flowhooks.operations.reroute import reroute
from flowhooks.operations.reroute_parked import drain
from flowhooks.operations.resolve import Verdict, resolve
from flowhooks.operations.retire import retire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.operations.context import Desk

_TEXTS: Final = frozenset(
    {
        "flow_instance_id",
        "business_key",
        "callback_class",
        "process_key",
        "conclusion",
        "dismissed_by",
        "handler",
        "state",
    }
)
_TIMES: Final = frozenset({"since", "until"})


def perform(desk: Desk, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Do one operation.

    Args:
        desk: what operations work with; `by` says who asks.
        name: a name of `CALLS`.
        arguments: its arguments, as JSON has them.

    Returns:
        What it did, as JSON has it.

    Raises:
        SettingsError: there is no such operation, or an argument is not as it takes it.
        LedgerError: what was asked for cannot be done.
        Unavailable: the ledger could not be written just now.
    """
    if name not in CALLS:
        raise SettingsError(f"there is no operation {name!r}; there are {', '.join(sorted(CALLS))}")
    function, takes = CALLS[name]
    unknown = sorted(set(arguments) - set(takes))
    if unknown:
        raise SettingsError(f"{name} takes {', '.join(takes)}, not {', '.join(unknown)}")
    read = {key: takes[key](key, value) for key, value in arguments.items()}
    try:
        inspect.signature(function).bind(desk, **read)
    except TypeError:
        raise SettingsError(f"{name} needs more than {', '.join(sorted(read)) or 'nothing'}") from None
    return asdict(function(desk, **read))


def filter_from_json(key: str, value: Any) -> EventFilter:
    """An `EventFilter` out of JSON.

    Raises:
        SettingsError: it has a name, a type or a state that a filter does not have, or an empty list of ids.
    """
    if not isinstance(value, dict):
        raise SettingsError(f"{key} is an object")
    unknown = sorted(set(value) - {one.name for one in fields(EventFilter)})
    if unknown:
        raise SettingsError(f"{key} has no {', '.join(unknown)}")
    for name, given in value.items():
        fits = (
            isinstance(given, str)
            if name in _TEXTS
            else type(given) is int
            if name in _TIMES
            else isinstance(given, list)
        ) or given is None
        if not fits:
            raise SettingsError(f"{key}.{name} is of the wrong type")
    ids = value.get("ids")
    if ids is not None and not (ids and all(isinstance(one, str) for one in ids)):
        # None at all would mean every event, which is hardly what a caller without any means.
        raise SettingsError(f"{key}.ids are one or more strings")
    return EventFilter(**{**value, "ids": tuple(ids or ())})


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{key} is a string")
    return value


def _texts(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise SettingsError(f"{key} is a list of strings")
    return value


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(f"{key} is true or false")
    return value


def _verdict(key: str, value: Any) -> Verdict:
    try:
        return Verdict(value)
    except ValueError:
        raise SettingsError(f"{key} is one of {', '.join(Verdict)}") from None


CALLS: Final[dict[str, tuple[Callable[..., Any], dict[str, Callable[[str, Any], Any]]]]] = {
    "replay": (replay, {"wanted": filter_from_json, "again": _truth, "dry_run": _truth, "after": _text}),
    "resolve": (resolve, {"delivery_id": _text, "verdict": _verdict, "note": _text, "dry_run": _truth}),
    "drain": (drain, {"dry_run": _truth, "after": _text}),
    "reroute": (reroute, {"wanted": filter_from_json, "handler": _text, "dry_run": _truth, "after": _text}),
    "dismiss": (dismiss, {"wanted": filter_from_json, "note": _text, "dry_run": _truth, "after": _text}),
    "acknowledge": (acknowledge, {"alerts": _texts, "note": _text, "dry_run": _truth}),
    "purge": (purge, {"wanted": filter_from_json, "dry_run": _truth, "after": _text}),
    "retire": (retire, {"handlers": _texts, "dry_run": _truth}),
    "pause": (pause, {"handlers": _texts, "note": _text, "dry_run": _truth}),
    "resume": (resume, {"handlers": _texts, "dry_run": _truth}),
}
"""Every operation, with the arguments that it takes and how each is read."""
