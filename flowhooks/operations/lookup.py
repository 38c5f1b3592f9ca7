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
    """A router over the handlers that are loaded and those that the ledger remembers.

    Attributes:
        router: the look-up.
        absent: the handlers that are remembered and not loaded: `"elsewhere"` if another process runs them, else each
            with what is the matter with its plugin: `"quarantined"`, `"denied"` by the settings, or `"missing"`, which
            it also is where the plugin is loaded but has no such handler any more.
    """

    router: Router
    absent: Mapping[str, str]

    def standing(self, handler_id: str) -> str:
        """`"present"`, `"elsewhere"`, or what is the matter with its plugin."""
        return self.absent.get(handler_id, "present")


def lookup(
    plugins: Plugins, known: Iterable[RegisteredHandler], ignore_keys: Iterable[str], *, run: Collection[str] = ()
) -> Lookup:
    """Make the look-up.

    Args:
        plugins: what is loaded.
        known: what the ledger remembers.
        ignore_keys: values of `processDefinitionKey` whose events need no handler.
        run: ids of the handlers whose deliveries processes that live run.
    """
    missing = [one for one in known if one.id not in plugins.handlers]
    # Of two of one name the first one has the handlers.
    states = {info.name: info.state for info in reversed(plugins.infos)}
    absent: dict[str, str] = {}
    for one in missing:
        state = states.get(one.id.partition(":")[0])
        why = state if state in {"quarantined", "denied"} else "missing"
        absent[one.id] = "elsewhere" if one.id in run else why
    return Lookup(router=build_router(plugins.handlers.values(), missing, ignore_keys), absent=absent)


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
