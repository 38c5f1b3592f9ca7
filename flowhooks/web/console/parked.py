"""Parked events by what they wait for; it must not know how a route is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from flowhooks.ledger.rerouting import oldest_parked
from flowhooks.ledger.sampling import MOST_GROUPED
from flowhooks.operations.drain import like
from flowhooks.web.console.guard import ROOT
from flowhooks.web.console.page import Page

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.ledger.rerouting import ParkedGroup

MOST_GROUPS: Final = 200
HINTED: Final = 10
"""Groups for which is looked up what may have been meant."""
FEW_HANDLERS: Final = 500
"""With more handlers than this nothing is looked up, for each is compared with each."""


class ParkedPage(Page):
    """`GET /console/parked`."""

    template = "parked.html"
    place = "parked"

    def show(self, _request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """The groups, the largest first."""
        with self.app.ledger.connection() as connection:
            found = oldest_parked(connection, most=MOST_GROUPED)
        counted = sum(group.events for group, *_ in found)
        return {
            "groups": [
                {
                    "facts": group,
                    "event_id": event_id,
                    "since": since,
                    "address": _address(group),
                    "hints": self._hints(group) if number < HINTED else (),
                    "wanted": self._wanted(group),
                    "as_filter": _as_filter(group, [one for one, *_ in found]),
                }
                for number, (group, event_id, since) in enumerate(found[:MOST_GROUPS])
            ],
            "left_out": max(0, len(found) - MOST_GROUPS),
            "counted": counted,
            "more": counted >= MOST_GROUPED,
        }

    def _hints(self, group: ParkedGroup) -> tuple[str, ...]:
        if len(self.app.plugins.handlers) > FEW_HANDLERS:
            return ()
        return self.app.router.explain(
            callback_class=group.callback_class,
            process_key=group.process_key,
            version=group.process_version,
            source=group.source,
            kind=group.kind,
        ).hints

    def _wanted(self, group: ParkedGroup) -> bool:
        """Whether somebody wants them by now, so that a drain would deliver them."""
        return not self.app.router.route(like(group)).parked


def _query(group: ParkedGroup) -> dict[str, str]:
    query = {"state": "parked", "class": group.callback_class, "key": group.process_key or ""}
    return {name: value for name, value in query.items() if value}


def _as_filter(group: ParkedGroup, groups: list[ParkedGroup]) -> dict[str, str]:
    """A group as a search that finds it and no other one; `{}` where another one would be found too."""
    alike = [
        one
        for one in groups
        if group.callback_class in {"", one.callback_class} and group.process_key in {None, "", one.process_key}
    ]
    return _query(group) if alike == [group] else {}


def _address(group: ParkedGroup) -> str:
    return f"{ROOT}/events?{urlencode(_query(group))}"
