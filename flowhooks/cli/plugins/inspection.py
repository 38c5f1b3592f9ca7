"""Inspect the plugins as a server started now would load them, in this process or in a new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO

from flowhooks.cli import output
from flowhooks.cli.operations_client import WAITING, load_plugins
from flowhooks.errors import FlowhooksError, SettingsError
from flowhooks.ledger import database
from flowhooks.ledger.reader import Reader
from flowhooks.observability import logging
from flowhooks.operations.plugin_status import list_plugins
from flowhooks.settings import database_url
from flowhooks.settings.secrets import settings_redactor
from flowhooks.settings.types import did_you_mean
from flowhooks.text import command_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flowhooks.cli.options import SettingsSource
    from flowhooks.operations.plugin_status import PluginStatus
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import Settings


POLL_INTERVAL: Final = 0.5
"""Seconds between two looks at the messages of a process that loads plugins."""
MAX_BLOCK_BYTES: Final = 65_536
"""Maximum bytes that are read of them at a time."""


class Inspection(NamedTuple):
    """Result of an inspection.

    Attributes:
        plugins: the loaded plugins.
        statuses: all plugins, including those that are registered and not loaded.
        ledger: whether the ledger was `read`, and `why` not; `why` is also `""` if there is no ledger yet.
    """

    plugins: Plugins
    statuses: tuple[PluginStatus, ...]
    ledger: dict[str, Any]


def inspect_plugins(settings: Settings) -> Inspection:
    """Load the plugins and read their registered handlers and stored deliveries from the ledger.

    Raises:
        SettingsError: a folder or schema file that the settings name cannot be used.
    """
    # Log at critical only: the printed result has the errors of plugins.
    logging.configure("critical", "text", redact=settings_redactor(settings, os.environ))
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
    """Return the output of `flowhooks plugins list --json` from a new process, which sees newly installed packages.

    Raises:
        InspectionFailed: the process printed no result.
    """
    return query_subprocess("plugins", "list", settings_source=settings_source)


def query_subprocess(*words: str, settings_source: SettingsSource) -> dict[str, Any]:
    """Run a command with `--json` and the same settings in a new process; its exit code must be 0 or 1.

    Raises:
        InspectionFailed: the process printed no readable result.
    """
    # -P: import nothing from the working folder, as for the command itself.
    command = [sys.executable, "-P", "-m", "flowhooks", *words, "--json", *settings_source.arguments]
    # Not a pipe: a process that a plugin has left running would keep it open.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as messages:
        completed = _run(command, messages)
        messages.seek(0)
        reason = messages.read().strip().rpartition("\n")[2].removeprefix("Error: ")
    try:
        document = json.loads(completed.stdout)
    except ValueError:
        document = None
    if completed.returncode not in {0, 1} or not isinstance(document, dict):
        if not reason:
            reason = (
                "it printed nothing, so a plugin may have ended the process; FLOWHOOKS_SAFE_MODE=true loads no plugins"
            )
        shown_command = command_line(*words)
        raise InspectionFailed(
            f"`{shown_command}` failed in a new process, with exit code {completed.returncode}: {reason}"
        )
    return document


def _run(command: Sequence[str], messages: TextIO) -> subprocess.CompletedProcess[str]:
    """Run a command that writes its messages into a file; print those about plugins that load slowly meanwhile."""
    position = 0
    with subprocess.Popen(  # noqa: S603 (flowhooks itself)
        command, stdout=subprocess.PIPE, stderr=messages, encoding="utf-8", errors="replace"
    ) as process:
        try:
            while True:
                try:
                    stdout, _ = process.communicate(timeout=POLL_INTERVAL)
                except subprocess.TimeoutExpired:
                    position = _print_waiting(messages.fileno(), position)
                else:
                    return subprocess.CompletedProcess(command, process.returncode, stdout)
        except BaseException:
            process.kill()
            raise


def _print_waiting(file: int, position: int) -> int:
    """Print new messages about plugins that load slowly, and return the position after the complete lines."""
    # Reading moves no position: the process writes at the one that both share.
    block = os.pread(file, MAX_BLOCK_BYTES, position)
    lines = block[: block.rfind(b"\n") + 1]
    for line in lines.decode("utf-8", "replace").splitlines():
        if line.startswith(WAITING):
            output.print_line(line, err=True)
    if not lines and len(block) == MAX_BLOCK_BYTES:  # a part of a longer line
        lines = block
    return position + len(lines)


class InspectionFailed(FlowhooksError):
    """The plugins could not be inspected in a new process."""


def unknown_plugin(name: str, known: Iterable[str], *, more: str = "") -> SettingsError:
    """Return the error for an unknown plugin name, with a suggestion."""
    names = list(known)
    suggestion = did_you_mean(name, names) or (
        f"; the plugins are {', '.join(names)}" if names else ("; no plugin is installed")
    )
    return SettingsError(f"there is no plugin {name!r}{suggestion}{more}")


def plugins_named(name: str, plugins: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the plugins of `flowhooks plugins list --json` with this name, or those of the package of this name."""
    return [plugin for plugin in plugins if plugin["name"] == name] or [
        plugin for plugin in plugins if plugin["package"] and _normalize(plugin["package"]) == _normalize(name)
    ]


def _normalize(package: str) -> str:
    """Normalize a package name as PEP 503 does."""
    return package.lower().replace("_", "-").replace(".", "-")
