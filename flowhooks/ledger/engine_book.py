"""The book of reconciliation: how far the history of each engine was read, and what became of each instance in it.

Only the process that has the lease of a source writes its rows, except that a stored event updates the row of its
instance. Each function that writes for a round checks the lease in its transaction.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, case, delete, exists, func, or_, select, update

from flowhooks.clock import SECOND, id_lower_bound
from flowhooks.ledger import database, engine_queries
from flowhooks.ledger.engine_queries import EnginePosition
from flowhooks.ledger.tables import (
    IS_IN_GRACE,
    MAX_INDEXED_CHARS,
    engine_instances,
    engine_positions,
    events,
    indexed,
    processes,
    purged_identities,
    rejected_requests,
)
from flowhooks.model.event import CALLBACK_ORIGINS, Origin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection

    from flowhooks.ledger.transaction import WriteTransaction

MAX_DETAIL_CHARS: Final = 500
"""Maximum length of the text that explains to operators why an instance is skipped."""
MAX_EVENTS_READ: Final = 10_000
"""Maximum number of events that `callbacks_without_row` reads."""


class Disposition(StrEnum):
    """The decision about an instance."""

    HAS_EVENT = "has_event"
    """It has an event."""
    SKIPPED = "skipped"
    """A rule skips it."""
    IN_GRACE = "in_grace"
    """It has no event yet: the engine has time to call, or an operator must confirm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookRow:
    """A finished instance in the book. Times are in microseconds since 1970.

    Attributes:
        source: the source.
        flow_instance_id: its id; of an id that no callback can have, a printable form.
        ended_at: when it ended, by the engine's clock.
        started_at: when it started, by the engine's clock; None: not known.
        end_state: how it ended.
        process_definition_key: the key of its definition, or None.
        process_definition_version: the version of its definition, or None.
        conclusion: its conclusion, mapped, or None.
        tenant_id: its tenant, or None.
        parent_id: the instance that called it, or None.
        disposition: what became of it.
        rule: the rule that skips it; otherwise `""`.
        detail: more about the rule, for operators.
        event_id: its event, or None.
        body: the body of the event that it becomes, while it is in grace.
        first_seen_at: when it was first read in the history, or decided again because an operator asked.
        changed_at: when the row was last changed.
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
    body: str | None
    first_seen_at: int
    changed_at: int


class EventOfInstance(NamedTuple):
    """An event of an instance.

    Attributes:
        event_id: its id.
        kind: its kind.
        received_at: when it was received, in microseconds since 1970.
    """

    event_id: str
    kind: str
    received_at: int


class Due(NamedTuple):
    """Which instances in grace are due: those that ended, and those that were seen, long enough ago.

    Attributes:
        source: the source.
        ended_until: the latest end, by the engine's clock.
        seen_until: the latest time of the first reading; an engine's clock that is ahead cannot postpone more.
    """

    source: str
    ended_until: int
    seen_until: int

    def condition(self) -> ColumnElement[bool]:
        """Return the condition on `engine_instances`."""
        book = engine_instances.c
        return and_(
            IS_IN_GRACE,
            book.source == self.source,
            or_(book.ended_at <= self.ended_until, book.first_seen_at <= self.seen_until),
        )


# A round needs neither the definitions nor the process.
_POSITION_NAMES: Final = tuple(field.name for field in fields(EnginePosition) if field.default is MISSING)
_ROW_NAMES: Final = tuple(field.name for field in fields(BookRow))
_POSITION: Final = select(*(engine_positions.c[name] for name in _POSITION_NAMES))
_ROWS: Final = select(*(engine_instances.c[name] for name in _ROW_NAMES))
_KEYS: Final = ("source", "flow_instance_id")
_WRITE: Final = database.BulkInsert(engine_instances, update_columns=[name for name in _ROW_NAMES if name not in _KEYS])
_IDS: Final = database.string_array("ids")
_SOURCES: Final = database.string_array("sources")
_DIGESTS: Final = database.string_array("digests")
_ROWS_OF_IDS: Final = _ROWS.where(engine_instances.c.flow_instance_id.in_(_IDS))
_PREFIXES: Final = database.string_array("prefixes")
_EVENTS: Final = select(events.c.id, events.c.kind, events.c.flow_instance_id, events.c.received_at).where(
    indexed(events.c.flow_instance_id).in_(_PREFIXES),
    events.c.source.in_(_SOURCES),
    events.c.origin != Origin.CORRECTION.value,  # as in `instance_events`
)
_PURGED: Final = (
    select(purged_identities.c.instance_sha256, func.max(purged_identities.c.received_at))
    .where(purged_identities.c.instance_sha256.in_(_DIGESTS), purged_identities.c.origin != Origin.CORRECTION.value)
    .group_by(purged_identities.c.instance_sha256)
)


# Positions and leases.


def position(connection: Connection, source: str) -> EnginePosition | None:
    """Return how far the history of a source was read; None before the first round.

    Damaged values are not replaced, as `engine_queries.positions` does for operators:
    a round must not start at a wrong time.
    """
    row = connection.execute(_POSITION.where(engine_positions.c.source == source)).mappings().one_or_none()
    return None if row is None else EnginePosition(**row)


def take_lease(transaction: WriteTransaction, source: str, process: str, seconds: float) -> bool:
    """Take or renew the lease of a source; False if another live process has it."""
    columns = engine_positions.c
    is_alive = exists().where(processes.c.id == columns.process, processes.c.stopped_at.is_(None))
    free = or_(columns.process == "", columns.process == process, columns.process_until < database.Now(), ~is_alive)
    taken = update(engine_positions).where(columns.source == source, free)
    until = database.Now() + int(seconds * SECOND)
    return bool(transaction.connection.execute(taken.values(process=process, process_until=until)).rowcount)


def release_lease(transaction: WriteTransaction, source: str, process: str) -> None:
    """Let other processes reconcile a source, if this process has its lease."""
    owned = update(engine_positions).where(engine_positions.c.source == source, engine_positions.c.process == process)
    transaction.connection.execute(owned.values(process="", process_until=0))


def renew_lease(transaction: WriteTransaction, source: str, process: str, seconds: float) -> bool:
    """Renew the lease of a source, and keep its row locked until the transaction ends; False if it was lost."""
    owned = update(engine_positions).where(engine_positions.c.source == source, engine_positions.c.process == process)
    until = database.Now() + int(seconds * SECOND)
    return bool(transaction.connection.execute(owned.values(process_until=until)).rowcount)


def update_position(transaction: WriteTransaction, source: str, values: Mapping[str, Any]) -> None:
    """Change columns of the position of a source."""
    transaction.connection.execute(
        update(engine_positions).where(engine_positions.c.source == source).values(dict(values))
    )


def confirm(transaction: WriteTransaction, source: str, seen_until: int | None = None) -> None:
    """Confirm that instances may be taken in which wait for an operator.

    Args:
        transaction: the open transaction.
        source: the source.
        seen_until: instances that were first seen until then are confirmed; None: as many as the last round has
            counted.
    """
    connection = transaction.connection
    covered = engine_queries.waiting(connection, source, seen_until)
    known = position(connection, source)
    if known is None or covered.seen_until <= (known.confirmed_at or 0):
        return
    update_position(
        transaction,
        source,
        {"confirmed_at": covered.seen_until, "to_confirm": max(0, known.to_confirm - covered.instances)},
    )


def has_future_times(connection: Connection, source: str, now: int) -> bool:
    """Return whether the confirmation of a source, or a first reading of an instance in grace, is later than now."""
    book, columns = engine_instances.c, engine_positions.c
    is_confirmed_later = exists().where(columns.source == source, columns.confirmed_at > now)
    is_seen_later = exists().where(IS_IN_GRACE, book.source == source, book.first_seen_at > now)
    return bool(connection.execute(select(or_(is_confirmed_later, is_seen_later))).scalar_one())


def correct_future_times(transaction: WriteTransaction, source: str, now: int) -> None:
    """Replace such times by now; instances that were confirmed stay confirmed, and no others become so."""
    known = position(transaction.connection, source)
    if known is None:
        return
    book, confirmed_at = engine_instances.c, known.confirmed_at or 0
    transaction.connection.execute(
        update(engine_instances)
        .where(IS_IN_GRACE, book.source == source, book.first_seen_at >= now)
        .values(first_seen_at=case((book.first_seen_at <= confirmed_at, now - 1), else_=now))
    )
    if confirmed_at >= now:
        update_position(transaction, source, {"confirmed_at": now - 1})


# Instances.


def rows(connection: Connection, source: str, ids: Collection[str]) -> dict[str, BookRow]:
    """Return the rows of instances by instance id."""
    query = _ROWS_OF_IDS.where(engine_instances.c.source == source)
    found = connection.execute(query, {"ids": json.dumps(list(ids))}).mappings()
    return {row["flow_instance_id"]: BookRow(**row) for row in found}


def events_of(connection: Connection, sources: Sequence[str], ids: Collection[str]) -> dict[str, list[EventOfInstance]]:
    """Return the events of instances under any of the names of a source, by instance id."""
    instance_ids = set(ids)
    prefixes = {text[:MAX_INDEXED_CHARS] for text in instance_ids}
    parameters = {"prefixes": json.dumps(sorted(prefixes)), "sources": json.dumps(list(sources))}
    found: dict[str, list[EventOfInstance]] = defaultdict(list)
    for row in connection.execute(_EVENTS, parameters):
        if row.flow_instance_id in instance_ids:
            found[row.flow_instance_id].append(EventOfInstance(row.id, row.kind, row.received_at))
    return found


def purged_at(connection: Connection, digests: Collection[str]) -> dict[str, int]:
    """Return when the newest purged event of each instance was received, by the key of the instance."""
    return {row[0]: row[1] for row in connection.execute(_PURGED, {"digests": json.dumps(list(digests))})}


def write(transaction: WriteTransaction, book_rows: Iterable[BookRow]) -> None:
    """Insert or replace rows."""
    values = [{name: getattr(row, name) for name in _ROW_NAMES} for row in book_rows]
    if values:
        _WRITE(transaction.connection, values)


def skip(transaction: WriteTransaction, row: BookRow, *, rule: str, detail: str, now: int) -> None:
    """Let a rule skip an instance that is in grace."""
    book = engine_instances.c
    transaction.connection.execute(
        update(engine_instances)
        .where(book.source == row.source, book.flow_instance_id == row.flow_instance_id, IS_IN_GRACE)
        .values(disposition=Disposition.SKIPPED.value, rule=rule, detail=detail, body=None, changed_at=now)
    )


def begin_decline(transaction: WriteTransaction, source: str, *, seen_until: int | None, note: str) -> None:
    """Record which instances are declined; from now on `decline` skips them, in this process or in another one.

    Args:
        transaction: the open transaction.
        source: the source, of which no instance is being declined.
        seen_until: instances that were first seen until then; None: as many as the last round has counted.
        note: why, for operators.
    """
    covered = engine_queries.waiting(transaction.connection, source, seen_until)
    known = position(transaction.connection, source)
    if known is None or covered.seen_until <= (known.confirmed_at or 0):
        return
    values = {
        "declining_after": known.confirmed_at or 0,
        "declining_until": covered.seen_until,
        "declining_note": note,
        "to_confirm": max(0, known.to_confirm - covered.instances),
    }
    update_position(transaction, source, values)


def decline(transaction: WriteTransaction, source: str, *, rule: str, now: int, limit: int) -> tuple[int, bool]:
    """Let a rule skip instances that are being declined, the first to end first.

    Args:
        transaction: the open transaction.
        source: the source.
        rule: the rule.
        now: microseconds since 1970.
        limit: the maximum number.

    Returns:
        Their number, and whether more are left.
    """
    book, connection = engine_instances.c, transaction.connection
    known = position(connection, source)
    if known is None or known.declining_until is None:
        return 0, False
    page = select(book.flow_instance_id).where(
        IS_IN_GRACE,
        book.source == source,
        book.first_seen_at > known.declining_after,
        book.first_seen_at <= known.declining_until,
    )
    ids = connection.execute(page.order_by(book.ended_at).limit(limit)).scalars().all()
    has_more = len(ids) == limit
    if not has_more:
        update_position(transaction, source, dict.fromkeys(("declining_after", "declining_until", "declining_note")))
    declined = update(engine_instances).where(
        book.source == source, book.flow_instance_id.in_(database.string_array("ids")), IS_IN_GRACE
    )
    values = {
        "disposition": Disposition.SKIPPED.value,
        "rule": rule,
        "detail": known.declining_note or "",
        "body": None,
        "changed_at": now,
    }
    count = int(connection.execute(declined.values(values), {"ids": json.dumps(list(ids))}).rowcount)
    return count, has_more


def set_event(transaction: WriteTransaction, row: BookRow, *, event_id: str, now: int) -> None:
    """Record the event of an instance that is in grace."""
    book = engine_instances.c
    transaction.connection.execute(
        update(engine_instances)
        .where(book.source == row.source, book.flow_instance_id == row.flow_instance_id, IS_IN_GRACE)
        .values(
            disposition=Disposition.HAS_EVENT.value, rule="", detail="", event_id=event_id, body=None, changed_at=now
        )
    )


def count_due(connection: Connection, due: Due, *, seen_after: int) -> int:
    """Return the number of due instances that were first seen after a time."""
    query = select(func.count()).select_from(engine_instances)
    return int(
        connection.execute(query.where(due.condition(), engine_instances.c.first_seen_at > seen_after)).scalar_one()
    )


def due_page(
    connection: Connection, due: Due, *, seen_until: int | None, after: BookRow | None, limit: int
) -> list[BookRow]:
    """Return a page of due instances, the first to end first.

    Args:
        connection: any connection.
        due: which instances are due.
        seen_until: the latest time at which they were first seen; None: any.
        after: the last instance of the page before.
        limit: the maximum number.
    """
    book = engine_instances.c
    query = _ROWS.where(due.condition()).order_by(book.ended_at, database.bytewise_order(book.flow_instance_id))
    if seen_until is not None:
        query = query.where(book.first_seen_at <= seen_until)
    if after is not None:
        later_id = database.bytewise_order(book.flow_instance_id) > after.flow_instance_id
        query = query.where(or_(book.ended_at > after.ended_at, and_(book.ended_at == after.ended_at, later_id)))
    return [BookRow(**row) for row in connection.execute(query.limit(limit)).mappings()]


def earliest_in_grace(connection: Connection, source: str) -> int | None:
    """Return the earliest end of an instance that is in grace, by the engine's clock; None if there is none."""
    query = select(func.min(engine_instances.c.ended_at)).where(IS_IN_GRACE, engine_instances.c.source == source)
    return connection.execute(query).scalar()


