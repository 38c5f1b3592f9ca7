"""`flowhooks db`: the database's tables; it must not know what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowhooks.app import jobs_of, locked
from flowhooks.cli import output
from flowhooks.cli.options import settings_options
from flowhooks.ledger import dialects, upgrade
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from flowhooks.settings import Settings


@click.group("db", short_help="Look after the database.")
def command() -> None:
    """Look after the database: for now, bring its tables up to this version."""


@command.command("upgrade")
@settings_options
def upgrade_command(settings: Settings) -> None:
    r"""Bring the database's tables up to this version of flowhooks; make the database if there is none.

    `flowhooks serve` does the same when it starts. Refused while a server or another command has the database.

    \b
    Examples:
      flowhooks db upgrade
      flowhooks db upgrade --database /var/lib/flowhooks/flowhooks.db

    Exit codes: 0 the tables are at this version, 1 they cannot be brought there, 2 wrong usage.
    """
    url = database_url(settings)
    lock = locked(settings)
    try:
        before, after = upgrade(url)
        jobs = jobs_of(settings).upgrade(url) if settings.runner.kind == "procrastinate" else 0
    finally:
        if lock is not None:
            lock.release()
    name = dialects.shown(url)
    if before is None:
        output.line(f"Made {name}, with its tables at version {after}.")
    elif before == after:
        output.line(f"{name} was at version {after} already; nothing was changed.")
    else:
        output.line(f"Upgraded {name} from version {before} to {after}.")
    if jobs:
        output.line(f"Brought the tables of jobs up to the Procrastinate that is installed ({jobs} steps).")
