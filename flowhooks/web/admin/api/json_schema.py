"""JSON Schema generated from Python types and their docstrings, so that it cannot drift."""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints, is_typeddict

from flowhooks.ledger.alert_queries import OpenAlert
from flowhooks.ledger.audit import AuditEntry
from flowhooks.ledger.queries import JSON_SCHEMA_KEY, EventFilter
from flowhooks.ledger.rejected_requests import RejectedRequest
from flowhooks.ledger.stats import HandlerBacklog
from flowhooks.model.alert import AlertCause
from flowhooks.model.bulk_operation import BulkAction, ItemStatus, Operation, OperationItem, OperationState
from flowhooks.model.delivery import OutcomeKind, State, Trigger
from flowhooks.model.engine import ProcessDefinition
from flowhooks.model.retry import Retry
from flowhooks.model.search_fields import FieldCondition
from flowhooks.operations.context import OperationContext
from flowhooks.operations.json.encoding import TimestampJson, is_time
from flowhooks.operations.json.engines import BookEntryJson, EngineJson
from flowhooks.operations.json.events import AttemptJson, EventJson, LateCallbackJson
from flowhooks.operations.json.overview import LastingConditionJson
from flowhooks.operations.json.plugins import PluginJson
from flowhooks.operations.json.sources import SourceJson
from flowhooks.text import one_line
from flowhooks.web.callback.openapi import nullable

JsonSchema = dict[str, Any]

