"""The pages of plugins and their handlers: selectors, state, backlog, and a handler over time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import NotFound
from flowhooks.ledger import stats
from flowhooks.model.trend import TrendKind
from flowhooks.operations.deliverable_events import reroute_command
from flowhooks.operations.error_groups import list_error_groups
from flowhooks.operations.plugin_status import (
    filter_handlers,
    find_handler,
    is_backlog_truncated,
    list_plugins,
    slice_handlers,
    sort_by_urgency,
    visible_plugins,
)
from flowhooks.web.admin.console.error_row import error_row
from flowhooks.web.admin.console.filters import query_text, to_query_text
from flowhooks.web.admin.console.page import Page
from flowhooks.web.admin.console.trend import trend_values
from flowhooks.web.admin.operators import operator_of
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.ledger.stats import HandlerCount
    from flowhooks.model.selectors import Selectors
    from flowhooks.operations.plugin_status import HandlerStatus, PluginStatus

PAGE_SIZE: Final = 200
MAX_START_DIGITS: Final = 8
MAX_ERRORS: Final = 5
"""Maximum number of error groups on the page of a handler, the ones seen last."""
PATH: Final = f"{CONSOLE_ROOT}/handlers"


class _HandlerPages(Page):
    """Values of handlers that both pages show."""

    place = "handlers"
    for_limited_roles = for_masked_roles = True

    def _plugins(self) -> tuple[PluginStatus, ...]:
        app = self.app
        return list_plugins(
            app.plugins,
            app.ledger,
            app.settings.routing.ignore_process_keys,
            max_counted=stats.MAX_GROUPED,
            heartbeat_timeout=app.settings.ledger.heartbeat_timeout,
            settings=app.settings,
        )

    @staticmethod
    def _row(handler: HandlerStatus, called: Mapping[str, HandlerCount]) -> dict[str, Any]:
        return {
            "facts": handler,
            "listens": _listens(handler.selectors),
            "narrows": _restrictions(handler.selectors),
            "reroute_command": reroute_command(handler.id, handler.dismissed) if handler.dismissed else "",
            "called": called.get(handler.id),
        }


class HandlersPage(_HandlerPages):
    """`GET /console/handlers`."""

    template = "handlers.html"

    def show(self, request: falcon.Request, _path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the plugins, with one page of their handlers."""
        text, access = query_text(request, "q"), operator_of(request).access
        app, plugins = self.app, visible_plugins(sort_by_urgency(self._plugins()), access)
        with app.ledger.connection() as connection:
            called, since = stats.count_by_handler(connection)
        matching = [filtered for plugin in plugins if (filtered := filter_handlers(plugin, text)) is not None]
        start = parse_start(query_text(request, "from"))
        total = sum(len(plugin.handlers) for plugin in matching)
        return {
            "sought": text,
            "path": PATH,
            "plugins": [
                {"facts": plugin, "handlers": [self._row(handler, called) for handler in plugin.handlers]}
                for plugin in slice_handlers(matching, start, PAGE_SIZE)
            ],
            "since": since,
            "total": total,
            "start": start,
            "onwards": start + PAGE_SIZE if start + PAGE_SIZE < total else 0,
            "warnings": () if access.is_limited else app.plugins.warnings,
            "cut": is_backlog_truncated(plugins),
            "most": stats.MAX_GROUPED,
            "more_than": stats.MAX_COUNTED,
        }


class HandlerPage(_HandlerPages):
    """`GET /console/handlers/{handler_id}`."""

    template = "handler.html"

    def show(self, request: falcon.Request, path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the state of one handler, the handler over time, and its last errors."""
        app, handler_id, access = self.app, to_query_text(path["handler_id"]), operator_of(request).access
        if not access.sees(handler_id):
            raise NotFound(f"there is no handler {handler_id}")
        plugins = visible_plugins(self._plugins(), access)
        plugin, status = find_handler(plugins, handler_id)
        values = trend_values(app, request, TrendKind.HANDLER, handler_id)
        errors = list_error_groups(app.ledger, now=app.clock.now(), handler=handler_id, limit=MAX_ERRORS)
        if status is None and not errors.groups and (values["trend"] is None or values["trend"].is_empty):
            raise NotFound(f"there is no handler {handler_id}")
        with app.ledger.connection() as connection:
            called, _ = stats.count_by_handler(connection)
        info = plugin.info if plugin else None
        return {
            **values,
            "id": handler_id,
            "handler": None if status is None else self._row(status, called),
            "plugin_state": plugin.state if plugin else "",
            "plugin_version": " ".join(filter(None, (info.name, info.version))) if info else "",
            "cut": is_backlog_truncated(plugins),
            "most": stats.MAX_GROUPED,
            "errors": [] if access.is_masked else [error_row(error) for error in errors.groups],
        }


def parse_start(text: str) -> int:
    """Return the number of items to skip that a query states; 0 if it states none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_START_DIGITS else 0


def _listens(selectors: Selectors | None) -> list[tuple[str, str]]:
    if selectors is None:
        return []
    pairs = [("class", name) for name in selectors.callback_classes]
    pairs += [("key", name) for name in selectors.process_keys]
    if selectors.every:
        pairs.append(("every", ""))
    return pairs


def _restrictions(selectors: Selectors | None) -> list[tuple[str, str]]:
    """Return the requirements of a handler besides class and key, as pairs of label and value."""
    if selectors is None:
        return []
    pairs = [("versions", selectors.versions)] if selectors.versions else []
    pairs += [("source", name) for name in selectors.sources]
    if selectors.kind != "complete":
        pairs.append(("kind", selectors.kind))
    pairs += [("conclusion", name) for name in selectors.conclusions]
    return pairs + [
        ("when", f"{pointer}: {json.dumps(expected, ensure_ascii=False)}")
        for pointer, expected in selectors.when.items()
    ]
