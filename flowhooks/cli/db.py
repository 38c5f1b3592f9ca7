"""`flowhooks db`: manage the database."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.db_index import index_command
from flowhooks.cli.db_storage import compact_command, size_command
from flowhooks.cli.filters import timestamp
from flowhooks.cli.interruption import EXIT_INTERRUPTED, OperationStopped
from flowhooks.cli.options import SettingsSource, json_option, settings_options, utf8
from flowhooks.clock import to_datetime
from flowhooks.errors import FlowhooksError, LedgerUnusable
from flowhooks.execution.runners.required import procrastinate_schema_of
from flowhooks.ledger import database
from flowhooks.ledger.lock import acquire_lock
from flowhooks.ledger.purge import PURGED_BY_DEFAULT, PURGED_ON_REQUEST
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.upgrade import upgrade
from flowhooks.operations import copy
from flowhooks.operations.backup import backup
from flowhooks.operations.purge import MAX_DUTY_CYCLE, cutoffs_from_filter
from flowhooks.settings import addresses, database_url
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowhooks.operations.copy import CopyResult
    from flowhooks.settings import Settings

_STATES: Final = (*PURGED_BY_DEFAULT, *PURGED_ON_REQUEST)


@click.group("db", short_help="Upgrade, purge, index, back up, copy and compact the database.")
def command() -> None:
    """Manage the database: upgrade its tables, purge events, index fields, back it up, copy it, compact it."""


@command.command("upgrade")
@settings_options
def upgrade_command(settings: Settings) -> None:
    r"""Upgrade the database's tables to this version of flowhooks, or create the database.

    On SQLite, `flowhooks serve` does the same when it starts, and the command is refused while a server or another
    command uses the database. On PostgreSQL only this command changes tables, and nothing refuses it: stop all servers
    and workers first.

    \b
    Examples:
      flowhooks db upgrade
      flowhooks db upgrade --database /var/lib/flowhooks/flowhooks.db

    Exit codes: 0 the tables are at this version, 1 they cannot be upgraded, 2 wrong usage.
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
        output.print_line(f"Created {name} with its tables at version {after}.")
    elif before == after:
        output.print_line(f"{name} is at version {after} already; nothing was changed.")
    else:
        output.print_line(f"Upgraded {name} from version {before} to {after}.")
    if jobs:
        output.print_line(f"Upgraded the job tables to the installed version of Procrastinate ({jobs} steps).")


