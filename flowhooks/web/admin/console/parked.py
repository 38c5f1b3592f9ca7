"""The page of parked events, in groups that are routed alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from flowhooks.ledger.stats import MAX_GROUPED
from flowhooks.operations import suggestions
from flowhooks.operations.parked import list_parked_groups, representative_event
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.ledger.route_changes import ParkedGroup

MAX_GROUPS: Final = 200


class ParkedPage(Page):
    """`GET /console/parked`."""

    template = "parked.html"
    place = "parked"

    def show(self, _request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the groups, the largest first."""
        app = self.app
        groups = list_parked_groups(
            app.ledger, app.router, max_events=MAX_GROUPED, n_handlers=len(app.plugins.handlers)
        )
        counted = sum(group.facts.events for group in groups)
        more = counted >= MAX_GROUPED
        return {
            "groups": [
                {
                    "facts": group.facts,
                    "event_id": group.event_id,
                    "oldest_received_at": group.oldest_received_at,
                    "address": _address(group.facts),
                    "hints": group.hints,
                    "deliverable": group.deliverable,
                    "by_data": group.by_data,
                    "undecided": group.undecided,
                    "explain": suggestions.explain_command(representative_event(group.facts)),
                    # A group that was not read may match the filter of any other group.
                    "as_filter": {} if more else _as_filter(group.facts, [other.facts for other in groups]),
                }
                for group in groups[:MAX_GROUPS]
            ],
            "left_out": max(0, len(groups) - MAX_GROUPS),
            "counted": counted,
            "more": more,
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
    """Return the filter that matches exactly this group; `{}` if it would match another group, too."""
    alike = [
        other
        for other in groups
        if group.callback_class in {"", other.callback_class}
        and group.process_key in {None, "", other.process_key}
        and group.conclusion in {None, other.conclusion}
    ]
    return _query(group) if alike == [group] else {}


def _address(group: ParkedGroup) -> str:
    return f"{CONSOLE_ROOT}/events?{urlencode(_query(group))}"
