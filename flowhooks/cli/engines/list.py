"""`flowhooks engines list`: how far the history of each engine was read."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import click

from flowhooks.cli import output
from flowhooks.cli.options import json_option, settings_options
from flowhooks.ledger.reader import Reader
from flowhooks.operations.json.engines import engines_to_json
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from flowhooks.operations.json.engines import EngineJson
    from flowhooks.settings import Settings

STATES = {
    "never_asked": "not asked yet",
    "failing": "failing",
    "to_confirm": "waits for an operator",
    "up_to_date": "up to date",
}
"""The states of an engine, in words."""


@click.command("list", short_help="List the engines and how far their history was read.")
@json_option
@settings_options
def list_command(settings: Settings, *, as_json: bool) -> None:
    r"""List the engines: the state of each, how far its history was read, and what was found in it.

    *Read until* is the end time, by the engine's clock, until which every finished instance is known. *Missed* counts
    the instances of the last 24 hours that completed without a callback; their events were made from the history.
    Times are UTC. No engine is asked for the list.

    \b
    Examples:
      flowhooks engines list
      flowhooks engines list --json | jq '.engines[] | select(.state != "up_to_date")'

    Exit codes: 0 done, 1 the database cannot be read, 2 wrong usage.
    """
    with closing(Reader(database_url(settings))) as reader, reader.connection() as connection:
        engines = engines_to_json(connection, settings, time.time_ns() // 1000)
    if as_json:
        output.print_json({"engines": engines})
    elif engines:
        output.print_table(
            ("engine", "read until (UTC)", "missed", "finished instances", "problem"),
            [
                (
                    _engine_cell(engine),
                    _position_cell(engine),
                    f"{engine['missed']:,}",
                    _book_cell(engine),
                    _problem(engine),
                )
                for engine in engines
            ],
            free_text=("problem",),
            optional=("problem",),
        )
    else:
        output.print_line("The settings have no engine: a source with a section [sources.NAME.engine] has one.")


def _engine_cell(engine: EngineJson) -> str:
    lines = [engine["source"], f"  {STATES[engine['state']]}"]
    if engine["product"]:
        lines.append(f"  {output.escape_newlines(engine['product'])}")
    if engine["client"] is None:
        lines.append("  not in the settings")
    return "\n".join(lines)


def _position_cell(engine: EngineJson) -> str:
    lines = [_time_text(engine["read_until_at"])]
    if engine["succeeded_at"]:
        lines.append(f"  last success {_time_text(engine['succeeded_at'])}")
    if (skew := engine["skew_seconds"]) is not None:
        lines.append(f"  engine's clock {skew:+.1f} s")
    return "\n".join(lines)


def _book_cell(engine: EngineJson) -> str:
    lines = []
    for entry in engine["book"]:
        rule = f" ({output.escape_newlines(entry['rule'])})" if entry["rule"] else ""
        lines.append(f"{entry['instances']:,} {entry['disposition'].replace('_', ' ')}{rule}")
    return "\n".join(lines) or "-"


def _problem(engine: EngineJson) -> str:
    lines = []
    if engine["failed_since"]:
        failures = output.pluralize(engine["failures"], "failure")
        lines.append(
            f"{failures} since {_time_text(engine['failed_since'])}: {output.escape_newlines(engine['error'])}"
        )
    if count := engine["to_confirm"]:
        waits = output.pluralize(count, "instance waits", "instances wait")
        lines.append(f"{waits} for `flowhooks engines reconcile --source {engine['source']} --confirm`")
    if count := engine["waiting"]:
        waits = output.pluralize(count, "instance waits", "instances wait")
        lines.append(f"{waits} for the engine to call again, because this server could not take callbacks")
    lines += [
        f"gap {_time_text(gap['since'])} to {_time_text(gap['until'])}: {gap['reason']}"
        for gap in engine["gaps"]
        if gap["closed_at"] is None
    ]
    return "\n".join(lines)


def _time_text(timestamp: str | None) -> str:
    """Return a JSON time to the second, as `output.format_time` does."""
    return "-" if timestamp is None else timestamp[:19].replace("T", " ")
