"""The router: select the handlers of an event by an immutable index, with the reasons."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import NewerSelectorsError
from flowhooks.model.event import DismissedBy, Event, EventState, NoMatch, ParkedBy, has_only_digits
from flowhooks.routing.index import Bucket, Candidate, IndexEntry, Match, Route, RoutingIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowhooks.model.selectors import ConditionResult, Selectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One entry of the index: a class or key that one handler listens to.

    Attributes:
        kind: the kind of callback.
        by: `"class"`, `"key"` or `"every"`.
        value: the class or the key; `""` for `every`.
        versions: range such as `">=3,<5"`; `""`: every version.
        sources: names of engines; empty: all.
        conclusions: values of the event's conclusion; empty: any, or none.
        when: the expected value for each JSON Pointer into the event's data.
        handler_id: the handler's id.
    """

    kind: str
    by: str
    value: str
    versions: str
    sources: tuple[str, ...]
    conclusions: tuple[str, ...]
    when: Mapping[str, Any]
    handler_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateMatch:
    """Why one candidate matches an event or does not.

    Attributes:
        handler_id: the candidate's id.
        matched_on: the selector that the event shares: `"class …"`, `"key …"`, both, or `"every"`.
        matched: whether the event is delivered to the candidate.
        reason: the route's reason if `matched`; otherwise the condition that failed.
        conditions: the results of its conditions; empty if it has none, or if kind, version or source differ.
    """

    handler_id: str
    matched_on: str
    matched: bool
    reason: str
    conditions: tuple[ConditionResult, ...] = ()

    @property
    def undecided(self) -> bool:
        """Whether at least one condition is undecided and none is false."""
        values = [condition.holds for condition in self.conditions]
        return None in values and False not in values


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The explanation of a route.

    Attributes:
        route: the route.
        verdicts: the candidates that share the class or key or listen to every event, up to the requested maximum.
        hints: similar names of classes, keys and conclusions, if no class or key handler matches the event.
        left_out: number of further candidates.
    """

    route: Route
    verdicts: tuple[CandidateMatch, ...]
    hints: tuple[str, ...]
    left_out: int = 0


_NO_KEYS: Final = MappingProxyType(dict[str, str]())
MAX_REASONS: Final = 20
"""Maximum number of handlers for which the reason for not matching an event is stored."""
MAX_ORDER_KEY_CHARS: Final = 512
"""Maximum characters of an order key. A longer key is hashed, because it would not fit into a database index."""


def order_key(event: Event, by: str) -> str:
    """Return an event's order key; `""` if it has none, so that its deliveries are not ordered."""
    key = (event.business_key if by == "business_key" else event.process_definition_key) or ""
    return key if len(key) <= MAX_ORDER_KEY_CHARS else hashlib.sha256(key.encode()).hexdigest()


