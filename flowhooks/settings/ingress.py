"""The section `[sources.NAME.ingress]`: how a request to the fixed URL `/in/NAME` becomes a callback."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from flowhooks.settings import types
from flowhooks.settings.field import setting

if TYPE_CHECKING:
    from collections.abc import Mapping

IGNORE: Final = "ignore"
"""The value of a table of kinds for requests that become no callback."""
MAX_ANSWER_CHARS: Final = 4096
MAX_TABLE_VALUES: Final = 100
"""Maximum number of values in one table."""
MAX_POINTERS: Final = 8
"""Maximum number of pointers that are joined to one process instance id."""
_ALLOWED_TABLE: Final = 'a JSON Pointer such as "/status", or a table {pointer = "/status", values = {…}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueTable:
    """A value of the request, and what its possible values mean.

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
        meaning: the type of what a value means.
        bare_pointer: whether a JSON Pointer alone is allowed: each value then means its own text.
    """
    allowed = _ALLOWED_TABLE if bare_pointer else 'a table {pointer = "/status", values = {…}}'
    meanings = types.table(meaning)

    def check(value: Any) -> ValueTable:
        if isinstance(value, str) and bare_pointer:
            return ValueTable(pointer=types.pointer().check(value))
        if not isinstance(value, dict):
            raise ValueError(f"must be {allowed}, not {types.format_value(value)}")  # noqa: TRY004 (as every check does)
        if unknown := sorted(set(value) - {"pointer", "values", "other"}):
            raise ValueError(f"has {types.format_value(unknown[0])}, but only pointer, values and other are possible")
        if missing := [name for name in ("pointer", "values") if name not in value]:
            raise ValueError(f"has no {missing[0]}: must be {allowed}")
        found = {}
        for name, kind in (("pointer", types.pointer()), ("values", meanings), ("other", meaning)):
            if name in value:
                try:
                    found[name] = kind.check(value[name])
                except ValueError as error:
                    raise ValueError(f"has in {name} what {error}") from None
        if len(found["values"]) > MAX_TABLE_VALUES:
            raise ValueError(f"has more than {MAX_TABLE_VALUES} values")
        return ValueTable(**found)

    return types.SettingType(allowed, check)


def _pointers() -> types.SettingType:
    several = types.list_of(types.pointer(), min_items=1, max_items=MAX_POINTERS)
    allowed = 'a JSON Pointer such as "/id", or a list of pointers'

    def check(value: Any) -> tuple[str, ...]:
        return (types.pointer().check(value),) if isinstance(value, str) else several.check(value)

    return types.SettingType(allowed, check)


def _answer() -> types.SettingType:
    allowed = f"a text of at most {MAX_ANSWER_CHARS} characters"

    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > MAX_ANSWER_CHARS:
            raise ValueError(f"must be {allowed}, not {types.format_value(value)}")
        return value

    return types.SettingType(allowed, check)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressSettings:
    """How requests of a sender that has one fixed URL become callbacks: `POST /in/NAME`.

    Either `format` and `flow_instance_id` map the members of the request, or `receiver` names a plugin that does it.
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
            "doc": 'Table of the kinds of callback. The kind "ignore" stores nothing and counts the request. A value '
            "that is not in the table is the kind of other; without other, the request is answered with 422. Default: "
            "every request is of the kind complete.",
            "kind": value_table(types.name(), bare_pointer=False),
        },
    )
    conclusion: ValueTable | None = field(
        default=None,
        metadata={
            "doc": "JSON Pointer to the conclusion, or table of the conclusions. A value that is not in the table is "
            "the conclusion of other; without other, there is no conclusion.",
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
        try:
            json.loads(self.answer)
        except ValueError:
            return "text/plain; charset=utf-8"
        return "application/json; charset=utf-8"

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
        return MappingProxyType({name: pointer for name, pointer in pointers.items() if pointer})


_MAPPED: Final = (
    "format",
    "flow_instance_id",
    "process_definition_key",
    "process_definition_id",
    "process_definition_version",
    "business_key",
    "call_back_process_class",
    "kind",
    "conclusion",
)
"""Settings of the mapping, which a source with a receiver does not have."""


def find_problems(section: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the problems of a section that concern more than one setting, each as (setting or `""`, sentence end)."""
    if "receiver" in section:
        return [
            (name, f"{name}, but the receiver {section['receiver']} reads the requests: remove one of the two")
            for name in _MAPPED
            if name in section
        ]
    required = {
        "format": 'format, which is "json", "form" or "cloudevent"',
        "flow_instance_id": "flow_instance_id, the JSON Pointer to the process instance id",
    }
    return [("", f"no {what}") for name, what in required.items() if name not in section]
