"""`flowhooks handlers`: every handler, and which of them are paused; it must not know how any of it is done."""

from __future__ import annotations

import sys
from contextlib import closing
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from flowhooks import messages
from flowhooks.cli import operations_client, output
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.cli.plugins import text
from flowhooks.cli.plugins.inspection import inspect_plugins
from flowhooks.errors import NotFound
from flowhooks.ledger.reader import Reader
from flowhooks.operations.json.plugins import handler_to_json
from flowhooks.settings import database_url
from flowhooks.settings.types import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.operations.plugin_status import HandlerStatus
    from flowhooks.settings import Settings

_ids = click.argument("handlers", type=utf8, nargs=-1, required=True, metavar="ID...")
_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
_yes = click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")


@click.command("list", short_help="Every handler, what waits for it, and whether it is paused or held.")
@json_option
@settings_options
def list_command(settings: Settings, *, as_json: bool) -> None:
    r"""List the handlers that a server that starts now would have, and those that only the ledger remembers.

    What is held has failed again and again, and is paused for it: one of its deliveries is tried now and then, and all
    run when that succeeds, or when it is resumed. Plugins are loaded for the list, as a server loads them. --json has
    all that is known of each handler.

    \b
    Examples:
      flowhooks handlers list
      flowhooks handlers list --json | jq -r '.handlers[] | select(.paused_since) | .id'

    Exit codes: 0 done, 2 wrong usage.
    """
    looked = inspect_plugins(settings)
    handlers = [one for plugin in looked.statuses for one in plugin.handlers]
    plain = [handler_to_json(one) for one in handlers]
    if as_json:
        output.print_json({"handlers": plain, "ledger": looked.ledger})
        return
    if handlers:
        output.print_table(
            ("handler", "standing", "paused since", "runs in", "stored", "listens to"),
            [
                (
                    one.id,
                    one.standing,
                    _paused_text(one),
                    said["isolation"] or "-",
                    text.backlog_text(said["backlog"]).replace(", ", "\n") or "-",
                    text.selectors_text(said["listens"]),
                )
                for one, said in zip(handlers, plain, strict=True)
            ],
            unbroken=("standing", "paused since", "runs in"),
        )
        output.print_line()
    paused = sum(one.paused_at is not None for one in handlers)
    held = sum(one.held is not None for one in handlers)
    output.print_line(
        f"{output.pluralize(len(handlers), 'handler')}, {paused:,} paused{f' ({held:,} held)' if held else ''}."
    )
    if why := looked.ledger["why"]:
        output.print_line(f"Without what the ledger remembers: {why}", err=True)


def _paused_text(one: HandlerStatus) -> str:
    """Since when a handler is paused, and why if it is held."""
    since = output.format_time(one.paused_at)
    if one.held is None:
        return since
    return f"{since}\nheld: {messages.to_printable(one.held.why, 60)}\ntried at {output.format_time(one.held.trial_at)}"


@click.command("pause", short_help="Keep what comes for handlers, and run none of it.")
@_ids
@click.option("--note", type=utf8, default="", metavar="TEXT", help="Why, for those who look later.")
@_dry_run
@_yes
@json_option
@settings_options
def pause_command(
    settings: Settings, *, handlers: tuple[str, ...], note: str, dry_run: bool, yes: bool, as_json: bool
) -> None:
    r"""Have deliveries of these handlers wait, in every process that shares the ledger, until they are resumed.

    Call-backs are taken and stored as always. What runs already goes on to its end; nothing else begins, no retry
    and no probe either. It outlasts restarts. ID may be a pattern. It asks first, unless --yes is given.

    \b
    Examples:
      flowhooks handlers pause contracts:archive_contract --note "the archive is being moved"
      flowhooks handlers pause 'contracts:*' --dry-run
      flowhooks handlers pause 'contracts:*' leave:grant_leave --yes

    Exit codes: 0 done (or paused already), 1 there is no such handler, or other trouble, 2 wrong usage.
    """
    arguments = {"handlers": handlers, **({"note": note} if note else {})}
    _change_pauses(settings, "pause", arguments, dry_run=dry_run, yes=yes, as_json=as_json)


@click.command("resume", short_help="Run what waits for handlers that were paused.")
@_ids
@_dry_run
@_yes
@json_option
@settings_options
def resume_command(settings: Settings, *, handlers: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> None:
    r"""Have deliveries of handlers that were paused, or are held, run again, those first that have waited longest.

    What is ordered runs in its order, and no more at once than may. ID may be a pattern. It asks first, unless
    --yes is given.

    \b
    Examples:
      flowhooks handlers resume contracts:archive_contract
      flowhooks handlers resume '*' --dry-run

    Exit codes: 0 done (or not paused), 1 there is no such handler, or other trouble, 2 wrong usage.
    """
    _change_pauses(settings, "resume", {"handlers": handlers}, dry_run=dry_run, yes=yes, as_json=as_json)


@click.group(
    "handlers",
    commands=[list_command, pause_command, resume_command],
    short_help="Every handler; pause them, and resume them.",
)
def command() -> None:
    r"""Look at handlers, and keep what comes for them from running for a while.

    Pausing and resuming is done by the running server, or here where none runs.

    \b
    Examples:
      flowhooks handlers list
      flowhooks handlers pause contracts:archive_contract
      flowhooks handlers resume contracts:archive_contract
    """


def _change_pauses(
    settings: Settings, name: str, arguments: Mapping[str, Any], *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("There is no terminal to ask on: give --yes, or --dry-run to see what would be done.")
    _check_patterns(settings, arguments["handlers"])
    arguments = {**arguments, "handlers": list(arguments["handlers"])}
    if not (yes or dry_run):
        planned = operations_client.run_operation(settings, name, {**arguments, "dry_run": True})
        if planned["handlers"]:
            output.confirm(f"{_result_text(name, planned)} Go on?")
    done = operations_client.run_operation(settings, name, {**arguments, "dry_run": dry_run})
    if as_json:
        output.print_json(done)
        return
    output.print_line(_result_text(name, done))
    if name == "resume" and done["waiting"] and not (done["server"] or dry_run):
        output.print_line("No server runs just now: they are run when one starts.")


def _check_patterns(settings: Settings, given: Sequence[str]) -> None:
    with closing(Reader(database_url(settings))) as reader:
        known = [one.id for one in reader.registered_handlers()]
    for word in given:
        if not any(one == word or fnmatchcase(one, word) for one in known):
            meant = did_you_mean(word, known) or "; `flowhooks handlers list` has those that there are"
            raise NotFound(f"the ledger knows no handler {word}{meant}")


def _result_text(name: str, done: Mapping[str, Any]) -> str:
    """What was done, or would be."""
    already = {"pause": "is paused already", "resume": "is not paused"}[name]
    passed = f" Passed over, for it {already}: {', '.join(done['passed_over'])}." if done["passed_over"] else ""
    if not done["handlers"]:
        return f"Nothing to do.{passed}"
    verb = {"pause": "Paused", "resume": "Resumed"}[name]
    verb = f"{'Would be p' if name == 'pause' else 'Would be r'}{verb[1:]}" if done["dry_run"] else verb
    waiting = output.pluralize(done["waiting"], "delivery waits", "deliveries wait")
    if name == "resume":
        waiting = output.pluralize(done["waiting"], "delivery that waited runs", "deliveries that waited run")
    text = f"{verb}: {', '.join(done['handlers'])}. {waiting}"
    if name == "pause" and (running := done["running"]):
        text += f", {running:,} {'runs and goes' if running == 1 else 'run and go'} on to the end"
    return f"{text}.{passed}"
