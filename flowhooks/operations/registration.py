"""Register the loaded handlers in the ledger when a process starts, and recover what earlier processes left.

A command registers only those that got their first deliveries from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flowhooks.ledger import handlers as registered_handlers
from flowhooks.ledger import pauses
from flowhooks.logger import get_logger
from flowhooks.operations.lookup import log_missing
from flowhooks.plugins.source_digests import plugin_versions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.model.handler import Handler
    from flowhooks.model.plugin_version import PluginVersion
    from flowhooks.plugins.plugins import Plugins

log = get_logger(__name__)


class Registration(NamedTuple):
    """The registered handlers, in a server or worker after the loaded ones were registered.

    Attributes:
        routed: the loaded handlers that events are routed to, in addition to the missing ones.
        missing: registered handlers that this process has not loaded.
        retired: ids of the retired handlers.
        suspended: ids of the handlers whose deliveries are suspended, because they are missing or retired.
        changed: ids of the loaded handlers that are new or have other selectors than before.
        versions: the version of the plugin of each loaded handler, by handler id; empty in a command.
    """

    routed: Collection[Handler]
    missing: Sequence[RegisteredHandler]
    retired: frozenset[str]
    suspended: frozenset[str]
    changed: list[str]
    versions: Mapping[str, PluginVersion]


def register(ledger: Ledger, plugins: Plugins, *, is_command: bool = False) -> Registration:
    """Register the loaded handlers, and recover the attempts of processes that are no longer alive.

    A command only reads the registered handlers: it may have other plugins than the servers. Their stored options,
    retired handlers, suspended deliveries and open circuits stay as they are.

    Raises:
        LedgerUnusable: the database cannot be read or written.
    """
    registration = (_read if is_command else _register)(ledger, plugins)
    # If the ledger is shared, another process may have loaded a handler that is missing here.
    log_missing([] if ledger.shared else registration.missing, plugins)
    recovered = ledger.recover(missing_handlers=registration.suspended)
    if any(recovered.values()):
        log.warning("deliveries_recovered", **{f"now_{state}": count for state, count in recovered.items()})
    return registration


def _register(ledger: Ledger, plugins: Plugins) -> Registration:
    handlers = plugins.handlers
    versions_by_plugin = {info.name: info.version for info in reversed(plugins.infos)}
    versions = plugin_versions(handlers, lambda plugin: versions_by_plugin.get(plugin, ""))
    selectors = {known.id: known.selectors for known in ledger.registered_handlers()}
    changed = [handler.id for handler in handlers.values() if selectors.get(handler.id) != handler.selectors]
    missing = ledger.register_handlers(list(handlers.values()), versions)
    with ledger.connection() as connection:
        retired = registered_handlers.retired(connection)
    # A retired handler gets no new deliveries, but its stored deliveries are suspended, too.
    suspended = retired.union(() if ledger.shared else (handler.id for handler in missing))
    return Registration(handlers.values(), missing, retired, suspended, changed, versions)


def _read(ledger: Ledger, plugins: Plugins) -> Registration:
    # A shared ledger has the handlers of its servers. On SQLite a command does what a server that starts now would do.
    routed = {} if ledger.shared else plugins.handlers
    with ledger.connection() as connection:
        registered = registered_handlers.registered_handlers(connection)
        retired = registered_handlers.retired(connection)
        ledger.pauses.replace(pauses.paused(connection))
    missing = [handler for handler in registered if handler.id not in routed]
    suspended = (retired - routed.keys()).union(() if ledger.shared else (handler.id for handler in missing))
    new = routed.keys() - {handler.id for handler in registered} - retired
    return Registration(routed.values(), missing, retired, suspended, sorted(new), {})


def register_new(ledger: Ledger, plugins: Plugins, registration: Registration, now: int) -> None:
    """Register the handlers that got their first deliveries from a command, so that they can be shown and retired.

    Raises:
        Unavailable: the ledger could not be written; the next start registers them.
    """
    if new := [plugins.handlers[handler_id] for handler_id in registration.changed]:
        ledger.write(lambda transaction: registered_handlers.register_new(transaction, new, now))
