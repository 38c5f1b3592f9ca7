"""Build the look-up that a server started now would use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.logger import get_logger
from flowhooks.routing.index import Candidate
from flowhooks.routing.router import Router
from flowhooks.text import command_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.model.handler import Handler
    from flowhooks.plugins.plugins import Plugins

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """A router over the loaded and the registered handlers.

    Attributes:
        router: the router.
        missing_handlers: reasons by id of the registered handlers that are not loaded: `"elsewhere"` if another process
            runs the handler; otherwise the state of its plugin, `"quarantined"`, `"denied"` by the settings, or
            `"missing"`. It is `"missing"`, too, if the plugin is loaded but no longer has such a handler.
    """

    router: Router
    missing_handlers: Mapping[str, str]

    def availability(self, handler_id: str) -> str:
        """Return `"present"`, `"elsewhere"`, or why the handler is unavailable."""
        return self.missing_handlers.get(handler_id, "present")


def build_lookup(
    plugins: Plugins,
    registered: Iterable[RegisteredHandler],
    ignore_keys: Iterable[str],
    *,
    executed_handlers: Collection[str] = (),
) -> Lookup:
    """Build the look-up.

    Args:
        plugins: the loaded plugins.
        registered: the registered handlers.
        ignore_keys: values of `processDefinitionKey` whose events need no handler.
        executed_handlers: ids of the handlers whose deliveries live processes run.
    """
    missing = [handler for handler in registered if handler.id not in plugins.handlers]
    # If two plugins have the same name, the first one owns the handlers.
    states = {info.name: info.state for info in reversed(plugins.infos)}
    missing_handlers: dict[str, str] = {}
    for handler in missing:
        state = states.get(handler.id.partition(":")[0])
        reason = state if state in {"quarantined", "denied"} else "missing"
        missing_handlers[handler.id] = "elsewhere" if handler.id in executed_handlers else reason
    return Lookup(
        router=build_router(plugins.handlers.values(), missing, ignore_keys), missing_handlers=missing_handlers
    )


def build_router(
    loaded: Iterable[Handler], remembered: Iterable[RegisteredHandler], ignore_keys: Iterable[str]
) -> Router:
    """Build the router of the loaded handlers and of those that are only registered."""
    candidates = [Candidate(handler.id, handler.selectors, handler.order_by) for handler in loaded]
    unreadable = []
    for handler in remembered:
        if handler.selectors is None:
            unreadable.append(handler.id)
        else:
            candidates.append(Candidate(handler.id, handler.selectors, handler.order_by))
    return Router(candidates, ignore_keys=ignore_keys, unreadable_handlers=unreadable)


def log_missing(handlers: Iterable[RegisteredHandler], plugins: Plugins) -> None:
    """Log each registered handler that is not loaded, with the reason and a command."""
    denied = {info.name for info in plugins.infos if info.state == "denied"}
    for handler in handlers:
        plugin, _, name = handler.id.partition(":")
        if plugin in denied:
            why = "the settings exclude its plugin"
            command = command_line("plugins", "uninstall", plugin, "--handler", name)
            to_do = f"allow the plugin, or retire the handler: `{command}`"
        else:
            why = "it was loaded before and is not loaded now"
            to_do = f"`{command_line('plugins', 'show', plugin)}` shows the reason"
        log.warning("handler_missing", handler=handler.id, why=f"{why}; its deliveries wait", next=to_do)
