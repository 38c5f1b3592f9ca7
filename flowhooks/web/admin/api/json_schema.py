"""JSON Schema made of Python's types and what their docstrings say, so that it cannot drift; it must not know any."""

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
from flowhooks.ledger.backlog import HandlerBacklog
from flowhooks.ledger.queries import JSON_SCHEMA_KEY, EventFilter
from flowhooks.ledger.rejected_requests import RejectedRequest
from flowhooks.model.alert import AlertCause
from flowhooks.model.delivery import OutcomeKind, State
from flowhooks.model.retry import Retry
from flowhooks.operations.context import Desk
from flowhooks.operations.json.encoding import Moment, is_time
from flowhooks.operations.json.events import EventJson
from flowhooks.operations.json.plugins import PluginJson
from flowhooks.web.callback.openapi import or_null

Shape = dict[str, Any]

NAMES: Final[Mapping[str, Any]] = {
    one.__name__: one
    for one in (
        *(
            AlertCause,
            HandlerBacklog,
            Collection,
            Desk,
            AuditEntry,
            EventFilter,
            EventJson,
            Iterable,
            Mapping,
            OpenAlert,
        ),
        *(OutcomeKind, PluginJson, RejectedRequest, Retry, Sequence, State),
    )
} | {"Moment": Moment}
"""What annotations name that their modules import for type checkers only."""
_PLAIN: Final[Mapping[Any, str]] = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string"}
_MANY: Final = frozenset({list, tuple, set, frozenset, Sequence, Collection, Iterable})
_ATTRIBUTE: Final = re.compile(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


class Shapes:
    """The shapes of types; those that have names are kept as components, each once.

    Attributes:
        components: the named ones, by their names.
    """

    def __init__(self) -> None:
        self.components: dict[str, Shape] = {}
        self._kinds: dict[str, Any] = {}

    def of(self, hint: Any, *, given: bool = False) -> Shape:
        """The shape of a type as JSON has it.

        Args:
            hint: the type.
            given: whether it is an argument, which may leave out what has a default.

        Raises:
            TypeError: JSON has nothing like it.
        """
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is not None:
            return self._made_of(hint, origin, arguments, given=given)
        if hint in _PLAIN:
            return {"type": _PLAIN[hint]}
        if isinstance(hint, type) and issubclass(hint, StrEnum):
            return {"type": "string", "enum": [one.value for one in hint]}
        if is_typeddict(hint) or is_dataclass(hint):
            return self.component(hint, given=given)
        if hint is Any:
            return {}
        raise TypeError(f"there is no JSON Schema for {hint!r}")

    def _made_of(self, hint: Any, origin: Any, arguments: tuple[Any, ...], *, given: bool) -> Shape:
        """The shape of a type that is made of others."""
        if origin is Annotated:
            return self._annotated(*arguments, given=given)
        if origin in {Union, types.UnionType}:
            return _either([self.of(one) for one in arguments])
        if origin in _MANY:
            return {"type": "array", "items": self.of(arguments[0])}
        if origin in {dict, Mapping}:
            values = self.of(arguments[1])
            return {"type": "object"} | ({"additionalProperties": values} if values else {})
        raise TypeError(f"there is no JSON Schema for {hint!r}")

    def component(self, *kinds: Any, times: bool = False, given: bool = False) -> Shape:
        """A reference to the shape of an object with the members of these types; it is named after the first.

        Args:
            *kinds: dataclasses and typed dictionaries.
            times: whether times of dataclasses are given as text.
            given: as of `of`.

        Raises:
            TypeError: another type has that name already, or JSON has nothing like one of its members.
        """
        name = kinds[0].__name__.removesuffix("Json").lstrip("_")
        if self._kinds.setdefault(name, kinds) != kinds:
            raise TypeError(f"two types would be the component {name}: {self._kinds[name]} and {kinds}")
        if name not in self.components:
            self.components[name] = {}  # so that what refers to itself ends
            members: dict[str, Shape] = {}
            for kind in kinds:
                members |= self._members(kind, times=times, given=given)
            said = (inspect.getdoc(kinds[0]) or name).partition("\n")[0]
            whole: Shape = {"description": said, "type": "object", "properties": members}
            self.components[name] = whole | ({"additionalProperties": False} if given else {"required": list(members)})
        return {"$ref": f"#/components/schemas/{name}"}

    def _annotated(self, kind: Any, *more: Any, given: bool) -> Shape:
        if kind is str:
            return {"type": "string", "format": more[0]}
        if isinstance(more[0], Mapping):  # what an operation asks of it besides
            return {"allOf": [self.of(kind, given=given), dict(more[0])]}
        return self.component(*more, times=True)

    def _members(self, kind: Any, *, times: bool, given: bool) -> dict[str, Shape]:
        said = described(kind)
        hints = get_type_hints(kind, localns=dict(NAMES), include_extras=True)
        more = {one.name: one.metadata.get(JSON_SCHEMA_KEY, {}) for one in fields(kind)} if is_dataclass(kind) else {}
        names = list(more) or list(hints)
        members = {}
        for name in names:
            shape = self.of(hints[name])
            if times and is_dataclass(kind) and is_time(name):
                shape = self.of(Moment | None if type(None) in get_args(hints[name]) else Moment)
                said[name] = said.get(name, "").replace(", in microseconds since 1970", "")
            if given:  # with a default, as every field of what is given has, null counts as absent
                shape = or_null(shape | more.get(name, {}))
            members[name] = shape | ({"description": said[name]} if name in said else {})
        return members


def described(kind: Any) -> dict[str, str]:
    """What a class's docstring, and those of its bases, say of its attributes; or a function's of its arguments."""
    found: dict[str, str] = {}
    for one in (*_bases(kind), kind):
        text = inspect.getdoc(one) or ""
        for block in ("Attributes:", "Args:"):
            if f"\n{block}\n" in text:
                part = text.split(f"\n{block}\n")[1].split("\n\n")[0]
                found |= {name: _sentence(said) for name, said in _ATTRIBUTE.findall(part)}
    return found


def _bases(kind: Any) -> list[Any]:
    """What a typed dictionary was made of. It does not say so itself: those of its module of which it has all."""
    if not is_typeddict(kind):
        return []
    others = vars(sys.modules[kind.__module__]).values()
    return [
        one
        for one in others
        if is_typeddict(one) and one is not kind and one.__annotations__.items() <= kind.__annotations__.items()
    ]


def _sentence(text: str) -> str:
    """On one line, without the marks of code."""
    return " ".join(text.split()).replace("`", "").replace("None", "null")


def _either(shapes: list[Shape]) -> Shape:
    types_ = [one.get("type") for one in shapes]
    plain = [one for one in shapes if one != {"type": "null"}]
    if len(plain) == 1 and isinstance(plain[0].get("type"), str) and "null" in types_:
        whole = plain[0] | {"type": [plain[0]["type"], "null"]}
        return whole | ({"enum": [*whole["enum"], None]} if "enum" in whole else {})
    return {"anyOf": shapes}
