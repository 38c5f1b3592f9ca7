"""The router's index: candidates by what they listen to, and what those of one event come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.model.event import EventState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowhooks.model.event import DismissedBy, Event, ParkedBy
    from flowhooks.model.selectors import Selectors

_NO_ENTRIES: Final = ()


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


class IndexEntry:
    """A candidate with the parts of its reasons written out once, not per event."""

    __slots__ = ("handler_id", "has_conditions", "has_filters", "order", "pointers", "selectors", "sources", "versions")

    def __init__(self, order: int, candidate: Candidate) -> None:
        self.order = order
        self.handler_id = candidate.handler_id
        self.selectors = candidate.selectors
        self.versions = self.selectors.versions.strip()
        self.sources = ", ".join(self.selectors.sources)
        self.pointers = ", ".join(self.selectors.when)
        self.has_conditions = self.selectors.has_conditions
        # Most have none of them: with ten thousand handlers, what need not be touched is not fetched from memory.
        self.has_filters = bool(self.versions or self.sources)

    def passes_filters(self, event: Event) -> bool:
        """Whether versions and source, of an event of the right kind, are right."""
        return not self.has_filters or self.selectors.why_filtered_out(event) is None

    def decide(self, event: Event) -> bool | None:
        """Whether the conditions hold; None: it cannot be decided."""
        return self.selectors.decide(event) if self.has_conditions else True

    def reason(self, matched_on: str, event: Event) -> str:
        """Why it gets the event, given what both share."""
        if self.versions:
            matched_on = f"{matched_on}, version {event.process_definition_version} in {self.versions}"
        if self.sources:
            matched_on = f"{matched_on}, source {event.source} of {self.sources}"
        if self.selectors.conclusions:
            matched_on = f"{matched_on}, conclusion {event.conclusion}"
        if self.pointers:
            matched_on = f"{matched_on}, conditions on {self.pointers}"
        return matched_on


class Bucket:
    """The entries of one class, or of one key: those that require a conclusion are found by it."""

    __slots__ = ("any_conclusion", "by_conclusion", "matched_on", "requiring_conclusion")

    def __init__(self, matched_on: str) -> None:
        self.matched_on = matched_on
        self.any_conclusion: list[IndexEntry] = []
        self.by_conclusion: dict[str | None, list[IndexEntry]] = {}
        self.requiring_conclusion: list[IndexEntry] = []

    def add(self, entry: IndexEntry) -> None:
        """Take in a candidate."""
        if not entry.selectors.conclusions:
            self.any_conclusion.append(entry)
            return
        self.requiring_conclusion.append(entry)
        for conclusion in entry.selectors.conclusions:
            self.by_conclusion.setdefault(conclusion, []).append(entry)

    def entries(self) -> list[IndexEntry]:
        """All candidates, those that require no conclusion first."""
        return [*self.any_conclusion, *self.requiring_conclusion]


class RoutingIndex:
    """The entries of one kind of call-back, by what they listen to."""

    __slots__ = ("classes", "every", "keys", "unfiltered")

    def __init__(self) -> None:
        self.unfiltered: dict[str | None, Route] = {}
        self.classes: dict[str | None, Bucket] = {}
        self.keys: dict[str | None, Bucket] = {}
        self.every: list[IndexEntry] = []

    def add(self, entry: IndexEntry) -> None:
        """Take in a candidate under each of its classes and keys."""
        for name in entry.selectors.callback_classes:
            self.classes.setdefault(name, Bucket(f"class {name}")).add(entry)
        for name in entry.selectors.process_keys:
            self.keys.setdefault(name, Bucket(f"key {name}")).add(entry)
        if entry.selectors.every:
            self.every.append(entry)

    def buckets(self, event: Event) -> list[Bucket]:
        """Those of the event's class and of its key."""
        buckets = (self.classes.get(event.callback_class), self.keys.get(event.process_definition_key))
        return [bucket for bucket in buckets if bucket is not None]

    def freeze(self) -> None:
        """Once for all: the routes of classes for which nothing but the class counts, unless a key has a say, too."""
        if not self.every:
            self.unfiltered = {
                name: Route({entry.handler_id: bucket.matched_on for entry in bucket.any_conclusion})
                for name, bucket in self.classes.items()
                if not any(entry.has_filters or entry.has_conditions for entry in bucket.entries())
            }


class Match:
    """What the candidates of one event come to, while they are gone through."""

    __slots__ = ("any_evaluated", "event", "matched", "undecided")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.matched: dict[int, tuple[IndexEntry, str]] = {}
        self.undecided = ""
        self.any_evaluated = False
        """Whether a candidate passed kind, versions and source, so that its conditions counted."""

    def evaluate_bucket(self, bucket: Bucket) -> None:
        """Ask the candidates of a class or a key; of those that require another conclusion, no more than needed."""
        conclusion = self.event.conclusion
        for entry in bucket.any_conclusion:
            self._evaluate(entry, bucket.matched_on)
        for entry in bucket.by_conclusion.get(conclusion, _NO_ENTRIES):
            self._evaluate(entry, bucket.matched_on)
        if conclusion is None:
            for entry in bucket.requiring_conclusion:  # none of them is true: the first undecided one settles it
                if self.undecided:
                    return
                self._evaluate(entry, bucket.matched_on)
        elif not self.any_evaluated:
            self.any_evaluated = any(entry.passes_filters(self.event) for entry in bucket.requiring_conclusion)

    def evaluate_every(self, entries: Iterable[IndexEntry]) -> None:
        """Ask the candidates that listen to every event."""
        for entry in entries:
            if entry.order not in self.matched:
                self._evaluate(entry, "every")

    def _evaluate(self, entry: IndexEntry, matched_on: str) -> None:
        if (taken := self.matched.get(entry.order)) is not None:
            self.matched[entry.order] = entry, f"{taken[1]} and {matched_on}"
            return
        if not entry.passes_filters(self.event):
            return
        self.any_evaluated = True
        decision = entry.decide(self.event)
        if decision:
            self.matched[entry.order] = entry, matched_on
        elif decision is None and not self.undecided:
            self.undecided = entry.selectors.first_undecided(self.event)

    def handlers(self) -> dict[str, str]:
        """Who gets the event, and why, in the order of the candidates."""
        return {
            entry.handler_id: entry.reason(shares, self.event) for _, (entry, shares) in sorted(self.matched.items())
        }
