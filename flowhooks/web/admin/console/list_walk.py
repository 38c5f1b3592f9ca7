"""Walk through a list of events: the page of one event offers the next event of the list that it was opened from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from flowhooks.ledger.search import search_events
from flowhooks.web.admin.console.filters import filter_text, parse_filter, query_text
from flowhooks.web.admin.operators import operator_of
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon
    from sqlalchemy import Connection

    from flowhooks.ledger.queries import EventFilter
    from flowhooks.web.admin.console.filters import ParsedFilter

PATH: Final = f"{CONSOLE_ROOT}/events"
WALKED_STATES: Final = frozenset({"dead", "unknown"})
"""States whose list an operator works through event by event."""
MAX_FIELDS: Final = 30


def list_query(parsed: ParsedFilter, event_filter: EventFilter | None) -> str:
    """Return the query that the links of a list pass to the pages of its events; `""` if nobody walks through it.

    Args:
        parsed: the filter as entered.
        event_filter: the same with the whole id of its error group; None if it is invalid.
    """
    if event_filter is None or not (parsed.given.get("state") in WALKED_STATES or "error_group" in parsed.given):
        return ""
    fields = parsed.pinned | ({"error_group": event_filter.error_group} if event_filter.error_group else {})
    return f"?{urlencode({'list': urlencode(fields)})}"


def next_in_list(connection: Connection, request: falcon.Request, event_id: str) -> Mapping[str, Any] | None:
    """Return the next event of the list that a page was opened from, and URLs of the list; None without a list.

    The next event is the next older one that still matches the list's filter, otherwise the newest one.
    """
    given, access = query_text(request, "list"), operator_of(request).access
    if not given:
        return None
    try:
        fields = dict(parse_qsl(given, max_num_fields=MAX_FIELDS, errors="replace"))
    except ValueError:
        return None
    # The value comes from an address: it may name no other page and no other parameter than a filter's.
    query = {name: filter_text(name, value) for name, value in fields.items()}
    parsed = parse_filter(query)
    if parsed.event_filter is None or not parsed.event_filter.has_criteria:
        return None
    event_filter = access.restrict(parsed.event_filter)
    older = search_events(connection, event_filter, limit=1, before=event_id)
    newest = search_events(connection, event_filter, limit=2)
    event = next((access.summary(event) for event in (*older.events, *newest.events) if event.id != event_id), None)
    query_of_list = {name: value for name, value in query.items() if value}
    # A search whose time budget is used up has not seen the rest of the list.
    onwards = "" if event else older.older or newest.older
    return {
        "address": f"{PATH}?{urlencode(query_of_list)}",
        "event": event,
        "onwards": f"{PATH}?{urlencode({**query_of_list, 'before': onwards})}" if onwards else "",
        "next": f"{PATH}/{quote(event.id, safe='')}?{urlencode({'list': given})}" if event else "",
    }
