"""The page that lists and searches events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import falcon

from flowhooks.errors import NotFound
from flowhooks.ledger.attempt_filters import FIELDS
from flowhooks.ledger.queries import STATES, SUSPENDED
from flowhooks.ledger.search import search_events
from flowhooks.model.delivery import COMPLETED_STATES, State, Trigger
from flowhooks.model.event import DismissedBy, Origin
from flowhooks.operations.error_groups import complete_filter
from flowhooks.operations.event_export import MAX_EVENTS, ExportFormat
from flowhooks.web.admin.console.field_inputs import field_inputs
from flowhooks.web.admin.console.filters import (
    CONDITIONS,
    TIMES,
    filter_from_request,
    query_text,
    refuse_unknown_fields,
    time_values,
)
from flowhooks.web.admin.console.list_walk import list_query
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.console.urls import EXPORT_PATH
from flowhooks.web.admin.operators import operator_of
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.ledger.queries import EventFilter
    from flowhooks.ledger.search import EventSummary, SearchPage
    from flowhooks.operations.access import Access
    from flowhooks.web.admin.console.filters import ParsedFilter

PAGE_SIZE: Final = 50
MAX_NAMED_DELIVERIES: Final = 3
"""Maximum number of deliveries that a listing shows for one event; the number of the others is shown."""
MAX_LISTED_HANDLERS: Final = 500
"""Maximum number of handlers in the list of the filter; with more of them it is a text field."""
PATH: Final = f"{CONSOLE_ROOT}/events"
RECENT_PERIODS: Final = ("15m", "1h", "24h", "7d", "30d")
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
        page = event_filter = None
        if parsed.event_filter is not None:
            event_filter = access.restrict(self._complete(parsed.event_filter, access))
            with self.app.ledger.connection() as connection:
                page = search_events(
                    connection, event_filter, limit=PAGE_SIZE, before=before, after="" if before else after
                )
        return {
            "look": parsed,
            "indexed_fields": indexed_fields,
            "field_inputs": field_inputs(parsed.given.get(CONDITIONS, ""), indexed_fields),
            "state": state,
            "offered": BULK_ACTIONS.get(state, ()),
            "list_query": list_query(parsed, event_filter),
            "meant": {**parsed.pinned, "state": state or "dead"},
            "times": {name: time_values(parsed, name) for name in TIMES},
            "lately": {span: parsed.address(PATH, since=span, until="") for span in RECENT_PERIODS},
            "states": STATES,
            "handlers": self._handlers(parsed.given.get("handler", ""), access),
            "dismissals": tuple(DismissedBy),
            "origins": tuple(Origin),
            "triggers": tuple(Trigger),
            "by_attempt": any(parsed.given.get(name) for name in FIELDS),
            "path": PATH,
            "exports": {name: parsed.pinned_address(EXPORT_PATH, format=name) for name in ExportFormat},
            "export_most": MAX_EVENTS,
            "page": page,
            "rows": [_row(access.summary(event)) for event in page.events] if page else [],
            "newest": parsed.pinned_address(PATH) if before or after else "",
            "newer": parsed.pinned_address(PATH, after=page.newer) if page and page.newer else "",
            "older": parsed.pinned_address(PATH, before=page.older) if page and page.older else "",
            "onwards": "newer" if after and not before else "older",
        }

    def answer(
        self,
        request: falcon.Request,
        response: falcon.Response,
        language: str,
        shown: Mapping[str, Any],
        *,
        template: str = "",
    ) -> None:
        """Answer with the list, or lead to the event whose id was searched for."""
        event_id = _searched_event(shown["look"], shown["page"])
        if not event_id:
            super().answer(request, response, language, shown, template=template)
            return
        response.status = falcon.HTTP_303
        response.location = f"{PATH}/{quote(event_id, safe='')}"
        response.set_header("Cache-Control", "no-store")

    def _handlers(self, selected: str, access: Access) -> dict[str, list[str]]:
        """Return the handlers by plugin, also the selected one if it is not registered; none if there are too many."""
        known = {*self.app.plugins.handlers, *(handler.id for handler in self.app.ledger.registered_handlers())}
        ids = {handler_id for handler_id in known if access.sees(handler_id)}
        if len(ids) > MAX_LISTED_HANDLERS:
            return {}
        by_plugin: dict[str, list[str]] = {}
        for handler_id in sorted(ids | ({selected} if selected else set())):
            by_plugin.setdefault(handler_id.partition(":")[0], []).append(handler_id)
        return by_plugin

    def _complete(self, event_filter: EventFilter, access: Access) -> EventFilter:
        try:
            indexed_fields = self.app.settings.search.fields
            return complete_filter(self.app.ledger, event_filter, indexed_fields, plugins=access.plugins)
        except NotFound:  # purged, or no such group: no event matches
            return event_filter


def _searched_event(parsed: ParsedFilter, page: SearchPage | None) -> str:
    """Return the id of the only event of a page if the search is for its id or for that of one of its deliveries."""
    if page is None or len(page.events) != 1 or set(parsed.given) != {"q"}:
        return ""
    (event,) = page.events
    ids = {event.id, *(status.delivery_id for status in event.delivery_statuses)}
    return event.id if parsed.given["q"] in ids else ""


def _row(event: EventSummary) -> dict[str, Any]:
    # Deliveries that need attention come first.
    urgent_first = sorted(event.delivery_statuses, key=lambda status: status.state in COMPLETED_STATES)
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
