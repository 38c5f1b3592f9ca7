"""What a handler listens to: classes, keys, versions, sources and kind; it must not know handlers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import HandlerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.event import Event

_VERSION_TERM: Final = re.compile(r"(==|!=|>=|<=|>|<)\s*(\d{1,10})")
_TERM_SPACES: Final = re.compile(r"\s*,\s*")
_COMPARE: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": int.__eq__,
    "!=": int.__ne__,
    ">=": int.__ge__,
    "<=": int.__le__,
    ">": int.__gt__,
    "<": int.__lt__,
}
_LEAST_VERSION: Final = -(2**31)
_MOST_VERSION: Final = 2**31 - 1
"""`processDefinitionVersion` is an int32, in every kind of call-back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectors:
    """What a handler listens to.

    A handler matches if its class or its key matches (or `every` is set), and versions, source and kind do.

    Attributes:
        callback_classes: values of `callBackProcessClass`.
        process_keys: values of `processDefinitionKey`.
        versions: such as `">=3,<5"`, on `processDefinitionVersion`; `""` takes every version
            and also none. An absent version does not match anything else.
        sources: names of engines; empty takes every one.
        kind: the kind of call-back; default `"complete"`.
        every: listen to every event of that kind, whatever its class or key.

    Raises:
        HandlerError: `versions` cannot be read, or nothing is selected.
    """

    callback_classes: tuple[str, ...] = ()
    process_keys: tuple[str, ...] = ()
    versions: str = ""
    sources: tuple[str, ...] = ()
    kind: str = "complete"
    every: bool = False
    _terms: tuple[tuple[str, int], ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.callback_classes or self.process_keys or self.every):
            raise HandlerError("it listens to nothing: give callback_class=, process_key= or every=True")
        for name in (*self.callback_classes, *self.process_keys, *self.sources, self.kind):
            if not isinstance(name, str) or not name:
                raise HandlerError(f"selectors are strings that are not empty, not {name!r}")
        if not isinstance(self.versions, str):
            raise HandlerError(f'versions= is a string such as ">=3,<5", not {self.versions!r}')
        if self.versions.strip():
            object.__setattr__(self, "_terms", tuple(map(_term, _TERM_SPACES.split(self.versions.strip()))))

    def refusal(self, event: Event) -> str | None:
        """Why `event` is not for this handler although its class or key may be, or None: kind, source and versions."""
        if event.kind != self.kind:
            return f"kind is {event.kind!r}, not {self.kind!r}"
        if self.sources and event.source not in self.sources:
            return f"source {event.source!r} is not one of {', '.join(self.sources)}"
        if self._terms:
            version = event.process_definition_version
            if version is None:
                return f"no processDefinitionVersion, and versions {self.versions!r} asks for one"
            for operator, number in self._terms:
                if not _COMPARE[operator](version, number):
                    return f"version {version} is not {operator}{number}"
        return None

    def to_json(self) -> dict[str, Any]:
        """As the ledger keeps it; `Selectors.from_json` reads it back."""
        return {
            "callback_classes": list(self.callback_classes),
            "process_keys": list(self.process_keys),
            "versions": self.versions,
            "sources": list(self.sources),
            "kind": self.kind,
            "every": self.every,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Selectors:
        """What `to_json` gave."""
        return cls(
            callback_classes=tuple(value["callback_classes"]),
            process_keys=tuple(value["process_keys"]),
            versions=value["versions"],
            sources=tuple(value["sources"]),
            kind=value["kind"],
            every=value["every"],
        )


def _term(text: str) -> tuple[str, int]:
    if not (match := _VERSION_TERM.fullmatch(text)):
        raise HandlerError(f'versions= cannot be read at {text!r}: write whole numbers, such as ">=3,<5"')
    return match.group(1), int(match.group(2))


def satisfiable(versions: str) -> str:
    """`versions` as it is, unless it can be read and no version satisfies it."""
    if not isinstance(versions, str) or not versions.strip():
        return versions  # refused, or taken, by `Selectors`
    low, high, excluded = _LEAST_VERSION, _MOST_VERSION, set[int]()
    for operator, number in map(_term, _TERM_SPACES.split(versions.strip())):
        if number > _MOST_VERSION:
            raise HandlerError(
                f"versions= names {number}, and a processDefinitionVersion is an int32, at most {_MOST_VERSION}"
            )
        if operator in {"==", ">=", ">"}:
            low = max(low, number + (operator == ">"))
        if operator in {"==", "<=", "<"}:
            high = min(high, number - (operator == "<"))
        if operator == "!=":
            excluded.add(number)
    if high - low < len([number for number in excluded if low <= number <= high]):
        raise HandlerError(f"versions= {versions!r} contradicts itself: no version satisfies all of it")
    return versions
