"""Consistency checks of indexed fields, for `flowhooks.ledger.consistency` and `flowhooks.ledger.row_checks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Select, select

from flowhooks import schema
from flowhooks.errors import FlowhooksError
from flowhooks.ledger.event_fields import stored_values
from flowhooks.ledger.tables import event_fields, events
from flowhooks.model.search_fields import indexed_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from flowhooks.model.search_fields import IndexedValue

CHECKS: Final[tuple[tuple[Select[str], str], ...]] = (
    (
        select(event_fields.c.event_id)
        .outerjoin(events, events.c.id == event_fields.c.event_id)
        .where(events.c.id.is_(None)),
        "a field is indexed of event {}, which does not exist",
    ),
)
"""Each query with the sentence that is reported for each id that it returns."""


def check_values(connection: Connection, batch: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Yield a sentence with a place for an id, and the id, for each event of which other values are indexed.

    Args:
        connection: any connection.
        batch: rows of `events`.
    """
    stored = stored_values(connection, [row.id for row in batch])
    for row in batch:
        if (values := stored.get(row.id)) and not values.issubset(_values_of(row.body, values)):
            yield "event {} has an indexed field that its body does not have", row.id


def _values_of(body: str, values: set[IndexedValue]) -> tuple[IndexedValue, ...]:
    try:
        return indexed_values(schema.parse_callback(body.encode()), [str(value.field) for value in values])
    except FlowhooksError:  # reported by the checksum of the body
        return ()
