"""Validation with three results: valid, invalid, or undecided because a value has another type than expected.

JSON Schema accepts a value if a keyword does not apply to its type: `minimum` accepts every string, so `not` of it
rejects every string. Here such a value is undecided, and so is its negation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jsonschema import validators
from jsonschema.exceptions import ValidationError

from flowhooks.schema.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

EXPECTED_TYPES: Final = "expectedTypes"
"""Keyword of this validator: a list of types. A value of another type is undecided."""


class _Undecided(ValidationError):
    """The value can be neither accepted nor rejected."""


def decide(validator: Any, value: Any) -> bool | None:
    """Return whether a value is valid; None: undecided.

    Args:
        validator: a `DecidingValidator` with the schema.
        value: the value.
    """
    return _decide(validator, value, validator.schema)


def _decide(validator: Any, value: Any, schema: Any) -> bool | None:
    is_undecided = False
    for error in validator.descend(value, schema):
        if not isinstance(error, _Undecided):
            return False
        is_undecided = True
    return None if is_undecided else True


def _errors(result: bool | None) -> Iterator[ValidationError]:
    if result is None:
        yield _Undecided("")
    elif not result:
        yield ValidationError("")


def _decide_count(results: Sequence[bool | None], *, least: float, most: float) -> bool | None:
    """Return whether the number of true results is in a range; None if that depends on the undecided results."""
    true = results.count(True)
    possible = true + results.count(None)
    if possible < least or true > most:
        return False
    return True if true >= least and possible <= most else None


def _check_types(validator: Any, types: list[str], value: Any, _schema: Any) -> Iterator[ValidationError]:
    if not any(validator.is_type(value, name) for name in types):
        yield from _errors(None)


def _check_not(validator: Any, negated: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
    result = _decide(validator, value, negated)
    yield from _errors(None if result is None else not result)


def _check_any_of(validator: Any, branches: list[Any], value: Any, _schema: Any) -> Iterator[ValidationError]:
    results = [_decide(validator, value, branch) for branch in branches]
    yield from _errors(_decide_count(results, least=1, most=len(results)))


def _check_one_of(validator: Any, branches: list[Any], value: Any, _schema: Any) -> Iterator[ValidationError]:
    results = [_decide(validator, value, branch) for branch in branches]
    yield from _errors(_decide_count(results, least=1, most=1))


def _check_contains(validator: Any, contained: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "array"):
        results = [_decide(validator, item, contained) for item in value]
        least, most = schema.get("minContains", 1), schema.get("maxContains", len(results))
        yield from _errors(_decide_count(results, least=least, most=most))


def _check_if(validator: Any, condition: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    keywords = {True: ("then",), False: ("else",), None: ("then", "else")}[_decide(validator, value, condition)]
    results = {_decide(validator, value, schema.get(keyword, True)) for keyword in keywords}
    # If it is undecided which branch applies, only equal results of both decide.
    yield from _errors(results.pop() if len(results) == 1 else None)


def _check_unevaluated(keyword: str) -> Callable[..., Iterator[ValidationError]]:
    check = Validator.VALIDATORS[keyword]

    def check_both(validator: Any, part: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        # jsonschema knows two results only, and counts an undecided schema as one that evaluates nothing. The declared
        # schema accepts values of other types. If the results differ, they depend on such a value.
        results = {not any(check(each, part, value, schema)) for each in (validator, Validator(schema))}
        yield from _errors(results.pop() if len(results) == 1 else None)

    return check_both


DecidingValidator: Final = validators.extend(  # type: ignore[no-untyped-call]  # jsonschema has no types here
    Validator,
    {
        EXPECTED_TYPES: _check_types,
        "not": _check_not,
        "anyOf": _check_any_of,
        "oneOf": _check_one_of,
        "contains": _check_contains,
        "if": _check_if,
        "unevaluatedItems": _check_unevaluated("unevaluatedItems"),
        "unevaluatedProperties": _check_unevaluated("unevaluatedProperties"),
    },
)
"""The class of the validators for `decide`. All other keywords require that each of their schemas accepts its value."""
