"""List all plugins, present or missing, with the stored backlog of their handlers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from flowhooks.execution.run_options import resolve_run_options
from flowhooks.ledger.processes import handlers_run_by
from flowhooks.ledger.route_changes import oldest_parked_groups, parked_groups
from flowhooks.ledger.stats import HandlerBacklog, backlog
from flowhooks.operations.deliverable_events import DismissedEvents, dismissed_by_handler
from flowhooks.operations.failing_now import paused_handlers
from flowhooks.operations.lookup import build_lookup
from flowhooks.operations.parked import count_parked_by_handler
from flowhooks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from flowhooks.execution.run_options import RunOptions
    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.pauses import CircuitState
    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.route_changes import ParkedGroup
    from flowhooks.model.handler import Handler
    from flowhooks.model.selectors import Selectors
    from flowhooks.operations.access import Access
    from flowhooks.operations.failing_now import PausedHandler
    from flowhooks.plugins.loading import PluginInfo
    from flowhooks.plugins.plugins import Plugins


_URGENCY: Final = ("quarantined", "missing", "loaded", "elsewhere", "retired", "denied")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerStatus:
    """A handler that is loaded, is registered, or has stored deliveries.

    Attributes:
        id: `plugin:name`.
        availability: `"present"`; `"elsewhere"` if only another process runs the handler; or why it is unavailable:
            `"quarantined"`, `"denied"`, `"missing"` or `"retired"`.
        selectors: selectors, current or of the last load; None if they are no longer stored.
        handler: the loaded handler; None if it is not present.
        backlog: stored deliveries and parked events.
        is_backlog_truncated: whether a limit of what is counted was reached, so that the backlog may be larger.
        paused_at: time when the handler was paused, in microseconds since 1970; None if it is not paused.
        paused_by: the operator who paused it; `""` if not known, and if its circuit is open.
        pause_note: the note of the operator; `""` if there is none.
        circuit: open circuit, if flowhooks paused the handler because its attempts failed; None if the circuit is
            closed.
        dismissed: dismissed events that the handler would accept now; None if there are none.
        damage: which stored values of the handler are damaged; `""` if none is.
        terms: run options from the decorator and the settings; None if the handler is not present.
    """

    id: str
    availability: str
    selectors: Selectors | None
    handler: Handler | None
    backlog: HandlerBacklog
    is_backlog_truncated: bool = False
    paused_at: int | None = None
    paused_by: str = ""
    pause_note: str = ""
    circuit: CircuitState | None = None
    dismissed: DismissedEvents | None = None
    terms: RunOptions | None = None
    damage: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginStatus:
    """A plugin that was found, or that only has registered handlers.

    Attributes:
        name: name of the plugin.
        state: `"loaded"`, `"quarantined"` or `"denied"` if the plugin was found; otherwise `"missing"`, `"elsewhere"`
            if other processes run all of its handlers that are not retired, or `"retired"` if all are retired and
            deliveries are still stored for them.
        info: result of loading the plugin; None if it was not found.
        handlers: handlers of the plugin, sorted by id.
    """

    name: str
    state: str
    info: PluginInfo | None
    handlers: tuple[HandlerStatus, ...]


def list_plugins(
    plugins: Plugins,
    reader: Reader | None,
    ignore_keys: Iterable[str] = (),
    *,
    max_counted: int | None = None,
    heartbeat_timeout: float = 30.0,
    settings: Settings | None = None,
) -> tuple[PluginStatus, ...]:
    """List all plugins; those that were found come first, in the order of registration.

    Args:
        plugins: the plugins that were found.
        reader: the ledger; None if there is none.
        ignore_keys: values of `processDefinitionKey` whose events need no handler.
        max_counted: maximum number of deliveries and parked events of all handlers that are counted; None: all.
        heartbeat_timeout: seconds without a heartbeat after which a process counts as expired.
        settings: source of the operator's run options; None: no options are set.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    registered: list[RegisteredHandler] = reader.registered_handlers() if reader else []
    stored: dict[str, HandlerBacklog] = {}
    dismissed: dict[str, DismissedEvents] = {}
    is_truncated = False
    executed_handlers = handlers_run_by(reader.live_processes(heartbeat_timeout)) if reader else ()
    lookup = build_lookup(plugins, registered, ignore_keys, executed_handlers=executed_handlers)
    damage = {handler.id: handler.damage for handler in registered}
    paused = {handler.id: handler for handler in registered if handler.paused_at is not None}
    operator_pauses: dict[str, PausedHandler] = {}
    if reader:
        by_operators = {handler.id: handler.paused_at or 0 for handler in paused.values() if handler.circuit is None}
        with reader.connection() as connection:
            operator_pauses = {pause.handler: pause for pause in paused_handlers(connection, by_operators)}
            stored = dict(backlog(connection, limit=max_counted))
            groups = (
                parked_groups(connection)
                if max_counted is None
                else [group for group, *_ in oldest_parked_groups(connection, limit=max_counted)]
            )
            is_truncated = max_counted is not None and _is_limit_reached(stored.values(), groups, max_counted)
            if not lookup.router.unreadable_handlers:
                dismissed = dismissed_by_handler(connection, lookup.router)
        # With damaged selectors nothing can be routed, but the handlers are listed with their damage. Selectors of a
        # newer version raise an error.
        is_damaged = any(damage.get(handler_id) for handler_id in lookup.router.unreadable_handlers)
        parked = {} if is_damaged else count_parked_by_handler(lookup.router, groups)
        for handler, events in parked.items():
            stored[handler] = replace(stored.get(handler, HandlerBacklog()), parked=events)
    selectors: dict[str, Selectors | None] = {handler.id: handler.selectors for handler in registered}
    selectors |= {handler.id: handler.selectors for handler in plugins.handlers.values()}
    listed: dict[str, list[HandlerStatus]] = {}
    for handler_id in sorted({*selectors, *stored}):
        listed.setdefault(handler_id.partition(":")[0], []).append(
            HandlerStatus(
                id=handler_id,
                availability=lookup.availability(handler_id) if handler_id in selectors else "retired",
                selectors=selectors.get(handler_id),
                handler=plugins.handlers.get(handler_id),
                backlog=stored.get(handler_id, HandlerBacklog()),
                is_backlog_truncated=is_truncated,
                paused_at=paused[handler_id].paused_at if handler_id in paused else None,
                paused_by=operator_pauses[handler_id].by if handler_id in operator_pauses else "",
                pause_note=operator_pauses[handler_id].note if handler_id in operator_pauses else "",
                circuit=paused[handler_id].circuit if handler_id in paused else None,
                dismissed=dismissed.get(handler_id),
                terms=resolve_run_options(loaded, settings or Settings())
                if (loaded := plugins.handlers.get(handler_id))
                else None,
                damage=damage.get(handler_id, ""),
            )
        )
    return (*_found_plugins(plugins.infos, listed), *_missing_plugins(plugins.infos, listed))


