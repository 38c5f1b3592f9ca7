"""Serve the style sheet, the script and the icon, and no other file."""

from __future__ import annotations

import falcon

from flowhooks.web.admin.console.rendering import HEADERS, STATIC_FILES, read_static_file

_CACHE_CONTROL = "max-age=31536000, immutable"
"""Pages request a file with the digest of its content, so a cached file is never out of date.

During an update, a server of another version may be asked for it. Its file has another digest and is not cached."""


class StaticFilesResource:
    """`GET /console/static/{name}`."""

    def __init__(self) -> None:
        self._files = {name: read_static_file(name) for name in STATIC_FILES}

    def on_get(self, request: falcon.Request, response: falcon.Response, name: str) -> None:
        """Return the file."""
        if name not in self._files:
            raise falcon.HTTPNotFound
        response.data, digest = self._files[name]
        response.content_type = STATIC_FILES[name]
        response.set_headers(HEADERS)
        if request.get_param("v") == digest:
            response.set_header("Cache-Control", _CACHE_CONTROL)

    on_head = on_get
