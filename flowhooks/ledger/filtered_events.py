"""The events that match a filter: all values of them, or their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from flowhooks.ledger.few_matches import narrow
from flowhooks.ledger.filter_conditions import apply_filter
from flowhooks.ledger.queries import shown_delivery_statuses, to_stored_event
from flowhooks.ledger.tables import events

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flowhooks.ledger.queries import EventFilter, StoredEvent


def find(
    connection: Connection, event_filter: EventFilter, *, limit: int, after: str = "", newest_first: bool = True
) -> list[StoredEvent]:
    """Return the events that match a filter.

    Args:
        connection: any connection.
        event_filter: the filter.
        limit: maximum number of events.
        after: the id after which to continue, in the direction of the listing.
        newest_first: whether the newest events come first; otherwise the oldest.
    """
    query = apply_filter(select(events), narrow(connection, event_filter)).limit(limit)
    if after:
        query = query.where(events.c.id < after if newest_first else events.c.id > after)
    rows = connection.execute(query.order_by(events.c.id.desc() if newest_first else events.c.id)).all()
    statuses = shown_delivery_statuses(connection, [row.id for row in rows])
    return [to_stored_event(row, statuses.get(row.id, ())) for row in rows]


def count_events(connection: Connection, event_filter: EventFilter) -> int:
    """Return the number of events that match a filter."""
    query = apply_filter(select(func.count()).select_from(events), narrow(connection, event_filter))
    return int(connection.execute(query).scalar_one())
