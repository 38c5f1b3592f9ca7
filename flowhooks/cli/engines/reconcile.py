"""`flowhooks engines reconcile`: reconcile with engines now, and confirm a large reconciliation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.filters import timestamp
from flowhooks.cli.options import json_option, settings_options, utf8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.settings import Settings


@click.command("reconcile", short_help="Read the history of engines now, and take in what is missing.")
@click.option("--source", type=utf8, metavar="NAME", help="Only the engine of this source [default: all engines].")
@click.option(
    "--since",
    type=timestamp,
    metavar="TIME",
    help="Read the history from TIME on, even if it was read before, such as 2h or 2026-11-24T09:30 (UTC).",
)
@click.option("--declined", is_flag=True, help="Also take in instances that were declined; needs --since.")
@click.option("--dry-run", is_flag=True, help="Show what would be taken in, and change nothing.")
@click.option("--confirm", "confirmed", is_flag=True, help="Take in more instances than max_new; needs --source.")
@click.option("--yes", is_flag=True, help="Skip the confirmation; required without a terminal.")
@json_option
@settings_options
def reconcile_command(
    settings: Settings,
    *,
    source: str | None,
    since: int | None,
    declined: bool,
    dry_run: bool,
    confirmed: bool,
    yes: bool,
    as_json: bool,
) -> None:
    r"""Read the history of engines now, and take in the instances that completed without a callback.

    A server does this every reconcile_every. The command does it at once. With --since it also reads ends before the
    first contact, which are otherwise never taken in. Instances that have an event are not taken in again, whenever
    they ended.

    If more than max_new instances would be taken in, none is, until you confirm: look at them with --dry-run, then
    repeat the command with --confirm, or decline them with `engines decline`. A dry run counts the instances that
    earlier reconciliations have read, too. A confirmation is for the number of instances that the question shows.

    \b
    Examples:
      flowhooks engines reconcile --dry-run
      flowhooks engines reconcile --source oa
      flowhooks engines reconcile --source oa --since 2026-11-24T00:00 --dry-run
      flowhooks engines reconcile --source oa --confirm

    Exit codes: 0 done, 1 an engine could not be read, or instances wait for --confirm, 2 wrong usage.
    """
    if confirmed and not source:
        raise click.UsageError("--confirm needs --source: confirm one engine at a time.")
    if declined and since is None:
        raise click.UsageError("--declined needs --since: the time from which on declined instances are taken in.")
    if confirmed and dry_run:
        raise click.UsageError("Give --dry-run to look, or --confirm to decide.")
    named: dict[str, Any] = {"source": source} if source else {}
    confirmation = None
    if confirmed and not (yes or sys.stdin.isatty()):
        raise click.UsageError("There is no terminal to ask for confirmation: give --yes.")
    arguments = {
        **named,
        **({} if since is None else {"since": since}),
        **({"declined": True} if declined else {}),
        "dry_run": dry_run,
    }
    done: dict[str, Any]
    if not confirmed:
        done = operations_client.run_operation(settings, "reconcile", arguments, asks_engines=True)
    else:
        done, confirmation = _confirm_and_reconcile(settings, named, arguments, yes=yes)
    if as_json:
        output.print_json(done | {"confirmed": confirmation})
    else:
        for entry in done["sources"]:
            output.print_line(result_text(entry, dry_run=dry_run), style="red" if entry["error"] else None)
    if any(entry["error"] or entry["to_confirm"] for entry in done["sources"]):
        raise click.exceptions.Exit(1)


def _confirm_and_reconcile(
    settings: Settings, named: dict[str, Any], arguments: Mapping[str, Any], *, yes: bool
) -> tuple[dict[str, Any], int]:
    """Confirm the waiting instances and reconcile; return the result and the number of confirmed instances."""

    def run_step(name: str, **given: Any) -> dict[str, Any]:
        hint = "no instance was confirmed"
        return operations_client.run_step(settings, name, {**named, **given}, hint, asks_engines=True)

    planned: Mapping[str, Any] = {"instances": 0}
    if "since" not in arguments:
        planned = run_step("confirm_reconciliation", dry_run=True)
    if not planned["instances"]:
        # The instances that a dry run has shown may not be recorded yet: read them first.
        done = run_step("reconcile", **arguments)
        if done["sources"][0]["error"]:
            return done, 0
        planned = run_step("confirm_reconciliation", dry_run=True)
        if not planned["instances"]:
            output.print_line("No instance waits for a confirmation.", err=True)
            return done, 0
    instances = int(planned["instances"])
    if not yes:
        waiting = output.pluralize(instances, "instance", "instances")
        output.confirm(f"{waiting} of {named['source']} will be taken in, and handlers run for them. Continue?")
    # The server may have read more instances since: the answer does not cover them.
    request = {**named, "instances": instances, "seen_until": planned["seen_until"]}
    hint = "the next reconciliation takes the confirmed instances in"
    operations_client.run_step(settings, "confirm_reconciliation", request, hint, asks_engines=True)
    request = {**named, "dry_run": False}
    return operations_client.run_operation(settings, "reconcile", request, asks_engines=True), instances


def result_text(entry: Mapping[str, Any], *, dry_run: bool) -> str:
    """Return the result of one reconciliation in a sentence."""
    parts = [
        f"{output.pluralize(entry['read'], 'finished instance')} read",
        f"{entry['has_event']:,} {'has' if entry['has_event'] == 1 else 'have'} an event",
        f"{entry['taken_in']:,} {'would be taken in' if dry_run else 'taken in'}",
    ]
    if entry["in_grace"]:
        parts.append(f"{entry['in_grace']:,} in grace")
    parts += [f"{count:,} skipped ({rule})" for rule, count in sorted(entry["skipped"].items())]
    text = f"{entry['source']}: {', '.join(parts)}"
    if entry["waiting"]:
        waiting = output.pluralize(entry["waiting"], "instance waits", "instances wait")
        text += f"; {waiting} for the engine to call again"
    if entry["to_confirm"]:
        waiting = output.pluralize(entry["to_confirm"], "instance waits", "instances wait")
        text += f"; {waiting} for --confirm"
    return f"{text}; stopped: {entry['error']}" if entry["error"] else f"{text}."
