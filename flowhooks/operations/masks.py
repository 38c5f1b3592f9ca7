"""Replace values that are hidden from an operator by a mask.

A pointer that meets a list applies to each of its items, because the number of an item means nothing to the author of
the settings. A body that cannot be read is hidden as a whole.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from flowhooks.model.conditions import split_pointer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.ledger.queries import DeliveryStatus, EventFilter
    from flowhooks.ledger.search import EventSummary
    from flowhooks.model.delivery import Attempt
    from flowhooks.model.event import Event

MASK: Final = "•••"
"""Text that is shown instead of a hidden value."""
_FILTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "businessKey": ("business_key",),
    "callBackProcessClass": ("callback_class",),
    "processDefinitionId": ("process_key",),
    "processDefinitionKey": ("process_key",),
    "conclusion": ("conclusion",),
}
"""Fields of a filter by the member of the body that has their value."""
_OF_EVENT: Final[Mapping[str, tuple[str, ...]]] = {
    "businessKey": ("business_key",),
    "callBackProcessClass": ("callback_class",),
    "processDefinitionId": ("process_definition_id", "process_definition_key", "process_definition_version"),
    "processDefinitionKey": ("process_definition_key",),
    "processDefinitionVersion": ("process_definition_version",),
    "conclusion": ("conclusion",),
}
"""Fields of an event by the member of the body that has their value, or from which it is derived."""
_OF_SUMMARY: Final = {"process_definition_key": "process_key", "process_definition_version": "process_version"}
"""Names of these fields in a summary, if they differ."""
_NUMBERS: Final = frozenset({"process_definition_version"})


def mask_value(value: Any, pointers: Sequence[str]) -> Any:
    """Return a JSON value in which the values that the pointers name are masked."""
    return _mask(value, [split_pointer(pointer) for pointer in pointers])


def mask_body(text: str, pointers: Sequence[str]) -> str:
    """Return a body in which the values that the pointers name are masked; the mask if it is no JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return MASK
    if not isinstance(value, dict):
        return MASK
    return json.dumps(mask_value(value, pointers), ensure_ascii=False)


def hidden_members(pointers: Sequence[str]) -> frozenset[str]:
    """Return the members of a body that are hidden as a whole."""
    return frozenset(parts[0] for pointer in pointers if len(parts := split_pointer(pointer)) == 1)


def covers(pointers: Sequence[str], pointer: str) -> bool:
    """Return whether a member, or a part of it, is hidden."""
    names = _names(split_pointer(pointer))
    for hidden in (_names(split_pointer(other)) for other in pointers):
        shorter = min(len(names), len(hidden))
        if names[:shorter] == hidden[:shorter]:
            return True
    return False


def filters_hidden(event_filter: EventFilter, pointers: Sequence[str]) -> bool:
    """Return whether a filter has a criterion whose answer would reveal a hidden value."""
    names = _hidden_names(pointers, _FILTERS)
    if any(getattr(event_filter, name) is not None for name in names):
        return True
    if event_filter.error_group is not None:  # its id is a digest of the error's text, which may contain values
        return True
    # The search box finds business keys; declared fields are members of the body.
    if event_filter.query and "business_key" in names:
        return True
    return any(covers(pointers, condition.field) for condition in event_filter.fields)


def mask_filter(event_filter: Mapping[str, Any], pointers: Sequence[str]) -> dict[str, Any]:
    """Return a filter, as JSON values, without the values of hidden members."""
    names = _hidden_names(pointers, _FILTERS)
    hidden = names | {"query", "fields", "error_group"}
    return {name: MASK if name in hidden else value for name, value in event_filter.items()}


def mask_event(event: Event, pointers: Sequence[str]) -> Event:
    """Return an event without the values of hidden members."""
    return replace(event, data=mask_value(dict(event.data), pointers), **_fields(event, pointers))


def mask_summary(event: EventSummary, pointers: Sequence[str]) -> EventSummary:
    """Return an event of a list without the values of hidden members."""
    names = _hidden_names(pointers, _OF_EVENT)
    values: dict[str, Any] = {}
    for name in names:
        field = _OF_SUMMARY.get(name, name)
        if getattr(event, field) is not None:
            values[field] = None if name in _NUMBERS else MASK
    return replace(event, damage=event.damage and MASK, **values)


def mask_status(status: DeliveryStatus) -> DeliveryStatus:
    """Return a delivery without texts that may contain values: its error and its comment."""
    return status._replace(
        error=status.error and MASK,
        comment=status.comment and MASK,
        damage=status.damage and MASK,
        error_group=None,
    )


def mask_attempt(attempt: Attempt) -> Attempt:
    """Return an attempt without texts that may contain values: its error, traceback, result and log."""
    return replace(
        attempt,
        error=attempt.error and MASK,
        traceback=attempt.traceback and MASK,
        result=None if attempt.result is None else json.dumps(MASK, ensure_ascii=False),
        result_dropped=attempt.result_dropped and MASK,
        log=attempt.log and MASK,
        error_group="",
    )


def _hidden_names(pointers: Sequence[str], table: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return the names that a table has for the members that are hidden as a whole."""
    return {name for member in hidden_members(pointers) for name in table.get(member, ())}


def _fields(event: Event, pointers: Sequence[str]) -> dict[str, Any]:
    names = _hidden_names(pointers, _OF_EVENT)
    return {name: None if name in _NUMBERS else MASK for name in sorted(names) if getattr(event, name) is not None}


def _mask(value: Any, paths: list[tuple[str, ...]]) -> Any:
    if any(not path for path in paths):
        return MASK
    if isinstance(value, list):
        # The index of an item may be in the pointer or not.
        inner = paths + [path[1:] for path in paths if _is_index(path[0])]
        return [_mask(item, inner) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _mask(item, [path[1:] for path in paths if path[0] == name]) if paths else item
        for name, item in value.items()
    }


def _names(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for part in parts if not _is_index(part))


def _is_index(part: str) -> bool:
    return part == "-" or (part.isascii() and part.isdecimal())
