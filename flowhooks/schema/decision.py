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
"""Keyword of this validator: a list of types. A value of another type is undecided, whatever the other keywords say."""


class _Undecided(ValidationError):
    """The value can be neither accepted nor rejected."""


def decide(validator: Any, value: Any) -> bool | None:
    """Return whether a value is valid; None: undecided.

    Args:
        validator: a `DecidingValidator` with the schema.
        value: the value.
    """
    return _decide(validator, value, validator.schema)


def _is_unexpected(validator: Any, value: Any, schema: Any) -> bool:
    types = schema.get(EXPECTED_TYPES) if isinstance(schema, dict) else None
    return types is not None and not any(validator.is_type(value, name) for name in types)


def _decide(validator: Any, value: Any, schema: Any) -> bool | None:
    is_undecided = False
    for error in validator.descend(value, schema):
        if not isinstance(error, _Undecided):
            return False
        is_undecided = True
    return None if is_undecided else True


def _decide_alternative(validator: Any, value: Any, schema: Any) -> bool | None:
    """Return the result for one of several schemas. A schema with types or constants rejects values of other types."""
    if _is_unexpected(validator, value, schema) and schema.keys() & {"type", "const", "enum"}:
        return False
    return _decide(validator, value, schema)


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


def _check_types(validator: Any, _types: list[str], value: Any, schema: Any) -> Iterator[ValidationError]:
    if _is_unexpected(validator, value, schema):
        yield from _errors(None)


def _check_not(validator: Any, negated: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
    result = _decide(validator, value, negated)
    yield from _errors(None if result is None else not result)


def _check_any_of(validator: Any, branches: list[Any], value: Any, _schema: Any) -> Iterator[ValidationError]:
    results = [_decide_alternative(validator, value, branch) for branch in branches]
    yield from _errors(_decide_count(results, least=1, most=len(results)))


def _check_one_of(validator: Any, branches: list[Any], value: Any, _schema: Any) -> Iterator[ValidationError]:
    results = [_decide_alternative(validator, value, branch) for branch in branches]
    yield from _errors(_decide_count(results, least=1, most=1))


def _check_contains(validator: Any, contained: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "array"):
        results = [_decide(validator, item, contained) for item in value]
        least, most = schema.get("minContains", 1), schema.get("maxContains", len(results))
        yield from _errors(_decide_count(results, least=least, most=most))


def _check_if(validator: Any, condition: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    result = _decide_alternative(validator, value, condition)
    keywords = {True: ("then",), False: ("else",), None: ("then", "else")}[result]
    results = {_decide_alternative(validator, value, schema.get(keyword, True)) for keyword in keywords}
    # If it is undecided which branch applies, only equal results of both decide.
    yield from _errors(results.pop() if len(results) == 1 else None)


def _check_unevaluated(keyword: str) -> Callable[..., Iterator[ValidationError]]:
    check = Validator.VALIDATORS[keyword]

    def check_both(validator: Any, part: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        # jsonschema knows two results only, and counts an undecided schema as one that evaluates nothing. The result is
        # undecided if it differs when such schemas accept the value, or when types count as in JSON Schema.
        checkers = (validator, _AcceptingValidator(schema), Validator(schema))
        results = {not any(check(checker, part, value, schema)) for checker in checkers}
        yield from _errors(results.pop() if len(results) == 1 else None)

    return check_both


def _accept_unexpected(check: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    def check_expected(validator: Any, part: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        if not _is_unexpected(validator, value, schema):
            yield from check(validator, part, value, schema)

    return check_expected


_AcceptingValidator: Final = validators.extend(  # type: ignore[no-untyped-call]  # jsonschema has no types here
    Validator, {keyword: _accept_unexpected(check) for keyword, check in Validator.VALIDATORS.items()}
)
"""The class of validators that accept each value of another type than expected."""

_CHECKS: Final[dict[str, Callable[..., Iterator[ValidationError]]]] = {
    "not": _check_not,
    "anyOf": _check_any_of,
    "oneOf": _check_one_of,
    "contains": _check_contains,
    "if": _check_if,
    "unevaluatedItems": _check_unevaluated("unevaluatedItems"),
    "unevaluatedProperties": _check_unevaluated("unevaluatedProperties"),
}
DecidingValidator: Final = validators.extend(  # type: ignore[no-untyped-call]  # jsonschema has no types here
    _AcceptingValidator,
    {keyword: _accept_unexpected(check) for keyword, check in _CHECKS.items()} | {EXPECTED_TYPES: _check_types},
)
"""The class of the validators for `decide`. All other keywords require that each of their schemas accepts its value."""
