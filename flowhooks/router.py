"""Which handlers an event goes to, and why: a look-up frozen at start; it must not know functions or the ledger."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.event import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowhooks.selectors import Selectors


@dataclass(frozen=True, slots=True)
class Candidate:
    """A handler as the router sees it, whether its function is loaded or only remembered.

    Attributes:
        handler_id: `plugin:name`.
        selectors: what it listens to.
        order_by: what its deliveries are ordered by, `"business_key"` or `"process_key"`; None: nothing.
    """

    handler_id: str
    selectors: Selectors
    order_by: str | None = None


class Route(NamedTuple):
    """Which handlers an event goes to, and why. A tuple, because one is made for every call-back.

    Attributes:
        handlers: each handler's id with the reason, in the order in which the candidates were given.
        parked: no class or key handler wants the event, even if `every` handlers get it.
        ignored: it would be parked, but the settings say that its key needs no handler.
    """

    handlers: Mapping[str, str]
    parked: bool
    ignored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One way into the look-up: a value for which one handler listens.

    Attributes:
        kind: the kind of call-back.
        by: `"class"`, `"key"` or `"every"`.
        value: the class or the key; `""` for `every`.
        versions: such as `">=3,<5"`; `""` takes every version.
        sources: names of engines; empty takes every one.
        handler_id: who listens.
    """

    kind: str
    by: str
    value: str
    versions: str
    sources: tuple[str, ...]
    handler_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why one candidate gets an event or does not.

    Attributes:
        handler_id: the candidate.
        shares: what it has in common with the event: `"class …"`, `"key …"`, both, or `"every"`.
        won: whether the event goes to it.
        why: the route's reason if it won, else the condition that failed.
    """

    handler_id: str
    shares: str
    won: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One look-up, explained.

    Attributes:
        route: the look-up's answer.
        verdicts: every candidate that shares the class or the key, or takes every event.
        hints: what may have been meant, when no class or key handler wants the event.
    """

    route: Route
    verdicts: tuple[Verdict, ...]
    hints: tuple[str, ...]


class _Entry:
    """A candidate with the parts of its reasons written out once, not per event."""

    __slots__ = ("handler_id", "narrow", "order", "selectors", "sources", "versions")

    def __init__(self, order: int, candidate: Candidate) -> None:
        self.order = order
        self.handler_id = candidate.handler_id
        self.selectors = candidate.selectors
        self.versions = self.selectors.versions.strip()
        self.sources = ", ".join(self.selectors.sources)
        # Most have neither: with ten thousand handlers, what need not be touched is not fetched from memory.
        self.narrow = bool(self.versions or self.sources)

    def takes(self, event: Event) -> bool:
        """Whether versions and source, of an event of the right kind, are right."""
        return not self.narrow or self.selectors.refusal(event) is None

    def reason(self, shares: str, event: Event) -> str:
        """Why it gets the event, given what both share."""
        if not self.narrow:
            return shares
        if self.versions:
            shares = f"{shares}, version {event.process_definition_version} in {self.versions}"
        if self.sources:
            shares = f"{shares}, source {event.source} of {self.sources}"
        return shares


class _Index:
    """The entries of one kind of call-back, by what they listen to."""

    __slots__ = ("classes", "every", "keys", "plain")

    def __init__(self) -> None:
        self.plain: dict[str | None, Route] = {}
        self.classes: dict[str | None, list[tuple[_Entry, str]]] = {}
        self.keys: dict[str | None, list[tuple[_Entry, str]]] = {}
        self.every: list[_Entry] = []

    def add(self, entry: _Entry) -> None:
        for name in entry.selectors.callback_classes:
            self.classes.setdefault(name, []).append((entry, f"class {name}"))
        for name in entry.selectors.process_keys:
            self.keys.setdefault(name, []).append((entry, f"key {name}"))
        if entry.selectors.every:
            self.every.append(entry)

    def settle(self) -> None:
        """Once for all: the routes of classes for which nothing but the class counts, unless a key has a say, too."""
        if not self.every:
            self.plain = {
                name: Route({entry.handler_id: shares for entry, shares in of}, parked=False, ignored=False)
                for name, of in self.classes.items()
                if not any(entry.narrow for entry, _ in of)
            }


_NONE: Final = ()
_NO_KEYS: Final = MappingProxyType(dict[str, str]())
MOST_OF_A_KEY: Final = 512
"""Characters of an order key that are kept as they are: what is longer does not fit into an index."""


def order_key(event: Event, by: str) -> str:
    """What an event is ordered by; `""` if it has none, and then comes in any order."""
    key = (event.business_key if by == "business_key" else event.process_definition_key) or ""
    return key if len(key) <= MOST_OF_A_KEY else hashlib.sha256(key.encode()).hexdigest()


