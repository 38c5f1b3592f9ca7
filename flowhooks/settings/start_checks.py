"""Checks that a server makes of its settings before it starts, or before it applies them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.errors import SettingsError
from flowhooks.settings import types
from flowhooks.settings.definitions import database_url

if TYPE_CHECKING:
    from flowhooks.settings.definitions import Settings


def check_binds(settings: Settings) -> None:
    """Refuse listeners that other machines reach without a credential, unless `insecure` is set.

    Raises:
        SettingsError: there are such listeners; one line per listener, which says what to do.
    """
    if settings.insecure:
        return
    remedies = {
        "listen": "accepts callbacks from other machines, but no credential is configured: add [sources.NAME] to "
        "flowhooks.toml (`flowhooks sources new` prints it), listen on 127.0.0.1, or give --insecure",
        "admin": "lets other machines administer this server, but no operator is configured: add [operators.NAME] to "
        "flowhooks.toml (`flowhooks operators new` prints it), listen on 127.0.0.1, or give --insecure",
    }
    problems = [
        f"{name} = {types.format_value(getattr(settings, name))} {remedies[name]}"
        for name in settings.public_without_credential()
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def check_removed(before: Settings, after: Settings) -> None:
    """Refuse new settings that have no source or no operator left, unless `insecure` is set.

    Raises:
        SettingsError: all sources or all operators were removed; one line each.
    """
    if after.insecure:
        return
    acts = {"sources": ("no source", "send callbacks"), "operators": ("no operator", "administer this server")}
    problems = [
        f"the settings have {none} any more, but {', '.join(sorted(before.credentials(kind)))} may {act} now: without "
        f"{kind} everybody could. The settings file may be empty or cut off: restore its sections [{kind}.NAME], or "
        "restart with --insecure if no credential is required any more"
        for kind, (none, act) in acts.items()
        if before.credentials(kind) and not after.credentials(kind)
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def check_processes(settings: Settings) -> None:
    """Check that the database allows the configured number of processes.

    Raises:
        SettingsError: more than one process is configured, and the database is SQLite.
    """
    if settings.processes > 1 and database_url(settings).startswith("sqlite:"):
        raise SettingsError(
            f"processes = {settings.processes} needs PostgreSQL: only one process may write a SQLite ledger; set "
            "processes to 1, or set database to a PostgreSQL database"
        )
