"""The validator of all JSON Schemas: jsonschema's, with decimals that are exact and checks that take little time."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def _check_multiple(validator: Any, step: float, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "number") and not _is_multiple(value, step):
        yield ValidationError(f"{value!r} is not a multiple of {step!r}")


def _is_multiple(value: float, step: float) -> bool:
    if isinstance(value, float) and not math.isfinite(value):  # from a settings file: JSON has no such number
        return False
    return _exact(value) % _exact(step) == 0


def _exact(number: float) -> Fraction:
    # The text of a float is the shortest one that is read as this float, so it has the decimals that were sent.
    return Fraction(number if isinstance(number, int) else repr(number))


def _check_pattern(validator: Any, pattern: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    # A text beyond `maxLength` is refused anyway, and a search in it can take quadratic time.
    if not (validator.is_type(value, "string") and len(value) > schema.get("maxLength", math.inf)):
        yield from Draft202012Validator.VALIDATORS["pattern"](validator, pattern, value, schema)


def _check_unique(validator: Any, unique: bool, items: Any, _schema: Any) -> Iterator[ValidationError]:
    # jsonschema compares each pair of objects. Texts, because a sender could choose numbers of the same hash.
    if unique and validator.is_type(items, "array"):
        texts = {json.dumps(_with_floats(item), default=repr, sort_keys=True) for item in items}
        if len(texts) < len(items):
            yield ValidationError("the items are not unique")


def _with_floats(value: Any) -> Any:
    """Return a JSON value in which each number is the float that equals it, if there is one."""
    if isinstance(value, dict):
        return {name: _with_floats(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value) + 0.0  # -0.0 becomes 0.0
        except OverflowError:
            return value
        return number if number == value else value
    return value


Validator: Final = validators.extend(  # type: ignore[no-untyped-call]  # jsonschema has no types here
    Draft202012Validator, {"multipleOf": _check_multiple, "pattern": _check_pattern, "uniqueItems": _check_unique}
)
"""The class of the validators. Schemas have no `$schema`, because jsonschema would replace the class by its own.

jsonschema divides binary floats: 19.99 would be no multiple of 0.01, so an amount with cents would be refused.
"""
