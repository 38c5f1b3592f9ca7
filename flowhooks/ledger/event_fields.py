"""Indexed fields of events: which events meet a condition on a value of their body."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import and_, bindparam, delete, exists, select

from flowhooks import schema
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import database
from flowhooks.ledger.tables import event_fields, events
from flowhooks.model.search_fields import IndexedValue, indexed_values

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection

    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.search_fields import FieldCondition

_INSERT: Final = database.BulkInsert(event_fields, ignore_conflicts=True)


def store(transaction: WriteTransaction, values: Iterable[tuple[str, Sequence[IndexedValue]]]) -> None:
    """Store the indexed values of events, each with the event's id. A value that is stored already stays."""
    rows = [
        {"event_id": event_id, "field": value.field, "value": value.value, "number": value.number}
        for event_id, of_event in values
        for value in of_event
    ]
    if rows:
        _INSERT(transaction.connection, rows)


def replace(transaction: WriteTransaction, event_id: str, values: Sequence[IndexedValue]) -> None:
    """Store the indexed values of an event whose body has changed, instead of the former ones."""
    transaction.connection.execute(delete(event_fields).where(event_fields.c.event_id == event_id))
    store(transaction, [(event_id, values)])


def meets(condition: FieldCondition) -> ColumnElement[bool]:
    """Return the condition of a row of `event_fields`. An index finds such rows."""
    of_field = event_fields.c.field == condition.field
    if condition.operator == "=":
        equal = event_fields.c.value == condition.text
        if condition.number_text is not None:
            equal |= (event_fields.c.value == condition.number_text) & event_fields.c.number.is_not(None)
        return of_field & equal
    number = event_fields.c.number
    limit = number >= condition.number if condition.operator == ">=" else number <= condition.number
    # The index has only rows with a number, and a query must say so to use it.
    return and_(of_field, number.is_not(None), limit)


def find_value_condition(conditions: Sequence[FieldCondition]) -> ColumnElement[bool] | None:
    """Return a condition for whose rows an index has the event ids in their order; None if there is none."""
    return next((meets(item) for item in conditions if item.operator == "=" and item.number_text is None), None)


def by_field(conditions: Iterable[FieldCondition]) -> list[list[FieldCondition]]:
    """Return conditions in groups of one field. An event has one row of a field, which meets all of the group.

    So a lower and an upper limit are one range of the index.
    """
    groups: dict[str, list[FieldCondition]] = defaultdict(list)
    for condition in conditions:
        groups[condition.field].append(condition)
    return list(groups.values())


def have_values(conditions: Sequence[FieldCondition]) -> list[ColumnElement[bool]]:
    """Return the conditions that an event has such values, for a search by their index."""
    return [
        events.c.id.in_(select(event_fields.c.event_id).where(*map(meets, group))) for group in by_field(conditions)
    ]


def row_has_values(
    conditions: Sequence[FieldCondition], bounds: Sequence[ColumnElement[bool]] = ()
) -> list[ColumnElement[bool]]:
    """Return the same conditions for rows of `events` that another condition has found.

    Args:
        conditions: the conditions.
        bounds: conditions on `event_fields.event_id` that hold for these events.
    """
    its_event = event_fields.c.event_id == events.c.id
    return [
        exists(select(event_fields.c.field).where(its_event, *bounds, *map(meets, group)))
        for group in by_field(conditions)
    ]


def find_ids(connection: Connection, conditions: Sequence[FieldCondition], limit: int) -> set[str] | None:
    """Return the ids of the events that meet all conditions; None if those of each field are met by more than `limit`.

    Args:
        connection: any connection.
        conditions: at least one condition.
        limit: maximum number of events.
    """
    groups = by_field(conditions)
    for group in groups:
        # In the order of the index. Otherwise PostgreSQL reads the table until it has found enough frequent values.
        is_equal = any(condition.operator == "=" for condition in group)
        order = event_fields.c.event_id if is_equal else event_fields.c.number
        query = select(event_fields.c.event_id).where(*map(meets, group)).order_by(order).limit(limit + 1)
        found = set(connection.execute(query).scalars())
        if len(found) <= limit:
            for other in groups:
                if other is not group:
                    found &= _those_that_meet(connection, found, other)
            return found
    return None


