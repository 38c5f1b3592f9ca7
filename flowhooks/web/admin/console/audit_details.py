"""The details of audit entries as names and values."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from flowhooks.clock import to_text
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.model.delivery import Trigger
from flowhooks.model.event import DismissedBy, Origin
from flowhooks.web.admin.console import filters
from flowhooks.web.admin.console.actions import NAME_OF_BULK

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ITEMS: Final = 20
"""Maximum number of values that are shown of a list."""
NAMED_FIELDS: Final = frozenset(
    {
        *("about", "address", "after", "alerts", "bodies", "by", "change", "changed", "correction", "count"),
        *("damaged", "declined", "deliveries", "delivery", "digest", "errors", "events", "fields", "format"),
        *("gaps", "handler", "handlers", "instances", "kind", "last_at", "name", "needs_restart", "operation"),
        *("plugins", "plugins_changed", "rate", "result", "role", "route", "settings_changed", "since", "size"),
        *("verdict", "version"),
    }
)
"""Fields of a detail that have a name in both languages. Others are shown by their own names."""
WORDS: Final[Mapping[str, frozenset[str]]] = {
    "bodies": frozenset({"none", "stored", "masked"}),
    "by": frozenset({"password", "token", "proxy"}),
    "verdict": frozenset({"did", "did-not", "close"}),
    "result": frozenset({"started", "complete", "interrupted"}),
    "change": frozenset({"started", "paused", "resumed", "cancelled", "rate"}),
    "kind": frozenset({"server", "worker"}),
}
"""Values that are shown as a text, by field."""
_HIDDEN: Final = frozenset({"note", "settings"})
"""Fields that are not shown as they are: a note is shown as text, and fingerprints are for machines."""
_TIMES: Final = frozenset({*filters.TIMES, "last_at"})
_CHOICES: Final[Mapping[str, frozenset[str]]] = {
    "dismissed_by": frozenset(DismissedBy),
    "origin": frozenset(Origin),
    "trigger": frozenset(Trigger),
}
_FILTER_NAMES: Final[Mapping[str, str]] = {
    **{field: name for name, field in filters.FIELDS.items()},
    "fields": filters.CONDITIONS,
    "ids": "event.id",
    "delivery_ids": "do.delivery",
}


def detail_rows(detail: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Return the fields of a detail, each as the key of a text or its own name, and its values.

    A value is a pair of its kind and its content, as `_acts.html` shows it. Values of unknown types are JSON text,
    because another version of flowhooks may have stored the detail.
    """
    rows = []
    for name, value in detail.items():
        if name == "event_filter" and isinstance(value, dict):
            rows += [(_FILTER_NAMES.get(field, field), _values(field, item)) for field, item in value.items()]
        elif name not in _HIDDEN:
            rows.append((f"audit.field.{name}" if name in NAMED_FIELDS else name, _values(name, value)))
    return rows


def _values(name: str, value: Any) -> list[tuple[str, Any]]:
    items = [value]
    if isinstance(value, dict):
        items = [f"{key}: {_to_text(item)}" if item else key for key, item in value.items()]
    elif isinstance(value, list):
        items = value
    shown = [_value(name, item) for item in items[:MAX_ITEMS]]
    if len(items) > MAX_ITEMS:
        shown.append(("more", len(items) - MAX_ITEMS))
    return shown or [("none", "")]


def _value(name: str, value: Any) -> tuple[str, Any]:  # noqa: PLR0911 (one for each kind)
    if value is None or value == "":
        return ("word", "no_limit") if name == "rate" else ("none", "")
    if isinstance(value, bool):
        return "word", "yes" if value else "no"
    if isinstance(value, int) and name in _TIMES:
        with suppress(OverflowError):
            to_text(value)
            return "time", value
    if isinstance(value, int):
        return "number", value
    if isinstance(value, float):
        return "text", f"{value:g}"
    if not isinstance(value, str):
        return "text", _to_text(value)
    if name == "state" or value in _CHOICES.get(name, ()):
        return name, value
    if value in WORDS.get(name, ()):
        return "word", f"{name}.{value.replace('-', '_')}"
    if name == "operation" and value in set(BulkAction):
        return "action", NAME_OF_BULK[BulkAction(value)]
    return "text", value


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
