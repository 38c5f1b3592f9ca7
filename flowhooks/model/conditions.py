"""Conditions on an event's data: a JSON Pointer and the expected value.

A condition has three results: True, False, or None (undecided) if the value is absent or has another type. An undecided
condition parks the event instead of dismissing it.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import HandlerError
from flowhooks.text import truncate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_CONDITIONS: Final = 32
"""Maximum number of conditions of one handler."""
MAX_CONDITIONS_CHARS: Final = 16_384
"""Maximum characters of one handler's conditions as JSON, because the ledger stores them with the handler."""
MAX_QUOTED_CHARS: Final = 100
"""Maximum characters of a value or a condition that a reason quotes."""

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_POINTER_ESCAPES: Final = re.compile(r"(?:[^~]|~[01])*")
_ANNOTATIONS: Final = ("title", "description", "$comment", "examples", "default", "deprecated")
"""Annotation keywords of JSON Schema. They are allowed because they validate nothing."""
_DEPENDENT_KEYWORDS: Final = frozenset({"then", "else", "minContains", "maxContains"})
"""Keywords that jsonschema validates together with `if` and `contains`."""
_TYPE_BY_KEYWORD: Final[Mapping[str, str]] = (
    dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number")
    | dict.fromkeys(("minLength", "maxLength", "pattern"), "string")
    | dict.fromkeys(
        ("items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems", "minContains", "maxContains"),
        "array",
    )
    | dict.fromkeys(
        (
            "properties",
            "patternProperties",
            "additionalProperties",
            "propertyNames",
            "required",
            "minProperties",
            "maxProperties",
            "dependentRequired",
            "dependentSchemas",
        ),
        "object",
    )
)
"""The type that a keyword constrains. JSON Schema accepts values of other types; a condition is then undecided."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on one value of an event's data.

    Attributes:
        pointer: JSON Pointer (RFC 6901) to the value, such as `/amount`.
        expected: a JSON Schema (a dict), a constant, or a list of constants. None means an absent value.
        is_stored: whether the ledger has it. An expected value that this version refuses, such as a regular expression
            that an earlier version accepted, is then undecided for every event.

    Raises:
        HandlerError: the pointer or the expected value is invalid.
    """

    pointer: str
    expected: Any
    is_stored: bool = field(default=False, repr=False, compare=False, kw_only=True)
    _path: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _check: Callable[[Any], bool | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_path", _parse_pointer(self.pointer))
        check = _schema_check if isinstance(self.expected, dict) else _constants_check
        try:
            object.__setattr__(self, "_check", check(self.expected))
            _check_decidable(self.expected)
        except HandlerError as error:
            if not self.is_stored:
                raise HandlerError(f"when= at {self.pointer!r}: {error}") from None
            object.__setattr__(self, "_check", _undecided)

    def decide(self, data: Mapping[str, Any]) -> bool | None:
        """Return whether the condition holds for this data; None: undecided."""
        return self._check(find_value(data, self._path))

    def why_not(self, data: Mapping[str, Any]) -> str:
        """Return why the condition does not hold, as a clause; a quoted value is truncated to 100 characters."""
        value = find_value(data, self._path)
        expected = _shorten(self.expected)
        if value is None:
            return f"{self.pointer} is absent, but the condition {expected} needs it"
        if self._check(value) is None:
            return f"{self.pointer} is {_article(_type_of(value))}, which the condition {expected} cannot decide"
        return f"{self.pointer} is {_shorten(value)}, but the condition is {expected}"


def parse_conditions(when: Any, *, is_stored: bool = False) -> tuple[Condition, ...]:
    """Parse a handler's `when=`, a dict from JSON Pointers to the expected values.

    Args:
        when: the dict.
        is_stored: as of `Condition`.

    Raises:
        HandlerError: `when` is invalid.
    """
    if not isinstance(when, dict) or not all(isinstance(pointer, str) for pointer in when):
        raise HandlerError(
            f'when= is a dict of JSON Pointers, such as {{"/amount": {{"minimum": 1000}}}}, not {when!r}'
        )
    if len(when) > MAX_CONDITIONS:
        raise HandlerError(f"when= has {len(when)} conditions; at most {MAX_CONDITIONS} are allowed")
    conditions = tuple(_parse_condition(pointer, expected, is_stored) for pointer, expected in when.items())
    if (length := len(json.dumps(when, ensure_ascii=False))) > MAX_CONDITIONS_CHARS:
        raise HandlerError(f"when= has {length} characters as JSON; at most {MAX_CONDITIONS_CHARS} are allowed")
    return conditions


def _parse_condition(pointer: str, expected: Any, is_stored: bool) -> Condition:
    expected = list(expected) if isinstance(expected, tuple) else expected
    try:
        return Condition(pointer, copy.deepcopy(expected), is_stored=is_stored)
    except RecursionError:
        raise HandlerError(f"when= at {pointer!r}: it is nested too deeply") from None


def decide_all(decisions: Iterable[bool | None]) -> bool | None:
    """Return False if any decision is False, otherwise None if any is None, otherwise True."""
    undecided = False
    for decision in decisions:
        if decision is False:
            return False
        undecided |= decision is None
    return None if undecided else True


def _parse_pointer(pointer: str) -> tuple[str, ...]:
    if not pointer.startswith("/") or not _POINTER_ESCAPES.fullmatch(pointer):
        raise HandlerError(f'when= at {pointer!r}: a JSON Pointer starts with "/", and writes "~" as "~0"')
    return split_pointer(pointer)


@lru_cache(maxsize=64)
def split_pointer(pointer: str) -> tuple[str, ...]:
    """Return the path of a valid JSON Pointer, for `find_value`."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))


def array_index(part: str) -> int | None:
    """Return a part of a JSON Pointer as the index of an array (RFC 6901, section 4); None if it is none."""
    return int(part) if _INDEX.fullmatch(part) else None


def find_value(data: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a path; None if it is missing or null."""
    for part in path:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and (index := array_index(part)) is not None:
            data = data[index] if index < len(data) else None
        else:
            return None
    return data


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def _article(name: str) -> str:
    return f"an {name}" if name.startswith(("a", "o")) else f"a {name}"


def _shorten(value: Any) -> str:
    return truncate(json.dumps(value, ensure_ascii=False), MAX_QUOTED_CHARS, count_ellipsis=False)


def _undecided(_value: Any) -> None:
    return None


def _check_decidable(expected: Any) -> None:
    if (types := _types_of(expected)) is not None and types <= {"null"}:
        raise HandlerError("it decides no value, because null counts as absent: write None for an absent value")


def _constants_check(expected: Any) -> Callable[[Any], bool | None]:
    constants = expected if isinstance(expected, list) else [expected]
    if not constants:
        raise HandlerError("an empty list of constants never matches")
    for constant in constants:
        _check_json(constant)
    takes_absent = None in constants
    present = [constant for constant in constants if constant is not None]
    types = {_type_of(constant) for constant in present}

    def check(value: Any) -> bool | None:
        if value is None:
            return True if takes_absent else None
        if types and _type_of(value) not in types:
            return None
        return any(_equal(value, constant) for constant in present)

    return check


def _check_json(value: Any) -> None:
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise HandlerError(f"{value!r} is not a JSON value") from None
    if json.loads(text) != value:
        raise HandlerError(f"{value!r} is not a JSON value: JSON reads it back as another value")


def _equal(left: Any, right: Any) -> bool:
    """Compare two JSON values: `true` is not 1, and 1 equals 1.0."""
    if _type_of(left) != _type_of(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(value, right[name]) for name, value in left.items())
    return bool(left == right)


def _schema_check(schema: dict[str, Any]) -> Callable[[Any], bool | None]:
    # Imported here because the import is slow and most handlers have no schema in a condition.
    from flowhooks.schema.decision import DecidingValidator, decide  # noqa: PLC0415 (only handlers with `when=` need jsonschema)

    _check_json(schema)
    _check_schema(schema)
    try:
        validator = DecidingValidator(_compile_patterns(_with_expected_types(schema)))
    except ValueError as error:
        raise HandlerError(str(error)) from None

    def check(value: Any) -> bool | None:
        if value is None:
            return None
        try:
            return decide(validator, value)
        except Exception:  # noqa: BLE001 (a limit of jsonschema, such as the depth of calls: undecided, so the event is parked)
            return None

    return check


def _check_schema(schema: dict[str, Any]) -> None:
    """Reject invalid schemas, external references, and keywords that are not supported."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 (as above)
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415 (as above)

    from flowhooks.schema.ecma_regex import FORMATS  # noqa: PLC0415 (as above)
    from flowhooks.schema.keywords import subschemas  # noqa: PLC0415 (as above)

    try:
        Draft202012Validator.check_schema(schema, format_checker=FORMATS)
    except SchemaError as error:
        raise HandlerError(f"it is not a JSON Schema: {error.message}") from None
    keywords = {*Draft202012Validator.VALIDATORS, *_ANNOTATIONS, *_DEPENDENT_KEYWORDS} - {
        "$ref",
        "$dynamicRef",
        "format",
    }
    for pointer, part in subschemas(schema):
        if not isinstance(part, dict):
            continue
        if unknown := next((keyword for keyword in part if keyword not in keywords), None):
            similar = difflib.get_close_matches(unknown, keywords, n=1, cutoff=0.8)
            raise HandlerError(
                f"the keyword {unknown!r}{f' at {pointer}' if pointer else ''} is not supported in a condition"
                f"{f'; did you mean {similar[0]}?' if similar else ''}"
            )


def _compile_patterns(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a schema for jsonschema whose patterns are compiled.

    Raises:
        ValueError: a regular expression in it cannot be used.
    """
    from flowhooks.schema.ecma_regex import translate  # noqa: PLC0415 (as above)
    from flowhooks.schema.keywords import subschemas  # noqa: PLC0415 (as above)

    schema = translate(schema)
    for _, part in subschemas(schema):
        if isinstance(part, dict) and "pattern" in part:
            # `re` keeps the newest 512 strings compiled: beyond that, each event would compile all patterns again.
            part["pattern"] = re.compile(part["pattern"])
    return schema


def _with_expected_types(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema in which values of other types than a schema in it constrains are undecided."""
    from flowhooks.schema.decision import EXPECTED_TYPES  # noqa: PLC0415 (as above)
    from flowhooks.schema.keywords import subschemas  # noqa: PLC0415 (as above)

    schema = copy.deepcopy(schema)
    for _, part in list(subschemas(schema)):
        if isinstance(part, dict) and (types := _types_of(part)) is not None:
            part[EXPECTED_TYPES] = sorted(types)
    return schema


def _types_of(schema: Any) -> frozenset[str] | None:
    """Return the types of value that a schema constrains; None if it does not depend on the type."""
    if not isinstance(schema, dict):
        return None
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return frozenset("number" if name == "integer" else name for name in names)
    type_sets = [frozenset({kind}) for keyword, kind in _TYPE_BY_KEYWORD.items() if keyword in schema]
    type_sets += [frozenset({_type_of(schema["const"])})] if "const" in schema else []
    type_sets += [frozenset(map(_type_of, schema["enum"]))] if "enum" in schema else []
    type_sets += [types for part in schema.get("allOf", ()) if (types := _types_of(part)) is not None]
    type_sets += [types] if "not" in schema and (types := _types_of(schema["not"])) is not None else []
    for keyword in ("anyOf", "oneOf"):
        branches = [_types_of(part) for part in schema.get(keyword, ())]
        branch_types = [types for types in branches if types is not None]
        if branch_types and len(branch_types) == len(branches):
            type_sets.append(frozenset[str]().union(*branch_types))
    return reduce(frozenset.union, type_sets) if type_sets else None
