"""Encode what a handler returned as JSON, or say why it cannot be stored and what its author can do."""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any, Final, NamedTuple

from flowhooks.plugins.error_text import error_to_line

MAX_RESULT_CHARS: Final = 65_536
"""Maximum stored characters of a result as JSON, so that a handler cannot fill the disk."""
# A deeper result might be encoded, and then not be read again by code that has less stack left.
MAX_RESULT_DEPTH: Final = 100
"""Maximum number of lists and dicts of a result that are nested in each other."""
_MAX_POINTER_CHARS: Final = 200
_ADVICE: Final = "return text, numbers, True, False, None, or lists and dicts of them with text as keys"
_SHORTEN: Final = "return an id or a summary, and store the rest elsewhere"
# Strings, because they may have brackets, and all that is between brackets.
_NOT_BRACKETS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^"{}\[\]]+')


class EncodedResult(NamedTuple):
    """A result as JSON, or the reason why it cannot be stored.

    Attributes:
        text: the JSON text; None if there is no result, or if it cannot be stored.
        dropped: what was returned, why it cannot be stored and what to return instead; `""` if it can be stored.
    """

    text: str | None
    dropped: str = ""


def encode_result(value: Any, max_chars: int = MAX_RESULT_CHARS) -> EncodedResult:
    """Encode a handler's return value as JSON of at most `max_chars` characters. No exception passes on."""
    if value is None:
        return EncodedResult(None)
    try:
        text = to_json(value)
    except BaseException as error:  # noqa: BLE001 (reading a plugin's value may run any code)
        return EncodedResult(None, f"returned {_problem(value, error)}; {_ADVICE}")
    if len(text) > max_chars:
        return EncodedResult(
            None,
            f"returned {len(text):,} characters of JSON, and at most {MAX_RESULT_CHARS:,} are stored; {_SHORTEN}",
        )
    if _is_too_deep(text):
        return EncodedResult(
            None, f"returned lists and dicts nested more than {MAX_RESULT_DEPTH} levels deep; {_SHORTEN}"
        )
    return EncodedResult(text)


def to_json(value: Any) -> str:
    """Return a value as JSON that a reader of any language can read. Lone surrogates, which UTF-8 lacks, are escaped.

    Raises:
        Exception: the value is not JSON, or cannot be read.
    """
    return json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _is_too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_RESULT_DEPTH:  # as almost always
        return False
    depths = accumulate(1 if bracket in "[{" else -1 for bracket in _NOT_BRACKETS.sub("", text))
    return max(depths, default=0) > MAX_RESULT_DEPTH


def _problem(value: Any, error: BaseException) -> str:
    """Return what was returned, and the place in it that is not JSON."""
    returned = f"a value of type {type(value).__qualname__}"
    try:
        found = _find_problem(value, "", set())
    except BaseException:  # noqa: BLE001 (as in `encode_result`; such a value may also be too deep)
        found = None
    if found is None:
        # Python's own text depends on its version.
        too_deep = "it is nested too deeply" if isinstance(error, RecursionError) else ""
        return (
            f"{returned}, which cannot be written as JSON ({too_deep or error_to_line(error) or type(error).__name__})"
        )
    pointer, problem = found
    return f"{returned}, {f'whose member {pointer[:_MAX_POINTER_CHARS]}' if pointer else 'which'} {problem}"


def _find_problem(value: Any, pointer: str, parents: set[int]) -> tuple[str, str] | None:
    """Return the JSON Pointer of the first value that is not JSON, and what is wrong with it; None if none is found."""
    if isinstance(value, float) and not math.isfinite(value):
        return pointer, f"is {value}, a number that JSON does not have"
    if value is None or isinstance(value, str | int | float):
        return None
    if not isinstance(value, dict | list | tuple):
        return pointer, f"is of type {type(value).__qualname__}, which is not JSON" if pointer else "is not JSON"
    return _find_in_container(value, pointer, parents)


def _find_in_container(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...], pointer: str, parents: set[int]
) -> tuple[str, str] | None:
    if id(value) in parents:
        return pointer, "contains itself"
    parents.add(id(value))
    for key, member in value.items() if isinstance(value, dict) else enumerate(value):
        if not (key is None or isinstance(key, str | int | float)):
            return pointer, f"has a key of type {type(key).__qualname__}"
        if found := _find_problem(member, f"{pointer}/{key}", parents):
            return found
    parents.remove(id(value))
    return None
