"""`flowhooks db index`: index the declared fields of stored events."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.interruption import EXIT_INTERRUPTED, OperationStopped
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.operations.index_fields import MAX_DUTY_CYCLE
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.settings import Settings


@click.command("index", short_help="Index fields of stored events for the search.")
@click.option("--after", type=utf8, default="", metavar="ID", help="Continue after this event.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@json_option
@settings_options
def index_command(settings: Settings, *, after: str, dry_run: bool, as_json: bool) -> None:
    r"""Index the fields that search.fields names for the stored events, and remove indexed fields that it lacks.

    New events are indexed when they are stored. Run this command after a change of search.fields, once all servers and
    workers use the new value. It works in small steps while the server runs, which uses its own settings. It may be
    repeated at any time.

    \b
    Examples:
      flowhooks db index --dry-run
      flowhooks db index

    Exit codes: 0 done (or nothing to do), 1 error, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    done = _index(settings, after, dry_run=dry_run)
    if as_json:
        output.print_json(done)
    else:
        output.print_line(_result_text(done))


def _index(settings: Settings, after: str, *, dry_run: bool) -> dict[str, Any]:
    def total() -> int:
        with closing(Reader(database_url(settings))) as reader:
            return reader.count_events(EventFilter())

    arguments = {"dry_run": dry_run, **({"after": after} if after else {})}
    try:
        return operations_client.run_operation(
            settings,
            "index_fields",
            arguments,
            progress=("check" if dry_run else "index", total),
            duty_cycle=1.0 if dry_run else MAX_DUTY_CYCLE,
        )
    except OperationStopped as stopped:
        so_far = f" Done so far: {_result_text(stopped.done)}" if stopped.done else ""
        hint = f"; add --after {stopped.after} to continue" if stopped.after else "; run the same command again"
        output.print_line(f"Error: {stopped}{hint}.{so_far}", err=True)
        raise SystemExit(EXIT_INTERRUPTED if stopped.interrupted else 1) from None


def _result_text(done: Mapping[str, Any]) -> str:
    fields = ", ".join(done["fields"]) or "no field"
    verb = "would be indexed" if done["dry_run"] else "indexed"
    unchanged = done["events"] - done["indexed"] - done["damaged"]
    text = f"{output.pluralize(done['indexed'], 'event')} {verb} by {fields}, {unchanged:,} unchanged"
    return (
        f"{text}, {done['damaged']:,} that cannot be read: run `flowhooks verify`." if done["damaged"] else f"{text}."
    )