class Router:
    """Answers which handlers an event goes to. Frozen; a look-up costs the same with one handler or ten thousand.

    Args:
        candidates: every handler, present or known. The order given is the order of every answer.
        ignore_keys: values of `processDefinitionKey` whose events need no handler.

    Raises:
        ValueError: two candidates have one id.
    """

    def __init__(self, candidates: Iterable[Candidate], *, ignore_keys: Iterable[str] = ()) -> None:
        candidates = tuple(candidates)
        self._entries = tuple(_Entry(order, candidate) for order, candidate in enumerate(candidates))
        self._order_by = {one.handler_id: one.order_by for one in candidates if one.order_by is not None}
        self._ignore_keys = frozenset(ignore_keys)
        self._kinds: dict[str, _Index] = {}
        seen: set[str] = set()
        for entry in self._entries:
            if entry.handler_id in seen:
                raise ValueError(f"two candidates are called {entry.handler_id!r}")
            seen.add(entry.handler_id)
            self._kinds.setdefault(entry.selectors.kind, _Index()).add(entry)
        for index in self._kinds.values():
            index.settle()

    def route(self, event: Event) -> Route:
        """Look up where `event` goes, each handler once."""
        index = self._kinds.get(event.kind)
        if index is not None and event.process_definition_key not in index.keys:
            plain = index.plain.get(event.callback_class)
            if plain is not None:
                return plain
        return self._asked(event, index)

    def _asked(self, event: Event, index: _Index | None) -> Route:
        """Ask each handler that shares the class or the key, or takes every event."""
        matched: dict[int, tuple[_Entry, str]] = {}
        wanted = False
        if index is not None:
            for entry, shares in index.classes.get(event.callback_class, _NONE):
                if entry.takes(event):
                    matched[entry.order] = entry, shares
            for entry, shares in index.keys.get(event.process_definition_key, _NONE):
                if (by_class := matched.get(entry.order)) is not None:
                    matched[entry.order] = entry, f"{by_class[1]} and {shares}"
                elif entry.takes(event):
                    matched[entry.order] = entry, shares
            wanted = bool(matched)
            for entry in index.every:
                if entry.order not in matched and entry.takes(event):
                    matched[entry.order] = entry, "every"
        handlers = {entry.handler_id: entry.reason(shares, event) for _, (entry, shares) in sorted(matched.items())}
        if wanted:
            return Route(handlers, parked=False, ignored=False)
        ignored = event.process_definition_key in self._ignore_keys
        return Route(handlers, parked=not ignored, ignored=ignored)

    def order_keys(self, event: Event, handlers: Iterable[str]) -> Mapping[str, str]:
        """The order key of `event` for each of these handlers that is ordered and for which the event has one."""
        if not self._order_by:
            return _NO_KEYS
        ordered = [(handler, self._order_by[handler]) for handler in handlers if handler in self._order_by]
        return {handler: key for handler, by in ordered if (key := order_key(event, by))}

    def order_by(self, handler_id: str) -> str | None:
        """What a handler's deliveries are ordered by, or None."""
        return self._order_by.get(handler_id)

    def all(self) -> tuple[Listener, ...]:
        """Every way into the look-up, handler by handler."""
        return tuple(
            Listener(
                kind=entry.selectors.kind,
                by=by,
                value=value,
                versions=entry.versions,
                sources=entry.selectors.sources,
                handler_id=entry.handler_id,
            )
            for entry in self._entries
            for by, values in (
                ("class", entry.selectors.callback_classes),
                ("key", entry.selectors.process_keys),
                ("every", ("",) if entry.selectors.every else ()),
            )
            for value in values
        )

    def explain(
        self,
        *,
        callback_class: str | None = None,
        process_key: str | None = None,
        version: int | None = None,
        source: str = "default",
        kind: str = "complete",
    ) -> Explanation:
        """Say of each candidate for such an event why it would get it or not.

        Args:
            callback_class: its `callBackProcessClass`, if any.
            process_key: its `processDefinitionKey`, if any.
            version: its `processDefinitionVersion`, if any.
            source: the engine that would send it.
            kind: the kind of call-back.

        Returns:
            The route, the verdicts, and hints when no class or key handler wants the event.
        """
        event = Event(
            id="",
            source=source,
            kind=kind,
            flow_instance_id="",
            callback_class=callback_class or None,
            process_definition_key=process_key or None,
            process_definition_version=version,
            data={},
            received_at=datetime.fromtimestamp(0, UTC),
        )
        route = self.route(event)
        verdicts = []
        for entry in self._entries:
            shares = _shared(entry.selectors, event)
            if shares:
                why = route.handlers.get(entry.handler_id) or entry.selectors.refusal(event) or ""
                won = entry.handler_id in route.handlers
                verdicts.append(Verdict(handler_id=entry.handler_id, shares=shares, won=won, why=why))
        unwanted = route.parked or route.ignored
        return Explanation(route=route, verdicts=tuple(verdicts), hints=self._hints(event) if unwanted else ())

    def _hints(self, event: Event) -> tuple[str, ...]:
        classes = dict.fromkeys(name for entry in self._entries for name in entry.selectors.callback_classes)
        keys = dict.fromkeys(name for entry in self._entries for name in entry.selectors.process_keys)
        hints: list[str] = []
        for what, given, known, others in (
            ("class", event.callback_class, classes, keys),
            ("key", event.process_definition_key, keys, classes),
        ):
            if given is None or given in known:
                continue
            if given in others:
                hints.append(f"{given!r} is known, but not as a {what}")
            hints += [f"{what} {name!r} {how}" for name, how in _near(given, known)]
        return tuple(hints)


def _shared(selectors: Selectors, event: Event) -> str:
    shares = [f"class {event.callback_class}"] if event.callback_class in selectors.callback_classes else []
    if event.process_definition_key in selectors.process_keys:
        shares.append(f"key {event.process_definition_key}")
    return " and ".join(shares) or ("every" if selectors.every else "")


def _near(given: str, known: Iterable[str]) -> list[tuple[str, str]]:
    """Known names that may have been meant, at most three, with how they differ."""
    folded = _folded(given)
    same = [name for name in known if _folded(name) == folded]
    if same:
        return [(name, "differs only in case or white space") for name in same[:3]]
    return [(name, "is similar") for name in difflib.get_close_matches(given, list(known), n=3, cutoff=0.75)]


def _folded(name: str) -> str:
    return "".join(name.split()).casefold()
