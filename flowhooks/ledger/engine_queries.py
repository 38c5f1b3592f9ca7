"""Queries of the state of engines, and of the callbacks of each source. They change nothing.

Each query reads a bounded number of rows, or only rows of a partial index.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, exists, func, or_, select

from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.tables import (
    IS_IN_GRACE,
    IS_INVALID,
    IS_RECONCILED,
    conflicts,
    engine_instances,
    engine_positions,
    events,
    history_gaps,
    late_callbacks,
)
from flowhooks.model.engine import ProcessDefinition

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import Connection

MAX_BOOK_ROWS: Final = 10_000
"""Maximum number of instances that a page counts for one engine, those that ended last."""
MAX_GAPS: Final = 100
"""Maximum number of gaps that are listed for one engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePosition:
    """How far flowhooks has read the history of one engine. Times are in microseconds since 1970.

    Attributes:
        source: the name of the source.
        since: the first contact; earlier ends are not taken in.
        position: each instance that ended before has been decided, by the engine's clock.
        read_until: the history was read until this time, by the engine's clock.
        swept_at: when the last 24 hours were last read again.
        round_at: when the last reconciliation ended, also with an error.
        succeeded_at: when the last reconciliation without an error ended; None: none has.
        failed_since: since when each one has ended with an error; None: the last one did not.
        reason: `"unreachable"`, `"refused"` or `"invalid"` for the engine, `"database"` for the ledger; `""`: no error.
        error: the last error.
        failures: errors since the last success.
        skew: the engine's clock minus ours, in microseconds; None: not known.
        product: the engine's name and version.
        to_confirm: instances that wait until an operator confirms.
        waiting: instances whose own grace has ended, and that wait because this server could not take callbacks.
        confirmed_at: instances that were first seen until then may be taken in; None: none was confirmed.
        declining_after: instances that were first seen after this time and until `declining_until` are being declined.
        declining_until: None: none is.
        declining_note: why; None: none is.
        definitions: the deployed definitions, as last read; None: never read.
        definitions_at: when they were read.
        process: the process that reconciles; `""`: none does.
        process_until: until when, by the database's clock.
    """

    source: str
    since: int
    position: int
    read_until: int
    swept_at: int
    round_at: int
    succeeded_at: int | None
    failed_since: int | None
    reason: str
    error: str
    failures: int
    skew: int | None
    product: str
    to_confirm: int
    waiting: int
    confirmed_at: int | None
    declining_after: int | None
    declining_until: int | None
    declining_note: str | None
    definitions_at: int | None
    definitions: tuple[ProcessDefinition, ...] | None = None
    process: str = ""
    process_until: int = 0

    @property
    def unconfirmed(self) -> int:
        """Number of instances that wait for an operator; 0 if one has confirmed since the last reconciliation."""
        return 0 if self.confirmed_at is not None and self.confirmed_at >= self.round_at else self.to_confirm


class BookEntry(NamedTuple):
    """A finished instance that flowhooks has read in the history of an engine. Times are in microseconds since 1970.

    Attributes:
        source: the name of the source.
        flow_instance_id: the instance's id.
        ended_at: when it ended, by the engine's clock.
        started_at: when it started, by the engine's clock; None: not known.
        end_state: how it ended.
        process_definition_key: the key of its definition, or None.
        process_definition_version: the version of its definition, or None.
        conclusion: its conclusion as handlers name it, or None.
        tenant_id: its tenant, or None.
        parent_id: the instance that called it, or None.
        disposition: `"has_event"`, `"skipped"` or `"in_grace"`.
        rule: why it is skipped; otherwise `""`.
        detail: more about the rule.
        event_id: its event, or None.
        first_seen_at: when flowhooks first read it.
        changed_at: when its disposition changed last.
        damage: which of its values are damaged; `""`: none.
    """

    source: str
    flow_instance_id: str
    ended_at: int
    started_at: int | None
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
    first_seen_at: int
    changed_at: int
    damage: str = ""


class HistoryGap(NamedTuple):
    """An interval of an engine's history that flowhooks could not read. Times are in microseconds since 1970.

    Attributes:
        source: the name of the source.
        since: start of the interval.
        until: end of the interval.
        reason: `"deleted"`, `"refused"`, `"unreachable"` or `"invalid"`.
        detail: more about it, in one line.
        found_at: when it was found; of deleted history, when it was last extended.
        closed_at: when the interval was read after all; None: it is open.
    """

    source: str
    since: int
    until: int
    reason: str
    detail: str
    found_at: int
    closed_at: int | None


