"""Handlers: a plugin's function plus what it listens to; it must not know stored events or runs."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import HandlerError
from flowhooks.retry import Retry
from flowhooks.signatures import checked_probe, takes_delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.delivery import Delivery
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
NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""What names of plugins, handlers and sources look like."""
ORDERS: Final = ("business_key", "process_key")
"""What a handler's deliveries may be ordered by."""
MOST_AT_ONCE: Final = 1_000
"""The largest `concurrency=`: what is more than all machines have threads for is no limit."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A function and what it listens to. Made by `@handler`; calling it calls the function.

    Attributes:
        function: called as `(event)` or `(event, delivery)`.
        name: unique within its plugin; the function's name unless given.
        selectors: what it listens to.
        retry: says that running twice is safe, and when; None: a failure is final.
        probe: called as `(event, delivery)` when it is unknown whether an attempt did its work;
            answers True (it did), False (it did not) or None (cannot tell).
        order_by: `"business_key"` or `"process_key"`: its deliveries of one such key run one at a time, in the order in
            which their call-backs were taken; None: in any order.
        concurrency: how many of its deliveries run at once at the most, over all machines; None: no matter.
        plugin: the plugin's name, filled in when the plugin is loaded.
        takes_delivery: whether `function` wants the delivery too.
    """

    function: Callable[..., Any]
    name: str
    selectors: Selectors
    retry: Retry | None = None
    probe: Callable[[Event, Delivery], bool | None] | None = None
    order_by: str | None = None
    concurrency: int | None = None
    plugin: str = ""
    takes_delivery: bool = False

    @property
    def id(self) -> str:
        """`plugin:name`, under which the ledger knows it."""
        return f"{self.plugin}:{self.name}"

    @property
    def summary(self) -> str:
        """The first line of the function's docstring, or `""`."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def where(self) -> str:
        """`file:line` of the function, or its name where there is no source file."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(self.function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as a unit test does."""
        return self.function(*args, **kwargs)


def handler(
    *,
    callback_class: str | tuple[str, ...] | list[str] = (),
    process_key: str | tuple[str, ...] | list[str] = (),
    versions: str = "",
    source: str | tuple[str, ...] | list[str] = (),
    kind: str = "complete",
    every: bool = False,
    retry: Retry | None = None,
    probe: Callable[[Event, Delivery], bool | None] | None = None,
    order_by: str | None = None,
    concurrency: int | None = None,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], Handler]:
    """Declare what a function listens to.

    Args:
        callback_class: one or several values of `callBackProcessClass`.
        process_key: one or several values of `processDefinitionKey`.
        versions: such as `">=3,<5"`, on `processDefinitionVersion`.
        source: one or several names of engines; default every one.
        kind: the kind of call-back; default `"complete"`.
        every: listen to every event of that kind.
        retry: say, with `Retry(...)`, that running twice is safe; default: a failure is final.
        probe: tells whether a lost attempt did its work.
        order_by: `"business_key"` or `"process_key"`: have the deliveries of one key run one at a time, in the order in
            which their call-backs were taken; default: in any order.
        concurrency: how many of its deliveries may run at once, over all machines, 1 to 1000; default: any number.
        name: the handler's name in its plugin; default the function's.

    Returns:
        A decorator that turns the function into a `Handler`, to be returned from the `handlers` hook.

    Raises:
        HandlerError: it could never run: no selector, versions that contradict one another, a wrong type,
            `async def`, wrong arguments.
    """

    def decorate(function: Callable[..., Any]) -> Handler:
        called = getattr(function, "__name__", "") if name is None else name
        try:
            return Handler(
                function=function,
                name=_checked_name(called),
                selectors=Selectors(
                    callback_classes=_several("callback_class", callback_class),
                    process_keys=_several("process_key", process_key),
                    versions=_satisfiable(versions),
                    sources=_sources(source),
                    kind=kind,
                    every=_a("every", every, bool),
                ),
                retry=_a("retry", retry, Retry, None),
                probe=checked_probe(probe),
                order_by=_order(order_by),
                concurrency=_at_once(concurrency),
                takes_delivery=_takes_delivery(function),
            )
        except HandlerError as error:
            code = getattr(inspect.unwrap(function), "__code__", None)
            where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
            raise HandlerError(f"handler {called!r}{where}: {error}") from None

    return decorate


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise HandlerError(f"name= is 1 to 100 letters, digits, '.', '_' or '-', not {name!r}")
    return name


def _several(what: str, given: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, tuple | list) or not all(isinstance(one, str) for one in given):
        raise HandlerError(f"{what}= is a string or several, not {given!r}")
    return tuple(dict.fromkeys(given))


def _sources(given: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    sources = _several("source", given)
    for one in sources:
        if one and not NAME.fullmatch(one):
            raise HandlerError(f"source= {one!r} is the name of no engine: 1 to 100 letters, digits, '.', '_' or '-'")
    return sources


def _satisfiable(versions: str) -> str:
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


def _order(order_by: str | None) -> str | None:
    if order_by is not None and (not isinstance(order_by, str) or order_by not in ORDERS):
        raise HandlerError(f"order_by= is {' or '.join(map(repr, ORDERS))}, not {order_by!r}")
    return order_by


def _at_once(concurrency: int | None) -> int | None:
    whole = isinstance(concurrency, int) and not isinstance(concurrency, bool)
    if concurrency is not None and not (whole and 1 <= concurrency <= MOST_AT_ONCE):
        raise HandlerError(f"concurrency= is a whole number from 1 to {MOST_AT_ONCE}, not {concurrency!r}")
    return concurrency


def _takes_delivery(function: Any) -> bool:
    if isinstance(function, Handler):
        raise HandlerError(f"@handler goes on a function, not on {function!r}")
    return takes_delivery(function)


def _a(what: str, given: Any, kind: type, *others: Any) -> Any:
    if not isinstance(given, kind) and given not in others:
        hint = ": write Retry()" if kind is Retry else ""
        raise HandlerError(f"{what}= is a {kind.__name__}, not {given!r}{hint}")
    return given
