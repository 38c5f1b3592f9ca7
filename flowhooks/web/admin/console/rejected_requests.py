"""The call-backs that were refused last, with the reasons; it must not know what refuses one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from flowhooks.ledger.rejected_requests import latest
from flowhooks.web.admin.console.filters import text
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.origin_check import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

AT_ONCE: Final = 100
PATH: Final = f"{ROOT}/refused"


class RefusedPage(Page):
    """`GET /console/refused`."""

    template = "refused.html"
    place = "refused"

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """One page of them, the newest first."""
        before = text(request, "before")
        with self.app.ledger.connection() as connection:
            found = latest(connection, limit=AT_ONCE + 1, before=before)
        more = len(found) > AT_ONCE
        del found[AT_ONCE:]
        return {
            "refusals": found,
            "newest": PATH if before else "",
            "older": f"{PATH}?{urlencode({'before': found[-1].id})}" if more else "",
        }
