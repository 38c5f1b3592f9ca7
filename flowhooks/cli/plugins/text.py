"""Describe plugins and handlers in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from flowhooks.cli.output import escape_newlines, pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STYLES: Final = {
    "loaded": "green",
    "elsewhere": "green",
    "quarantined": "red",
    "missing": "red",
    "denied": "yellow",
    "retired": "yellow",
}
"""Colour of each state of a plugin."""
MAX_CONDITION_CHARS: Final = 100
"""Maximum length of a printed condition. `--json` prints all of it."""
_BACKLOG_STATES: Final = ("waiting", "running", "unknown", "dead")


def plugin_title(plugin: Mapping[str, Any]) -> str:
    """Return a plugin's name with its version and package, such as `leave 0.2.0 (acme-leave)`."""
    package = f" ({plugin['package']})" if plugin["package"] else ""
    return f"{plugin['name']} {plugin['version']}".rstrip() + package


def selectors_text(selectors: Mapping[str, Any] | None) -> str:
    """Describe what a handler listens to, such as `class com.example.Leave or key leave, versions >=3, from erp`."""
    if selectors is None:
        return "unknown selectors"
    alternatives = [
        *(f"class {callback_class}" for callback_class in selectors["callback_classes"]),
        *(f"key {process_key}" for process_key in selectors["process_keys"]),
        *(["every event"] if selectors["every"] else []),
    ]
    text = " or ".join(alternatives)
    if selectors["versions"].strip():
        text += f", versions {selectors['versions'].strip()}"
    if selectors["sources"]:
        text += f", from {' or '.join(selectors['sources'])}"
    if required := conditions_text(selectors["conclusions"], selectors["when"]):
        text += f", {required}"
    return text if selectors["kind"] == "complete" else f"{text}, kind {selectors['kind']}"


def conditions_text(conclusions: Sequence[str], when: Mapping[str, Any]) -> str:
    """Describe a handler's conditions, such as `conclusion approved, /amount {"minimum": 1000}`; `""` without any."""
    parts = [f"conclusion {' or '.join(conclusions)}"] if conclusions else []
    return ", ".join([*parts, *(f"{pointer} {_condition_text(expected)}" for pointer, expected in when.items())])


def _condition_text(expected: Any) -> str:
    text = json.dumps(expected, ensure_ascii=False)
    return text if len(text) <= MAX_CONDITION_CHARS else f"{text[: MAX_CONDITION_CHARS - 1]}…"


def retry_text(retry: Mapping[str, Any] | None) -> str:
    """Describe a retry schedule, such as `3 attempts in all, after 10 s and 1 min`."""
    if retry is None:
        return "none: a failure is final"
    delays = [_seconds_text(delay) for delay in retry["delays"]][: retry["attempts"] - 1]
    text = f"at most {pluralize(retry['attempts'], 'attempt')}"
    if not delays:
        return text
    more = ", and so on" if retry["attempts"] - 1 > len(delays) else ""
    return f"{text}, after {', '.join(delays)}{more}"


def ordering_text(order_by: str | None, concurrency: int | None, rate: str | None) -> str:
    """Describe a handler's order key and limits, such as `ordered by business_key, at most 10/s`; `""` without any."""
    parts = [f"ordered by {order_by}"] if order_by else []
    if concurrency:
        parts.append(f"at most {concurrency} at a time")
    return ", ".join([*parts, f"at most {rate}"] if rate else parts)


def isolation_text(handler: Mapping[str, Any]) -> str:
    """Describe where a handler runs and its limits; `""` if it is not loaded."""
    if handler["isolation"] is None:
        return ""
    timeout = _seconds_text(handler["timeout"])
    if handler["isolation"] == "process":
        return f"a process of its own, at most {timeout} and {handler['memory_mib']:,} MiB"
    return f"a thread, overdue after {timeout}"


def _seconds_text(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def backlog_text(backlog: Mapping[str, int]) -> str:
    """Describe a handler's backlog, such as `3 waiting, 1 dead`; `""` if there is none."""
    parts = [f"{backlog[state]:,} {state}" for state in _BACKLOG_STATES if backlog[state]]
    if backlog["parked"]:
        parts.append(f"{pluralize(backlog['parked'], 'parked event')} for it")
    return ", ".join(parts)


def add_backlogs(handlers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the sum of the backlogs of several handlers."""
    return {state: sum(handler["backlog"][state] for handler in handlers) for state in (*_BACKLOG_STATES, "parked")}


def pause_text(handler: Mapping[str, Any]) -> str:
    """Return who paused a handler, and the note, such as ` by root: the archive is being moved`; `""` if not known."""
    by = f" by {escape_newlines(handler['paused_by'])}" if handler["paused_by"] else ""
    return f"{by}: {escape_newlines(handler['pause_note'])}" if handler["pause_note"] else by
