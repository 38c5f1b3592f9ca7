"""Parked events by what they wait for; it must not know how a route is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from flowhooks.ledger.recent_activity import MAX_GROUPED
from flowhooks.operations import suggestions
from flowhooks.operations.parked import parked
from flowhooks.operations.reroute_parked import like
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.origin_check import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.ledger.reroute import ParkedGroup

MOST_GROUPS: Final = 200


class ParkedPage(Page):
    """`GET /console/parked`."""

    template = "parked.html"
    place = "parked"

    def show(self, _request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """The groups, the largest first."""
        app = self.app
        found = parked(app.ledger, app.router, most=MAX_GROUPED, handlers=len(app.plugins.handlers))
        counted = sum(one.facts.events for one in found)
        return {
            "groups": [
                {
                    "facts": one.facts,
                    "event_id": one.event_id,
                    "since": one.since,
                    "address": _address(one.facts),
                    "hints": one.hints,
                    "wanted": one.wanted,
                    "by_data": one.by_data,
                    "undecided": one.undecided,
                    "explain": suggestions.explain(like(one.facts)),
                    "as_filter": _as_filter(one.facts, [each.facts for each in found]),
                }
                for one in found[:MOST_GROUPS]
            ],
            "left_out": max(0, len(found) - MOST_GROUPS),
            "counted": counted,
            "more": counted >= MAX_GROUPED,
        }


def _query(group: ParkedGroup) -> dict[str, str]:
    query = {
        "state": "parked",
        "class": group.callback_class,
        "key": group.process_key or "",
        "conclusion": group.conclusion or "",
    }
    return {name: value for name, value in query.items() if value}


def _as_filter(group: ParkedGroup, groups: list[ParkedGroup]) -> dict[str, str]:
    """A group as a search that finds it and no other one; `{}` where another one would be found too."""
    alike = [
        one
        for one in groups
        if group.callback_class in {"", one.callback_class}
        and group.process_key in {None, "", one.process_key}
        and group.conclusion in {None, one.conclusion}
    ]
    return _query(group) if alike == [group] else {}


def _address(group: ParkedGroup) -> str:
    return f"{ROOT}/events?{urlencode(_query(group))}"
