"""The router's index: candidates by class, key and conclusion, and their evaluation for one event."""

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
    """A handler that the router can select, either loaded in this process or only registered in the ledger.

    Attributes:
        handler_id: `plugin:name`.
        selectors: the events that it listens to.
        order_by: the order of its deliveries, `"business_key"` or `"process_key"`; None: not ordered.
    """

    handler_id: str
    selectors: Selectors
    order_by: str | None = None


class Route(NamedTuple):
    """The handlers of an event, with the reasons. A named tuple, because one is created for every callback.

    Attributes:
        handlers: the reason for each selected handler, by handler id, in the order of the candidates.
        state: whether the event is routed, parked or dismissed; `every` handlers do not affect it.
        parked_by: why the event is parked; None if it is not.
        dismissed_by: why the event is dismissed; None if it is not.
        undecided: the member that an undecided condition reads, `"conclusion"` or a JSON Pointer; `""` if none is.
        unknown_conclusion: whether handlers of the event's class or key require conclusions and none names this one.
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
    """A candidate with the texts for its reasons, which are built once instead of per event."""

    __slots__ = ("handler_id", "has_conditions", "has_filters", "order", "pointers", "selectors", "sources", "versions")

    def __init__(self, order: int, candidate: Candidate) -> None:
        self.order = order
        self.handler_id = candidate.handler_id
        self.selectors = candidate.selectors
        self.versions = self.selectors.versions.strip()
        self.sources = ", ".join(self.selectors.sources)
        self.pointers = ", ".join(self.selectors.when)
        self.has_conditions = self.selectors.has_conditions
        # Most handlers have no filters. With ten thousand handlers, skipping `selectors` saves memory accesses.
        self.has_filters = bool(self.versions or self.sources)

    def passes_filters(self, event: Event) -> bool:
        """Return whether the version and source of an event of this kind match."""
        return not self.has_filters or self.selectors.why_filtered_out(event) is None

    def decide(self, event: Event) -> bool | None:
        """Return whether the conditions hold; None: undecided."""
        return self.selectors.decide(event) if self.has_conditions else True

    def reason(self, matched_on: str, event: Event) -> str:
        """Return why the event matches; `matched_on` names the class or key that both share."""
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
    """The entries of one class or one key; entries that require conclusions are indexed by conclusion.

    Attributes:
        route: the route of events without further handlers; None if it depends on more than the class or the key.
    """

    __slots__ = ("any_conclusion", "by_conclusion", "matched_on", "requiring_conclusion", "route")

    def __init__(self, matched_on: str) -> None:
        self.matched_on = matched_on
        self.any_conclusion: list[IndexEntry] = []
        self.by_conclusion: dict[str | None, list[IndexEntry]] = {}
        self.requiring_conclusion: list[IndexEntry] = []
        self.route: Route | None = None

    def add(self, entry: IndexEntry) -> None:
        """Add a candidate."""
        if not entry.selectors.conclusions:
            self.any_conclusion.append(entry)
            return
        self.requiring_conclusion.append(entry)
        for conclusion in entry.selectors.conclusions:
            self.by_conclusion.setdefault(conclusion, []).append(entry)

    def entries(self) -> list[IndexEntry]:
        """Return all candidates, those that require no conclusion first."""
        return [*self.any_conclusion, *self.requiring_conclusion]

    def freeze(self) -> None:
        """Precompute the route if no entry has filters or conditions."""
        if not any(entry.has_filters or entry.has_conditions for entry in self.entries()):
            self.route = Route({entry.handler_id: self.matched_on for entry in self.any_conclusion})


class RoutingIndex:
    """The entries of one kind of callback, by class and key."""

    __slots__ = ("classes", "every", "keys")

    def __init__(self) -> None:
        self.classes: dict[str | None, Bucket] = {}
        self.keys: dict[str | None, Bucket] = {}
        self.every: list[IndexEntry] = []

    def add(self, entry: IndexEntry) -> None:
        """Add a candidate under each of its classes and keys."""
        for name in entry.selectors.callback_classes:
            self.classes.setdefault(name, Bucket(f"class {name}")).add(entry)
        for name in entry.selectors.process_keys:
            self.keys.setdefault(name, Bucket(f"key {name}")).add(entry)
        if entry.selectors.every:
            self.every.append(entry)

    def buckets(self, event: Event) -> list[Bucket]:
        """Return the buckets of the event's class and key."""
        buckets = (self.classes.get(event.callback_class), self.keys.get(event.process_definition_key))
        return [bucket for bucket in buckets if bucket is not None]

    def freeze(self) -> None:
        """Precompute the routes of classes and keys whose handlers have neither filters nor conditions."""
        if not self.every:
            for bucket in (*self.classes.values(), *self.keys.values()):
                bucket.freeze()

    def plain_route(self, event: Event) -> Route | None:
        """Return the precomputed route of an event; None: it has none, or its class and its key have handlers."""
        by_class, by_key = self.classes.get(event.callback_class), self.keys.get(event.process_definition_key)
        bucket = by_class if by_key is None else by_key if by_class is None else None
        return None if bucket is None else bucket.route


class Match:
    """The evaluation of the candidates for one event."""

    __slots__ = ("any_evaluated", "event", "matched", "undecided")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.matched: dict[int, tuple[IndexEntry, str]] = {}
        self.undecided = ""
        self.any_evaluated = False
        """Whether the kind, version and source of the event matched a candidate, so that its conditions apply."""

    def evaluate_bucket(self, bucket: Bucket) -> None:
        """Evaluate the candidates of a class or key; skip those that require another conclusion if possible."""
        conclusion = self.event.conclusion
        for entry in bucket.any_conclusion:
            self._evaluate(entry, bucket.matched_on)
        for entry in bucket.by_conclusion.get(conclusion, _NO_ENTRIES):
            self._evaluate(entry, bucket.matched_on)
        if conclusion is None:
            for entry in bucket.requiring_conclusion:  # none of them can hold: stop at the first undecided one
                if self.undecided:
                    return
                self._evaluate(entry, bucket.matched_on)
        elif not self.any_evaluated:
            self.any_evaluated = any(entry.passes_filters(self.event) for entry in bucket.requiring_conclusion)

    def evaluate_every(self, entries: Iterable[IndexEntry]) -> None:
        """Evaluate the candidates that listen to every event."""
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
        """Return the reason for each matching handler, in the order of the candidates."""
        return {
            entry.handler_id: entry.reason(shares, self.event) for _, (entry, shares) in sorted(self.matched.items())
        }
