"""Register the loaded handlers in the ledger when a process starts, and recover what earlier processes left.

A command registers none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flowhooks.ledger import handlers as registered_handlers
from flowhooks.ledger import pauses
from flowhooks.logger import get_logger
from flowhooks.operations.lookup import log_missing
from flowhooks.plugins.source_digests import plugin_versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.model.plugin_version import PluginVersion
    from flowhooks.plugins.plugins import Plugins

log = get_logger(__name__)


class Registration(NamedTuple):
    """The registered handlers, in a server or worker after the loaded ones were registered.

    Attributes:
        missing: registered handlers that this process has not loaded.
        retired: ids of the retired handlers.
        absent: ids of the handlers whose deliveries are suspended, because they are missing or retired.
        changed: ids of the loaded handlers that are new or have other selectors than before; empty in a command.
        versions: the version of the plugin of each loaded handler, by handler id; empty in a command.
    """

    missing: Sequence[RegisteredHandler]
    retired: frozenset[str]
    absent: frozenset[str]
    changed: list[str]
    versions: Mapping[str, PluginVersion]


def register(ledger: Ledger, plugins: Plugins) -> Registration:
    """Register the loaded handlers, and recover the attempts of processes that are no longer alive.

    Raises:
        LedgerUnusable: the database cannot be written.
    """
    handlers = plugins.handlers
    versions_by_plugin = {info.name: info.version for info in reversed(plugins.infos)}
    versions = plugin_versions(handlers, lambda plugin: versions_by_plugin.get(plugin, ""))
    selectors = {known.id: known.selectors for known in ledger.registered_handlers()}
    changed = [handler.id for handler in handlers.values() if selectors.get(handler.id) != handler.selectors]
    missing = ledger.register_handlers(list(handlers.values()), versions)
    with ledger.connection() as connection:
        retired = registered_handlers.retired(connection)
    # A retired handler gets no new deliveries, but its stored deliveries are suspended, too.
    # If the ledger is shared, another process may have loaded a handler that is missing here.
    unavailable = [] if ledger.shared else missing
    absent = frozenset(handler.id for handler in unavailable) | retired
    log_missing(unavailable, plugins)
    _recover(ledger, absent)
    return Registration(missing, retired, absent, changed, versions)


def read_registration(ledger: Ledger, plugins: Plugins) -> Registration:
    """Return the registered handlers for a command, and recover the attempts of processes that are no longer alive.

    A command may have other plugins than the servers, for example on another machine. So it registers no handler, and
    leaves the stored `retry=` of handlers, retired handlers, suspended deliveries and open circuits as they are. On a
    shared ledger, all registered handlers are `missing`, because those of the servers count.

    Raises:
        LedgerUnusable: the database cannot be read or written.
    """
    with ledger.connection() as connection:
        registered = registered_handlers.registered_handlers(connection)
        retired = registered_handlers.retired(connection)
        ledger.pauses.replace(pauses.paused(connection))
    loaded = frozenset() if ledger.shared else plugins.handlers.keys()
    missing = [handler for handler in registered if handler.id not in loaded]
    unavailable = [] if ledger.shared else missing
    # If the next start loads a retired handler, it registers the handler again.
    absent = frozenset(handler.id for handler in unavailable) | (retired - loaded)
    log_missing(unavailable, plugins)
    _recover(ledger, absent)
    return Registration(missing, retired, absent, [], {})


def _recover(ledger: Ledger, absent: frozenset[str]) -> None:
    recovered = ledger.recover(missing_handlers=absent)
    if any(recovered.values()):
        log.warning("deliveries_recovered", **{f"now_{state}": count for state, count in recovered.items()})
