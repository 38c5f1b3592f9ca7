"""Show damaged rows: replace values that no code can read, and name them.

One damaged row must not keep the other rows of a page from being shown. So what is shown to operators is made of
repaired rows; what callbacks are answered with, and what handlers receive, is not.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Integer

from flowhooks.clock import is_time
from flowhooks.model.alert import AlertCause
from flowhooks.model.delivery import OutcomeKind, State, Trigger
from flowhooks.model.event import EventState, Origin, ParkedBy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Column

_MAX_INTEGER: Final = 2**63 - 1
_WORDS: Final[Mapping[str, tuple[frozenset[str], str | None]]] = {
    "events.state": (frozenset(EventState), EventState.ROUTED.value),
    "events.parked_by": (frozenset(ParkedBy), None),
    "events.origin": (frozenset(Origin), Origin.CALLBACK.value),
    "events.dismissed_by": (frozenset({"condition", "kind", "setting", "operator"}), None),
    # Nobody knows what a delivery without a readable state has done.
    "deliveries.state": (frozenset(State), State.UNKNOWN.value),
    "attempts.outcome": (frozenset(OutcomeKind), None),
    "attempts.trigger": (frozenset(Trigger), None),
    "alerts.cause": (frozenset(AlertCause), AlertCause.UNKNOWN.value),
}
"""The legal values of columns that have few, and the value that stands for any other."""
_JSON: Final[Mapping[str, tuple[type, str | None]]] = {
    "events.route": (dict, "{}"),
    "events.no_match": (dict, None),
    "error_groups.versions": (list, "[]"),
    "attempts.result": (object, None),
    "alerts.notified": (list, "[]"),
    "alerts.accepted": (list, "[]"),
    "alerts.resolution_due": (list, "[]"),
    "alerts.notification_errors": (dict, "{}"),
    "audit_log.detail": (dict, '{"damaged": "it is not a JSON object"}'),
    "operations.event_filter": (dict, '{"damaged": "it is not a JSON object"}'),
    "processes.handlers": (list, "[]"),
    "handlers.selectors": (dict, "{}"),
    "handlers.retry": (dict, None),
}
"""The type of JSON columns, and the text that stands for any other."""
_TIMES: Final = frozenset({"since", "at"})


def repair(row: Any, columns: Sequence[Column[Any]]) -> tuple[Any, str]:
    """Return a row that can be shown, and why it is damaged; `""` if it is not.

    Args:
        row: a row, with the name of each column as an attribute.
        columns: the columns that it was selected from.
    """
    damaged = [column for column in columns if not _is_legal(column, getattr(row, column.name))]
    if not damaged:
        return row, ""
    repaired = SimpleNamespace(**row._asdict())
    for column in damaged:
        setattr(repaired, column.name, _stand_in(column, getattr(row, column.name)))
    return repaired, f"damaged: {', '.join(column.name for column in damaged)}; run `flowhooks verify`"


def shown_time(value: Any) -> int:
    """Return a time that can be shown: the value itself, or 0 if it is damaged."""
    return value if type(value) is int and is_time(value) else 0


def _is_legal(column: Column[Any], value: Any) -> bool:
    if value is None:
        return bool(column.nullable)
    if isinstance(column.type, Integer):
        return type(value) is int and (not _is_time_column(column) or is_time(value))
    if type(value) is not str:
        return False
    name = f"{column.table.name}.{column.name}"
    if name in _WORDS:
        return value in _WORDS[name][0]
    return name not in _JSON or _is_json(value, _JSON[name][0])


def _stand_in(column: Column[Any], value: Any) -> Any:
    name = f"{column.table.name}.{column.name}"
    if name in _WORDS:
        return _WORDS[name][1]
    if name in _JSON:
        return _JSON[name][1]
    if isinstance(column.type, Integer):
        return None if column.nullable else 0
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value or "")


def _is_time_column(column: Column[Any]) -> bool:
    return column.name.endswith("_at") or column.name in _TIMES


def _is_json(text: str, kind: type) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False
