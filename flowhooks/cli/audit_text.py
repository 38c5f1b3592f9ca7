"""What operators have done, in words and as JSON; it must not know how it is kept.

Every value in a deed is somebody's: whoever prints these words makes them inert.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from flowhooks.cli.output import moment, several

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.ledger.audit import AuditEntry

FACES: Final = {"console": "at the console", "api": "by the API", "command": "by a command"}
_VERDICTS: Final = {
    "did": "it did its work",
    "did-not": "it did not do its work, and is run again",
    "close": "nothing more is needed",
}


def who(entry: AuditEntry) -> str:
    """Who has done it, and by which face."""
    return f"{entry.who} {FACES.get(entry.face, entry.face)}"


def what(entry: AuditEntry) -> str:
    """What was done, in words; what this version has no words for, as it was written down."""
    detail = entry.detail
    say = _SAID.get(entry.action)
    try:
        text = say(detail) if say else None
    except (LookupError, TypeError, ValueError, AttributeError):  # of another version
        text = None
    if text is None:
        return f"{entry.action} {json.dumps(detail, ensure_ascii=False)}"
    if not entry.subject and (meant := _meant(detail.get("wanted"))):
        text += f" ({meant})"
    return f"{text}: {note}" if (note := detail.get("note")) else text


def _replayed(detail: Mapping[str, Any]) -> str:
    text = f"ran {_deliveries(detail)} again"
    if not detail["again"]:
        return text
    after = f", up to event {after}" if (after := detail.get("after")) else ""
    return f"{text}, what had succeeded too{after}"


def _resolved(detail: Mapping[str, Any]) -> str:
    return f"said of delivery {detail['delivery']} for {detail['handler']}: {_VERDICTS[detail['verdict']]}"


def _rerouted(detail: Mapping[str, Any]) -> str:
    made = f", with {several(detail['deliveries'], 'new delivery', 'new deliveries')}" if detail["deliveries"] else ""
    only = f", only for {detail['handler']}" if "handler" in detail else ""
    return f"routed {several(detail['events'], 'event')} again{only}{made}"


def _acknowledged(detail: Mapping[str, Any]) -> str:
    return f"acknowledged {several(len(detail['alerts']), 'alert')} ({', '.join(detail['about'])})"


def _of_handlers(verb: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda detail: f"{verb} {', '.join(detail['handlers'])}"


_SAID: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "replay": _replayed,
    "resolve": _resolved,
    "drain": lambda detail: f"drained {several(detail['events'], 'parked event')}",
    "reroute": _rerouted,
    "dismiss": lambda detail: f"dismissed {several(detail['events'], 'parked event')}",
    "acknowledge": _acknowledged,
    "purge": lambda detail: f"purged {several(detail['events'], 'event')}",
    "retire": _of_handlers("retired"),
    "pause": _of_handlers("paused"),
    "resume": _of_handlers("resumed"),
}


def _deliveries(detail: Mapping[str, Any]) -> str:
    return several(detail["deliveries"], "delivery", "deliveries")


def _meant(wanted: Any) -> str:
    """Which events were asked for, by the options that ask for them; `""` if that is not known."""
    if not isinstance(wanted, dict):
        return ""
    if not wanted:
        return "--all"
    words = []
    for name, value in wanted.items():
        if name == "ids":
            words.append(several(len(value), "id"))
        elif name in {"since", "until"}:
            words.append(f"--{name} {moment(value)}")
        else:
            words.append(f"--{_OPTIONS.get(name, name)} {value}")
    return " ".join(words)


_OPTIONS: Final = {
    "flow_instance_id": "flow",
    "business_key": "business-key",
    "callback_class": "class",
    "process_key": "key",
}
