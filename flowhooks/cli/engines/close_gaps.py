"""`flowhooks engines close-gaps`: close gaps in the history of an engine after an operator has looked at them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.options import json_option, settings_options, utf8

if TYPE_CHECKING:
    from flowhooks.settings import Settings


@click.command("close-gaps", short_help="Close gaps in the history of an engine that you have looked at.")
@click.option("--source", type=utf8, metavar="NAME", required=True, help="The engine of this source.")
@click.option("--note", type=utf8, default="", metavar="TEXT", help="Reason, kept in the audit log.")
@click.option("--dry-run", is_flag=True, help="Show how many gaps are open, and change nothing.")
@click.option("--yes", is_flag=True, help="Skip the confirmation; required without a terminal.")
@json_option
@settings_options
def close_gaps_command(settings: Settings, *, source: str, note: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    r"""Close the gaps in the history of an engine, after you have looked at them.

    A gap is an interval of the history that could not be read. flowhooks closes it when it can read the interval after
    all. A gap of history that the engine has deleted stays open; its alert ends a week after the gap was found or last
    extended. First find out which instances ended in the interval, and whether one is missing: `engines list` shows the
    gaps, `engines show INSTANCE` an instance. Then close the gaps with this command. A gap that is found or extended
    later is not closed by it.

    \b
    Examples:
      flowhooks engines close-gaps --source oa --dry-run
      flowhooks engines close-gaps --source oa --note "compared with the archive: nothing is missing"

    Exit codes: 0 done, 1 the gaps could not be closed, 2 wrong usage.
    """
    if not (dry_run or yes or sys.stdin.isatty()):
        raise click.UsageError("There is no terminal to ask for confirmation: give --yes.")

    preview = {"source": source, "dry_run": True}
    done = operations_client.run_step(settings, "close_gaps", preview, "no gap was closed", asks_engines=True)
    if done["gaps"] and not dry_run:
        if not yes:
            output.confirm(f"{output.pluralize(done['gaps'], 'gap')} of {source} will be closed. Continue?")
        # The server may have found more gaps since: the answer does not cover them.
        request = {"source": source, "note": note, "found_until": done["found_until"]}
        done = operations_client.run_operation(settings, "close_gaps", request, asks_engines=True)
    if as_json:
        output.print_json(done)
    elif not done["gaps"]:
        output.print_line(f"No gap of {source} is open.")
    else:
        verb = "would be closed" if dry_run else "closed"
        output.print_line(f"{source}: {output.pluralize(done['gaps'], 'gap')} {verb}.")
