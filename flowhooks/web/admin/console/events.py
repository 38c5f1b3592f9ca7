"""Events, searched and paged; it must not know how they are found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flowhooks.clock import SECOND, to_datetime, to_text
from flowhooks.ledger.queries import STATES
from flowhooks.ledger.search import search_events
from flowhooks.model.delivery import COMPLETED_STATES
from flowhooks.model.event import DismissedBy
from flowhooks.web.admin.console.filters import asked, text
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.origin_check import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.ledger.search import EventSummary
    from flowhooks.web.admin.console.filters import Asked

AT_ONCE: Final = 50
MOST_NAMED: Final = 3
"""Deliveries of one event that a listing names; of more it says how many."""
PATH: Final = f"{ROOT}/events"
LATELY: Final = ("15m", "1h", "24h", "7d")
"""Intervals that are offered to search by."""
OFFERED: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("replay",),
    "dead": ("replay",),
    "succeeded": ("replay_again",),
    "parked": ("reroute", "dismiss"),
    "dismissed": ("reroute",),
}
"""What can be done to all events of a search, by the state that it asks for. Without a state the dead are meant; an
*unknown* delivery is decided alone, and for the other states there is nothing to do."""


class EventsPage(Page):
    """`GET /console/events`."""

    template = "events.html"
    place = "events"

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """One page of what is looked for."""
        look = asked(request)
        before, after = text(request, "before"), text(request, "after")
        state = look.given.get("state") or ("dismissed" if look.given.get("dismissed_by") else "")
        page = None
        if look.wanted is not None:
            with self.app.ledger.connection() as connection:
                page = search_events(
                    connection, look.wanted, limit=AT_ONCE, before=before, after="" if before else after
                )
        return {
            "look": look,
            "state": state,
            "offered": OFFERED.get(state, ()),
            "meant": {**look.pinned, "state": state or "dead"},
            "times": {name: _time(look, name) for name in ("since", "until")},
            "lately": {span: look.address(PATH, since=span, until="") for span in LATELY},
            "states": STATES,
            "dismissals": tuple(DismissedBy),
            "path": PATH,
            "page": page,
            "rows": [_row(one) for one in page.events] if page else [],
            "newest": look.address(PATH) if before or after else "",
            "newer": look.address(PATH, after=page.newer) if page and page.newer else "",
            "older": look.address(PATH, before=page.older) if page and page.older else "",
            "onwards": "newer" if after and not before else "older",
        }


def _time(look: Asked, name: str) -> dict[str, Any]:
    """A time of the filter as its field shows it: in UTC, which a script puts into the viewer's zone."""
    time = getattr(look.wanted, name, None)
    if time is None:
        return {"value": look.given.get(name, ""), "instant": "", "time": None}
    # The field has whole seconds. What was found before is found again with them.
    whole = -(-time // SECOND) * SECOND if name == "until" else time // SECOND * SECOND
    return {"value": f"{to_datetime(whole):%Y-%m-%dT%H:%M:%S}", "instant": to_text(whole), "time": time}


def _row(one: EventSummary) -> dict[str, Any]:
    # What needs somebody's look comes first.
    urgent_first = sorted(one.delivery_statuses, key=lambda standing: standing.state in COMPLETED_STATES)
    return {"event": one, "named": urgent_first[:MOST_NAMED], "more": max(0, len(urgent_first) - MOST_NAMED)}