class Router:
    """Selects the handlers of an event. Immutable; a lookup costs the same with one handler or ten thousand.

    Args:
        candidates: every handler, loaded or registered. Results have the same order.
        ignore_keys: values of `processDefinitionKey` whose events need no handler.
        unreadable_handlers: ids of registered handlers whose selectors a newer flowhooks has recorded.

    Attributes:
        unreadable_handlers: ids of registered handlers whose selectors a newer flowhooks has recorded. If there are
            any, `route` raises, because an event could miss one of these handlers.

    Raises:
        ValueError: two candidates have the same id.
    """

    def __init__(
        self,
        candidates: Iterable[Candidate],
        *,
        ignore_keys: Iterable[str] = (),
        unreadable_handlers: Iterable[str] = (),
    ) -> None:
        candidates = tuple(candidates)
        self.unreadable_handlers = tuple(unreadable_handlers)
        self._entries = tuple(IndexEntry(order, candidate) for order, candidate in enumerate(candidates))
        self._order_by = {
            candidate.handler_id: candidate.order_by for candidate in candidates if candidate.order_by is not None
        }
        self._ignore_keys = frozenset(ignore_keys)
        self._kinds: dict[str, RoutingIndex] = {}
        seen: set[str] = set()
        for entry in self._entries:
            if entry.handler_id in seen:
                raise ValueError(f"two candidates are called {entry.handler_id!r}")
            seen.add(entry.handler_id)
            self._kinds.setdefault(entry.selectors.kind, RoutingIndex()).add(entry)
        for index in self._kinds.values():
            index.freeze()

    def route(self, event: Event) -> Route:
        """Return the route of `event`, with each handler once.

        Raises:
            NewerSelectorsError: a newer flowhooks has recorded handlers that this one cannot read.
        """
        if self.unreadable_handlers:
            raise NewerSelectorsError(
                f"a newer version of flowhooks has registered {', '.join(self.unreadable_handlers[:3])}, and this "
                "version cannot read the selectors: run the newer version here too; if there is none, the row is "
                "damaged: run `flowhooks verify`"
            )
        index = self._kinds.get(event.kind)
        plain = None if index is None else index.plain_route(event)
        return plain or self._evaluate_candidates(event, index)

    def _evaluate_candidates(self, event: Event, index: RoutingIndex | None) -> Route:
        """Evaluate each handler that shares the event's class or key, or takes every event."""
        match = Match(event)
        buckets = [] if index is None else index.buckets(event)
        for bucket in buckets:
            match.evaluate_bucket(bucket)
        # `every` handlers do not affect the event's state.
        is_taken, undecided, any_evaluated = bool(match.matched), match.undecided, match.any_evaluated
        if index is not None and index.every:
            match.evaluate_every(index.every)
        handlers = match.handlers()
        if is_taken:
            return Route(handlers, undecided=match.undecided)
        if undecided:
            return Route(handlers, EventState.PARKED, ParkedBy.CONDITION, undecided=undecided)
        if any_evaluated:
            return Route(
                handlers,
                EventState.DISMISSED,
                dismissed_by=DismissedBy.CONDITION,
                undecided=match.undecided,
                unknown_conclusion=_is_unknown(event.conclusion, buckets),
            )
        if event.process_definition_key in self._ignore_keys:
            return Route(handlers, EventState.DISMISSED, dismissed_by=DismissedBy.SETTING, undecided=match.undecided)
        if not buckets and self._is_known(event):
            return Route(handlers, EventState.DISMISSED, dismissed_by=DismissedBy.KIND, undecided=match.undecided)
        named = event.callback_class is not None or event.process_definition_key is not None
        return Route(
            handlers, EventState.PARKED, ParkedBy.HANDLER if named else ParkedBy.NAME, undecided=match.undecided
        )

    def _is_known(self, event: Event) -> bool:
        return any(index.buckets(event) for index in self._kinds.values())

    def reads_data(self, event: Event) -> bool:
        """Return whether a candidate has conditions on the data; events of one class and key may then differ."""
        index = self._kinds.get(event.kind)
        return index is not None and any(
            entry.pointers for bucket in index.buckets(event) for entry in bucket.entries()
        )

    def no_match(self, event: Event) -> NoMatch:
        """Return why the handlers that share the event's class or key do not match it, without those that match."""
        sharing_entries = {
            entry.order: entry
            for index in self._kinds.values()
            for bucket in index.buckets(event)
            for entry in bucket.entries()
        }
        reasons: dict[str, str] = {}
        total = 0
        for _, entry in sorted(sharing_entries.items()):
            if len(reasons) == MAX_REASONS:
                total += 1
            elif why := entry.selectors.why_filtered_out(event) or entry.selectors.why_not(event):
                reasons[entry.handler_id] = why
                total += 1
        return NoMatch(reasons, total)

    def order_keys(self, event: Event, handlers: Iterable[str]) -> Mapping[str, str]:
        """Return the order key of `event` for each ordered handler; without those for which it has no key."""
        if not self._order_by:
            return _NO_KEYS
        ordered = [(handler, self._order_by[handler]) for handler in handlers if handler in self._order_by]
        return {handler: key for handler, by in ordered if (key := order_key(event, by))}

    def has_handler(self, handler_id: str) -> bool:
        """Return whether there is a candidate with this id."""
        return any(entry.handler_id == handler_id for entry in self._entries)

    def order_by(self, handler_id: str) -> str | None:
        """Return a handler's `order_by`, or None."""
        return self._order_by.get(handler_id)

    def subscriptions(self) -> tuple[Subscription, ...]:
        """Return all entries of the index, handler by handler."""
        return tuple(
            Subscription(
                kind=entry.selectors.kind,
                by=by,
                value=value,
                versions=entry.versions,
                sources=entry.selectors.sources,
                conclusions=entry.selectors.conclusions,
                when=entry.selectors.when,
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
        conclusion: str | None = None,
        data: Mapping[str, Any] = MappingProxyType({}),
    ) -> Explanation:
        """Explain for each candidate why an event with these values would match or not.

        Args:
            callback_class: the event's `callBackProcessClass`, if any.
            process_key: the event's `processDefinitionKey`, if any.
            version: the event's `processDefinitionVersion`, if any.
            source: the engine that would send it.
            kind: the kind of callback.
            conclusion: the event's conclusion as handlers name it, if any.
            data: the event's data, for conditions.

        Returns:
            The route, the verdicts, and hints if no class or key handler matches.
        """
        return self.explain_event(
            Event(
                id="",
                source=source,
                kind=kind,
                flow_instance_id="",
                callback_class=callback_class or None,
                process_definition_key=process_key or None,
                process_definition_version=version,
                conclusion=conclusion or None,
                data=data,
                received_at=datetime.fromtimestamp(0, UTC),
            )
        )

    def explain_event(self, event: Event, *, max_candidates: int | None = None) -> Explanation:
        """Explain for each candidate why an event matches or not, as `explain` does.

        Args:
            event: the event.
            max_candidates: explain at most this many candidates, matching ones first, and give no hints, because each
                hint compares all names; None: all candidates, with hints.
        """
        route = self.route(event)
        sharing = [
            (entry, matched_on) for entry in self._entries if (matched_on := _common_fields(entry.selectors, event))
        ]
        explained = sharing
        if max_candidates is not None:
            explained = sorted(sharing, key=lambda each: each[0].handler_id not in route.handlers)[:max_candidates]
        matches = []
        for entry, matched_on in explained:
            filtered_out = entry.selectors.why_filtered_out(event)
            matches.append(
                CandidateMatch(
                    handler_id=entry.handler_id,
                    matched_on=matched_on,
                    matched=entry.handler_id in route.handlers,
                    reason=route.handlers.get(entry.handler_id) or filtered_out or entry.selectors.why_not(event) or "",
                    conditions=entry.selectors.evaluate(event) if filtered_out is None else (),
                )
            )
        hints = () if max_candidates is not None or route.state is EventState.ROUTED else self._hints(event)
        return Explanation(route=route, verdicts=tuple(matches), hints=hints, left_out=len(sharing) - len(matches))

    def is_unknown_conclusion(self, event: Event) -> bool:
        """Return whether handlers of the event's class or key require conclusions and none names the event's."""
        return _is_unknown(
            event.conclusion, [bucket for index in self._kinds.values() for bucket in index.buckets(event)]
        )

    def similar_conclusions(self, event: Event) -> tuple[str, ...]:
        """Return hints to similar conclusions if no handler of the event's class or key names the event's own."""
        named = dict.fromkeys(
            conclusion
            for index in self._kinds.values()
            for bucket in index.buckets(event)
            for conclusion in bucket.by_conclusion
            if conclusion is not None
        )
        if event.conclusion is None or event.conclusion in named:
            return ()
        return tuple(f"conclusion {name!r} {how}" for name, how in _similar(event.conclusion, named))

    def _hints(self, event: Event) -> tuple[str, ...]:
        classes = dict.fromkeys(name for entry in self._entries for name in entry.selectors.callback_classes)
        keys = dict.fromkeys(name for entry in self._entries for name in entry.selectors.process_keys)
        hints: list[str] = []
        for what, event_name, names_of_kind, names_of_other in (
            ("class", event.callback_class, classes, keys),
            ("key", event.process_definition_key, keys, classes),
        ):
            if event_name is None or event_name in names_of_kind:
                continue
            if event_name in names_of_other:
                hints.append(f"{event_name!r} is known, but not as a {what}")
            hints += [f"{what} {name!r} {how}" for name, how in _similar(event_name, names_of_kind)]
        if has_only_digits(event.process_definition_key) and event.process_definition_key not in keys:
            hints.append("the key has only digits: send bpmnProcessId instead if the engine is Camunda 8")
        return (*hints, *self.similar_conclusions(event))


def _is_unknown(conclusion: str | None, buckets: Iterable[Bucket]) -> bool:
    """Tell whether handlers in these buckets require conclusions, and none requires this one."""
    required = [bucket.by_conclusion for bucket in buckets if bucket.requiring_conclusion]
    return conclusion is not None and bool(required) and not any(conclusion in named for named in required)


def _common_fields(selectors: Selectors, event: Event) -> str:
    shares = [f"class {event.callback_class}"] if event.callback_class in selectors.callback_classes else []
    if event.process_definition_key in selectors.process_keys:
        shares.append(f"key {event.process_definition_key}")
    return " and ".join(shares) or ("every" if selectors.every else "")


def _similar(wanted_name: str, names: Iterable[str]) -> list[tuple[str, str]]:
    """Return up to three known names that are similar, with the difference."""
    folded = _casefold(wanted_name)
    same = [name for name in names if _casefold(name) == folded]
    if same:
        return [(name, "differs only in case or white space") for name in same[:3]]
    return [(name, "is similar") for name in difflib.get_close_matches(wanted_name, list(names), n=3, cutoff=0.75)]


def _casefold(name: str) -> str:
    return "".join(name.split()).casefold()
