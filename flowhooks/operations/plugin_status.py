"""Survey: every plugin that is there or was, and what is stored for its handlers; it must not change anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from flowhooks.execution.run_options import resolve_run_options
from flowhooks.ledger.backlog import HandlerBacklog, backlog
from flowhooks.ledger.processes import handlers_run_by
from flowhooks.ledger.reroute import oldest_parked_groups, parked_groups
from flowhooks.operations.deliverable_events import DismissedEvents, dismissed_by_handler
from flowhooks.operations.lookup import lookup
from flowhooks.operations.reroute_parked import parked_by_handler
from flowhooks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowhooks.execution.run_options import RunOptions
    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.pauses import CircuitState
    from flowhooks.ledger.reader import Reader
    from flowhooks.model.handler import Handler
    from flowhooks.model.selectors import Selectors
    from flowhooks.plugins.loading import PluginInfo
    from flowhooks.plugins.plugins import Plugins


_URGENCY: Final = ("quarantined", "missing", "loaded", "elsewhere", "retired", "denied")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A handler that is loaded, that the ledger remembers, or that something is still stored for.

    Attributes:
        id: `plugin:name`.
        standing: `"present"`; `"elsewhere"` if it is not and another process runs it; or why it is not:
            `"quarantined"`, `"denied"`, `"missing"`, or `"retired"`.
        selectors: what it listens to, or did when it was last loaded; None where that was forgotten.
        handler: itself, where it is present.
        backlog: what is stored for it.
        paused_at: since when it is paused, in microseconds since 1970; None: it is not.
        held: why it is, if flowhooks has paused it for having failed again and again.
        dismissed: dismissed events that it would take now, where there are some.
        terms: on which terms it runs, by its own word and the operator's; None where it is not present.
    """

    id: str
    standing: str
    selectors: Selectors | None
    handler: Handler | None
    backlog: HandlerBacklog
    paused_at: int | None = None
    held: CircuitState | None = None
    dismissed: DismissedEvents | None = None
    terms: RunOptions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """A plugin that was found, or that only the ledger remembers.

    Attributes:
        name: its name.
        state: as it was found, `"loaded"`, `"quarantined"` or `"denied"`; else `"missing"`, `"elsewhere"` if other
            processes run all of its handlers that are not retired, or `"retired"` if the ledger has forgotten them
            and something is still stored for them.
        info: what loading it found out; None where it was not found.
        handlers: its handlers, by id.
    """

    name: str
    state: str
    info: PluginInfo | None
    handlers: tuple[Listed, ...]


def survey(
    plugins: Plugins,
    reader: Reader | None,
    ignore_keys: Iterable[str] = (),
    *,
    most: int | None = None,
    stale_after: float = 30.0,
    settings: Settings | None = None,
) -> tuple[Surveyed, ...]:
    """Look at every plugin; those that were found first, in the order in which they were registered.

    Args:
        plugins: what was found.
        reader: the ledger; None where there is none.
        ignore_keys: values of `processDefinitionKey` whose events need no handler.
        most: how many deliveries and parked events are counted at the most; None: all of them.
        stale_after: seconds without a sign of life after which a process counts as dead.
        settings: what the operator says of how handlers run; default: nothing.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    known: list[RegisteredHandler] = reader.registered_handlers() if reader else []
    stored: dict[str, HandlerBacklog] = {}
    dismissed: dict[str, DismissedEvents] = {}
    run = handlers_run_by(reader.live_processes(stale_after)) if reader else ()
    found = lookup(plugins, known, ignore_keys, run=run)
    if reader:
        with reader.connection() as connection:
            stored = dict(backlog(connection, limit=most))
            groups = (
                parked_groups(connection)
                if most is None
                else [group for group, *_ in oldest_parked_groups(connection, limit=most)]
            )
            if not found.router.unreadable_handlers:
                dismissed = dismissed_by_handler(connection, found.router)
        for handler, events in parked_by_handler(found.router, groups).items():
            stored[handler] = replace(stored.get(handler, HandlerBacklog()), parked=events)
    selectors: dict[str, Selectors | None] = {one.id: one.selectors for one in known}
    paused = {one.id: one for one in known if one.paused_at is not None}
    selectors |= {one.id: one.selectors for one in plugins.handlers.values()}
    listed: dict[str, list[Listed]] = {}
    for one in sorted({*selectors, *stored}):
        listed.setdefault(one.partition(":")[0], []).append(
            Listed(
                id=one,
                standing=found.standing(one) if one in selectors else "retired",
                selectors=selectors.get(one),
                handler=plugins.handlers.get(one),
                backlog=stored.get(one, HandlerBacklog()),
                paused_at=paused[one].paused_at if one in paused else None,
                held=paused[one].circuit if one in paused else None,
                dismissed=dismissed.get(one),
                terms=resolve_run_options(loaded, settings or Settings())
                if (loaded := plugins.handlers.get(one))
                else None,
            )
        )
    return (*_found(plugins.infos, listed), *_gone(plugins.infos, listed))


def urgent_first(plugins: Iterable[Surveyed]) -> list[Surveyed]:
    """Those first that somebody should look at."""
    return sorted(plugins, key=lambda one: _URGENCY.index(one.state))


def sought_in(plugin: Surveyed, sought: str) -> Surveyed | None:
    """A plugin with those of its handlers that have `sought` in their id or its name; None if there is nothing."""
    if not sought or sought in plugin.name:
        return plugin
    handlers = tuple(one for one in plugin.handlers if sought in one.id)
    return replace(plugin, handlers=handlers) if handlers else None


def slice_of(found: Iterable[Surveyed], start: int, most: int) -> list[Surveyed]:
    """What belongs on a page of `most` handlers that begins with number `start`; plugins without any on the first."""
    page = []
    passed = 0
    for plugin in found:
        handlers = plugin.handlers[max(0, start - passed) : max(0, start + most - passed)]
        if handlers or (not plugin.handlers and start == 0):
            page.append(replace(plugin, handlers=handlers))
        passed += len(plugin.handlers)
    return page


def cut(plugins: Iterable[Surveyed], most: int) -> bool:
    """Whether there may be more of what is open than `survey` was told to count."""
    stored = [one.backlog for plugin in plugins for one in plugin.handlers]
    sums = (
        sum(one.dead + one.unknown + one.running for one in stored),
        sum(one.waiting for one in stored),
        sum(one.parked for one in stored),
    )
    return max(sums) >= most


def _found(infos: Iterable[PluginInfo], listed: Mapping[str, list[Listed]]) -> list[Surveyed]:
    """Of two plugins of one name the first has the handlers: ids in the ledger are its."""
    seen: set[str] = set()
    surveyed = []
    for info in infos:
        handlers = () if info.name in seen else tuple(listed.get(info.name, ()))
        seen.add(info.name)
        surveyed.append(Surveyed(name=info.name, state=info.state, info=info, handlers=handlers))
    return surveyed


def _state(delivery_statuses: set[str]) -> str:
    """What became of a plugin that was not found, by its handlers that are not retired."""
    if not delivery_statuses:
        return "retired"
    return "elsewhere" if delivery_statuses == {"elsewhere"} else "missing"


def _gone(infos: Iterable[PluginInfo], listed: Mapping[str, list[Listed]]) -> list[Surveyed]:
    here = {info.name for info in infos}
    return [
        Surveyed(
            name=name,
            state=_state({one.standing for one in handlers} - {"retired"}),
            info=None,
            handlers=tuple(handlers),
        )
        for name, handlers in listed.items()
        if name not in here
    ]
