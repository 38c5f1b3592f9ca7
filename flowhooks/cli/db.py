"""`flowhooks db`: the database's tables."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowhooks.cli import output
from flowhooks.cli.db_maintenance import backup_command, purge_command
from flowhooks.cli.operations_client import EXIT_INTERRUPTED, lock_owner
from flowhooks.cli.options import SettingsSource, json_option, settings_options
from flowhooks.errors import LedgerUnusable
from flowhooks.execution.runners.required import procrastinate_schema_of
from flowhooks.ledger import database
from flowhooks.ledger.lock import acquire_lock
from flowhooks.ledger.upgrade import upgrade
from flowhooks.operations import copy
from flowhooks.settings import addresses, database_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowhooks.operations.copy import CopyResult
    from flowhooks.settings import Settings


@click.group("db", short_help="Look after the database.")
def command() -> None:
    """Look after the database: bring its tables up to this version, purge it, back it up, copy it elsewhere."""


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
    lock = acquire_lock(url)
    try:
        before, after = upgrade(url)
        jobs = procrastinate_schema_of(settings).upgrade(url) if settings.runner.kind == "procrastinate" else 0
    finally:
        if lock is not None:
            lock.release()
    name = database.display_name(url)
    if before is None:
        output.print_line(f"Made {name}, with its tables at version {after}.")
    elif before == after:
        output.print_line(f"{name} was at version {after} already; nothing was changed.")
    else:
        output.print_line(f"Upgraded {name} from version {before} to {after}.")
    if jobs:
        output.print_line(f"Brought the tables of jobs up to the Procrastinate that is installed ({jobs} steps).")


def _database_argument(_context: click.Context, _argument: click.Parameter, value: str) -> str:
    """The URL of a database that is given as an argument, which may hold a password, and so is never repeated."""
    try:
        url = addresses.database_url(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not database.is_readable(url):
        raise click.BadParameter("it is no URL; write postgresql://USER@HOST:PORT/DATABASE")
    return url


@command.command("copy", short_help="Copy all of it elsewhere.", context_settings={"allow_extra_args": True})
@click.argument("source", callback=_database_argument)
@click.argument("target", callback=_database_argument)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Read settings from FILE [default: ./flowhooks.toml, if there is one]. Neither database is taken from them.",
)
@json_option
@click.pass_context
def copy_command(context: click.Context, *, source: str, target: str, config: Path | None, as_json: bool) -> None:
    r"""Copy the ledger SOURCE into the empty database TARGET, all that is open included, and verify the copy.

    Each is a file, or postgresql://USER@HOST/DATABASE. TARGET's tables are made first. Nobody may use either of them
    meanwhile: stop the servers. If it was cut off, the same command goes on: what is there is compared, and kept. A
    TARGET that holds anything else is refused. SOURCE stays as it is. Leave passwords to PGPASSWORD or ~/.pgpass.

    \b
    Examples:
      flowhooks db copy flowhooks.db postgresql://flowhooks@db.example.com/flowhooks
      flowhooks db copy postgresql://flowhooks@db.example.com/flowhooks sqlite:////var/lib/flowhooks/flowhooks.db

    Exit codes: 0 the copy is true and its books balance, 1 trouble, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    if context.args:
        raise click.UsageError("Give two databases: SOURCE and TARGET.")
    if database.is_same_database(source, target):
        raise click.UsageError("SOURCE and TARGET are the same database.")
    settings = SettingsSource(config=config, options={"database": None}).load()
    if (file := database.database_file(source)) is not None and not file.exists():
        raise LedgerUnusable(f"there is no database at {file}")
    try:
        with _lock_database(settings, source), _lock_database(settings, target):
            result = copy.copy(source, target, stale_after=settings.ledger.stale_after, progress=output.progress_bar)
    except KeyboardInterrupt:
        output.print_line("Stopped; the same command goes on.", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
    _print_report(result, source=database.display_name(source), target=database.display_name(target), as_json=as_json)
    if not result.books.is_consistent:
        raise SystemExit(1)


@contextmanager
def _lock_database(settings: Settings, url: str) -> Iterator[None]:
    """Keep everybody else from a database that is a file."""
    settings = replace(settings, database=url)
    if (holder := lock_owner(settings)) is not None:
        server = f", a server ({holder.admin})" if holder.admin else ""
        raise LedgerUnusable(
            f"{database.display_name(url)} is in use by process {holder.pid}{server}: stop it, then copy again"
        )
    lock = acquire_lock(url)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _print_report(result: CopyResult, *, source: str, target: str, as_json: bool) -> None:
    if as_json:
        output.print_json(
            {
                "source": source,
                "target": target,
                "made": result.made,
                "tables": {name: asdict(table) for name, table in result.tables.items()},
                "balanced": result.books.is_consistent,
                "trouble": result.books.trouble,
            }
        )
        return
    output.print_table(
        ("table", "rows", "kept", "digest"),
        [
            (name, f"{table.rows:>12,}", f"{table.kept:>12,}", table.digest[:16])
            for name, table in result.tables.items()
        ],
    )
    output.print_line()
    for problem in result.books.trouble:
        output.print_line(f"trouble: {problem}", style="red")
    output.print_line(f"{target} holds the same as {source}: every count and every digest agrees.")
    output.print_line(
        "The books balance." if result.books.is_consistent else "The books do not balance, as they did not before."
    )


command.add_command(backup_command)
command.add_command(purge_command)