ANNOTATION_TYPES: Final[Mapping[str, Any]] = {
    type_.__name__: type_
    for type_ in (
        *(
            AlertCause,
            AttemptJson,
            HandlerBacklog,
            Collection,
            OperationContext,
            AuditEntry,
            EventFilter,
            EventJson,
            Iterable,
            Mapping,
            OpenAlert,
        ),
        *(OutcomeKind, PluginJson, RejectedRequest, Retry, Sequence, State, Trigger),
        *(BookEntryJson, LastingConditionJson, EngineJson, LateCallbackJson, ProcessDefinition, SourceJson),
        *(BulkAction, ItemStatus, Operation, OperationItem, OperationState),
    )
} | {"TimestampJson": TimestampJson}
"""Types in annotations that their modules import for type checkers only."""
_SCALAR_TYPES: Final[Mapping[Any, str]] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    FieldCondition: "string",
}
_ARRAY_TYPES: Final = frozenset({list, tuple, set, frozenset, Sequence, Collection, Iterable})
_ATTRIBUTE: Final = re.compile(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


class SchemaBuilder:
    """A builder of JSON Schemas from types. Named types become components, each once.

    Attributes:
        components: the components, by name.
    """

    def __init__(self) -> None:
        self.components: dict[str, JsonSchema] = {}
        self._kinds: dict[str, Any] = {}

    def schema_for(self, hint: Any, *, is_argument: bool = False) -> JsonSchema:
        """Return the JSON Schema of a type.

        Args:
            hint: the type.
            is_argument: whether the type is an argument, which may leave out members with a default.

        Raises:
            TypeError: JSON cannot represent the type.
        """
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is not None:
            return self._for_type(hint, origin, arguments, is_argument=is_argument)
        if hint in _SCALAR_TYPES:
            return {"type": _SCALAR_TYPES[hint]}
        if isinstance(hint, type) and issubclass(hint, StrEnum):
            return {"type": "string", "enum": [member.value for member in hint]}
        if is_typeddict(hint) or is_dataclass(hint):
            return self.component(hint, is_argument=is_argument)
        if hint is Any:
            return {}
        raise TypeError(f"there is no JSON Schema for {hint!r}")

    def _for_type(self, hint: Any, origin: Any, arguments: tuple[Any, ...], *, is_argument: bool) -> JsonSchema:
        if origin is Annotated:
            return self._annotated(*arguments, is_argument=is_argument)
        if origin in {Union, types.UnionType}:
            return _union([self.schema_for(argument) for argument in arguments])
        if origin in _ARRAY_TYPES:
            return {"type": "array", "items": self.schema_for(arguments[0])}
        if origin in {dict, Mapping}:
            values = self.schema_for(arguments[1])
            return {"type": "object"} | ({"additionalProperties": values} if values else {})
        raise TypeError(f"there is no JSON Schema for {hint!r}")

    def component(self, *kinds: Any, times: bool = False, is_argument: bool = False) -> JsonSchema:
        """Return a reference to the schema of an object with the members of these types. It is named after the first.

        Args:
            *kinds: dataclasses and typed dictionaries.
            times: whether times of dataclasses are represented as text.
            is_argument: as in `schema_for`.

        Raises:
            TypeError: another type already has that name, or JSON cannot represent a member.
        """
        name = kinds[0].__name__.removesuffix("Json").lstrip("_")
        if self._kinds.setdefault(name, kinds) != kinds:
            raise TypeError(f"two types would be the component {name}: {self._kinds[name]} and {kinds}")
        if name not in self.components:
            self.components[name] = {}  # so that the recursion ends for a type that refers to itself
            members: dict[str, JsonSchema] = {}
            for kind in kinds:
                members |= self._members(kind, times=times, is_argument=is_argument)
            description = (inspect.getdoc(kinds[0]) or name).partition("\n")[0]
            schema: JsonSchema = {"description": description, "type": "object", "properties": members}
            self.components[name] = schema | (
                {"additionalProperties": False} if is_argument else {"required": list(members)}
            )
        return {"$ref": f"#/components/schemas/{name}"}

    def _annotated(self, kind: Any, *more: Any, is_argument: bool) -> JsonSchema:
        if isinstance(more[0], Mapping):  # a further schema that an operation requires
            schema = self.schema_for(kind, is_argument=is_argument)
            return {"allOf": [schema, dict(more[0])]} if "$ref" in schema else {**schema, **more[0]}
        if kind is str:
            return {"type": "string", "format": more[0]}
        return self.component(*more, times=True)

    def _members(self, kind: Any, *, times: bool, is_argument: bool) -> dict[str, JsonSchema]:
        descriptions = member_descriptions(kind)
        hints = get_type_hints(kind, localns=dict(ANNOTATION_TYPES), include_extras=True)
        extra_schemas = (
            {field.name: field.metadata.get(JSON_SCHEMA_KEY, {}) for field in fields(kind)}
            if is_dataclass(kind)
            else {}
        )
        names = list(extra_schemas) or list(hints)
        members = {}
        for name in names:
            schema = self.schema_for(hints[name])
            if times and is_dataclass(kind) and is_time(name):
                schema = self.schema_for(TimestampJson | None if type(None) in get_args(hints[name]) else TimestampJson)
                descriptions[name] = descriptions.get(name, "").replace(", in microseconds since 1970", "")
            if is_argument:  # all fields of arguments have a default, and null counts as absent
                schema = nullable(schema | extra_schemas.get(name, {}))
            members[name] = schema | ({"description": descriptions[name]} if name in descriptions else {})
        return members


def member_descriptions(kind: Any) -> dict[str, str]:
    """Return the descriptions in a docstring: of a class's and its bases' attributes, or of a function's arguments."""
    descriptions: dict[str, str] = {}
    for class_ in (*_bases(kind), kind):
        text = inspect.getdoc(class_) or ""
        for block in ("Attributes:", "Args:"):
            if f"\n{block}\n" in text:
                part = text.split(f"\n{block}\n")[1].split("\n\n")[0]
                descriptions |= {name: _plain_text(description) for name, description in _ATTRIBUTE.findall(part)}
    return descriptions


def _bases(kind: Any) -> list[Any]:
    # A TypedDict does not record its bases: they are the ones of its module whose members it has.
    if not is_typeddict(kind):
        return []
    others = vars(sys.modules[kind.__module__]).values()
    return [
        other
        for other in others
        if is_typeddict(other) and other is not kind and other.__annotations__.items() <= kind.__annotations__.items()
    ]


def _plain_text(text: str) -> str:
    return one_line(text).replace("`", "").replace("None", "null")


def _union(shapes: list[JsonSchema]) -> JsonSchema:
    types_ = [shape.get("type") for shape in shapes]
    without_null = [shape for shape in shapes if shape != {"type": "null"}]
    if len(without_null) == 1 and isinstance(without_null[0].get("type"), str) and "null" in types_:
        schema = without_null[0] | {"type": [without_null[0]["type"], "null"]}
        return schema | ({"enum": [*schema["enum"], None]} if "enum" in schema else {})
    return {"anyOf": shapes}
