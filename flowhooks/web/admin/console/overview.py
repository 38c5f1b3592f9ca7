"""The overview page, whose numbers are refreshed every few seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import falcon

from flowhooks import __version__
from flowhooks.ledger.stats import MAX_COUNTED, MAX_GROUPED
from flowhooks.operations.overview import overview
from flowhooks.web.admin.console import charts
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.operators import operator_of
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.operations.overview import Performance

TILES: Final = ("waiting", "running", "dead", "unknown", "handler_missing", "parked")
"""The counted states, in the order in which they are shown."""
MAX_HANDLERS: Final = 50


class OverviewPage(Page):
    """`GET /console/`."""

    template = "overview.html"
    place = "overview"
    for_limited_roles = for_masked_roles = True

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Answer with the page; lead restricted roles, which may not see its numbers, to the page of handlers."""
        if operator_of(request).access.is_full:
            super().on_get(request, response, **path)
            return
        response.status = falcon.HTTP_303
        response.location = f"{CONSOLE_ROOT}/handlers"
        response.set_header("Cache-Control", "no-store")

    on_head = on_get

    def show(self, _request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the numbers of the overview."""
        status = overview(self.app.ledger, self.app.clock.now(), process=self.app.ledger.process)
        return {
            "found": status,
            "version": __version__,
            "tiles": TILES,
            "most_counted": MAX_COUNTED,
            "most_split": MAX_GROUPED,
            "arrivals": charts.bar_chart(
                [(count,) for count in status.arrivals.buckets], ("came",), width=600, height=96
            ),
            "handlers": [_with_charts(performance) for performance in status.performance[:MAX_HANDLERS]],
            "left_out": max(0, len(status.performance) - MAX_HANDLERS),
            "answers": self.app.metrics.answers(),
            "problems": self.app.readiness_problems(),
        }


class LivePart(OverviewPage):
    """`GET /console/live`: only the part of the overview that is refreshed."""

    template = "_live.html"
    whole = False
    for_limited_roles = for_masked_roles = False


def _with_charts(performance: Performance) -> dict[str, Any]:
    return {
        "facts": performance,
        "outcomes": charts.bar_chart(
            [(point.succeeded, point.failed) for point in performance.points], ("good", "bad"), width=120, height=24
        ),
        "lengths": charts.bar_chart(
            [(point.slowest,) for point in performance.points], ("slow",), width=120, height=24
        ),
    }
