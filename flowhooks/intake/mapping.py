"""Map a request to the fixed URL of a source to a callback, as `[sources.NAME.ingress]` says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from flowhooks.errors import InvalidCallback
from flowhooks.settings.ingress import IGNORE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.settings import IngressSettings, ValueTable

_ABSENT: Final = object()
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
"""An index of an array in a JSON Pointer (RFC 6901, section 4)."""
_WHOLE: Final = re.compile(r"-?[0-9]{1,10}")


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
            table.
    """

    rule: str


Mapped: TypeAlias = MappedCallback | IgnoredRequest


def map_request(ingress: IngressSettings, members: Mapping[str, Any]) -> Mapped:
    """Map the object of a request.

    Args:
        ingress: the mapping; one without a receiver.
        members: the object, without nulls.

    Returns:
        The callback, or the rule that ignores the request. A pointer to nothing leaves its member out.

    Raises:
        InvalidCallback: there is no process instance id, the table of kinds does not have the value, or a mapped value
            is not a scalar; names the pointers, never a value.
    """
    kind = "complete"
    if ingress.kind is not None:
        found, rule = _look_up(ingress.kind, members)
        if found is None:
            raise InvalidCallback("ingress_refused", [(ingress.kind.pointer, "ingress.kind", {})])
        if found == IGNORE:
            return IgnoredRequest(rule=rule)
        kind = found
    data = dict(members)
    for name, pointer in ingress.members.items():
        _overlay(data, name, pointer, _find(members, pointer))
    if ingress.conclusion is not None:
        conclusion, _ = _look_up(ingress.conclusion, members)
        if conclusion is None:
            data.pop("conclusion", None)
        else:
            data["conclusion"] = conclusion
    return MappedCallback(kind=kind, flow_instance_id=_instance_id(ingress.flow_instance_id, members), data=data)


def _instance_id(pointers: tuple[str, ...], members: Mapping[str, Any]) -> str:
    parts = []
    for pointer in pointers:
        value = _find(members, pointer)
        if type(value) is int:
            value = str(value)
        if not isinstance(value, str) or not value:
            key = "ingress.absent" if value in (_ABSENT, "") else "ingress.not_text"
            raise InvalidCallback("ingress_refused", [(pointer, key, {})])
        parts.append(value)
    if len(parts) == 1:
        return parts[0]
    # Escaped, so that different parts never make the same id.
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def _overlay(data: dict[str, Any], name: str, pointer: str, value: Any) -> None:
    if value is _ABSENT:
        data.pop(name, None)
        return
    if isinstance(value, bool | float | dict | list):
        raise InvalidCallback("ingress_refused", [(pointer, "ingress.not_text", {})])
    if name == "processDefinitionVersion":
        if isinstance(value, str):
            if not _WHOLE.fullmatch(value):
                raise InvalidCallback("ingress_refused", [(pointer, "ingress.not_whole", {})])
            value = int(value)
    elif isinstance(value, int):
        value = str(value)
    data[name] = value


def _look_up(table: ValueTable, members: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return what a value means, and the name of the rule that says so."""
    text = _scalar_text(_find(members, table.pointer))
    if table.values is None:
        return text, table.pointer
    if text is not None and text in table.values:
        return table.values[text], f"{table.pointer} = {text}"
    return table.other, f"{table.pointer} = other"


def _scalar_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return None if value is _ABSENT or isinstance(value, dict | list) else json.dumps(value)


def _find(members: Any, pointer: str) -> Any:
    """Return the value at a JSON Pointer, or `_ABSENT`."""
    value = members
    for part in _parts(pointer):
        if isinstance(value, dict):
            value = value.get(part, _ABSENT)
        elif isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
            value = value[int(part)]
        else:
            return _ABSENT
    return _ABSENT if value is None else value


@lru_cache(maxsize=1024)  # of the settings, never of a request
def _parts(pointer: str) -> tuple[str, ...]:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
