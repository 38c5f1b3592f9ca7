"""The section `[sources.NAME.ingress]`: how a request to the fixed URL `/in/NAME` becomes a callback."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from flowhooks.settings import types
from flowhooks.settings.field import setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

IGNORE: Final = "ignore"
"""The kind, in a table of kinds, of requests that become no callback."""
MAX_ANSWER_CHARS: Final = 4096
"""Maximum length of an answer."""
MAX_TABLE_VALUES: Final = 100
"""Maximum number of values in one table."""
MAX_POINTERS: Final = 8
"""Maximum number of pointers whose values are joined to one process instance id."""
_TABLE: Final = 'a table {pointer = "/status", values = {…}}'
_TABLE_KEYS: Final = ("pointer", "values", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueTable:
    """The meanings of the possible values of one member of a request.

    Attributes:
        pointer: JSON Pointer (RFC 6901) to the value.
        values: the meaning of each value, by the value's text: of a string the string, of another scalar its JSON text.
            None: each value means its own text.
        other: the meaning of every other value and of an absent one; None: none.
    """

    pointer: str
    values: Mapping[str, str] | None = None
    other: str | None = None


def value_table(meaning: types.SettingType, *, bare_pointer: bool) -> types.SettingType:
    """Return the type of a `ValueTable`.

    Args:
        meaning: the type of the meanings.
        bare_pointer: whether a JSON Pointer alone is allowed: each value then means its own text.
    """
    allowed = f'a JSON Pointer such as "/status", or {_TABLE}' if bare_pointer else _TABLE
    item_types = dict(zip(_TABLE_KEYS, (types.pointer(), types.table(meaning), meaning), strict=True))

    def check(value: Any) -> ValueTable:
        if isinstance(value, str) and bare_pointer:
            return ValueTable(pointer=types.pointer().check(value))
        if not isinstance(value, dict):
            raise ValueError(f"must be {allowed}, not {types.format_value(value)}")  # noqa: TRY004 (as every check does)
        for key in ("pointer", "values"):
            if key not in value:
                raise ValueError(f"has no {key}: must be {allowed}")
        items = {key: _check_item(key, item, item_types) for key, item in value.items()}
        if not 0 < len(items["values"]) <= MAX_TABLE_VALUES:
            raise ValueError(f"at 'values' must have 1 to {MAX_TABLE_VALUES} values, not {len(items['values'])}")
        return ValueTable(**items)

    return types.SettingType(allowed, check)


def _check_item(key: str, item: Any, item_types: Mapping[str, types.SettingType]) -> Any:
    if key not in item_types:
        raise ValueError(
            f"has {types.format_value(key)}, but only pointer, values and other are possible"
            f"{types.did_you_mean(key, item_types)}"
        )
    try:
        return item_types[key].check(item)
    except ValueError as error:
        raise ValueError(f"at {types.format_value(key)} {error}") from None


def _pointers() -> types.SettingType:
    pointers = types.list_of(types.pointer(), min_items=1, max_items=MAX_POINTERS)
    allowed = 'a JSON Pointer such as "/id", or a list of pointers'

    def check(value: Any) -> Any:
        if isinstance(value, str):
            return (types.pointer().check(value),)
        if not isinstance(value, list):
            raise ValueError(f"must be {allowed}, not {types.format_value(value)}")  # noqa: TRY004 (as every check does)
        return pointers.check(value)

    return types.SettingType(allowed, check)


def _answer() -> types.SettingType:
    allowed = f"a text of at most {MAX_ANSWER_CHARS} characters"

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be {allowed}, not {types.format_value(value)}")  # noqa: TRY004 (as every check does)
        if len(value) > MAX_ANSWER_CHARS:
            raise ValueError(f"must be {allowed}, not of {len(value)}")
        return value

    return types.SettingType(allowed, check)


@lru_cache(maxsize=256)  # of the settings, never of a request; read for each response
def _answer_media_type(answer: str) -> str:
    try:
        json.loads(answer, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return "text/plain; charset=utf-8"
    return "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressSettings:
    """How requests of a sender that has one fixed URL become callbacks: `POST /in/NAME`.

    Either `format` and `flow_instance_id` begin a mapping of the request's members, or `receiver` names a plugin that
    reads the requests.

    Attributes:
        location: the settings file and the line of the section, to precede an error message; `""`: not from a file.
    """

    format: Literal["json", "form", "cloudevent"] | None = setting(
        None,
        types.one_of("json", "form", "cloudevent"),
        "Format of the request's body: a JSON object, a form (application/x-www-form-urlencoded), or CloudEvents in "
        "the structured, binary or batch mode.",
    )
    flow_instance_id: tuple[str, ...] = setting(
        (),
        _pointers(),
        "JSON Pointer to the process instance id. A list of pointers is joined with '/'; in each part '%' becomes %25 "
        "and '/' becomes %2F.",
    )
    process_definition_key: str = setting("", types.pointer(), "JSON Pointer to processDefinitionKey.")
    process_definition_id: str = setting("", types.pointer(), "JSON Pointer to processDefinitionId.")
    process_definition_version: str = setting("", types.pointer(), "JSON Pointer to processDefinitionVersion.")
    business_key: str = setting("", types.pointer(), "JSON Pointer to businessKey.")
    call_back_process_class: str = setting("", types.pointer(), "JSON Pointer to callBackProcessClass.")
    kind: ValueTable | None = field(
        default=None,
        metadata={
            "doc": "Table of the kinds of callback, by a value of the request. A request of the kind ignore is counted "
            "and not stored. Every value that is not in the table, or is missing, has the kind other; without other, "
            "the request is answered with 422. Default: every request is of the kind complete.",
            "kind": value_table(types.name(), bare_pointer=False),
        },
    )
    conclusion: ValueTable | None = field(
        default=None,
        metadata={
            "doc": "JSON Pointer to the conclusion, or table of the conclusions, by a value of the request. Every "
            "value that is not in the table, or is missing, has the conclusion other; without other, there is no "
            "conclusion.",
            "kind": value_table(types.conclusion(), bare_pointer=True),
        },
    )
    answer: str = setting(
        '{"success": true}',
        _answer(),
        "Body of the answer that this sender takes for success. It is sent with 200 for everything that is stored, "
        "kept or ignored.",
    )
    receiver: str = setting(
        "",
        types.name(),
        "Name of the plugin whose hook receive_request authenticates and reads the requests, instead of the mapping.",
    )
    location: str = field(default="", compare=False)

    @property
    def answer_media_type(self) -> str:
        """The media type of `answer`: JSON if it is JSON, otherwise plain text."""
        return _answer_media_type(self.answer)

    @property
    def members(self) -> Mapping[str, str]:
        """JSON Pointers of the mapped members of the callback, by the member's name; without the conclusion."""
        pointers = {
            "processDefinitionKey": self.process_definition_key,
            "processDefinitionId": self.process_definition_id,
            "processDefinitionVersion": self.process_definition_version,
            "businessKey": self.business_key,
            "callBackProcessClass": self.call_back_process_class,
        }
        return {name: pointer for name, pointer in pointers.items() if pointer}


def _no_json(constant: str) -> None:
    raise ValueError(constant)


_NOT_MAPPED: Final = frozenset({"answer", "receiver", "location"})


def find_problems(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each problem that concerns more than the value of one setting, as (setting or `""`, sentence end)."""
    if "receiver" in section:
        for key in (field.name for field in fields(IngressSettings)):
            if key in section and key not in _NOT_MAPPED:
                yield key, f"both receiver and {key}, but the receiver reads the requests: remove one of the two"
        return
    if "format" not in section:
        yield "", 'no format, which is "json", "form" or "cloudevent"'
    if "flow_instance_id" not in section:
        yield "", "no flow_instance_id, the JSON Pointer to the process instance id"
