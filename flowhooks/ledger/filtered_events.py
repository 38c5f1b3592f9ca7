"""The events that match a filter: all values of them, all but their bodies, or their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, select

from flowhooks.ledger.few_matches import narrow
from flowhooks.ledger.filter_conditions import apply_filter
from flowhooks.ledger.queries import shown_delivery_statuses, to_stored_event
from flowhooks.ledger.row_stream import first_batch
from flowhooks.ledger.search import SUMMARY_COLUMNS, to_summary
from flowhooks.ledger.tables import events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row, Select

    from flowhooks.ledger.queries import EventFilter, StoredEvent
    from flowhooks.ledger.search import EventSummary


class EventPage(NamedTuple):
    """Events, oldest first, with a bounded size in memory.

    Attributes:
        events: the events.
        next: the id after which the next page starts; `""` if there are no more events.
    """

    events: list[StoredEvent]
    next: str


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
    query = _matches(connection, event_filter, limit, after, newest_first=newest_first)
    return _to_stored_events(connection, connection.execute(query).all())


def find_summaries(
    connection: Connection, event_filter: EventFilter, *, limit: int, after: str = ""
) -> list[EventSummary]:
    """Return the events that match a filter, without their bodies, newest first."""
    query = _matches(connection, event_filter, limit, after, newest_first=True).with_only_columns(*SUMMARY_COLUMNS)
    rows = connection.execute(query).all()
    statuses = shown_delivery_statuses(connection, [row.id for row in rows])
    return [to_summary(row, statuses.get(row.id, ())) for row in rows]


def bounded_page(connection: Connection, event_filter: EventFilter, *, limit: int, after: str = "") -> EventPage:
    """Return at most `limit` events that match a filter, and fewer if they are large: after a few MiB a page ends."""
    query = _matches(connection, event_filter, limit, after, newest_first=False)
    rows, has_more = first_batch(connection, query)
    return EventPage(_to_stored_events(connection, rows), rows[-1].id if has_more or len(rows) == limit else "")


def _matches(
    connection: Connection, event_filter: EventFilter, limit: int, after: str, *, newest_first: bool
) -> Select[Any]:
    query = apply_filter(select(events), narrow(connection, event_filter)).limit(limit)
    if after:
        query = query.where(events.c.id < after if newest_first else events.c.id > after)
    return query.order_by(events.c.id.desc() if newest_first else events.c.id)


def _to_stored_events(connection: Connection, rows: Sequence[Row[Any]]) -> list[StoredEvent]:
    statuses = shown_delivery_statuses(connection, [row.id for row in rows])
    return [to_stored_event(row, statuses.get(row.id, ())) for row in rows]


def count_events(connection: Connection, event_filter: EventFilter) -> int:
    """Return the number of events that match a filter."""
    query = apply_filter(select(func.count()).select_from(events), narrow(connection, event_filter))
    return int(connection.execute(query).scalar_one())
