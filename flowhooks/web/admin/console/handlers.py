"""Plugins and their handlers: what each listens to, how it is, what waits for it; it must not load one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from flowhooks.ledger import recent_activity
from flowhooks.ledger.audit import entries
from flowhooks.operations.deliverable_events import reroute_command
from flowhooks.operations.plugin_status import cut, slice_of, sought_in, survey, urgent_first
from flowhooks.web.admin.console.filters import text
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.origin_check import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.ledger.recent_activity import HandlerCount
    from flowhooks.model.selectors import Selectors
    from flowhooks.operations.plugin_status import Listed

AT_ONCE: Final = 200
MOST_ENTRIES: Final = 20
"""Entries of the audit among which is looked for who has paused a handler."""
PATH: Final = f"{ROOT}/handlers"


class HandlersPage(Page):
    """`GET /console/handlers`."""

    template = "handlers.html"
    place = "handlers"

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """The plugins, with the handlers of one page."""
        sought = text(request, "q")
        app = self.app
        plugins = urgent_first(
            survey(
                app.plugins,
                app.ledger,
                app.settings.ignore.process_key,
                most=recent_activity.MAX_GROUPED,
                stale_after=app.settings.ledger.stale_after,
                settings=app.settings,
            )
        )
        with app.ledger.connection() as connection:
            called, since = recent_activity.count_by_handler(connection)
        found = [one for plugin in plugins if (one := sought_in(plugin, sought)) is not None]
        start = int(given) if (given := text(request, "from")).isascii() and given.isdecimal() and len(given) < 9 else 0  # noqa: PLR2004 (as many as fit)
        total = sum(len(plugin.handlers) for plugin in found)
        return {
            "sought": sought,
            "path": PATH,
            "plugins": [
                {"facts": plugin, "handlers": [self._row(one, called) for one in plugin.handlers]}
                for plugin in slice_of(found, start, AT_ONCE)
            ],
            "since": since,
            "total": total,
            "start": start,
            "onwards": start + AT_ONCE if start + AT_ONCE < total else 0,
            "warnings": app.plugins.warnings,
            "cut": cut(plugins, recent_activity.MAX_GROUPED),
            "most": recent_activity.MAX_GROUPED,
            "more_than": recent_activity.MAX_COUNTED,
        }

    def _row(self, one: Listed, called: Mapping[str, HandlerCount]) -> dict[str, Any]:
        return {
            "facts": one,
            "listens": _listens(one.selectors),
            "narrows": _narrows(one.selectors),
            "deliver_dismissed": reroute_command(one.id, one.dismissed) if one.dismissed else "",
            "called": called.get(one.id),
            "paused_by": "" if one.paused_at is None else self._paused_by(one.id),
        }

    def _paused_by(self, handler: str) -> str:
        """Who has paused a handler last, by itself or with others; `""` if that is long ago."""
        with self.app.ledger.connection() as connection:
            found = [
                *entries(connection, limit=MOST_ENTRIES, subject=handler),
                *entries(connection, limit=MOST_ENTRIES, subject=""),
            ]
        pauses = [one for one in found if one.action == "pause" and handler in one.detail.get("handlers", ())]
        return max(pauses, key=lambda one: one.id).who if pauses else ""


def _listens(selectors: Selectors | None) -> list[tuple[str, str]]:
    """The names that a handler listens to, as pairs of what it is and its value."""
    if selectors is None:
        return []
    found = [("class", name) for name in selectors.callback_classes]
    found += [("key", name) for name in selectors.process_keys]
    if selectors.every:
        found.append(("every", ""))
    return found


def _narrows(selectors: Selectors | None) -> list[tuple[str, str]]:
    """What a handler requires besides a name, as pairs of what it is and its value; conditions are JSON."""
    if selectors is None:
        return []
    found = [("versions", selectors.versions)] if selectors.versions else []
    found += [("source", name) for name in selectors.sources]
    if selectors.kind != "complete":
        found.append(("kind", selectors.kind))
    found += [("conclusion", name) for name in selectors.conclusions]
    return found + [
        ("when", f"{pointer}: {json.dumps(expected, ensure_ascii=False)}")
        for pointer, expected in selectors.when.items()
    ]
