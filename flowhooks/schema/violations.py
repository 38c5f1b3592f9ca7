"""Describe schema violations in sentences of our own, which never repeat the refused value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowhooks.messages import MESSAGES
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jsonschema.exceptions import ValidationError

MAX_POINTER_CHARS: Final = 200
"""Maximum length of a JSON Pointer in a response."""
MAX_ALLOWED_CHARS: Final = 200
"""Maximum length of a schema's own values, such as an `enum`, in a response."""


class Violation(NamedTuple):
    """A violation of a schema.

    Attributes:
        path: names and indexes from the body to the violation.
        key: key of the message.
        params: parameters of the message, as pairs.
    """

    path: tuple[str | int, ...]
    key: str
    params: tuple[tuple[str, str], ...]

    @property
    def pointer(self) -> str:
        """JSON Pointer (RFC 6901), escaped for display and cut to 200 characters."""
        parts = (str(part).replace("~", "~0").replace("/", "~1") for part in self.path)
        return escape_control("".join(f"/{part}" for part in parts), MAX_POINTER_CHARS)


def violations(body: Any, errors: Iterable[ValidationError], limit: int) -> list[Violation]:
    """Return each violation once, sorted by its path, then by its message.

    Args:
        body: the checked value.
        errors: errors reported by the validator.
        limit: maximum number of violations.
    """
    unique: set[Violation] = set()
    for violation in (violation for error in errors for violation in _violations_of(error, body)):
        unique.add(violation)
        if len(unique) == limit:
            break
    return sorted(unique)  # names and indexes are never compared: two paths diverge within one object or one array


def _violations_of(error: ValidationError, body: Any) -> Iterator[Violation]:
    path = tuple(error.absolute_path)
    for part in path:
        body = body[part]
    if isinstance(body, dict) and isinstance(error.instance, str):  # for `propertyNames` the path leads to the object
        yield Violation((*path, error.instance), "schema.name", ())
        return
    keyword = str(error.validator)
    value: Any = error.validator_value
    if keyword == "required":
        for name in value:
            if name not in body:
                yield _violation(path, keyword, name=_json(name))
    elif keyword == "dependentRequired":
        for trigger, names in value.items():
            for name in names:
                if trigger in body and name not in body:
                    yield _violation(path, keyword, name=_json(name), given=_json(trigger))
    else:
        numeric_key = path == ("processDefinitionKey",) and isinstance(body, int) and not isinstance(body, bool)
        key, params = _message(keyword, value, matches_several=not error.context, numeric_key=numeric_key)
        yield _violation(path, key, **params)


def _message(keyword: str, value: Any, *, matches_several: bool, numeric_key: bool) -> tuple[str, dict[str, str]]:
    if keyword == "type" and numeric_key:
        return "type_process_key", {}
    if keyword == "not" and value == {}:
        return "nothing", {}
    if keyword == "oneOf" and matches_several:
        return "oneOf_several", {}
    if f"schema.{keyword}" not in MESSAGES:
        return "other", {"keyword": escape_control(keyword, MAX_ALLOWED_CHARS)}
    return keyword, _message_params(keyword, value)


def _message_params(keyword: str, value: Any) -> dict[str, str]:
    match keyword:
        case "type":
            return {"types": value if isinstance(value, str) else ", ".join(value)}
        case "enum":
            return {"allowed": escape_control(", ".join(map(_json, value)), MAX_ALLOWED_CHARS)}
        case "const":
            return {"allowed": _json(value)}
        case "pattern":
            return {"pattern": escape_control(value.ecma, MAX_ALLOWED_CHARS)}
        case _:
            return {"limit": _json(value)} if isinstance(value, int | float) else {}


def _violation(path: tuple[str | int, ...], key: str, **params: str) -> Violation:
    return Violation(path, f"schema.{key}", tuple(params.items()))


def _json(value: Any) -> str:
    return escape_control(json.dumps(value, ensure_ascii=False), MAX_ALLOWED_CHARS)
