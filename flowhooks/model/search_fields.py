"""Values of an event's body that are indexed, and conditions on them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from flowhooks.errors import SettingsError
from flowhooks.model.conditions import find_value, split_pointer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

MAX_FIELDS: Final = 10
"""Maximum number of indexed fields."""
MAX_CONDITIONS: Final = 20
"""Maximum number of conditions of one filter: a lower and an upper limit for each field."""
# PostgreSQL rejects index rows of more than about 2,700 bytes; a character has at most 4.
MAX_VALUE_CHARS: Final = 256
"""Number of characters that are indexed of a value. Longer values with the same beginning count as equal."""
FIELD_POINTER: Final = re.compile(r"(?:/(?:[^~/=<>]|~[01])*)+")
"""The form of an indexed field: a JSON Pointer (RFC 6901) without the characters of an operator."""
FIELD_CONDITION: Final = re.compile(rf"({FIELD_POINTER.pattern})(=|>=|<=)(.*)", re.DOTALL)
"""The form of a condition: a field, an operator and a value, such as `/amount>=1000`."""
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_MAX_NUMBER_CHARS: Final = 400
_MAX_EXACT_INTEGER: Final = 2**53

Operator = Literal["=", ">=", "<="]


class IndexedValue(NamedTuple):
    """A value of an indexed field, as the ledger stores it.

    Attributes:
        field: JSON Pointer to the value.
        value: a string, cut to `MAX_VALUE_CHARS`, or the JSON text of a number or a boolean.
        number: the value of a number as a double; None for other types, and for numbers that no double can hold.
    """

    field: str
    value: str
    number: float | None


@dataclass(frozen=True, slots=True)
class FieldCondition:
    """A condition on an indexed field of an event's body.

    Attributes:
        field: JSON Pointer (RFC 6901) to the value, such as `/amount`.
        operator: `=`: the value is this text, or this number; `>=` and `<=`: the value is a number, at least or at most
            this one. Numbers are compared as doubles.
        value: the text or the number, at most 256 characters of which are compared.

    Raises:
        SettingsError: the field or the operator is not written so, or the value of `>=` or `<=` is no JSON number.
    """

    field: str
    operator: Operator
    value: str

    def __post_init__(self) -> None:
        if not FIELD_POINTER.fullmatch(self.field):
            raise SettingsError(f"a field is a JSON Pointer such as /amount, without = < >, not {self.field!r}")
        if self.operator not in {"=", ">=", "<="}:
            raise SettingsError(f"the operator of a field must be =, >= or <=, not {self.operator!r}")
        if self.operator != "=" and self.number is None:
            raise SettingsError(f"{self.field}{self.operator} needs a number such as 1000 or 99.5, not {self.value!r}")

    @property
    def number(self) -> float | None:
        """The value as a number; None if it is not written as a JSON number, or too large for a double."""
        parsed = _parse_number(self.value)
        return None if parsed is None else _to_double(parsed)

    @property
    def text(self) -> str:
        """The value as the ledger stores a string of it."""
        return self.value[:MAX_VALUE_CHARS]

    @property
    def number_text(self) -> str | None:
        """The value as the ledger stores a number of it; None if it is no number, or if that is the same text."""
        parsed = _parse_number(self.value)
        stored = self.text if parsed is None else json.dumps(parsed)[:MAX_VALUE_CHARS]
        return None if stored == self.text else stored

    def __str__(self) -> str:
        """Return the condition as `parse_field_condition` takes it."""
        return f"{self.field}{self.operator}{self.value}"


def parse_field_condition(text: str) -> FieldCondition:
    """Parse a condition such as `/vendor=ACME`, `/amount>=1000` or `/amount<=99.5`.

    Raises:
        SettingsError: the text has no such form, or the value of `>=` or `<=` is no JSON number.
    """
    match = FIELD_CONDITION.fullmatch(text)
    if match is None:
        raise SettingsError(
            f"write a condition on a field as /vendor=ACME, /amount>=1000 or /amount<=1000, not {text!r}"
        )
    field, operator, value = match.groups()
    return FieldCondition(field, cast("Operator", operator), value)


def check_fields(conditions: Iterable[FieldCondition], indexed_fields: Collection[str]) -> None:
    """Refuse conditions on fields that are not indexed, because they would match no event.

    Raises:
        SettingsError: a field is not among `indexed_fields`, the setting `search.fields`.
    """
    unknown = [condition.field for condition in conditions if condition.field not in indexed_fields]
    if unknown:
        known = f"search.fields names {', '.join(indexed_fields)}" if indexed_fields else "search.fields names no field"
        raise SettingsError(f"events cannot be searched by {unknown[0]}: {known}")


def indexed_values(data: Mapping[str, Any], fields: Sequence[str]) -> tuple[IndexedValue, ...]:
    """Return the values of the given fields that the ledger indexes: strings, numbers and booleans.

    Args:
        data: an event's body.
        fields: JSON Pointers. A field that the body does not have, or whose value is null, an object or an array, is
            left out.
    """
    found = ((field, find_value(data, split_pointer(field))) for field in dict.fromkeys(fields))
    return tuple(_to_indexed(field, value) for field, value in found if isinstance(value, str | int | float))


def _to_indexed(field: str, value: str | float) -> IndexedValue:
    if isinstance(value, str):
        return IndexedValue(field, value[:MAX_VALUE_CHARS], None)
    number = None if isinstance(value, bool) else _to_double(value)
    return IndexedValue(field, json.dumps(value)[:MAX_VALUE_CHARS], number)


def _to_double(number: float) -> float | None:
    try:
        return float(number)
    except OverflowError:
        return None


@lru_cache(maxsize=64)
def _parse_number(text: str) -> float | None:
    """Return a JSON number as the ledger's parser of bodies does: a whole number is an int. None: it is no number."""
    if len(text) > _MAX_NUMBER_CHARS or not _NUMBER.fullmatch(text):
        return None
    number: float = json.loads(text)
    if isinstance(number, int):
        return number
    if number in {float("inf"), float("-inf")}:
        return None
    return int(number) if number.is_integer() and abs(number) < _MAX_EXACT_INTEGER else number