def delete_old(transaction: WriteTransaction, source: str, before: int, limit: int) -> int:
    """Delete rows of decided instances that ended before a time, at most `limit`; return the number."""
    book = engine_instances.c
    old = (
        select(book.flow_instance_id)
        .where(book.source == source, book.ended_at < before, book.disposition != Disposition.IN_GRACE.value)
        .order_by(book.ended_at)
        .limit(limit)
    )
    statement = delete(engine_instances).where(book.source == source, book.flow_instance_id.in_(old))
    return int(transaction.connection.execute(statement).rowcount)


# Callbacks that the history does not know, and refusals.


def callbacks_without_row(
    connection: Connection, source: str, *, after: str, until: int, limit: int
) -> tuple[list[tuple[str, str, int]], str]:
    """Return callbacks whose instance is not in the book, oldest first: event id, instance id, time of receipt.

    Args:
        connection: any connection.
        source: the source.
        after: an event id; only later events are read.
        until: the latest time of receipt, in microseconds since 1970.
        limit: the maximum number.

    Returns:
        The callbacks, and the id of the event to continue after; `""` if all events were read.
    """
    in_interval = (events.c.id > after) & (events.c.id < id_lower_bound(until))
    all_read = select(events.c.id).where(in_interval).order_by(events.c.id)
    last = connection.execute(all_read.offset(MAX_EVENTS_READ - 1).limit(1)).scalar()
    in_book = exists().where(
        engine_instances.c.source == source, engine_instances.c.flow_instance_id == events.c.flow_instance_id
    )
    query = (
        select(events.c.id, events.c.flow_instance_id, events.c.received_at)
        .where(
            in_interval if last is None else in_interval & (events.c.id <= last),
            events.c.source == source,
            events.c.origin.in_(CALLBACK_ORIGINS),
            ~in_book,
        )
        .order_by(events.c.id)
        .limit(limit)
    )
    rows = [tuple(row) for row in connection.execute(query)]
    return rows, rows[-1][0] if len(rows) == limit else last or ""


def last_unavailable_at(connection: Connection, source: str, *, until: int) -> int:
    """Return when a callback of a source, or of an unknown one, was last answered 503; 0: it is not recorded.

    Args:
        connection: any connection.
        source: the source.
        until: the latest time that counts.
    """
    columns = rejected_requests.c
    is_of_source = columns.source.in_((source, ""))
    query = select(func.max(columns.rejected_at)).where(
        columns.status == 503,  # noqa: PLR2004 (HTTP 503)
        is_of_source,
        columns.rejected_at <= until,
    )
    return connection.execute(query).scalar() or 0


def served_until(connection: Connection) -> int | None:
    """Return until when a server is known to have taken callbacks; None: no server has ever used this ledger."""
    columns = processes.c
    is_newer = columns.heartbeat_at > columns.started_at
    last_at = func.coalesce(columns.stopped_at, case((is_newer, columns.heartbeat_at), else_=columns.started_at))
    return connection.execute(select(func.max(last_at)).where(columns.kind == "server")).scalar()
