"""`flowhooks db size` and `flowhooks db compact`: how much space the database takes, and how to return some."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.interruption import EXIT_INTERRUPTED
from flowhooks.cli.options import json_option, settings_options
from flowhooks.cli.output import format_megabytes
from flowhooks.clock import Clock
from flowhooks.errors import LedgerUnusable
from flowhooks.ledger.reader import Reader
from flowhooks.operations import compact
from flowhooks.operations.json.storage import storage_to_json
from flowhooks.operations.record_change import ChangeKind
from flowhooks.operations.storage import read_storage
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowhooks.operations.compact import CompactionPlan
    from flowhooks.operations.storage import Storage
    from flowhooks.settings import Settings


@click.command("size", short_help="Show the size of the database, its growth and the free disk.")
@json_option
@settings_options
def size_command(settings: Settings, *, as_json: bool) -> None:
    r"""Show the size of the database, its growth, the free disk, and how long data is kept. It changes nothing.

    The growth is that of the last 24 hours, as far as a server ran: it records the size every 10 minutes. The settings
    of the retention are those that this command reads. The command works beside a server, and without one.

    \b
    Examples:
      flowhooks db size
      flowhooks db size --json | jq .free_disk_bytes

    Exit codes: 0 done, 1 the database cannot be read, 2 wrong usage.
    """
    with closing(Reader(database_url(settings))) as reader:
        storage = read_storage(reader, settings, Clock().now())
    if as_json:
        output.print_json(storage_to_json(storage))
        return
    for name, text in _lines(storage, records_backups=bool(settings.alerts.backup_max_age)):
        output.print_line(f"{name:<18} {text}")


def _lines(storage: Storage, *, records_backups: bool) -> Iterator[tuple[str, str]]:
    yield "database", f"{output.escape_newlines(storage.name)} ({storage.database})"
    yield "size", _size_text(storage)
    if storage.log_bytes is not None:
        yield "write-ahead log", format_megabytes(storage.log_bytes)
    if storage.free_disk_bytes is not None:
        yield "free on its disk", format_megabytes(storage.free_disk_bytes)
    yield "growth", _growth_text(storage)
    oldest = f", the oldest received {output.format_time(storage.oldest_event_at)}" if storage.oldest_event_at else ""
    yield "events", f"{storage.events:,}{oldest}"
    none_recorded = "none is recorded" if records_backups else "not recorded: alerts.backup_max_age is not set"
    last_backup = storage.last_backup_at
    yield "last backup", none_recorded if last_backup is None else output.format_time(last_backup)
    for name, days in storage.retention.items():
        yield f"keep {name.replace('_', ' ')}", output.pluralize(days, "day") if days else "forever"


def _size_text(storage: Storage) -> str:
    if storage.unused_bytes is None:
        return format_megabytes(storage.bytes)
    share = storage.unused_bytes / storage.bytes if storage.bytes else 0.0
    return (
        f"{format_megabytes(storage.bytes)}, of which {format_megabytes(storage.unused_bytes)} ({share:.0%}) are "
        "unused and are filled before the file grows"
    )


def _growth_text(storage: Storage) -> str:
    if storage.growth_bytes is None:
        return "not known: no server has recorded a size an hour ago or earlier"
    text = f"{storage.growth_bytes / 1_000_000:+,.1f} MB since {output.format_time(storage.growth_since)}"
    if storage.days_until_full is None:
        return text
    return f"{text}; at this rate the disk is full in {storage.days_until_full:,.0f} days"


@click.command("compact", short_help="Return unused space of a SQLite ledger to the disk.")
@click.option(
    "--dry-run", is_flag=True, help="Show what would be done, and change nothing. It may run beside a server."
)
@json_option
@settings_options
def compact_command(settings: Settings, *, dry_run: bool, as_json: bool) -> None:
    r"""Rewrite the file of a SQLite ledger without the space of deleted rows, and return the space to the disk.

    The file never becomes smaller by itself: new events fill the space of deleted ones first. So compact it only after
    a large purge, or after a shorter retention has taken effect. Stop the server first: the command is refused while a
    server or another command uses the database. The disk of the database needs free space for two copies of the data,
    which the command checks. If it is interrupted or killed, nothing is lost. On PostgreSQL, autovacuum makes the space
    of deleted rows free for new ones.

    \b
    Examples:
      flowhooks db compact --dry-run
      flowhooks db compact --database /var/lib/flowhooks/flowhooks.db

    Exit codes: 0 done, 1 refused, or the database cannot be read or written; 2 wrong usage, 130 stopped by Ctrl-C.
    """
    url = database_url(settings)
    plan = compact.plan_compaction(url)
    if dry_run or not as_json:
        _print_plan(plan, as_json=as_json)
    if dry_run:
        return
    if (holder := operations_client.lock_owner(settings)) is not None and holder.admin:
        raise LedgerUnusable(
            f"the server (process {holder.pid}, {holder.admin}) uses {plan.database}: stop it, compact the database, "
            "and start it again. Meanwhile callbacks are not accepted"
        )
    try:
        result = compact.compact(url)
    except KeyboardInterrupt:
        output.print_line("Stopped. The data is unchanged.", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
    if as_json:
        output.print_json(asdict(result))
    else:
        output.print_line(
            f"Compacted {output.escape_newlines(result.database)}: {format_megabytes(result.before_bytes)} before, "
            f"{format_megabytes(result.after_bytes)} now, in {output.format_duration(result.microseconds)}."
        )
    operations_client.record_change(settings, ChangeKind.COMPACT)


def _print_plan(plan: CompactionPlan, *, as_json: bool) -> None:
    if as_json:
        output.print_json(asdict(plan))
        return
    free = "" if plan.free_bytes is None else f"; {format_megabytes(plan.free_bytes)} are free"
    output.print_line(
        f"{output.escape_newlines(plan.database)} has {format_megabytes(plan.file_bytes)}, of which "
        f"{format_megabytes(plan.unused_bytes)} are unused. Compacting needs {format_megabytes(plan.needed_bytes)} on "
        f"its disk{free}."
    )
