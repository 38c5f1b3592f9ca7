"""The pages that list error groups, and show one with the traceback of its newest attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from flowhooks.operations.error_groups import find_error_group, list_error_groups, newest_sample
from flowhooks.web.admin.console.error_row import error_row
from flowhooks.web.admin.console.filters import query_text
from flowhooks.web.admin.console.handlers import parse_start
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.console.trend import error_group_chart
from flowhooks.web.admin.operators import operator_of
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

PAGE_SIZE: Final = 50
PATH: Final = f"{CONSOLE_ROOT}/errors"


class ErrorsPage(Page):
    """`GET /console/errors`."""

    template = "errors.html"
    place = "errors"
    for_limited_roles = True

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return one page of error groups, the one seen last first."""
        handler, start = query_text(request, "handler"), parse_start(query_text(request, "from"))
        page = list_error_groups(
            self.app.ledger,
            now=self.app.clock.now(),
            handler=handler or None,
            plugins=operator_of(request).access.plugins,
            limit=PAGE_SIZE,
            skip=start,
        )
        query = {"handler": handler} if handler else {}
        return {
            "path": PATH,
            "handler": handler,
            "rows": [error_row(status) for status in page.groups],
            "newest": f"{PATH}?{urlencode(query)}" if start else "",
            "older": f"{PATH}?{urlencode({**query, 'from': start + PAGE_SIZE})}" if page.has_more else "",
        }


class ErrorPage(Page):
    """`GET /console/errors/{error_id}`. The first characters of an id are accepted, too."""

    template = "error.html"
    place = "errors"
    for_limited_roles = True

    def show(self, request: falcon.Request, path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the group with its newest attempt."""
        plugins = operator_of(request).access.plugins
        status = find_error_group(self.app.ledger, path["error_id"], now=self.app.clock.now(), plugins=plugins)
        return {
            **error_row(status),
            "week": error_group_chart(self.app, status.group.fingerprint),
            "sample": newest_sample(self.app.ledger, status.group),
            "events_path": f"{CONSOLE_ROOT}/events",
        }
