"""Accept most valid values without jsonschema.

A fast path is made of a schema whose keywords are all listed here. For each type of a value it has the tests of the
keywords that apply to this type. It only accepts: a value that it does not accept may still be valid, such as `1.0` for
`{"const": 1}`. jsonschema decides about such a value, and writes each violation. So each shortcut here must imply that
jsonschema accepts the value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from flowhooks.schema.ecma_regex import NEVER_VALID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

_Test: TypeAlias = "Callable[[Any], bool]"
_TestsByType: TypeAlias = "dict[type, _Test | None]"
"""The test of each type that may be valid; None: each value of this type is valid."""

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int, float),  # a float has a test of its own
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}
_PYTHON_TYPES: Final = (dict, list, str, int, float, bool, type(None))
"""The types of parsed JSON. A value of another type, also of a subclass, is not accepted."""
_HASHABLE_TYPES: Final = frozenset({str, int, float, bool, type(None)})
_ANNOTATIONS: Final = frozenset(
    {
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "default",
        "deprecated",
        "description",
        "examples",
        "format",  # as in `Schemas`
        "readOnly",
        "title",
        "writeOnly",
    }
)
"""Keywords that no value violates. `$defs` applies only through a reference, and a reference has no fast path."""
_ASSERTIONS: Final = frozenset(
    {
        "additionalProperties",
        "const",
        "enum",
        "maxLength",
        "maximum",
        "minLength",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
    }
)
_KEYWORDS: Final = _ANNOTATIONS | _ASSERTIONS


class FastPathValidator:
    """A validator with a fast path, if its schema has one.

    Args:
        validator: the validator of the schema, of which it uses the two methods below.
        fast_schema: the schema that the fast path is made of, if the caller checks its other keywords. Default: that of
            the validator.
    """

    __slots__ = ("_tests", "_validator")

    def __init__(self, validator: Validator, fast_schema: Mapping[str, Any] | None = None) -> None:
        self._validator = validator
        self._tests = _compile(validator.schema if fast_schema is None else fast_schema) or {}

    def is_valid(self, value: Any) -> bool:
        """Return whether a value is valid."""
        test = self._tests.get(type(value), _refuse)
        return test is None or test(value) or self._validator.is_valid(value)

    def iter_errors(self, value: Any) -> Iterable[ValidationError]:
        """Return the errors of a value, which jsonschema finds."""
        return self._validator.iter_errors(value)


def _refuse(_value: Any) -> bool:
    return False


def _compile(schema: Any) -> _TestsByType | None:
    """Return the tests of a translated schema; None if one of its keywords is not supported."""
    if schema is True:
        return dict.fromkeys(_PYTHON_TYPES)
    if schema == NEVER_VALID:
        return {}
    if not isinstance(schema, dict) or not schema.keys() <= _KEYWORDS:
        return None
    tests: dict[type, list[_Test]] = {python_type: [] for python_type in _allowed_types(schema)}
    of_objects = _object_tests(schema)
    if of_objects is None:
        return None
    for types, of_types in (
        ((dict,), of_objects),
        ((str,), _string_tests(schema)),
        ((int, float), _number_tests(schema)),
        ((float,), _integer_tests(schema)),
        (_PYTHON_TYPES, _equality_tests(schema)),
    ):
        for python_type in types:
            if python_type in tests:
                tests[python_type] += of_types
    return {python_type: _join(of_type) for python_type, of_type in tests.items()}


def _allowed_types(schema: Mapping[str, Any]) -> Iterable[type]:
    if "type" not in schema:
        return _PYTHON_TYPES
    return {python_type for name in _type_names(schema) for python_type in _TYPES[name]}


def _type_names(schema: Mapping[str, Any]) -> list[str]:
    names = schema["type"]
    return [names] if isinstance(names, str) else names


def _object_tests(schema: Mapping[str, Any]) -> list[_Test] | None:
    members: list[tuple[str, _TestsByType]] = []
    for name, subschema in schema.get("properties", {}).items():
        tests = _compile(subschema)
        if tests is None:
            return None
        members.append((name, tests))

    def has_valid_members(value: dict[str, Any]) -> bool:
        for name, tests in members:
            if name in value:
                member = value[name]
                test = tests.get(type(member), _refuse)
                if test is not None and not test(member):
                    return False
        return True

    tests_of_object: list[_Test] = [has_valid_members] if members else []
    if required := frozenset(schema.get("required", ())):
        tests_of_object.append(lambda value: required <= value.keys())
    additional = schema.get("additionalProperties", True)
    if additional == NEVER_VALID:
        names = frozenset(schema.get("properties", ()))
        tests_of_object.append(lambda value: value.keys() <= names)
    elif additional is not True:
        return None
    return tests_of_object


def _string_tests(schema: Mapping[str, Any]) -> list[_Test]:
    tests: list[_Test] = []
    if "maxLength" in schema:
        longest = schema["maxLength"]
        tests.append(lambda value: len(value) <= longest)
    if "minLength" in schema:
        shortest = schema["minLength"]
        tests.append(lambda value: len(value) >= shortest)
    if "pattern" in schema:
        search = re.compile(schema["pattern"]).search
        tests.append(lambda value: search(value) is not None)
    return tests


def _number_tests(schema: Mapping[str, Any]) -> list[_Test]:
    tests: list[_Test] = []
    if "maximum" in schema:
        highest = schema["maximum"]
        tests.append(lambda value: value <= highest)
    if "minimum" in schema:
        lowest = schema["minimum"]
        tests.append(lambda value: value >= lowest)
    return tests


def _integer_tests(schema: Mapping[str, Any]) -> list[_Test]:
    if "type" in schema and "integer" in (names := _type_names(schema)) and "number" not in names:
        return [float.is_integer]
    return []


def _equality_tests(schema: Mapping[str, Any]) -> list[_Test]:
    """Return the tests of `const` and `enum`, which accept only values of the same type: `1` is not `true`."""
    tests: list[_Test] = []
    for values in ([schema["const"]] if "const" in schema else None, schema.get("enum")):
        if values is not None:
            allowed = frozenset((type(value), value) for value in values if type(value) in _HASHABLE_TYPES)
            tests.append(_equality_test(allowed))
    return tests


def _equality_test(allowed: frozenset[tuple[type, Any]]) -> _Test:
    return lambda value: type(value) in _HASHABLE_TYPES and (type(value), value) in allowed


def _join(tests: list[_Test]) -> _Test | None:
    if not tests:
        return None
    *others, last = tests
    first = _join(others)
    return last if first is None else lambda value: first(value) and last(value)
