"""Parse strict JSON into an object that every database can store."""

from __future__ import annotations

import json
import math
import re
import sys
from array import array
from collections import Counter
from itertools import accumulate
from typing import Any, Final, overload

from flowhooks.errors import MalformedRequest
from flowhooks.text import escape_control

MAX_DEPTH: Final = 64
"""Maximum nesting of objects and arrays. Engines send two or three levels, and a small thread stack can hold 64."""
MAX_NAME_CHARS: Final = 100
"""Maximum length of a member's name repeated in a response."""
_MAX_EXACT_INTEGER: Final = 2**53
"""Limit below which each whole number is a double of its own (IEEE 754)."""

_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[{]}"))
_BAD_ESCAPE: Final = re.compile(
    r"\\(?:u0000(?P<nul>)|u[dD][89abAB]..\\u[dD][c-fC-F]..|u[dD][89a-fA-F](?P<surrogate>)|.)"
)
"""Matches every escape, so that none is matched from its middle. The two kinds that no database stores have a group."""


@overload
def parse(body: bytes) -> dict[str, Any]: ...


@overload
def parse(body: bytes, *, kind: type[list[Any]]) -> list[Any]: ...


@overload
def parse(body: bytes, *, kind: type[object], max_depth: int = MAX_DEPTH) -> Any: ...


def parse(body: bytes, *, kind: type = dict, max_depth: int = MAX_DEPTH) -> Any:
    """Parse a callback's body by RFC 8259, and more strictly where the RFC leaves a choice.

    Args:
        body: the bytes as received.
        kind: the type of the result: `dict`, `list` for an array, or `object` for any JSON value.
        max_depth: maximum nesting; less than `MAX_DEPTH` for a part that is put into an object.

    Returns:
        The object, the array or the value. Members that are null are left out at every level, because Java clients
        write an absent field as null; null in an array stays. A whole number below 2**53 written as a fraction becomes
        an int, so that `1.0` equals `1`.

    Raises:
        MalformedRequest: the body is empty, not UTF-8, not JSON, not of the kind, or nested too deeply.
            Or an object has two members with the same name, a number is not finite, a whole number is longer than
            Python accepts, or a string has NUL or half of a surrogate pair.
    """
    if not body.strip(b" \t\r\n"):
        raise MalformedRequest("body_empty")
    if body.startswith(b"\xef\xbb\xbf"):
        raise MalformedRequest("body_bom")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedRequest("body_not_utf8", byte=error.start + 1) from None
    if _too_deep(body, max_depth):
        raise MalformedRequest("body_too_deep", limit=max_depth)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedRequest("body_not_json", line=error.lineno, column=error.colno) from None
    except ValueError:
        raise MalformedRequest("number_too_long", limit=sys.get_int_max_str_digits()) from None
    except RecursionError:  # the caller's stack was nearly exhausted
        raise MalformedRequest("body_too_deep", limit=max_depth) from None
    if not isinstance(value, kind):
        raise MalformedRequest("body_not_object" if kind is dict else "body_not_array")
    if "\\u0000" in text or "\\ud" in text or "\\uD" in text:
        _check_escapes(text)
    return value


def _too_deep(body: bytes, max_depth: int) -> bool:
    """Tell whether brackets outside strings are nested too deep, up to the first syntax error.

    The decoder recurses in C. The limits of Python 3.12 and 3.13 exceed what a thread with a small stack can hold.
    """
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return False
    outside = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    steps = array("b", b"".join(outside).translate(_STEPS, _NOT_BRACKETS))
    return max(accumulate(steps), default=0) > max_depth


def _check_escapes(text: str) -> None:
    for match in _BAD_ESCAPE.finditer(text):
        if match.lastgroup:
            raise MalformedRequest(
                f"string_{match.lastgroup}",
                line=text.count("\n", 0, match.start()) + 1,
                column=match.start() - text.rfind("\n", 0, match.start()),
            )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise MalformedRequest(
            "duplicate_member", name=escape_control(json.dumps(twice, ensure_ascii=False), MAX_NAME_CHARS)
        )
    if None in members.values():
        return {name: value for name, value in pairs if value is not None}
    return members


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise MalformedRequest("number_not_finite")
    return int(number) if number.is_integer() and abs(number) < _MAX_EXACT_INTEGER else number


def _constant(text: str) -> Any:
    raise MalformedRequest("number_constant", constant=text)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)
