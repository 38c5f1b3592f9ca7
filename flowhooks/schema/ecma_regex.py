"""Translate schema files so that jsonschema interprets them as the specification does."""

from __future__ import annotations

import copy
import re
from typing import Any, Final, Self

from jsonschema import FormatChecker

from flowhooks.schema.backtracking import exponential_repetition
from flowhooks.schema.keywords import SUBSCHEMA, SUBSCHEMA_LIST, SUBSCHEMA_MAP, subschemas
from flowhooks.text import truncate

_PART: Final = re.compile(r"\\.|.", re.DOTALL)
MAX_QUOTED_CHARS: Final = 500
"""Maximum length of an expression in an error."""
FORMATS: Final = FormatChecker(formats=())
"""Formats checked in the schemas themselves, fixed so that installed packages add no further ones."""
NEVER_VALID: Final[dict[str, Any]] = {"not": {}}
"""The schema that no value satisfies, like `false`."""


class Pattern(str):  # noqa: SLOT000 (jsonschema passes it to `re`, which needs a str)
    r"""A regular expression for Python's `re`, equivalent to an ECMAScript one in a schema file.

    In ECMAScript `$` matches only at the very end, in Python also before a final line feed. `\d`, `\w` and `\b` match
    ASCII in ECMAScript, Unicode in Python.

    Attributes:
        ecma: the expression as written in the file.
    """

    ecma: str

    def __new__(cls, ecma: str, pointer: str) -> Self:
        """Translate an expression.

        Args:
            ecma: the expression as written in the file.
            pointer: JSON Pointer of the expression in the file.

        Raises:
            ValueError: Python's `re` does not accept the expression, or could take exponential time to match it; or the
                expression is nested too deeply.
        """
        parts = []
        in_class = False
        for part in _PART.findall(ecma):
            if part in "[]":
                in_class = part == "["
            parts.append(r"\Z" if part == "$" and not in_class else part)
        self = super().__new__(cls, f"(?a:{''.join(parts)})")
        self.ecma = ecma
        what = f"the regular expression '{truncate(repr(ecma)[1:-1], MAX_QUOTED_CHARS)}' at {pointer}"
        try:
            re.compile(self)
            repetition = exponential_repetition(ecma)
        except (re.error, OverflowError, ValueError) as error:  # ValueError: a count of thousands of digits
            raise ValueError(f"{what} cannot be used: {error}") from None
        except RecursionError:
            raise ValueError(f"{what} cannot be used: it is nested too deeply") from None
        if repetition:
            raise ValueError(
                f"{what} could take hours: the repeated part of {repetition!r} "
                "can match one text in several ways; separate its repetitions by a character that it does not contain, "
                "such as '[a-z]+(-[a-z]+)*' instead of '([a-z]+-?)+', and let no two alternatives match the same text"
            )
        return self


@FORMATS.checks("regex", raises=re.error)
def _is_regex(value: object) -> bool:
    if isinstance(value, str):
        try:
            re.compile(value)
        except (OverflowError, ValueError, RecursionError):  # reported by `Pattern`, with the expression's location
            return True
    return True


def translate(document: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a schema for jsonschema.

    Regular expressions are translated, and `false` is written as a schema, because jsonschema does not report the
    location of a `false` that it applied.

    Args:
        document: a valid JSON Schema of 2020-12.

    Raises:
        ValueError: a regular expression in it cannot be used.
    """
    document = copy.deepcopy(document)
    for pointer, schema in list(subschemas(document)):
        if not isinstance(schema, dict):
            continue
        for keyword in schema.keys() & SUBSCHEMA:
            schema[keyword] = _expand_false(schema[keyword])
        for keyword in schema.keys() & SUBSCHEMA_LIST:
            schema[keyword] = [_expand_false(subschema) for subschema in schema[keyword]]
        for keyword in schema.keys() & SUBSCHEMA_MAP:
            at = f"{pointer}/{keyword}"
            schema[keyword] = {
                Pattern(name, at) if keyword == "patternProperties" else name: _expand_false(subschema)
                for name, subschema in schema[keyword].items()
            }
        if "pattern" in schema:
            schema["pattern"] = Pattern(schema["pattern"], f"{pointer}/pattern")
    return document


def _expand_false(schema: Any) -> Any:
    return NEVER_VALID if schema is False else schema