def visible_plugins(plugins: Iterable[PluginStatus], access: Access) -> list[PluginStatus]:
    """Return the plugins that an operator sees, as the operator sees them."""
    return [
        replace(plugin, handlers=tuple(_visible(handler, access) for handler in plugin.handlers))
        for plugin in plugins
        if access.sees(plugin.name)
    ]


def _visible(handler: HandlerStatus, access: Access) -> HandlerStatus:
    handler = replace(handler, pause_note=access.reason(handler.pause_note))
    if handler.circuit is None:
        return handler
    return replace(handler, circuit=handler.circuit._replace(reason=access.reason(handler.circuit.reason)))


def sort_by_urgency(plugins: Iterable[PluginStatus]) -> list[PluginStatus]:
    """Sort plugins that need attention first."""
    return sorted(plugins, key=lambda plugin: _URGENCY.index(plugin.state))


def filter_handlers(plugin: PluginStatus, text: str) -> PluginStatus | None:
    """Return a plugin with its handlers whose id has `text`, all if its name has `text`; None if there are none."""
    if not text or text in plugin.name:
        return plugin
    handlers = tuple(handler for handler in plugin.handlers if text in handler.id)
    return replace(plugin, handlers=handlers) if handlers else None


def find_handler(
    plugins: Iterable[PluginStatus], handler_id: str
) -> tuple[PluginStatus, HandlerStatus] | tuple[None, None]:
    """Return a handler with its plugin; twice None if there is no such handler."""
    found = ((plugin, handler) for plugin in plugins for handler in plugin.handlers if handler.id == handler_id)
    return next(found, (None, None))


def slice_handlers(plugins: Iterable[PluginStatus], start: int, max_handlers: int) -> list[PluginStatus]:
    """Return `max_handlers` handlers from number `start`, by plugin. Plugins without handlers are on the first page."""
    page = []
    n_before = 0
    for plugin in plugins:
        handlers = plugin.handlers[max(0, start - n_before) : max(0, start + max_handlers - n_before)]
        if handlers or (not plugin.handlers and start == 0):
            page.append(replace(plugin, handlers=handlers))
        n_before += len(plugin.handlers)
    return page


def is_backlog_truncated(plugins: Iterable[PluginStatus]) -> bool:
    """Tell whether there may be more open deliveries than `list_plugins` counted."""
    return any(handler.is_backlog_truncated for plugin in plugins for handler in plugin.handlers)


def _is_limit_reached(backlogs: Collection[HandlerBacklog], parked: Iterable[ParkedGroup], limit: int) -> bool:
    sums = (
        sum(handler_backlog.dead + handler_backlog.unknown + handler_backlog.running for handler_backlog in backlogs),
        sum(handler_backlog.waiting for handler_backlog in backlogs),
        sum(group.events for group in parked),
    )
    return max(sums) >= limit


def _found_plugins(infos: Iterable[PluginInfo], listed: Mapping[str, list[HandlerStatus]]) -> list[PluginStatus]:
    # If two plugins have the same name, the first one owns the handler ids in the ledger.
    seen: set[str] = set()
    plugins = []
    for info in infos:
        handlers = () if info.name in seen else tuple(listed.get(info.name, ()))
        seen.add(info.name)
        plugins.append(PluginStatus(name=info.name, state=info.state, info=info, handlers=handlers))
    return plugins


def _missing_plugin_state(delivery_statuses: set[str]) -> str:
    """Derive the state of a plugin that was not found from its handlers."""
    if not delivery_statuses:
        return "retired"
    return "elsewhere" if delivery_statuses == {"elsewhere"} else "missing"


def _missing_plugins(infos: Iterable[PluginInfo], listed: Mapping[str, list[HandlerStatus]]) -> list[PluginStatus]:
    found_names = {info.name for info in infos}
    return [
        PluginStatus(
            name=name,
            state=_missing_plugin_state({handler.availability for handler in handlers} - {"retired"}),
            info=None,
            handlers=tuple(handlers),
        )
        for name, handlers in listed.items()
        if name not in found_names
    ]