class TakenInSummary(NamedTuple):
    """Events that reconciliation took in from the history of one engine.

    Attributes:
        events: number of events.
        missed: number of these that no callback has followed.
        first_at: when the first of the missed ones was taken in, in microseconds since 1970; None: there are none.
        last_at: when the last of them was taken in.
        event_id: the id of the first of them; `""`: there are none.
    """

    events: int
    missed: int
    first_at: int | None
    last_at: int | None
    event_id: str


class Reused(NamedTuple):
    """Instances of one engine whose ids earlier instances had.

    Attributes:
        instances: number of instances.
        first_at: when the first of them was found, in microseconds since 1970; None: there are none.
        event_id: the event of the last one; `""`: there are none.
        instance: the id of the last one; `""`: there are none.
    """

    instances: int
    first_at: int | None
    event_id: str
    instance: str


def positions(connection: Connection) -> dict[str, EnginePosition]:
    """Return the position of each engine, by the name of its source."""
    rows = connection.execute(select(engine_positions).order_by(engine_positions.c.source))
    return {row.source: _position(row) for row in rows}


def _position(stored: Any) -> EnginePosition:
    row, damage = repair(stored, list(engine_positions.c))
    values = {column.name: getattr(row, column.name) for column in engine_positions.c if column.name != "former_names"}
    values["definitions"] = parse_definitions(row.definitions)
    if damage:
        values["error"] = damage
    return EnginePosition(**values)


def present_name(connection: Connection, former_name: str) -> str:
    """Return the source that reads the history of its former name; `""`: there is none."""
    columns = engine_positions.c
    owned = json.dumps(former_name)
    rows = connection.execute(select(columns.source, columns.former_names).order_by(columns.source))
    return next((row.source for row in rows if owned in str(row.former_names)), "")


