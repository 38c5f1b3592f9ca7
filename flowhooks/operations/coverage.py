"""Compare the deployed definitions of engines with the handlers: what no handler takes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flowhooks.clock import DAY, to_datetime
from flowhooks.ledger import engine_queries, source_queries
from flowhooks.model.event import Event
from flowhooks.model.selectors import Selectors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.source_queries import SeenFields
    from flowhooks.model.engine import ProcessDefinition
    from flowhooks.routing.router import Router, Subscription
    from flowhooks.settings import Settings

SEEN_PERIOD: Final = 30 * DAY
"""Microseconds for which versions, classes and conclusions of events count as seen."""
_KIND: Final = "complete"
"""The kind of callback that handlers of a completed process take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UncoveredConclusion:
    """A conclusion that events had in the last 30 days and that no handler takes.

    Attributes:
        conclusion: the conclusion as handlers name it.
        version: the version of the events, or None.
        events: number of events with it.
        event_id: the newest of them.
    """

    conclusion: str
    version: int | None
    events: int
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionCoverage:
    """A deployed definition, with the handlers that take its events.

    Attributes:
        source: name of the source.
        key: its key.
        version: its latest version.
        name: its name for people, or `""`.
        tenant_id: its tenant, or None.
        handlers: ids of the handlers that take events of its latest version.
        ignored: whether `routing.ignore_process_keys` has its key, so that it needs no handler.
        no_handler: whether no handler listens to its key, nor to a class that its events had.
        versions: versions that no handler takes, although one listens to the key: the latest one, and those of events.
        conclusions: conclusions that no handler takes.
    """

    source: str
    key: str
    version: int
    name: str
    tenant_id: str | None
    handlers: tuple[str, ...]
    ignored: bool
    no_handler: bool
    versions: tuple[int, ...]
    conclusions: tuple[UncoveredConclusion, ...]

    @property
    def is_covered(self) -> bool:
        """Whether handlers take all events of it."""
        return not (self.no_handler or self.versions or self.conclusions)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadDefinitions:
    """An engine whose definitions are not known.

    Attributes:
        source: name of the source.
        error: why the engine did not answer; `""`: it was not asked yet.
    """

    source: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The definitions of all engines, compared with the handlers.

    Attributes:
        definitions: the definitions, those that are not covered first, then by source and key.
        unread: the engines whose definitions are not known.
        read_at: when the definitions of each engine were read, in microseconds since 1970, by source.
    """

    definitions: tuple[DefinitionCoverage, ...]
    unread: tuple[UnreadDefinitions, ...]
    read_at: Mapping[str, int]

    @property
    def uncovered(self) -> int:
        """Number of definitions that are not covered."""
        return sum(not definition.is_covered for definition in self.definitions)

    @property
    def is_complete(self) -> bool:
        """Whether all definitions are known and covered."""
        return not (self.uncovered or self.unread)


def coverage(
    reader: Reader,
    router: Router,
    settings: Settings,
    now: int,
    *,
    source: str = "",
    fresh: Mapping[str, Sequence[ProcessDefinition]] | None = None,
    errors: Mapping[str, str] | None = None,
) -> Coverage:
    """Compare the deployed definitions of engines with the handlers.

    Args:
        reader: the ledger.
        router: the current look-up.
        settings: the settings.
        now: current time in microseconds since 1970.
        source: name of the source; `""`: all sources with an engine.
        fresh: definitions that were read just now, by source; None: those of the last reconciliation count.
        errors: why an engine did not answer, by source.

    Raises:
        LedgerUnusable: the ledger cannot be read.
        NewerSelectorsError: handlers are registered whose selectors this version cannot read.
    """
    with reader.connection() as connection:
        positions = engine_queries.positions(connection)
        seen = source_queries.seen_fields(connection, now - SEEN_PERIOD)
    comparison = _Comparison(router, settings, seen)
    found: list[DefinitionCoverage] = []
    unread, read_at = [], {}
    for name in sorted(name for name, entry in settings.sources.items() if entry.engine is not None):
        if source not in {"", name}:
            continue
        position = positions.get(name)
        definitions = fresh.get(name) if fresh is not None else position.definitions if position else None
        if definitions is None:
            unread.append(UnreadDefinitions(source=name, error=(errors or {}).get(name, "")))
            continue
        known_at = now if fresh is not None else position.definitions_at if position else None
        read_at[name] = now if known_at is None else known_at
        found += [comparison.of(name, definition) for definition in definitions]
    found.sort(key=lambda entry: (entry.is_covered, entry.source, entry.key, entry.tenant_id or ""))
    return Coverage(definitions=tuple(found), unread=tuple(unread), read_at=read_at)


class _Comparison:
    """Compares definitions with the handlers, which are indexed once."""

    def __init__(self, router: Router, settings: Settings, seen: Iterable[SeenFields]) -> None:
        self._router = router
        self._ignored_keys = frozenset(settings.routing.ignore_process_keys)
        self._ignored_conclusions = frozenset(settings.routing.ignore_conclusions)
        self._seen: dict[tuple[str, str], list[SeenFields]] = defaultdict(list)
        for fields in seen:
            self._seen[fields.source, fields.key].append(fields)
        self._by_name: dict[tuple[str, str], list[Subscription]] = defaultdict(list)
        for subscription in router.subscriptions():
            if subscription.kind == _KIND and subscription.by != "every":
                self._by_name[subscription.by, subscription.value].append(subscription)

    def of(self, source: str, definition: ProcessDefinition) -> DefinitionCoverage:
        """Return the coverage of one definition."""
        seen = self._seen[source, definition.key]
        listening = list(self._by_name["key", definition.key])
        for callback_class in sorted({fields.callback_class for fields in seen} - {""}):
            listening += self._by_name["class", callback_class]
        listening = [subscription for subscription in listening if _takes_source(subscription, source)]
        versions = {fields.version for fields in seen if fields.version is not None} | {definition.version}
        ignored = definition.key in self._ignored_keys and not listening
        return DefinitionCoverage(
            source=source,
            key=definition.key,
            version=definition.version,
            name=definition.name,
            tenant_id=definition.tenant_id,
            handlers=tuple(sorted(set(_takers(listening, source, definition.version)))),
            ignored=ignored,
            no_handler=not listening and not ignored,
            versions=tuple(sorted(version for version in versions if not _takers(listening, source, version)))
            if listening
            else (),
            conclusions=tuple(self._conclusions(seen)),
        )

    def _conclusions(self, seen: Collection[SeenFields]) -> Iterable[UncoveredConclusion]:
        merged: dict[tuple[str, int | None], UncoveredConclusion] = {}
        for fields in seen:
            if fields.conclusion is None or fields.conclusion in self._ignored_conclusions:
                continue
            if not self._router.route(_event(fields)).unknown_conclusion:
                continue
            earlier = merged.get((fields.conclusion, fields.version))
            merged[fields.conclusion, fields.version] = UncoveredConclusion(
                conclusion=fields.conclusion,
                version=fields.version,
                events=fields.events + (earlier.events if earlier else 0),
                event_id=max(fields.event_id, earlier.event_id if earlier else ""),
            )
        return [merged[key] for key in sorted(merged, key=lambda key: (key[0], key[1] or 0))]


def _takes_source(subscription: Subscription, source: str) -> bool:
    return not subscription.sources or source in subscription.sources


def _takers(listening: Iterable[Subscription], source: str, version: int) -> list[str]:
    event = Event(
        id="",
        source=source,
        kind=_KIND,
        flow_instance_id="",
        callback_class=None,
        process_definition_version=version,
        data={},
        received_at=to_datetime(0),
    )
    return [
        subscription.handler_id
        for subscription in listening
        if not subscription.versions
        or Selectors(every=True, kind=_KIND, versions=subscription.versions).why_filtered_out(event) is None
    ]


def _event(fields: SeenFields) -> Event:
    return Event(
        id="",
        source=fields.source,
        kind=fields.kind,
        flow_instance_id="",
        callback_class=fields.callback_class or None,
        process_definition_key=fields.key,
        process_definition_version=fields.version,
        conclusion=fields.conclusion,
        data={},
        received_at=to_datetime(0),
    )
