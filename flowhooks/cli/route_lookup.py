"""Load what a command needs to explain routes: schemas, plugins, and the handlers that the ledger knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.cli import output
from flowhooks.cli.operations_client import load_plugins
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import database
from flowhooks.ledger.processes import handlers_run_by
from flowhooks.ledger.reader import Reader
from flowhooks.operations.lookup import build_lookup
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.operations.lookup import Lookup
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.schema.schemas import Schemas
    from flowhooks.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLookup:
    """The facts that explain a route.

    Attributes:
        schemas: the schemas of callbacks.
        plugins: the plugins that are installed now.
        registered: the handlers that the ledger knows.
        lookup: the look-up over the handlers of both.
    """

    schemas: Schemas
    plugins: Plugins
    registered: list[RegisteredHandler]
    lookup: Lookup


def load_route_lookup(settings: Settings) -> RouteLookup:
    """Load the plugins, and read the ledger if there is one. Needs no running server.

    Raises:
        SettingsError: a folder or schema file that the settings name cannot be used.
    """
    schemas, plugins = load_plugins(settings)
    registered, running = _registered_handlers(settings)
    lookup = build_lookup(plugins, registered, settings.routing.ignore_process_keys, executed_handlers=running)
    return RouteLookup(schemas=schemas, plugins=plugins, registered=registered, lookup=lookup)


def _registered_handlers(settings: Settings) -> tuple[list[RegisteredHandler], frozenset[str]]:
    """Read the registered handlers and the ids of those that are run; empty without a ledger."""
    url = database_url(settings)
    file = database.database_file(url)
    if file is not None and not file.exists():
        return [], frozenset()
    try:
        reader = Reader(url)
    except FlowhooksError as error:
        output.print_line(f"Without the registered handlers: {error}", err=True)
        return [], frozenset()
    try:
        return reader.registered_handlers(), handlers_run_by(reader.live_processes(settings.ledger.heartbeat_timeout))
    finally:
        reader.close()