def _database_argument(_context: click.Context, _argument: click.Parameter, value: str) -> str:
    # The URL may hold a password, so no error repeats it.
    try:
        return addresses.database_url(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@command.command(
    "copy", short_help="Copy the ledger into another database.", context_settings={"allow_extra_args": True}
)
@click.argument("source", callback=_database_argument)
@click.argument("target", callback=_database_argument)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Read settings from FILE [default: ./flowhooks.toml if it exists]. The databases are not taken from them.",
)
@json_option
@click.pass_context
def copy_command(context: click.Context, *, source: str, target: str, config: Path | None, as_json: bool) -> None:
    r"""Copy the ledger SOURCE with all its data into the empty database TARGET, and verify the copy.

    SOURCE and TARGET are each a file or postgresql://USER@HOST/DATABASE. The tables of TARGET are created first. Stop
    all servers that use either database. If the copy is interrupted, run the same command again: it compares and keeps
    the rows that were copied. A TARGET with any other data is refused. SOURCE is not changed. Give passwords in
    PGPASSWORD or ~/.pgpass.

    \b
    Examples:
      flowhooks db copy flowhooks.db postgresql://flowhooks@db.example.com/flowhooks
      flowhooks db copy postgresql://flowhooks@db.example.com/flowhooks sqlite:////var/lib/flowhooks/flowhooks.db

    Exit codes: 0 the copy is identical and its counts balance, 1 error, 2 wrong usage, 130 stopped by Ctrl-C.
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
            result = copy.copy(
                source, target, heartbeat_timeout=settings.ledger.heartbeat_timeout, progress=output.progress_bar
            )
    except KeyboardInterrupt:
        output.print_line("Stopped. Run the same command again to continue.", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
    _print_report(result, source=database.display_name(source), target=database.display_name(target), as_json=as_json)
    if not result.books.is_consistent:
        raise SystemExit(1)


@contextmanager
def _lock_database(settings: Settings, url: str) -> Iterator[None]:
    """Lock the database if it is a file."""
    settings = replace(settings, database=url)
    if (holder := operations_client.lock_owner(settings)) is not None:
        server = f", a server ({holder.admin})" if holder.admin else ""
        raise LedgerUnusable(
            f"{database.display_name(url)} is in use by process {holder.pid}{server}: stop the process, then copy again"
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
                "problems": result.books.problems,
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
    for problem in result.books.problems:
        output.print_line(f"problem: {problem}", style="red")
    output.print_line(f"{target} holds the same data as {source}: all counts and digests match.")
    output.print_line(
        "The counts balance."
        if result.books.is_consistent
        else ("The counts do not balance, as they did not in the source.")
    )


@command.command("backup", short_help="Back up a SQLite ledger while the server runs.")
@click.argument("target", type=click.Path(path_type=Path))
@json_option
@settings_options
def backup_command(settings: Settings, *, target: Path, as_json: bool) -> None:
    r"""Copy a consistent snapshot of a SQLite ledger into the new file TARGET, and check the copy.

    The command may run beside the server: every callback answered 2xx before it started is in the copy. TARGET appears
    once the copy is complete, checked and on disk. The command only reads the ledger. With the setting
    alerts.backup_max_age it then records the backup there. On PostgreSQL use pg_dump.

    \b
    Examples:
      flowhooks db backup /backup/flowhooks-2026-11-24.db
      flowhooks db backup "/backup/$(date +%F).db" --json

    Exit codes: 0 the copy is complete and its counts balance, 1 error, 2 wrong usage.
    """
    info = backup(database_url(settings), target, progress=output.progress_bar)
    if as_json:
        output.print_json({**asdict(info), "balanced": None if info.events is None else not info.problems})
    else:
        size = output.format_megabytes(info.bytes)
        events = "" if info.events is None else f", {output.pluralize(info.events, 'event')}"
        output.print_line(
            f"Copied {info.source} to {info.target}: {size}{events}, in {output.format_duration(info.microseconds)}."
        )
        for problem in info.problems:
            output.print_line(f"problem: {problem}", style="red")
        if info.events is None:
            output.print_line("Its tables are of an older version, so its counts were not checked.")
        else:
            output.print_line(
                "The counts balance."
                if not info.problems
                else ("The counts do not balance, and neither do those of the original.")
            )
    if info.problems:
        raise SystemExit(1)
    if settings.alerts.backup_max_age:
        _record(settings, {"name": escape_control(info.target), "size": info.bytes})


def _record(settings: Settings, arguments: Mapping[str, Any]) -> None:
    try:
        operations_client.run_operation(settings, "record_backup", arguments)
    except FlowhooksError as error:
        output.print_line(
            f"The backup is complete, but it is not recorded: {error}. Run `flowhooks db record-backup`.", err=True
        )


@command.command("record-backup", short_help="Record that a backup was made by another tool.")
@click.option("--name", type=utf8, default="", metavar="TEXT", help="Name of the backup, kept in the audit log.")
@json_option
@settings_options
def record_backup_command(settings: Settings, *, name: str, as_json: bool) -> None:
    r"""Record that a complete backup of the ledger was made by another tool, such as pg_dump.

    Run it after the tool has ended without an error. With the setting alerts.backup_max_age, an alert is raised when
    the last recorded backup is too old. `flowhooks db backup` then records its backups by itself.

    \b
    Examples:
      flowhooks db record-backup
      flowhooks db record-backup --name flowhooks.dump

    Exit codes: 0 recorded, 1 the database cannot be written, 2 wrong usage.
    """
    done = operations_client.run_operation(settings, "record_backup", {"name": name})
    if as_json:
        output.print_json(done)
    else:
        output.print_line("The backup is recorded.")


@command.command("purge", short_help="Delete old events.")
@click.option(
    "--older-than",
    type=timestamp,
    required=True,
    metavar="TIME",
    help="Delete events unchanged since TIME, such as 90d or 2026-01-01.",
)
@click.option(
    "--state",
    type=click.Choice(_STATES),
    metavar="STATE",
    help=f"Only events that are {', '.join(_STATES[:-1])} or {_STATES[-1]} [default: the first three].",
)
@click.option(
    "--handler",
    type=utf8,
    metavar="PLUGIN:NAME",
    help="Only events with a delivery for this handler. With --state succeeded or closed, that delivery must be in "
    "this state. With --state dead, all dead deliveries of the event must be for this handler.",
)
@click.option("--key", "process_key", type=utf8, metavar="KEY", help="Only events with this process definition key.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@click.option("--yes", is_flag=True, help="Skip the confirmation; required without a terminal.")
@json_option
@settings_options
def purge_command(
    settings: Settings,
    *,
    older_than: int,
    state: str | None,
    handler: str | None,
    process_key: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    r"""Delete old events with their deliveries and attempts while the server runs. It asks for confirmation first.

    By default it deletes succeeded events, events with a closed delivery, and dismissed events. Dead and parked events
    are deleted only with --state dead or --state parked. Waiting, running and unknown events are never deleted. The
    identities of purged events are kept for a while. A repeated callback of such an event is answered as done and runs
    no handler. Events that an operation counts as failed are kept until the operation has ended.

    \b
    Examples:
      flowhooks db purge --older-than 90d --dry-run
      flowhooks db purge --older-than 90d --yes
      flowhooks db purge --older-than 2026-01-01 --state dead --handler contracts:archive_contract

    Exit codes: 0 done (or nothing to do), 1 error, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError(
            "There is no terminal to ask for confirmation: give --yes, or --dry-run to see what would be done."
        )
    event_filter = EventFilter(until=older_than, state=state, handler=handler, process_key=process_key)
    if not (yes and not dry_run):
        planned = _purge(settings, event_filter, dry_run=True)
        if dry_run or not planned["purged"]:
            _print_result(planned | {"dry_run": dry_run}, as_json=as_json)
            return
        output.confirm(f"{_result_text(planned)} This cannot be undone. Continue?")
    _print_result(_purge(settings, event_filter, dry_run=False), as_json=as_json)


