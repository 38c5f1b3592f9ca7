"""The page of the last rejected requests, with the reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from flowhooks.ledger.rejected_requests import latest
from flowhooks.web.admin.console.filters import query_text
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

PAGE_SIZE: Final = 100
PATH: Final = f"{CONSOLE_ROOT}/rejected-requests"


class RejectedRequestsPage(Page):
    """`GET /console/rejected-requests`."""

    template = "rejected_requests.html"
    place = "rejected_requests"

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return one page of rejected requests, the newest first."""
        before = query_text(request, "before")
        with self.app.ledger.connection() as connection:
            entries = latest(connection, limit=PAGE_SIZE + 1, before=before)
        more = len(entries) > PAGE_SIZE
        del entries[PAGE_SIZE:]
        return {
            "requests": entries,
            "newest": PATH if before else "",
            "older": f"{PATH}?{urlencode({'before': entries[-1].id})}" if more else "",
        }
