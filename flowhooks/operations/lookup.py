"""The look-up as a server that starts now would have it; it must not change anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.routing.index import Candidate
from flowhooks.routing.router import Router

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.model.handler import Handler
    from flowhooks.plugins.plugins import Plugins


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """A router over the handlers that are loaded and those that are registered.

    Attributes:
        router: the look-up.
        missing_handlers: the handlers that are remembered and not loaded: `"elsewhere"` if another process runs them,
            else each with what is the matter with its plugin: `"quarantined"`, `"denied"` by the settings, or
            `"missing"`, which it also is where the plugin is loaded but has no such handler any more.
    """

    router: Router
    missing_handlers: Mapping[str, str]

    def availability(self, handler_id: str) -> str:
        """`"present"`, `"elsewhere"`, or what is the matter with its plugin."""
        return self.missing_handlers.get(handler_id, "present")


def build_lookup(
    plugins: Plugins,
    registered: Iterable[RegisteredHandler],
    ignore_keys: Iterable[str],
    *,
    executed_handlers: Collection[str] = (),
) -> Lookup:
    """Make the look-up.

    Args:
        plugins: what is loaded.
        registered: the registered handlers.
        ignore_keys: values of `processDefinitionKey` whose events need no handler.
        executed_handlers: ids of the handlers whose deliveries processes that live run.
    """
    missing = [handler for handler in registered if handler.id not in plugins.handlers]
    # Of two of one name the first one has the handlers.
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
    """Make the router of the handlers that are loaded, and of those that are only remembered."""
    candidates = [Candidate(handler.id, handler.selectors, handler.order_by) for handler in loaded]
    unreadable = []
    for handler in remembered:
        if handler.selectors is None:
            unreadable.append(handler.id)
        else:
            candidates.append(Candidate(handler.id, handler.selectors, handler.order_by))
    return Router(candidates, ignore_keys=ignore_keys, unreadable_handlers=unreadable)
