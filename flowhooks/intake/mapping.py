"""Map a request to the fixed URL of a source to a callback, as `[sources.NAME.ingress]` says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from flowhooks import schema
from flowhooks.errors import InvalidCallback
from flowhooks.model.conditions import array_index
from flowhooks.model.receiver import MAX_RULE_CHARS
from flowhooks.settings.ingress import IGNORE
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.settings import IngressSettings, ValueTable

_ABSENT: Final = object()
_WHOLE: Final = re.compile(r"-?[0-9]{1,30}")
"""A version as text. The schema refuses those that are too large for an int32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedCallback:
    """A callback, before the schemas check it.

    Attributes:
        kind: the kind of callback.
        flow_instance_id: the process instance id.
        data: the object of the request, with the mapped members of a callback.
    """

    kind: str
    flow_instance_id: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoredRequest:
    """A request that becomes no callback.

    Attributes:
        rule: the rule that ignores it, such as `/status = 1`, or `/status = other` for a value that is not in the
            table. At most 100 printable characters.
    """

    rule: str


Mapped: TypeAlias = MappedCallback | IgnoredRequest
"""The result of mapping a request."""


def map_request(ingress: IngressSettings, members: Mapping[str, Any]) -> Mapped:
    """Map the object of a request.

    Args:
        ingress: the mapping; not the settings of a receiver.
        members: the object, without nulls. It is not changed.

    Returns:
        The rule that ignores the request, if the table of kinds has one for it; otherwise the callback. A mapped member
        whose pointer finds nothing, or an empty text, is left out.

    Raises:
        InvalidCallback: the process instance id is missing, the table of kinds does not have the value, or a mapped
            value has the wrong type. All violations are named by their pointers, never by a value.
    """
    reader = _Reader(members)
    kind = "complete"
    if ingress.kind is not None:
        meaning, rule = reader.kind(ingress.kind)
        if meaning == IGNORE:
            return IgnoredRequest(rule=escape_control(rule, MAX_RULE_CHARS))
        kind = meaning
    instance_id = _join([reader.id_part(pointer) for pointer in ingress.flow_instance_id])
    data = dict(members)
    for name, pointer in ingress.members.items():
        is_version = name == "processDefinitionVersion"
        _overlay(data, name, reader.version(pointer) if is_version else reader.text(pointer))
    if ingress.conclusion is not None:
        _overlay(data, "conclusion", reader.conclusion(ingress.conclusion))
    schema.convert_business_key(data)
    if reader.violations:
        raise InvalidCallback("ingress_refused", reader.violations)
    return MappedCallback(kind=kind, flow_instance_id=instance_id, data=data)


class _Reader:
    """Reads values of a request by their pointers, and collects the violations."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members
        self.violations: list[tuple[str, str, dict[str, Any]]] = []

    def kind(self, table: ValueTable) -> tuple[str, str]:
        """Return the kind, `""` if there is none, and the rule that says so."""
        value = _find(self._members, table.pointer)
        kind, rule = _look_up(table, value)
        if kind is None:
            self._refuse(table.pointer, "ingress.absent" if _is_empty(value) else "ingress.kind")
        return kind or "", rule

    def conclusion(self, table: ValueTable) -> str | None:
        """Return the conclusion; None if there is none."""
        value = _find(self._members, table.pointer)
        if table.values is None and isinstance(value, dict | list):
            self._refuse(table.pointer, "ingress.not_text")
        return _look_up(table, value)[0] or None

    def id_part(self, pointer: str) -> str:
        if _is_empty(_find(self._members, pointer)):
            self._refuse(pointer, "ingress.absent")
        return self.text(pointer) or ""

    def text(self, pointer: str) -> str | None:
        """Return a text, or a whole number as text; None if it is missing."""
        value = _find(self._members, pointer)
        if isinstance(value, str):
            return value or None
        if type(value) is int:  # no bool
            return str(value)
        if value is not _ABSENT:
            self._refuse(pointer, "ingress.not_text")
        return None

    def version(self, pointer: str) -> int | None:
        """Return a whole number, or a text that is one; None if it is missing."""
        value = _find(self._members, pointer)
        if type(value) is int:  # no bool
            return value
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            return int(value)
        if not _is_empty(value):
            self._refuse(pointer, "ingress.not_whole")
        return None

    def _refuse(self, pointer: str, key: str) -> None:
        self.violations.append((pointer, key, {}))


def _join(parts: list[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    # Escaped, so that different parts never make the same id.
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def _overlay(data: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        data.pop(name, None)
    else:
        data[name] = value


def _look_up(table: ValueTable, value: Any) -> tuple[str | None, str]:
    """Return what a value means, and the rule that says so."""
    text = _scalar_text(value)
    if table.values is None:
        return text, table.pointer
    if text is not None and text in table.values:
        return table.values[text], f"{table.pointer} = {text}"
    return table.other, f"{table.pointer} = other"


def _scalar_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return None if value is _ABSENT or isinstance(value, dict | list) else json.dumps(value)


def _is_empty(value: Any) -> bool:
    return value is _ABSENT or value == ""  # a form has no null, so an absent field is sent as an empty text


def _find(members: Any, pointer: str) -> Any:
    """Return the value at a JSON Pointer, or `_ABSENT`."""
    value = members
    for part in _parts(pointer):
        if isinstance(value, dict):
            value = value.get(part, _ABSENT)
        elif isinstance(value, list) and (index := array_index(part)) is not None and index < len(value):
            value = value[index]
        else:
            return _ABSENT
    return _ABSENT if value is None else value


@lru_cache(maxsize=1024)  # of the settings, never of a request
def _parts(pointer: str) -> tuple[str, ...]:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
