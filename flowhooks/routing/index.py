"""The router's index: candidates by what they listen to, and what those of one event come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.model.event import EventState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowhooks.model.event import DismissedBy, Event, ParkedBy
    from flowhooks.model.selectors import Selectors

_NONE: Final = ()


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
        state: what the event is: routed, parked or dismissed. `every` handlers make no difference to it.
        parked_by: why it is parked; None if it is not.
        dismissed_by: why it is dismissed; None if it is not.
        undecided: the member that an undecided condition lacks, `"conclusion"` or a JSON Pointer; `""` if none is.
        unknown_conclusion: whether handlers have the event's class or key, and none of them names its conclusion.
    """

    handlers: Mapping[str, str]
    state: EventState = EventState.ROUTED
    parked_by: ParkedBy | None = None
    dismissed_by: DismissedBy | None = None
    undecided: str = ""
    unknown_conclusion: bool = False

    @property
    def parked(self) -> bool:
        """Whether the event is parked."""
        return self.state is EventState.PARKED


class Entry:
    """A candidate with the parts of its reasons written out once, not per event."""

    __slots__ = ("conditional", "handler_id", "narrow", "order", "pointers", "selectors", "sources", "versions")

    def __init__(self, order: int, candidate: Candidate) -> None:
        self.order = order
        self.handler_id = candidate.handler_id
        self.selectors = candidate.selectors
        self.versions = self.selectors.versions.strip()
        self.sources = ", ".join(self.selectors.sources)
        self.pointers = ", ".join(self.selectors.when)
        self.conditional = self.selectors.conditional
        # Most have none of them: with ten thousand handlers, what need not be touched is not fetched from memory.
        self.narrow = bool(self.versions or self.sources)

    def takes(self, event: Event) -> bool:
        """Whether versions and source, of an event of the right kind, are right."""
        return not self.narrow or self.selectors.refusal(event) is None

    def decide(self, event: Event) -> bool | None:
        """Whether the conditions hold; None: it cannot be decided."""
        return self.selectors.decide(event) if self.conditional else True

    def reason(self, shares: str, event: Event) -> str:
        """Why it gets the event, given what both share."""
        if self.versions:
            shares = f"{shares}, version {event.process_definition_version} in {self.versions}"
        if self.sources:
            shares = f"{shares}, source {event.source} of {self.sources}"
        if self.selectors.conclusions:
            shares = f"{shares}, conclusion {event.conclusion}"
        if self.pointers:
            shares = f"{shares}, conditions on {self.pointers}"
        return shares


class Bucket:
    """The entries of one class, or of one key: those that require a conclusion are found by it."""

    __slots__ = ("any_conclusion", "by_conclusion", "concluding", "shares")

    def __init__(self, shares: str) -> None:
        self.shares = shares
        self.any_conclusion: list[Entry] = []
        self.by_conclusion: dict[str | None, list[Entry]] = {}
        self.concluding: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Take in a candidate."""
        if not entry.selectors.conclusions:
            self.any_conclusion.append(entry)
            return
        self.concluding.append(entry)
        for conclusion in entry.selectors.conclusions:
            self.by_conclusion.setdefault(conclusion, []).append(entry)

    def entries(self) -> list[Entry]:
        """All candidates, those that require no conclusion first."""
        return [*self.any_conclusion, *self.concluding]


class Index:
    """The entries of one kind of call-back, by what they listen to."""

    __slots__ = ("classes", "every", "keys", "plain")

    def __init__(self) -> None:
        self.plain: dict[str | None, Route] = {}
        self.classes: dict[str | None, Bucket] = {}
        self.keys: dict[str | None, Bucket] = {}
        self.every: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Take in a candidate under each of its classes and keys."""
        for name in entry.selectors.callback_classes:
            self.classes.setdefault(name, Bucket(f"class {name}")).add(entry)
        for name in entry.selectors.process_keys:
            self.keys.setdefault(name, Bucket(f"key {name}")).add(entry)
        if entry.selectors.every:
            self.every.append(entry)

    def buckets(self, event: Event) -> list[Bucket]:
        """Those of the event's class and of its key."""
        found = (self.classes.get(event.callback_class), self.keys.get(event.process_definition_key))
        return [bucket for bucket in found if bucket is not None]

    def settle(self) -> None:
        """Once for all: the routes of classes for which nothing but the class counts, unless a key has a say, too."""
        if not self.every:
            self.plain = {
                name: Route({entry.handler_id: of.shares for entry in of.any_conclusion})
                for name, of in self.classes.items()
                if not any(entry.narrow or entry.conditional for entry in of.entries())
            }


class Match:
    """What the candidates of one event come to, while they are gone through."""

    __slots__ = ("event", "taken", "undecided", "were_asked")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.taken: dict[int, tuple[Entry, str]] = {}
        self.undecided = ""
        self.were_asked = False
        """Whether a candidate passed kind, versions and source, so that its conditions counted."""

    def ask_bucket(self, bucket: Bucket) -> None:
        """Ask the candidates of a class or a key; of those that require another conclusion, no more than needed."""
        conclusion = self.event.conclusion
        for entry in bucket.any_conclusion:
            self._ask(entry, bucket.shares)
        for entry in bucket.by_conclusion.get(conclusion, _NONE):
            self._ask(entry, bucket.shares)
        if conclusion is None:
            for entry in bucket.concluding:  # none of them is true: the first undecided one settles it
                if self.undecided:
                    return
                self._ask(entry, bucket.shares)
        elif not self.were_asked:
            self.were_asked = any(entry.takes(self.event) for entry in bucket.concluding)

    def ask_every(self, entries: Iterable[Entry]) -> None:
        """Ask the candidates that listen to every event."""
        for entry in entries:
            if entry.order not in self.taken:
                self._ask(entry, "every")

    def _ask(self, entry: Entry, shares: str) -> None:
        if (taken := self.taken.get(entry.order)) is not None:
            self.taken[entry.order] = entry, f"{taken[1]} and {shares}"
            return
        if not entry.takes(self.event):
            return
        self.were_asked = True
        decision = entry.decide(self.event)
        if decision:
            self.taken[entry.order] = entry, shares
        elif decision is None and not self.undecided:
            self.undecided = entry.selectors.undecided(self.event)

    def handlers(self) -> dict[str, str]:
        """Who gets the event, and why, in the order of the candidates."""
        return {entry.handler_id: entry.reason(shares, self.event) for _, (entry, shares) in sorted(self.taken.items())}
