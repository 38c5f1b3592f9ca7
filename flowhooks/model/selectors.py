"""The selectors of a handler: classes, keys, versions, sources, kind, and conditions on the event."""

from __future__ import annotations

import json
import re
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import HandlerError, NewerSelectorsError
from flowhooks.model.conditions import Condition, decide_all, parse_conditions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.model.event import Event

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
MAX_CONCLUSION_CHARS: Final = 128
"""Maximum characters of a conclusion; `process-end-call-back-ro.schema.json` has the same limit."""
SELECTORS_FORMAT: Final = 2
"""Version of the format of `Selectors.to_json`. Format 1 has no member `format`, no conclusions and no conditions."""
_MIN_VERSION: Final = -(2**31)
_MAX_VERSION: Final = 2**31 - 1
"""Range of `processDefinitionVersion`, which is an int32 in every kind of callback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionResult:
    """One condition of a handler, evaluated for an event.

    Attributes:
        member: the member that the condition reads: `"conclusion"` or a JSON Pointer into the event's data.
        holds: whether the condition holds; None: it is undecided.
        reason: why the condition does not hold, as a clause; `""` if it holds.
    """

    member: str
    holds: bool | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectors:
    """The events that a handler listens to.

    An event matches if its class or key is selected (or `every` is set), if its version, source and kind are selected,
    and if the conditions hold: `conclusions` and `when`.

    Attributes:
        callback_classes: values of `callBackProcessClass`.
        process_keys: values of `processDefinitionKey`.
        versions: range of `processDefinitionVersion`, such as `">=3,<5"`. `""` matches every version and an absent
            one; any other value does not match an absent version.
        sources: names of engines; empty: all.
        kind: the kind of callback; default: `"complete"`.
        every: whether to listen to every event of this kind, regardless of class and key.
        conclusions: values of `Event.conclusion`; empty: any conclusion, or none.
        when: the expected value for each JSON Pointer into the event's data: a JSON Schema (a dict), a constant, or a
            list of constants.
        is_stored: as of `Condition`.

    Raises:
        HandlerError: `versions`, `conclusions` or `when` is invalid, neither a class, nor a key, nor `every` is given,
            or a text has a lone surrogate.
    """

    callback_classes: tuple[str, ...] = ()
    process_keys: tuple[str, ...] = ()
    versions: str = ""
    sources: tuple[str, ...] = ()
    kind: str = "complete"
    every: bool = False
    conclusions: tuple[str, ...] = ()
    when: Mapping[str, Any] = field(default_factory=dict, compare=False)
    is_stored: InitVar[bool] = False
    _conditions: tuple[Condition, ...] = field(default=(), init=False, repr=False, compare=False)
    _when_json: str = field(default="", init=False, repr=False)  # compared instead of `when`: 1 == True in Python
    _terms: tuple[tuple[str, int], ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self, is_stored: bool) -> None:
        if not (self.callback_classes or self.process_keys or self.every):
            raise HandlerError("it listens to nothing: give callback_class=, process_key= or every=True")
        for name in (*self.callback_classes, *self.process_keys, *self.sources, self.kind):
            if not isinstance(name, str) or not name:
                raise HandlerError(f"selectors must be strings that are not empty, not {name!r}")
        if not isinstance(self.versions, str):
            raise HandlerError(f'versions= must be a string such as ">=3,<5", not {self.versions!r}')
        if self.versions.strip():
            object.__setattr__(self, "_terms", tuple(map(_parse_term, _TERM_SPACES.split(self.versions.strip()))))
        for conclusion in self.conclusions:
            if not isinstance(conclusion, str) or not 0 < len(conclusion) <= MAX_CONCLUSION_CHARS:
                raise HandlerError(
                    f"conclusion= is a string of 1 to {MAX_CONCLUSION_CHARS} characters, or several, not {conclusion!r}"
                )
        if self.when:
            conditions = parse_conditions(self.when, is_stored=is_stored)
            when = {condition.pointer: condition.expected for condition in conditions}
            object.__setattr__(self, "when", when)
            object.__setattr__(self, "_when_json", json.dumps(when, sort_keys=True))
            object.__setattr__(self, "_conditions", conditions)
        if not is_stored:
            _check_unicode(self.to_json())

    @property
    def has_conditions(self) -> bool:
        """Whether the handler has conditions: conclusions or `when`."""
        return bool(self.conclusions or self._conditions)

    def decide(self, event: Event) -> bool | None:
        """Return whether the handler's conditions hold for an event; None: undecided."""
        conclusion = None if event.conclusion is None else event.conclusion in self.conclusions
        return decide_all(
            (
                conclusion if self.conclusions else True,
                *(condition.decide(event.data) for condition in self._conditions),
            )
        )

    def first_undecided(self, event: Event) -> str:
        """Return the member of the first undecided condition: `"conclusion"` or a JSON Pointer; `""` if none is."""
        if self.conclusions and event.conclusion is None:
            return "conclusion"
        pointers = (condition.pointer for condition in self._conditions if condition.decide(event.data) is None)
        return next(pointers, "")

    def evaluate(self, event: Event) -> tuple[ConditionResult, ...]:
        """Evaluate each condition of the handler for an event."""
        results = []
        if self.conclusions:
            named = ", ".join(self.conclusions)
            holds = None if event.conclusion is None else event.conclusion in self.conclusions
            why = f"conclusion {event.conclusion!r} is not one of {named}"
            if holds is None:
                why = f"no conclusion, but the handler requires one of {named}"
            results.append(ConditionResult(member="conclusion", holds=holds, reason="" if holds else why))
        for condition in self._conditions:
            holds = condition.decide(event.data)
            why = "" if holds else condition.why_not(event.data)
            results.append(ConditionResult(member=condition.pointer, holds=holds, reason=why))
        return tuple(results)

    def why_not(self, event: Event) -> str | None:
        """Return why the handler's conditions do not hold for an event, as a clause; None if they hold."""
        wrong = [result for result in self.evaluate(event) if not result.holds]
        # A false condition decides, so it comes before an undecided one.
        wrong.sort(key=lambda result: result.holds is None)
        return wrong[0].reason if wrong else None

    def why_filtered_out(self, event: Event) -> str | None:
        """Return why the kind, source or version of `event` does not match, as a clause; None if all match."""
        if event.kind != self.kind:
            return f"kind is {event.kind!r}, not {self.kind!r}"
        if self.sources and event.source not in self.sources:
            return f"source {event.source!r} is not one of {', '.join(self.sources)}"
        if self._terms:
            version = event.process_definition_version
            if version is None:
                return f"no processDefinitionVersion, but versions {self.versions!r} requires one"
            for operator, number in self._terms:
                if not _COMPARE[operator](version, number):
                    return f"version {version} is not {operator}{number}"
        return None

    def to_json(self) -> dict[str, Any]:
        """Encode for storage in the ledger."""
        return {
            "format": SELECTORS_FORMAT,
            "callback_classes": list(self.callback_classes),
            "process_keys": list(self.process_keys),
            "versions": self.versions,
            "sources": list(self.sources),
            "kind": self.kind,
            "every": self.every,
            "conclusions": list(self.conclusions),
            "when": dict(self.when),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Selectors:
        """Decode the result of `to_json`. A condition that this version refuses is undecided for every event.

        Raises:
            NewerSelectorsError: a newer flowhooks wrote it.
        """
        if (written := value.get("format", 1)) > SELECTORS_FORMAT:
            raise NewerSelectorsError(
                f"its selectors have format {written}, but this version reads formats up to {SELECTORS_FORMAT}"
            )
        return cls(
            callback_classes=tuple(value["callback_classes"]),
            process_keys=tuple(value["process_keys"]),
            versions=value["versions"],
            sources=tuple(value["sources"]),
            kind=value["kind"],
            every=value["every"],
            conclusions=tuple(value.get("conclusions", ())),
            when=value.get("when", {}),
            is_stored=True,
        )


def _check_unicode(selectors: Mapping[str, Any]) -> None:
    # Bodies of callbacks have no lone surrogates, and no database stores them.
    try:
        json.dumps(selectors, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.end]
        raise HandlerError(
            f"its selectors have {half!r}, half of a surrogate pair, which no callback can have"
        ) from None


def _parse_term(text: str) -> tuple[str, int]:
    if not (match := _VERSION_TERM.fullmatch(text)):
        raise HandlerError(f'versions= cannot be read at {text!r}: write whole numbers, such as ">=3,<5"')
    return match.group(1), int(match.group(2))


def check_satisfiable(versions: str) -> str:
    """Return `versions` unchanged.

    Raises:
        HandlerError: `versions` is malformed, or no version satisfies it.
    """
    if not isinstance(versions, str) or not versions.strip():
        return versions  # `Selectors` checks the type
    low, high, excluded = _MIN_VERSION, _MAX_VERSION, set[int]()
    for operator, number in map(_parse_term, _TERM_SPACES.split(versions.strip())):
        if number > _MAX_VERSION:
            raise HandlerError(
                f"versions= has {number}, but a processDefinitionVersion is an int32, at most {_MAX_VERSION}"
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
