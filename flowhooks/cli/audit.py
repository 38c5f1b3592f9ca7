"""`flowhooks audit`: list operations from the audit log, newest first."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from flowhooks.cli import audit_text, output
from flowhooks.cli.filters import timestamp
from flowhooks.cli.options import json_option, page_options, settings_options, utf8
from flowhooks.ledger import audit
from flowhooks.ledger.reader import Reader
from flowhooks.operations.json.encoding import dataclass_to_json
from flowhooks.settings import database_url
from flowhooks.settings.types import did_you_mean

if TYPE_CHECKING:
    from flowhooks.settings import Settings


@click.command("audit", short_help="List what operators have done.")
@click.option(
    "--target",
    type=utf8,
    metavar="ID",
    help="List only operations on this event (with bulk operations), handler or alert.",
)
@click.option("--actor", type=utf8, metavar="NAME", help="List only what this operator did.")
@click.option("--action", type=utf8, metavar="ACTION", help="List only this action, such as operation, login or start.")
@click.option("--since", type=timestamp, metavar="TIME", help="List only actions at or after TIME, such as 2h.")
@page_options("entries", "entry")
@json_option
@settings_options
def command(
    settings: Settings,
    *,
    target: str | None,
    actor: str | None,
    action: str | None,
    since: int | None,
    limit: int,
    after: str,
    as_json: bool,
) -> None:
    r"""List what operators have done, newest first: time, operator, interface, action and target.

    The console, the JSON API and the commands record every change in the same transaction as the change itself. An
    operation on many events is one entry with its filter, not an entry for each event. Logins, logouts and refused
    logins are listed, and the starts of servers with the plugins and settings that have changed since the last one.
    Times are UTC. With --json, "next" is the value for --after; it is "" at the end.

    \b
    Examples:
      flowhooks audit
      flowhooks audit --target 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11
      flowhooks audit --actor li --action operation --since 7d
      flowhooks audit --limit 500 --json | jq -r '.entries[].actor'

    Exit codes: 0 done, 1 the database cannot be read, 2 wrong usage.
    """
    with closing(Reader(database_url(settings))) as reader, reader.connection() as connection:
        entries = audit.entries(
            connection, limit=limit + 1, before=after, target=target, actor=actor, action=action, since=since
        )
    if action is not None and not entries and action not in audit_text.ACTIONS:
        actions = (
            did_you_mean(action, audit_text.ACTIONS) or f"; the actions are {', '.join(sorted(audit_text.ACTIONS))}"
        )
        raise click.BadParameter(f"no entry has the action {action}{actions}", param_hint="'--action'")
    next_id = entries[limit - 1].id if len(entries) > limit else ""
    del entries[limit:]
    if as_json:
        output.print_json({"entries": [dataclass_to_json(entry) for entry in entries], "next": next_id})
        return
    if not entries:
        is_filtered = bool(after) or any(value is not None for value in (target, actor, action, since))
        output.print_line("No matching entries." if is_filtered else "The audit log is empty.")
        return
    output.print_table(
        ("when (UTC), about", "who", "what"),
        [
            (
                f"{output.format_time(entry.at)}\n  {output.escape_newlines(entry.target)}",
                output.escape_newlines(audit_text.actor_text(entry)),
                output.escape_newlines(audit_text.describe(entry)),
            )
            for entry in entries
        ],
        free_text=("what",),
    )
    if next_id:
        output.print_line()
        output.print_line(f"There are more entries: add --after {next_id}")
