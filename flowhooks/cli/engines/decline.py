"""`flowhooks engines decline`: decide that waiting instances are not taken in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.options import json_option, settings_options, utf8

if TYPE_CHECKING:
    from flowhooks.settings import Settings


@click.command("decline", short_help="Decide that instances that wait for an operator are not taken in.")
@click.option("--source", type=utf8, metavar="NAME", required=True, help="The engine of this source.")
@click.option(
    "--note",
    type=utf8,
    default="",
    metavar="TEXT",
    help="Reason, kept beside each instance and in the audit log.",
)
@click.option("--dry-run", is_flag=True, help="Show how many instances wait, and change nothing.")
@click.option("--yes", is_flag=True, help="Skip the confirmation; required without a terminal.")
@json_option
@settings_options
def decline_command(settings: Settings, *, source: str, note: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    r"""Decide that the instances that wait for an operator are not taken in.

    If a reconciliation would take in more than max_new instances, they wait: `engines reconcile --confirm` takes them
    in, and this command declines them. Declined instances become no event. They stay recorded with the rule
    declined and your note, and `engines show INSTANCE` shows both. A callback of the engine is still accepted.

    To take declined instances in later, run `engines reconcile --source NAME --since TIME --declined`.

    \b
    Examples:
      flowhooks engines decline --source oa --dry-run
      flowhooks engines decline --source oa --note "handled by the old system"

    Exit codes: 0 done, 1 the instances could not be declined, 2 wrong usage.
    """
    if not (dry_run or yes or sys.stdin.isatty()):
        raise click.UsageError("There is no terminal to ask for confirmation: give --yes.")

    name, preview = "decline_reconciliation", {"source": source, "dry_run": True}
    done = operations_client.run_step(settings, name, preview, "nothing was declined", asks_engines=True)
    if done["instances"] and not dry_run:
        if not yes:
            waiting = output.pluralize(done["instances"], "instance")
            output.confirm(f"{waiting} of {source} will not be taken in. Continue?")
        # The server may have read more instances since: the answer does not cover them.
        shown = {"instances": done["instances"], "seen_until": done["seen_until"]}
        request = {"source": source, "note": note, **shown}
        done = operations_client.run_operation(settings, name, request, asks_engines=True)
    if as_json:
        output.print_json(done)
    elif not done["instances"]:
        output.print_line(f"No instance of {source} waits for an operator.")
    else:
        verb = "would be declined" if dry_run else "declined"
        output.print_line(f"{source}: {output.pluralize(done['instances'], 'instance')} {verb}.")
