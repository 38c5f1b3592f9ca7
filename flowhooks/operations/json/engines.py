"""Encode engines, the book of their instances and coverage as JSON, the same for commands and the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from flowhooks.clock import SECOND, to_text
from flowhooks.ledger import engine_queries
from flowhooks.operations.access import FULL
from flowhooks.operations.engines import engine_positions, state_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flowhooks.ledger.engine_queries import BookEntry, EnginePosition, HistoryGap
    from flowhooks.operations.access import Access
    from flowhooks.operations.coverage import Coverage, DefinitionCoverage
    from flowhooks.operations.json.encoding import TimestampJson
    from flowhooks.settings import Settings


class GapJson(TypedDict):
    """An interval of an engine's history that could not be read.

    Attributes:
        since: start of the interval, by the engine's clock.
        until: end of the interval.
        reason: `deleted`, `refused`, `unreachable` or `invalid`.
        detail: more about it.
        found_at: when it was found.
        closed_at: when the interval was read after all, or an operator closed the gap; null: it is open.
    """

    since: TimestampJson
    until: TimestampJson
    reason: str
    detail: str
    found_at: TimestampJson
    closed_at: TimestampJson | None


class BookCountJson(TypedDict):
    """A number of finished instances with the same disposition.

    Attributes:
        disposition: `has_event`, `skipped` or `in_grace`.
        rule: why they are skipped; otherwise empty.
        instances: number of instances.
    """

    disposition: str
    rule: str
    instances: int


class EngineJson(TypedDict):
    """The engine of one source, and how far its history was read.

    Attributes:
        source: name of the source.
        client: name of the engine client; null: the settings no longer have the engine.
        url: base URL of its REST API; null: as above.
        state: `never_asked`, `failing`, `to_confirm` or `up_to_date`.
        product: name and version of the engine; empty: not known.
        first_contact_at: earlier ends are not taken in; null: it was never asked.
        read_until_at: the history was read until this time of the engine; null: as above.
        position_at: each instance that ended before has been decided; null: as above.
        round_at: when the last reconciliation ended, also with an error; null: none has.
        succeeded_at: when the last reconciliation without an error ended; null: none has.
        failed_since: since when each one has ended with an error; null: the last one did not.
        failures: errors since the last success.
        error: the last error, one line; empty: no error.
        skew_seconds: the engine's clock minus ours; null: not known.
        missed: instances of the last 24 hours that completed without a callback.
        taken_in: events that were made from its history in the last 24 hours.
        to_confirm: instances that wait until an operator confirms.
        waiting: instances whose own grace has ended, and that wait because this server could not take callbacks.
        gaps: intervals that could not be read, open ones first.
        book: its newest finished instances by disposition and rule.
        book_limit: number of instances that are counted at most.
        process: process that reconciles; empty: none does.
    """

    source: str
    client: str | None
    url: str | None
    state: str
    product: str
    first_contact_at: TimestampJson | None
    read_until_at: TimestampJson | None
    position_at: TimestampJson | None
    round_at: TimestampJson | None
    succeeded_at: TimestampJson | None
    failed_since: TimestampJson | None
    failures: int
    error: str
    skew_seconds: float | None
    missed: int
    taken_in: int
    to_confirm: int
    waiting: int
    gaps: list[GapJson]
    book: list[BookCountJson]
    book_limit: int
    process: str


class BookEntryJson(TypedDict):
    """A finished instance that was read in the history of an engine.

    Attributes:
        source: name of the source.
        flow_instance_id: id of the instance.
        started_at: when it started, by the engine's clock; null: not known.
        ended_at: when it ended, by the engine's clock.
        end_state: `completed`, `cancelled`, `error`, `terminated` or `undecided`.
        process_definition_key: key of its definition.
        process_definition_version: version of its definition.
        conclusion: its conclusion as handlers name it.
        tenant_id: its tenant.
        parent_id: the instance that called it.
        disposition: `has_event`, `skipped` or `in_grace`.
        rule: why it is skipped; otherwise empty.
        detail: more about the rule.
        event_id: id of its event; null: it has none.
        first_seen_at: when it was first read, or decided again because an operator asked.
        changed_at: when its disposition changed last.
    """

    source: str
    flow_instance_id: str
    started_at: TimestampJson | None
    ended_at: TimestampJson
    end_state: str
    process_definition_key: str | None
    process_definition_version: int | None
    conclusion: str | None
    tenant_id: str | None
    parent_id: str | None
    disposition: str
    rule: str
    detail: str
    event_id: str | None
    first_seen_at: TimestampJson
    changed_at: TimestampJson


class UncoveredConclusionJson(TypedDict):
    """A conclusion that events had in the last 30 days and that no handler takes.

    Attributes:
        conclusion: the conclusion as handlers name it.
        version: version of the events.
        events: number of events with it.
        event_id: id of the newest of them.
    """

    conclusion: str
    version: int | None
    events: int
    event_id: str


class DefinitionCoverageJson(TypedDict):
    """A deployed definition, with the handlers that take its events.

    Attributes:
        source: name of the source.
        key: its key.
        version: its latest version.
        name: its name for people.
        tenant_id: its tenant.
        covered: whether handlers take all events of it.
        ignored: whether routing.ignore_process_keys has its key.
        handlers: ids of the handlers that take events of its latest version.
        no_handler: whether no handler listens to its key, nor to a class that its events had.
        versions: versions that no handler takes: the latest one, and those of events of the last 30 days.
        conclusions: conclusions that no handler takes.
    """

    source: str
    key: str
    version: int
    name: str
    tenant_id: str | None
    covered: bool
    ignored: bool
    handlers: list[str]
    no_handler: bool
    versions: list[int]
    conclusions: list[UncoveredConclusionJson]


class UnreadDefinitionsJson(TypedDict):
    """An engine whose definitions are not known.

    Attributes:
        source: name of the source.
        error: why the engine did not answer; empty: it was not asked yet.
    """

    source: str
    error: str


class CoverageJson(TypedDict):
    """The deployed definitions of all engines, compared with the handlers.

    Attributes:
        complete: whether all definitions are known and covered.
        uncovered: number of definitions that are not covered.
        definitions: the definitions, those that are not covered first.
        unread: the engines whose definitions are not known.
        read_at: when the definitions of each engine were read, by source.
    """

    complete: bool
    uncovered: int
    definitions: list[DefinitionCoverageJson]
    unread: list[UnreadDefinitionsJson]
    read_at: dict[str, TimestampJson]


def engines_to_json(connection: Connection, settings: Settings, now: int, *, access: Access = FULL) -> list[EngineJson]:
    """Return every engine that the settings name, or that was asked before, by source, as the operator sees it."""
    return [
        engine_to_json(connection, settings, name, position, now, access=access)
        for name, position in engine_positions(connection, settings).items()
    ]


def engine_to_json(
    connection: Connection,
    settings: Settings,
    name: str,
    position: EnginePosition | None,
    now: int,
    *,
    access: Access = FULL,
) -> EngineJson:
    """Return one engine as the operator sees it."""
    position = access.engine_position(position) if position else None
    source = settings.sources.get(name)
    engine = source.engine if source else None
    recent = engine_queries.taken_in(connection, name, now - 86_400 * SECOND)
    return {
        "source": name,
        "client": engine.client if engine else None,
        "url": engine.url if engine else None,
        "state": state_of(position),
        "product": position.product if position else "",
        "first_contact_at": to_text(position.since) if position else None,
        "read_until_at": to_text(position.read_until) if position else None,
        "position_at": to_text(position.position) if position else None,
        "round_at": to_text(position.round_at) if position and position.round_at else None,
        "succeeded_at": to_text(position.succeeded_at) if position else None,
        "failed_since": to_text(position.failed_since) if position else None,
        "failures": position.failures if position else 0,
        "error": position.error if position else "",
        "skew_seconds": position.skew / SECOND if position and position.skew is not None else None,
        "missed": recent.missed if source is None or source.has_credential else 0,
        "taken_in": recent.events,
        "to_confirm": position.unconfirmed if position else 0,
        "waiting": position.waiting if position else 0,
        "gaps": [gap_to_json(gap) for gap in access.history_gaps(engine_queries.gaps(connection, name))],
        "book": [
            {"disposition": disposition, "rule": rule, "instances": count}
            for (disposition, rule), count in sorted(engine_queries.book_counts(connection, name).items())
        ],
        "book_limit": engine_queries.MAX_BOOK_ROWS,
        "process": position.process if position else "",
    }


def gap_to_json(gap: HistoryGap) -> GapJson:
    """Return a gap."""
    return {
        "since": to_text(gap.since),
        "until": to_text(gap.until),
        "reason": gap.reason,
        "detail": gap.detail,
        "found_at": to_text(gap.found_at),
        "closed_at": to_text(gap.closed_at),
    }


def book_entry_to_json(entry: BookEntry) -> BookEntryJson:
    """Return a finished instance."""
    return {
        "source": entry.source,
        "flow_instance_id": entry.flow_instance_id,
        "started_at": to_text(entry.started_at),
        "ended_at": to_text(entry.ended_at),
        "end_state": entry.end_state,
        "process_definition_key": entry.process_definition_key,
        "process_definition_version": entry.process_definition_version,
        "conclusion": entry.conclusion,
        "tenant_id": entry.tenant_id,
        "parent_id": entry.parent_id,
        "disposition": entry.disposition,
        "rule": entry.rule,
        "detail": entry.detail,
        "event_id": entry.event_id,
        "first_seen_at": to_text(entry.first_seen_at),
        "changed_at": to_text(entry.changed_at),
    }


def coverage_to_json(found: Coverage) -> CoverageJson:
    """Return a comparison of definitions with handlers."""
    return {
        "complete": found.is_complete,
        "uncovered": found.uncovered,
        "definitions": [_definition_to_json(definition) for definition in found.definitions],
        "unread": [{"source": unread.source, "error": unread.error} for unread in found.unread],
        "read_at": {source: to_text(at) for source, at in found.read_at.items()},
    }


def _definition_to_json(definition: DefinitionCoverage) -> DefinitionCoverageJson:
    return {
        "source": definition.source,
        "key": definition.key,
        "version": definition.version,
        "name": definition.name,
        "tenant_id": definition.tenant_id,
        "covered": definition.is_covered,
        "ignored": definition.ignored,
        "handlers": list(definition.handlers),
        "no_handler": definition.no_handler,
        "versions": list(definition.versions),
        "conclusions": [
            {
                "conclusion": entry.conclusion,
                "version": entry.version,
                "events": entry.events,
                "event_id": entry.event_id,
            }
            for entry in definition.conclusions
        ],
    }
