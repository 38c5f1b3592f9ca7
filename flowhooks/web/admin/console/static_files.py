"""The style sheet, the script and the icon; it must not serve any other file."""

from __future__ import annotations

import falcon

from flowhooks.web.admin.console.rendering import HEADERS, STATICS, static

_FOR_A_YEAR = "max-age=31536000, immutable"
"""Pages ask for a file by its content's digest, so what was kept is never out of date."""


class Statics:
    """`GET /console/static/{name}`."""

    def __init__(self) -> None:
        self._files = {name: static(name) for name in STATICS}

    def on_get(self, _request: falcon.Request, response: falcon.Response, name: str) -> None:
        """Give it."""
        if name not in self._files:
            raise falcon.HTTPNotFound
        response.data = self._files[name]
        response.content_type = STATICS[name]
        response.set_headers(HEADERS)
        response.set_header("Cache-Control", _FOR_A_YEAR)

    on_head = on_get
