"""The pages of the sources: the callbacks, rejections, credentials, engine and settings of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flowhooks.clock import DAY
from flowhooks.errors import NotFound
from flowhooks.ledger import engine_queries, source_queries
from flowhooks.ledger.rejected_requests import NO_SOURCE
from flowhooks.model.trend import TrendKind
from flowhooks.operations.check.sources import EXPIRY_WARNING
from flowhooks.operations.coverage import coverage
from flowhooks.operations.sources import source_names, source_statuses
from flowhooks.text import command_line
from flowhooks.web.admin.console.engines import engine_values
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.console.trend import trend_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

MAX_DEFINITIONS: Final = 200
"""Maximum number of definitions on the page of one source; those that are not covered come first."""

MAX_BODY_CHARS: Final = 2_000
"""Maximum number of characters that are shown of the body of an ignored request, because a source has up to 200 rules.
"""


class SourcesPage(Page):
    """`GET /console/sources`."""

    template = "sources.html"
    place = "sources"

    def show(self, _request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the sources by name, and the rejected requests that belong to none."""
        app, now = self.app, self.app.clock.now()
        statuses = source_statuses(app.ledger, app.settings, now, source_names(app.settings))
        with app.ledger.connection() as connection:
            unattributed = source_queries.rejections(connection, "")
        return {
            "rows": [
                {
                    "facts": status,
                    "rejected": sum(entry.requests for entry in status.rejections),
                    "expiring": [entry for entry in status.credentials if _is_expiring(entry.expires_at, now)],
                }
                for status in statuses
            ],
            "unattributed": sum(entry.requests for entry in unattributed),
            "no_source": NO_SOURCE,
        }


class SourcePage(Page):
    """`GET /console/sources/{name}`."""

    template = "source.html"
    place = "sources"

    def show(self, request: falcon.Request, path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return everything about one source."""
        app, now, name = self.app, self.app.clock.now(), path["name"]
        if name not in source_names(app.settings):
            raise NotFound(f"there is no source {name}")
        (status,) = source_statuses(app.ledger, app.settings, now, [name])
        engine, covered = None, None
        if status.has_engine:
            with app.ledger.connection() as connection:
                engine = engine_values(connection, app.settings, name, status.position, now)
            covered = coverage(app.ledger, app.router, app.settings, now, source=name)
        return {
            **trend_values(app, request, TrendKind.SOURCE, name),
            "facts": status,
            "credentials": [
                {
                    "facts": entry,
                    "age": None if entry.changed_at is None else max(0, now - entry.changed_at),
                    "expired": entry.expires_at is not None and entry.expires_at < now,
                    "expiring": _is_expiring(entry.expires_at, now),
                }
                for entry in status.credentials
            ],
            "engine": engine,
            "coverage": covered,
            "definitions": covered.definitions[:MAX_DEFINITIONS] if covered else (),
            "left_out": max(0, len(covered.definitions) - MAX_DEFINITIONS) if covered else 0,
            "most": engine_queries.MAX_BOOK_ROWS,
            "ignored": [
                {
                    "facts": rule,
                    "body": rule.body[:MAX_BODY_CHARS],
                    "command": command_line("sources", "show", name, "--body", rule.rule),
                }
                for rule in status.ignored
            ],
            "day": DAY,
        }


def _is_expiring(expires_at: int | None, now: int) -> bool:
    return expires_at is not None and expires_at < now + EXPIRY_WARNING
