"""The inputs for conditions on indexed fields of the body: one for each field, in which the operator is optional."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.errors import SettingsError
from flowhooks.model.search_fields import parse_field_condition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import falcon

INPUT_PREFIX: Final = "field:"
"""Start of the name of such an input; the rest is the JSON Pointer."""
_OPERATORS: Final = (">=", "<=", "=")
_RANGE: Final = re.compile(r"((?:>=|<=)\s*\S+)\s+((?:>=|<=)\s*\S+)")


class FieldInput(NamedTuple):
    """An input of the form.

    Attributes:
        name: its name.
        pointer: the indexed field, a JSON Pointer.
        value: what was entered: a value, or one or two limits.
    """

    name: str
    pointer: str
    value: str


def field_inputs(lines: str, indexed_fields: Collection[str]) -> list[FieldInput]:
    """Return the inputs for conditions, one a line: one for each field, or more for a field with several."""
    values: dict[str, list[str]] = {pointer: [] for pointer in indexed_fields}
    for line in lines.splitlines():
        try:
            condition = parse_field_condition(line)
        except SettingsError:
            # It stays in its input: without it, the next search would have more results than meant.
            for pointer, entered in values.items():
                if line.startswith(tuple(pointer + operator for operator in _OPERATORS)):
                    entered.append(line.removeprefix(pointer))
            continue
        if condition.field in values:
            is_plain = condition.operator == "=" and not condition.value.startswith(_OPERATORS)
            values[condition.field].append(condition.value if is_plain else f"{condition.operator}{condition.value}")
    return [
        FieldInput(f"{INPUT_PREFIX}{pointer}", pointer, value)
        for pointer, entered in values.items()
        for value in _join_limits(entered) or [""]
    ]


def _join_limits(values: list[str]) -> list[str]:
    joined = " ".join(values)
    return [joined] if len(values) == 2 and _RANGE.fullmatch(joined) else values  # noqa: PLR2004 (a range)


def conditions_from_inputs(request: falcon.Request) -> Iterator[str]:
    """Yield the conditions that the inputs of a form state, as `parse_field_condition` takes them."""
    for name in request.params:
        if name.startswith(INPUT_PREFIX):
            for value in request.get_param_as_list(name) or ():
                yield from _conditions(name.removeprefix(INPUT_PREFIX), value.strip())


def _conditions(pointer: str, value: str) -> list[str]:
    if limits := _RANGE.fullmatch(value):
        return [pointer + re.sub(r"\s", "", limit) for limit in limits.groups()]
    if value.startswith(_OPERATORS):
        operator = next(operator for operator in _OPERATORS if value.startswith(operator))
        return [f"{pointer}{operator}{value.removeprefix(operator).strip()}"]
    return [f"{pointer}={value}"] if value else []
