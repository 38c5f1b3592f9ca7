"""`flowhooks engines show`: what flowhooks and the engines know of a process instance."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.events.list import print_events
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import engine_queries
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.search import summarize
from flowhooks.model.event import Origin
from flowhooks.operations.json.engines import book_entry_to_json
from flowhooks.operations.json.events import event_to_json, late_callbacks_to_json
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.ledger.engine_queries import BookEntry
    from flowhooks.ledger.late_callbacks import LateCallback
    from flowhooks.settings import Settings

MAX_EVENTS: Final = 50
"""Maximum number of events of the instance that are shown, newest first."""


@click.command("show", short_help="Show what is known of a process instance.")
@click.argument("instance", type=utf8, metavar="INSTANCE")
@click.option("--source", type=utf8, default="", metavar="NAME", help="Only this source [default: all with an engine].")
@json_option
@settings_options
def show_command(settings: Settings, *, instance: str, source: str, as_json: bool) -> None:
    r"""Show what became of a process instance: in the ledger, and in the engine.

    The command prints what flowhooks read of the instance in the engine's history, its events, the callbacks that
    arrived after it had been taken in, and the present answer of the engine. Times are UTC.

    \b
    Examples:
      flowhooks engines show 4711
      flowhooks engines show 4711 --source oa --json

    Exit codes: 0 something is known of the instance, 1 nothing is, 2 wrong usage.
    """
    with closing(Reader(database_url(settings))) as reader:
        with reader.connection() as connection:
            sources = {source} if source else {*settings.sources, *engine_queries.positions(connection)}
            book = engine_queries.book_entries(connection, sources, instance)
        events = reader.find(EventFilter(flow_instance_id=instance), limit=MAX_EVENTS)
        events = [stored for stored in events if source in {"", stored.event.source}]
        late = {stored.event.id: found for stored in events if (found := reader.late_callbacks(stored.event.id))}
    answers, why = _ask(settings, instance, source)
    if as_json:
        output.print_json(
            {
                "instance": instance,
                "book": [book_entry_to_json(entry) for entry in book],
                "events": [event_to_json(stored) for stored in events],
                "late_callbacks": {event_id: late_callbacks_to_json(found) for event_id, found in late.items()},
                "engines": answers,
                "not_asked": why,
            }
        )
    else:
        for entry in book:
            _print_book_entry(entry)
        if events:
            output.print_line("events")
            print_events([summarize(stored) for stored in events])
            for stored in events:
                if stored.event.origin == Origin.RECONCILED:
                    output.print_line(f"{stored.event.id} was taken in from the engine's history.")
            _print_late(late)
        for answer in answers:
            output.print_line(_answer_text(answer))
        if why:
            output.print_line(f"The engines were not asked: {why}", err=True)
    known = any(answer["status"] in {"finished", "running"} for answer in answers)
    if not (book or events or known):
        if not as_json:
            output.print_line(f"Nothing is known of the process instance {instance}.", err=True)
        raise click.exceptions.Exit(1)


def _ask(settings: Settings, instance: str, source: str) -> tuple[list[dict[str, Any]], str]:
    """Return what the engines say, and why they could not be asked."""
    if not any(entry.engine is not None for entry in settings.sources.values()):
        return [], "the settings have no engine"
    arguments = {"instance": instance, **({"source": source} if source else {})}
    try:
        done = operations_client.run_operation(settings, "ask_engine", arguments, asks_engines=True)
    except FlowhooksError as error:
        return [], str(error)
    return list(done["answers"]), ""


def _print_book_entry(entry: BookEntry) -> None:
    output.print_line(f"read in the history of {entry.source}: {_disposition_text(entry)}")
    for word, value in (
        ("ended", f"{output.format_time(entry.ended_at)}, {entry.end_state}"),
        ("started", None if entry.started_at is None else output.format_time(entry.started_at)),
        ("key", entry.process_definition_key),
        ("version", None if entry.process_definition_version is None else str(entry.process_definition_version)),
        ("conclusion", entry.conclusion),
        ("tenant", entry.tenant_id),
        ("called by", entry.parent_id),
        ("first read", output.format_time(entry.first_seen_at)),
        ("detail", entry.detail or None),
        ("damaged", entry.damage or None),
    ):
        if value is not None:
            output.print_line(f"  {word:<14} {value}")


def _disposition_text(entry: BookEntry) -> str:
    if entry.disposition == "skipped":
        return f"skipped, rule {entry.rule}"
    if entry.disposition == "in_grace":
        return "waits for its callback until its grace ends"
    return f"has event {entry.event_id}"


def _print_late(late: Mapping[str, list[LateCallback]]) -> None:
    for event_id, callbacks in late.items():
        for callback in callbacks:
            again = f" and {output.pluralize(callback.repeats, 'time')} more" if callback.repeats else ""
            output.print_line(
                f"late callback for {event_id}, received {output.format_time(callback.received_at)}{again}"
            )
            output.print_lines(output.format_body(callback.body), indent="    ")


def _answer_text(answer: Mapping[str, Any]) -> str:
    name = f"engine {answer['source']} says"
    match answer["status"]:
        case "running":
            return f"{name}: it is running."
        case "absent":
            return f"{name}: it does not know the instance; it never existed, or its history was deleted."
        case "failed":
            return f"{name} nothing: {answer['error']}"
    parts = [f"{answer['end_state']} at {answer['ended_at']}"]
    if answer["process_definition_key"]:
        parts.append(f"key {answer['process_definition_key']}")
    if answer["conclusion"]:
        parts.append(f"conclusion {answer['conclusion']}")
    return f"{name}: {', '.join(parts)}."
