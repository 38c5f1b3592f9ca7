"""The page that lists and searches events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import NotFound
from flowhooks.ledger.attempt_filters import FIELDS
from flowhooks.ledger.queries import STATES, SUSPENDED
from flowhooks.ledger.search import search_events
from flowhooks.model.delivery import COMPLETED_STATES, State, Trigger
from flowhooks.model.event import DismissedBy, Origin
from flowhooks.operations.error_groups import complete_filter
from flowhooks.web.admin.console.filters import (
    TIMES,
    filter_from_request,
    query_text,
    refuse_unknown_fields,
    time_values,
)
from flowhooks.web.admin.console.list_walk import list_query
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.operators import operator_of
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.ledger.queries import EventFilter
    from flowhooks.ledger.search import EventSummary
    from flowhooks.operations.access import Access

PAGE_SIZE: Final = 50
MAX_NAMED_DELIVERIES: Final = 3
"""Maximum number of deliveries that a listing shows for one event; the number of the others is shown."""
PATH: Final = f"{CONSOLE_ROOT}/events"
RECENT_PERIODS: Final = ("15m", "1h", "24h", "7d")
"""Periods offered as search links."""
BULK_ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("replay",),
    "waiting": ("run_now", "close_all"),
    "dead": ("replay", "close_all"),
    "unknown": ("mark_done", "mark_not_done", "close_all"),
    "succeeded": ("replay_again",),
    SUSPENDED: ("close_all",),
    "parked": ("reroute", "dismiss"),
    "dismissed": ("reroute",),
}
"""Actions on all events of a search, and on its selected rows, by the state in the filter.

Without a state they apply to dead deliveries. There are no actions for the other states."""


class EventsPage(Page):
    """`GET /console/events`."""

    template = "events.html"
    place = "events"
    for_limited_roles = for_masked_roles = True

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return one page of the events that match the filter."""
        indexed_fields, access = self.app.settings.search.fields, operator_of(request).access
        parsed = refuse_unknown_fields(filter_from_request(request), indexed_fields)
        before, after = query_text(request, "before"), query_text(request, "after")
        state = parsed.given.get("state") or ("dismissed" if parsed.given.get("dismissed_by") else "")
        page = None
        if parsed.event_filter is not None:
            event_filter = access.restrict(self._complete(parsed.event_filter, access))
            with self.app.ledger.connection() as connection:
                page = search_events(
                    connection, event_filter, limit=PAGE_SIZE, before=before, after="" if before else after
                )
        return {
            "look": parsed,
            "indexed_fields": indexed_fields,
            "state": state,
            "offered": BULK_ACTIONS.get(state, ()),
            "list_query": list_query(parsed),
            "meant": {**parsed.pinned, "state": state or "dead"},
            "times": {name: time_values(parsed, name) for name in TIMES},
            "lately": {span: parsed.address(PATH, since=span, until="") for span in RECENT_PERIODS},
            "states": STATES,
            "dismissals": tuple(DismissedBy),
            "origins": tuple(Origin),
            "triggers": tuple(Trigger),
            "by_attempt": any(parsed.given.get(name) for name in FIELDS),
            "path": PATH,
            "page": page,
            "rows": [_row(access.summary(event)) for event in page.events] if page else [],
            "newest": parsed.address(PATH) if before or after else "",
            "newer": parsed.address(PATH, after=page.newer) if page and page.newer else "",
            "older": parsed.address(PATH, before=page.older) if page and page.older else "",
            "onwards": "newer" if after and not before else "older",
        }

    def _complete(self, event_filter: EventFilter, access: Access) -> EventFilter:
        try:
            indexed_fields = self.app.settings.search.fields
            return complete_filter(self.app.ledger, event_filter, indexed_fields, plugins=access.plugins)
        except NotFound:  # purged, or no such group: no event matches
            return event_filter


def _row(event: EventSummary) -> dict[str, Any]:
    # Deliveries that need attention come first.
    urgent_first = sorted(event.delivery_statuses, key=lambda standing: standing.state in COMPLETED_STATES)
    return {
        "event": event,
        "named": urgent_first[:MAX_NAMED_DELIVERIES],
        "more": max(0, len(urgent_first) - MAX_NAMED_DELIVERIES),
        "errors": {
            status.error_group: status.error
            for status in urgent_first[:MAX_NAMED_DELIVERIES]
            if status.error_group is not None and status.state is not State.CLOSED
        },
    }
