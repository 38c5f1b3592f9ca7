"""`flowhooks engines coverage`: compare the deployed definitions of engines with the handlers."""

from __future__ import annotations

import os
import time
from contextlib import closing
from typing import TYPE_CHECKING

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.errors import SettingsError
from flowhooks.ledger.processes import handlers_run_by
from flowhooks.ledger.reader import Reader
from flowhooks.model.engine import ProcessDefinition
from flowhooks.observability import logging
from flowhooks.operations.coverage import coverage
from flowhooks.operations.json.engines import coverage_to_json
from flowhooks.operations.lookup import build_lookup
from flowhooks.settings import database_url
from flowhooks.settings.secrets import settings_redactor
from flowhooks.settings.types import format_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.operations.coverage import Coverage, DefinitionCoverage
    from flowhooks.settings import Settings


@click.command("coverage", short_help="Find deployed definitions, versions and conclusions that no handler takes.")
@click.option("--source", type=utf8, default="", metavar="NAME", help="Only this source [default: all with an engine].")
@click.option("--fresh", is_flag=True, help="Ask the engines now, instead of using what they answered last.")
@click.option("--all", "everything", is_flag=True, help="Also list the definitions that handlers take.")
@json_option
@settings_options
def coverage_command(settings: Settings, *, source: str, fresh: bool, everything: bool, as_json: bool) -> None:
    r"""Compare the deployed definitions of engines with the handlers that are installed now.

    A definition is covered if handlers listen to its key, or to a class that its events had. They must also take its
    latest version, and each version and conclusion of its events in the last 30 days. Keys in
    routing.ignore_process_keys and conclusions in routing.ignore_conclusions need no handler. A handler for every
    event does not cover a definition, as its events are parked nevertheless.

    \b
    Examples:
      flowhooks engines coverage
      flowhooks engines coverage --fresh --source oa
      flowhooks engines coverage --json | jq -r '.definitions[] | select(.covered | not) | .key'

    Exit codes: 0 everything is covered, 1 something is not, or the definitions of an engine are not known,
    2 wrong usage.
    """
    asked = [name for name, entry in settings.sources.items() if entry.engine is not None]
    if source and source not in asked:
        raise SettingsError(f"no source {format_line(source)} with an engine is configured")
    # Log at critical only: the printed result has what matters.
    logging.configure("critical", "text", redact=settings_redactor(settings, os.environ))
    definitions, errors = _ask(settings, source) if fresh and asked else (None, {})
    _, plugins = operations_client.load_plugins(settings)
    with closing(Reader(database_url(settings))) as reader:
        executed = handlers_run_by(reader.live_processes(settings.ledger.heartbeat_timeout))
        lookup = build_lookup(
            plugins, reader.registered_handlers(), settings.routing.ignore_process_keys, executed_handlers=executed
        )
        found = coverage(
            reader,
            lookup.router,
            settings,
            time.time_ns() // 1000,
            source=source,
            fresh=definitions,
            errors=errors,
        )
    if as_json:
        output.print_json(coverage_to_json(found))
    else:
        _print(found, everything=everything)
    if not found.is_complete:
        raise click.exceptions.Exit(1)


def _ask(settings: Settings, source: str) -> tuple[Mapping[str, Sequence[ProcessDefinition]], Mapping[str, str]]:
    """Return the definitions that the engines have now, and why engines did not answer."""
    done = operations_client.run_operation(
        settings, "read_definitions", {"source": source} if source else {}, asks_engines=True
    )
    answered = [entry for entry in done["sources"] if not entry["error"]]
    definitions = {
        entry["source"]: [ProcessDefinition(**definition) for definition in entry["definitions"]] for entry in answered
    }
    return definitions, {entry["source"]: entry["error"] for entry in done["sources"] if entry["error"]}


def _print(found: Coverage, *, everything: bool) -> None:
    shown = [definition for definition in found.definitions if everything or not definition.is_covered]
    if shown:
        output.print_table(
            ("source", "definition", "handlers", "not covered"),
            [
                (
                    definition.source,
                    _definition_cell(definition),
                    "\n".join(definition.handlers) or "-",
                    "\n".join(trouble_texts(definition)) or "-",
                )
                for definition in shown
            ],
            free_text=("not covered",),
        )
        output.print_line()
    for unread in found.unread:
        why = unread.error or "the engine was not asked yet; --fresh asks it now"
        output.print_line(f"The definitions of {unread.source} are not known: {why}", style="red")
    count = len(found.definitions)
    if not count and not found.unread:
        output.print_line("There is no definition to compare.")
    elif count:
        output.print_line(f"{output.pluralize(count, 'definition')}, {found.uncovered:,} not covered.")


def _definition_cell(definition: DefinitionCoverage) -> str:
    lines = [f"{output.escape_newlines(definition.key)} v{definition.version}"]
    if definition.name:
        lines.append(f"  {output.escape_newlines(definition.name)}")
    if definition.tenant_id:
        lines.append(f"  tenant {output.escape_newlines(definition.tenant_id)}")
    return "\n".join(lines)


def trouble_texts(definition: DefinitionCoverage) -> list[str]:
    """Return what is not covered, one line for each reason."""
    lines = ["no handler listens to it"] if definition.no_handler else []
    if definition.ignored:
        lines.append("needs no handler (routing.ignore_process_keys)")
    lines += [f"no versions= takes version {version}" for version in definition.versions]
    lines += [
        f"no handler takes the conclusion {entry.conclusion!r} of {output.pluralize(entry.events, 'event')}"
        for entry in definition.conclusions
    ]
    return lines
