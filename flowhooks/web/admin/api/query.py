"""A strict parser for the query strings of the administration API.

A misspelt, empty or repeated parameter is rejected by name. If it were ignored, the filter would select more events
than meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from flowhooks.text import escape_control
from flowhooks.web.admin.console.filters import filter_text
from flowhooks.web.errors import LocalizedHTTPError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import falcon

MAX_VALUE_CHARS: Final = 1_000
"""Maximum length of a value. No searchable field of an event is longer."""
MAX_SHOWN_CHARS: Final = 60
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A query parameter of a path.

    Attributes:
        name: its name.
        description: its meaning, in English and Chinese.
        schema: its JSON Schema.
        max_values: how many times it may be given.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    max_values: int = 1


def parse_query(request: falcon.Request, parameters: Sequence[Parameter]) -> dict[str, list[str]]:
    """Return the values of a query by parameter name.

    Raises:
        LocalizedHTTPError: the query has an unknown or repeated parameter, or a value that is always invalid.
    """
    by_name = {parameter.name: parameter for parameter in parameters}
    query: dict[str, list[str]] = {}
    for part in request.query_string.encode("latin-1", "replace").split(b"&"):
        if not part:
            continue
        name, _, value = (_decode(text) for text in part.partition(b"="))
        if name not in by_name:
            allowed = ", ".join(by_name) or "–"  # noqa: RUF001 (an en dash stands for an empty list)
            raise LocalizedHTTPError(400, "query_unknown", name=escape_control(name, MAX_SHOWN_CHARS), allowed=allowed)
        if name in query and by_name[name].max_values == 1:
            raise LocalizedHTTPError(400, "query_twice", name=name)
        if not value.strip() or len(value) > MAX_VALUE_CHARS or "\0" in value:
            raise LocalizedHTTPError(422, "query_text", name=name, limit=MAX_VALUE_CHARS)
        values = query.setdefault(name, [])
        values.append(filter_text(name, value))
        if len(values) > (limit := by_name[name].max_values):
            raise LocalizedHTTPError(422, "query_many", name=name, limit=limit)
    return query


def parse_id(name: str, value: str) -> str:
    """Return the value if it is an id.

    Raises:
        LocalizedHTTPError: the value is not an id.
    """
    if not _ID.fullmatch(value):
        raise LocalizedHTTPError(422, "query_id", name=name)
    return value


def parse_integer(name: str, value: str, *, low: int, high: int) -> int:
    """Return the value as a whole number.

    Raises:
        LocalizedHTTPError: the value is not a number, or out of range.
    """
    if not _NUMBER.fullmatch(value) or not low <= int(value) <= high:
        raise LocalizedHTTPError(422, "query_number", name=name, low=low, high=high)
    return int(value)


def parse_boolean(name: str, value: str) -> bool:
    """Return whether the value is `true`.

    Raises:
        LocalizedHTTPError: the value is neither `true` nor `false`.
    """
    if value not in {"true", "false"}:
        raise LocalizedHTTPError(422, "query_truth", name=name)
    return value == "true"


def _decode(part: bytes) -> str:
    try:
        return unquote_to_bytes(part.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise LocalizedHTTPError(400, "query_not_utf8") from None