def _purge(settings: Settings, event_filter: EventFilter, *, dry_run: bool) -> dict[str, Any]:
    def total() -> int:
        with closing(Reader(database_url(settings))) as reader:
            return reader.count_purge_candidates(cutoffs_from_filter(event_filter))

    arguments = {"event_filter": event_filter.to_json(), "dry_run": dry_run}
    try:
        return operations_client.run_operation(
            settings,
            "purge",
            arguments,
            progress=("check" if dry_run else "purge", total),
            duty_cycle=1.0 if dry_run else MAX_DUTY_CYCLE,
        )
    except OperationStopped as stopped:
        so_far = f" Done so far: {_result_text(stopped.done)}" if stopped.done else ""
        older_than = to_datetime(event_filter.until or 0).isoformat()
        output.print_line(
            f"Error: {stopped}; run the same command again to continue, with --older-than {older_than}.{so_far}",
            err=True,
        )
        raise SystemExit(EXIT_INTERRUPTED if stopped.interrupted else 1) from None


def _result_text(done: Mapping[str, Any]) -> str:
    deliveries = output.pluralize(done["deliveries"], "delivery", "deliveries")
    verb = "would be purged" if done["dry_run"] else "purged"
    kept = done["events"] - done["purged"]
    text = f"{output.pluralize(done['purged'], 'event')} with {deliveries} {verb}"
    return f"{text}, {kept:,} of that age kept." if kept else f"{text}."


def _print_result(done: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(done)
    else:
        output.print_line(_result_text(done))


for subcommand in (index_command, size_command, compact_command):
    command.add_command(subcommand)
