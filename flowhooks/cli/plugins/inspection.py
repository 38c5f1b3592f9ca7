"""The plugins as a server that starts now would have them, looked at here or in a new process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from flowhooks.cli.operations_client import load_plugins
from flowhooks.errors import FlowhooksError, SettingsError
from flowhooks.ledger import database
from flowhooks.ledger.reader import Reader
from flowhooks.observability import logging
from flowhooks.operations.plugin_status import list_plugins
from flowhooks.settings import database_url
from flowhooks.settings.secrets import plugin_redactor
from flowhooks.settings.types import did_you_mean
from flowhooks.text import command_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flowhooks.cli.options import SettingsSource
    from flowhooks.operations.plugin_status import PluginStatus
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import Settings


class Inspection(NamedTuple):
    """What there is.

    Attributes:
        plugins: what was loaded.
        statuses: every plugin, also those that are registered but not loaded.
        ledger: whether the ledger was `read`, and `why` not; `""` also where there is none yet.
    """

    plugins: Plugins
    statuses: tuple[PluginStatus, ...]
    ledger: dict[str, Any]


def inspect_plugins(settings: Settings) -> Inspection:
    """Load the plugins, and ask the ledger what it remembers of them and keeps for them.

    Raises:
        SettingsError: a folder or schema file that the settings name cannot be used.
    """
    # At critical: what is logged of plugins is in what is printed.
    logging.configure("critical", "text", redact=plugin_redactor(settings.plugins, os.environ))
    _, plugins = load_plugins(settings)
    ignored = settings.routing.ignore_process_keys
    file = database.database_file(database_url(settings))
    if file is not None and not file.exists():
        return Inspection(plugins, list_plugins(plugins, None, ignored, settings=settings), {"read": False, "why": ""})
    try:
        with closing(Reader(database_url(settings))) as reader:
            heartbeat_timeout = settings.ledger.heartbeat_timeout
            statuses = list_plugins(plugins, reader, ignored, heartbeat_timeout=heartbeat_timeout, settings=settings)
            return Inspection(plugins, statuses, {"read": True, "why": ""})
    except FlowhooksError as error:
        return Inspection(
            plugins, list_plugins(plugins, None, ignored, settings=settings), {"read": False, "why": str(error)}
        )


def inspect_in_subprocess(settings_source: SettingsSource) -> dict[str, Any]:
    """What `flowhooks plugins list --json` says in a new process, which sees what was installed since this one began.

    Raises:
        InspectionFailed: it says nothing.
    """
    return query_subprocess("plugins", "list", settings_source=settings_source)


def query_subprocess(*words: str, settings_source: SettingsSource) -> dict[str, Any]:
    """What a command says in a new process, with `--json` and the same settings; its exit code must be 0 or 1.

    Raises:
        InspectionFailed: it says nothing that can be read.
    """
    # -P: nothing is imported from the working folder, as nothing is by the command itself.
    command = [sys.executable, "-P", "-m", "flowhooks", *words, "--json", *settings_source.arguments]
    completed = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8", errors="replace")  # noqa: S603 (ourselves)
    try:
        document = json.loads(completed.stdout)
    except ValueError:
        document = None
    if completed.returncode not in {0, 1} or not isinstance(document, dict):
        reason = completed.stderr.strip().rpartition("\n")[2].removeprefix("Error: ")
        if not reason:
            reason = "it said nothing, so a plugin may have ended it; with FLOWHOOKS_SAFE_MODE=true none is loaded"
        shown_command = command_line(*words)
        raise InspectionFailed(
            f"`{shown_command}` failed in a new process, with exit code {completed.returncode}: {reason}"
        )
    return document


class InspectionFailed(FlowhooksError):
    """What is installed could not be seen in a new process."""


def unknown_plugin(name: str, known: Iterable[str], *, more: str = "") -> SettingsError:
    """The error that there is no plugin of this name, with the name that may have been meant."""
    names = list(known)
    suggestion = did_you_mean(name, names) or (f"; there are {', '.join(names)}" if names else "; there is none at all")
    return SettingsError(f"there is no plugin {name!r}{suggestion}{more}")


def plugins_named(name: str, plugins: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those plugins of `flowhooks plugins list --json` that have this name; else those of the package of this name."""
    return [plugin for plugin in plugins if plugin["name"] == name] or [
        plugin for plugin in plugins if plugin["package"] and _normalize(plugin["package"]) == _normalize(name)
    ]


def _normalize(package: str) -> str:
    """Normalize a package name as PEP 503 does."""
    return package.lower().replace("_", "-").replace(".", "-")
