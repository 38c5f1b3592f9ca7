"""Criteria of a filter that few events meet: they are replaced by the ids of these events."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from flowhooks.ledger import event_fields, name_search

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flowhooks.ledger.queries import EventFilter

# If there are more of them, a window of a search contains enough matches.
MAX_CANDIDATES: Final = 2_000
"""Maximum number of events that are searched one by one."""
_NO_EVENT: Final = ("",)
"""The ids of a filter that no event matches. Without an id, the filter would match all events."""


def narrow(connection: Connection, event_filter: EventFilter) -> EventFilter:
    """Return a filter with the same matches, without the query and the conditions on fields that few events meet.

    The databases estimate badly how many events such a criterion matches, in particular together with a sort order.
    """
    if event_filter.query is not None:
        found = name_search.find_ids(connection, event_filter.query, event_filter.handler_plugins, MAX_CANDIDATES)
        if found is not None:
            event_filter = _only(replace(event_filter, query=None), found)
    if event_filter.fields:
        found = event_fields.find_ids(connection, event_filter.fields, MAX_CANDIDATES)
        if found is not None:
            event_filter = _only(replace(event_filter, fields=()), found)
    return event_filter


def _only(event_filter: EventFilter, ids: set[str]) -> EventFilter:
    if event_filter.ids:
        ids = ids.intersection(event_filter.ids)
    return replace(event_filter, ids=tuple(sorted(ids)) or _NO_EVENT)
