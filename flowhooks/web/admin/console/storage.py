"""The page of the ledger's size, the free disk and the retention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowhooks.operations.storage import read_storage
from flowhooks.web.admin.console.page import Page

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon


class StoragePage(Page):
    """`GET /console/storage`."""

    template = "storage.html"
    place = "storage"

    def show(self, _request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the sizes and the settings in force."""
        return {"facts": read_storage(self.app.ledger, self.app.settings, self.app.clock.now())}
