"""Search for events by one text that may be an id or a business key.

With `handler_plugins` of a filter, the text is no id of a delivery of another plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import func, literal_column, or_, select, union

from flowhooks.ledger.attempt_filters import is_of_any
from flowhooks.ledger.tables import MAX_INDEXED_CHARS, deliveries, equals_indexed, events, indexed, indexed_bytewise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Select

MIN_PREFIX_CHARS: Final = 3
"""Minimum length of a text that is searched as the beginning of a business key."""
# No text that is sent contains this character, the last one of Unicode, which is no letter.
_AFTER_ALL: Final = "\U0010ffff"


def has_business_key(text: str) -> ColumnElement[bool]:
    """Return the condition that the business key of an event equals a text; an index finds such events."""
    key = events.c.business_key
    remainder = func.substr(key, literal_column(str(MAX_INDEXED_CHARS + 1)))
    return (
        # The index has only rows with a business key, and a query must say so to use it.
        key.is_not(None) & (indexed_bytewise(key) == text[:MAX_INDEXED_CHARS]) & (remainder == text[MAX_INDEXED_CHARS:])
    )


def has_name(text: str, handler_plugins: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that an event has an id or a business key that `EventFilter.query` means."""
    # A scalar subquery and not IN, so that PostgreSQL combines the indexes of all four conditions.
    of_delivery = _event_of_delivery(text, handler_plugins).scalar_subquery()
    return or_(
        events.c.id == text,
        events.c.id == of_delivery,
        equals_indexed(events.c.flow_instance_id, text),
        _has_key(text),
    )


def row_has_name(text: str, handler_plugins: Sequence[str]) -> ColumnElement[bool]:
    """Return the same condition without an index, for rows that another condition has found."""
    of_delivery = _event_of_delivery(text, handler_plugins).scalar_subquery()
    key = events.c.business_key
    by_key = func.substr(key, 1, len(text)) == text if _is_prefix(text) else key == text
    return or_(events.c.id == text, events.c.id == of_delivery, events.c.flow_instance_id == text, by_key)


def find_ids(connection: Connection, text: str, handler_plugins: Sequence[str], limit: int) -> set[str] | None:
    """Return the ids of the events that `EventFilter.query` means; None if there are more than `limit`."""
    by_id = select(events.c.id).where(events.c.id == text)
    found = set(connection.execute(union(by_id, _event_of_delivery(text, handler_plugins))).scalars())
    # In the order of the index. Otherwise PostgreSQL reads the table until it has found enough frequent values.
    for condition, order in (
        (equals_indexed(events.c.flow_instance_id, text), indexed(events.c.flow_instance_id)),
        (_has_key(text), indexed_bytewise(events.c.business_key)),
    ):
        query = select(events.c.id).where(condition).order_by(order).limit(limit + 1)
        ids = connection.execute(query).scalars().all()
        found.update(ids)
        if len(found) > limit:
            return None
    return found


def _event_of_delivery(text: str, handler_plugins: Sequence[str]) -> Select[tuple[str]]:
    query = select(deliveries.c.event_id).where(deliveries.c.id == text)
    return query.where(is_of_any(handler_plugins)) if handler_plugins else query


def _has_key(text: str) -> ColumnElement[bool]:
    if not _is_prefix(text):
        return has_business_key(text)
    key = indexed_bytewise(events.c.business_key)
    return events.c.business_key.is_not(None) & (key >= text) & (key < text + _AFTER_ALL)


def _is_prefix(text: str) -> bool:
    return MIN_PREFIX_CHARS <= len(text) <= MAX_INDEXED_CHARS