def _those_that_meet(connection: Connection, ids: Collection[str], group: Sequence[FieldCondition]) -> set[str]:
    among = event_fields.c.event_id.in_(database.string_array("ids"))
    query = select(event_fields.c.event_id).where(among, *map(meets, group))
    return set(connection.execute(query, {"ids": json.dumps(sorted(ids))}).scalars())


class IndexedEvent(NamedTuple):
    """The indexed values that an event should have.

    Attributes:
        event_id: its id.
        digest: the digest of the body that has these values.
        values: the values.
    """

    event_id: str
    digest: str
    values: tuple[IndexedValue, ...]


class FieldChanges(NamedTuple):
    """A page of stored events, with those whose indexed values are not the declared ones.

    Attributes:
        examined: number of examined events.
        changes: the events whose values must be stored or removed.
        damaged: number of events whose body cannot be read. Their values stay as they are.
        next: the id after which to continue; `""` if there are no more events.
    """

    examined: int
    changes: tuple[IndexedEvent, ...]
    damaged: int
    next: str


_BODIES: Final = (
    select(events.c.id, events.c.digest, events.c.body).where(events.c.id > bindparam("after")).order_by(events.c.id)
)
_STORED: Final = select(event_fields).where(event_fields.c.event_id.in_(database.string_array("ids")))
# In the order of the ids, in which all other writers lock events, so that none of them deadlock.
_LOCK: Final = (
    select(events.c.id, events.c.digest)
    .where(events.c.id.in_(database.string_array("ids")))
    .order_by(events.c.id)
    .with_for_update()
)
_DELETE: Final = delete(event_fields).where(event_fields.c.event_id.in_(database.string_array("ids")))


def stored_values(connection: Connection, ids: Sequence[str]) -> dict[str, set[IndexedValue]]:
    """Return the stored values of events, by event id; events without any are missing."""
    stored: dict[str, set[IndexedValue]] = defaultdict(set)
    for row in connection.execute(_STORED, {"ids": json.dumps(ids)}):
        stored[row.event_id].add(IndexedValue(row.field, row.value, row.number))
    return dict(stored)


def find_changes(connection: Connection, fields: Sequence[str], *, after: str, limit: int) -> FieldChanges:
    """Return a page of stored events, oldest first, with those whose indexed values differ from the given fields.

    Args:
        connection: any connection.
        fields: the setting `search.fields`.
        after: the id after which to continue; `""`: start with the oldest.
        limit: number of events to examine.
    """
    rows = connection.execute(_BODIES.limit(limit), {"after": after}).all()
    stored = stored_values(connection, [row.id for row in rows])
    changes, damaged = [], 0
    for row in rows:
        try:
            values = indexed_values(schema.parse_callback(row.body.encode()), fields) if fields else ()
        except (FlowhooksError, AttributeError, UnicodeError):
            damaged += 1
            continue
        if set(values) != stored.get(row.id, set()):
            changes.append(IndexedEvent(row.id, row.digest, values))
    return FieldChanges(len(rows), tuple(changes), damaged, rows[-1].id if len(rows) == limit else "")


def apply_changes(transaction: WriteTransaction, changes: Sequence[IndexedEvent]) -> int:
    """Store the values of events that `find_changes` returned; return the number of these events.

    An event that was purged since then is left out, and one that got another body then has its values already.
    """
    connection = transaction.connection
    locked = connection.execute(_LOCK, {"ids": json.dumps([change.event_id for change in changes])})
    digests = {row.id: row.digest for row in locked}
    present = [change for change in changes if digests.get(change.event_id) == change.digest]
    connection.execute(_DELETE, {"ids": json.dumps([change.event_id for change in present])})
    store(transaction, [(change.event_id, change.values) for change in present])
    return len(present)