def parse_definitions(text: str | None) -> tuple[ProcessDefinition, ...] | None:
    """Return the definitions that a position stores; None if they were never read, or are damaged."""
    if text is None:
        return None
    try:
        return tuple(
            ProcessDefinition(
                key=str(entry["key"]),
                version=int(entry["version"]),
                name=str(entry.get("name") or ""),
                tenant_id=entry.get("tenant_id"),
            )
            for entry in json.loads(text)
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def book_counts(
    connection: Connection, source: str, *, limit: int | None = MAX_BOOK_ROWS
) -> dict[tuple[str, str], int]:
    """Return the number of instances of an engine by disposition and rule.

    Args:
        connection: any connection.
        source: the name of the source.
        limit: maximum number of instances that are counted, those that ended last; None: all.
    """
    newest = (
        select(engine_instances.c.disposition, engine_instances.c.rule)
        .where(engine_instances.c.source == source)
        .order_by(engine_instances.c.ended_at.desc())
        .limit(limit)
        .subquery()
    )
    query = select(newest.c.disposition, newest.c.rule, func.count()).group_by(newest.c.disposition, newest.c.rule)
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def book_totals(connection: Connection) -> dict[tuple[str, str, str], int]:
    """Return the number of all instances by source, disposition and rule. Every instance is counted for it."""
    group = (engine_instances.c.source, engine_instances.c.disposition, engine_instances.c.rule)
    return {
        (row[0], row[1], row[2]): row[3] for row in connection.execute(select(*group, func.count()).group_by(*group))
    }


def gaps(connection: Connection, source: str, *, limit: int = MAX_GAPS) -> list[HistoryGap]:
    """Return the gaps in the history of an engine, open ones first, then the newest first."""
    query = (
        select(history_gaps)
        .where(history_gaps.c.source == source)
        .order_by(history_gaps.c.closed_at.is_not(None), history_gaps.c.found_at.desc())
        .limit(limit)
    )
    return [_gap(row) for row in connection.execute(query)]


def open_gaps(connection: Connection, *, deleted_since: int | None = None) -> dict[str, list[HistoryGap]]:
    """Return the open gaps by source, the earliest interval first; of more than 1,000, those that were found last.

    Args:
        connection: any connection.
        deleted_since: leave out gaps of deleted history that were found before, in microseconds since 1970; None: none.
    """
    columns = history_gaps.c
    query = select(history_gaps).where(columns.closed_at.is_(None)).order_by(columns.found_at.desc())
    if deleted_since is not None:
        query = query.where(or_(columns.reason != "deleted", columns.found_at >= deleted_since))
    found: dict[str, list[HistoryGap]] = {}
    rows = connection.execute(query.limit(10 * MAX_GAPS)).all()
    for row in sorted(rows, key=lambda row: (row.source, row.since)):
        found.setdefault(row.source, []).append(_gap(row))
    return found


def _gap(stored: Any) -> HistoryGap:
    row, _ = repair(stored, list(history_gaps.c))
    return HistoryGap(*(getattr(row, name) for name in HistoryGap._fields))


def book_entries(connection: Connection, sources: Collection[str], instance_id: str) -> list[BookEntry]:
    """Return what is known of an instance id, for each of these sources."""
    columns = [column for column in engine_instances.c if column.name != "body"]
    query = (
        select(*columns)
        .where(engine_instances.c.source.in_(sorted(sources)), engine_instances.c.flow_instance_id == instance_id)
        .order_by(engine_instances.c.source)
    )
    entries = []
    for stored in connection.execute(query):
        row, damage = repair(stored, columns)
        values = {name: getattr(row, name) for name in BookEntry._fields if name != "damage"}
        entries.append(BookEntry(**(values | {"damage": damage})))
    return entries


_IS_MISSED: Final = and_(
    ~exists().where(late_callbacks.c.event_id == events.c.id),
    # A callback that contradicts the event is stored as a conflict. The engine has called.
    ~exists().where(conflicts.c.event_id == events.c.id),
)


def taken_in(connection: Connection, source: str, since: int) -> TakenInSummary:
    """Return the events that were taken in from an engine's history since `since`, in microseconds since 1970."""
    theirs = (IS_RECONCILED, events.c.source == source, events.c.received_at >= since)
    total = connection.execute(select(func.count()).select_from(events).where(*theirs)).scalar_one()
    missed, first_at, last_at = connection.execute(
        select(func.count(), func.min(events.c.received_at), func.max(events.c.received_at)).where(*theirs, _IS_MISSED)
    ).one()
    event_id = ""
    if missed:
        first = select(events.c.id).where(*theirs, _IS_MISSED).order_by(events.c.received_at).limit(1)
        event_id = connection.execute(first).scalar_one()
    return TakenInSummary(total, missed, first_at, last_at, event_id)


def reused_ids(connection: Connection, source: str, since: int) -> Reused:
    """Return the instances with reused ids that were taken in since `since`, in microseconds since 1970."""
    # The start of an instance is part of its event's identity only if its id was reused.
    theirs = (
        IS_RECONCILED,
        events.c.source == source,
        events.c.received_at >= since,
        events.c.instance_started_at.is_not(None),
    )
    count, first_at = connection.execute(select(func.count(), func.min(events.c.received_at)).where(*theirs)).one()
    newest = select(events.c.id, events.c.flow_instance_id).where(*theirs).order_by(events.c.received_at.desc())
    row = connection.execute(newest.limit(1)).one_or_none()
    return Reused(count, first_at, row.id if row else "", row.flow_instance_id if row else "")


class Invalid(NamedTuple):
    """Instances of one engine that could not become events because of their data.

    Attributes:
        instances: number of instances by the rule that skips them.
        first_ended_at: when the first of them ended, by the engine's clock; 0: there are none.
        last: the instance that was skipped last; None: there are none.
    """

    instances: Mapping[str, int]
    first_ended_at: int
    last: BookEntry | None


def invalid_instances(connection: Connection, source: str, since: int) -> Invalid:
    """Return the instances that were skipped because of their data since `since`, in microseconds since 1970."""
    book = engine_instances.c
    theirs = (IS_INVALID, book.source == source, book.changed_at >= since)
    query = select(book.rule, func.count(), func.min(book.ended_at)).where(*theirs).group_by(book.rule)
    rows = connection.execute(query.order_by(func.count().desc(), book.rule)).all()
    if not rows:
        return Invalid({}, 0, None)
    newest = select(book.flow_instance_id).where(*theirs).order_by(book.changed_at.desc()).limit(1)
    entries = book_entries(connection, (source,), connection.execute(newest).scalar_one())
    return Invalid({row[0]: row[1] for row in rows}, min(row[2] for row in rows), entries[0])


class Waiting(NamedTuple):
    """The instances of an engine that a confirmation covers.

    Attributes:
        instances: the maximum number of instances; some may get their event before they are taken in.
        seen_until: they were first seen until this time, in microseconds since 1970.
    """

    instances: int
    seen_until: int


def waiting(connection: Connection, source: str, seen_until: int | None = None) -> Waiting:
    """Return the instances that wait for an operator, as the last round has counted them.

    Instances that are being declined wait for no operator.

    Instances that the last rounds have seen, but whose grace had not ended, are covered only if they were seen together
    with the others.

    Args:
        connection: any connection.
        source: the name of the source.
        seen_until: the time that an earlier call has returned; None: as many as the last round has counted.
    """
    columns = engine_positions.c
    query = select(columns.to_confirm, columns.confirmed_at, columns.declining_until, columns.round_at)
    query = query.where(columns.source == source)
    row = connection.execute(query).one_or_none()
    if row is None:
        return Waiting(0, 0)
    book = engine_instances.c
    shown_until = row.round_at if seen_until is None else seen_until
    decided_until = max(row.confirmed_at or 0, row.declining_until or 0)
    new = [IS_IN_GRACE, book.source == source, book.first_seen_at > decided_until]
    new.append(book.first_seen_at <= shown_until)
    if seen_until is None:
        if row.to_confirm == 0 or (row.confirmed_at or 0) >= row.round_at:
            return Waiting(0, row.round_at)
        last = select(book.first_seen_at).where(*new).order_by(book.first_seen_at).offset(row.to_confirm - 1).limit(1)
        seen_until = connection.execute(last).scalar_one_or_none()
        if seen_until is None:
            return Waiting(row.to_confirm, row.round_at)  # some have an event by now
        new.append(book.first_seen_at <= seen_until)
    count = connection.execute(select(func.count()).select_from(engine_instances).where(*new)).scalar_one()
    return Waiting(count, seen_until)


_IS_BEING_DECLINED: Final = exists().where(
    engine_positions.c.source == engine_instances.c.source,
    engine_instances.c.first_seen_at > engine_positions.c.declining_after,
    engine_instances.c.first_seen_at <= engine_positions.c.declining_until,
)


def count_in_grace(connection: Connection, source: str, *, seen_until: int | None = None) -> int:
    """Return the number of instances that have no event yet, without those that are being declined.

    Args:
        connection: any connection.
        source: the name of the source.
        seen_until: the latest time at which they were first seen, in microseconds since 1970; None: any.
    """
    query = select(func.count()).select_from(engine_instances)
    query = query.where(IS_IN_GRACE, engine_instances.c.source == source, ~_IS_BEING_DECLINED)
    if seen_until is not None:
        query = query.where(engine_instances.c.first_seen_at <= seen_until)
    return int(connection.execute(query).scalar_one())


def in_grace_by_source(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return for each source the number of instances that have no event yet, and when the first of them ended."""
    book = engine_instances.c
    query = select(book.source, func.count(), func.min(book.ended_at)).where(IS_IN_GRACE).group_by(book.source)
    return {row[0]: (row[1], row[2]) for row in connection.execute(query)}


def oldest_in_grace(connection: Connection, source: str) -> int | None:
    """Return when the first instance that has no event yet ended, by the engine's clock; None: there is none."""
    oldest = select(engine_instances.c.ended_at).where(IS_IN_GRACE, engine_instances.c.source == source)
    return connection.execute(oldest.order_by(engine_instances.c.ended_at).limit(1)).scalar_one_or_none()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """The state of the engines, for metrics.

    Attributes:
        positions: the position of each engine, by source.
        gaps: number of open gaps by source.
    """

    positions: Mapping[str, EnginePosition]
    gaps: Mapping[str, int]


def engine_stats(connection: Connection) -> EngineStats:
    """Read the state of the engines."""
    return EngineStats(
        positions=positions(connection),
        gaps={source: len(found) for source, found in open_gaps(connection).items()},
    )
