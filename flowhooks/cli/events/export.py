"""`flowhooks events export`: write the events of a search as CSV or as JSON lines."""

from __future__ import annotations

import os
import sys
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import output
from flowhooks.cli.filters import filter_options, note_unknown_handler, text_argument
from flowhooks.cli.options import settings_options, utf8
from flowhooks.ledger.reader import Reader
from flowhooks.operations.error_groups import complete_filter
from flowhooks.operations.event_export import MAX_EVENTS, Bodies, EventExport, ExportFormat, ExportRequest
from flowhooks.settings import database_url
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowhooks.ledger.queries import EventFilter
    from flowhooks.settings import Settings

MAX_LIMIT: Final = 100_000_000
"""Maximum of --limit. A file of so many events has hundreds of GiB."""
_STANDARD_OUTPUT: Final = "-"


@click.command("export", short_help="Write events to a file as CSV or JSON lines.")
@filter_options
@text_argument
@click.option(
    "--format",
    "export_format",
    type=click.Choice([item.value for item in ExportFormat]),
    help="csv: one row for each delivery. jsonl: one event on each line, as JSON. [default: csv if FILE ends with "
    ".csv, otherwise jsonl]",
)
@click.option(
    "--output",
    "target",
    type=utf8,
    default=_STANDARD_OUTPUT,
    metavar="FILE",
    help="Write to FILE, which only you can read. An existing FILE is replaced at the end. -: standard output "
    "[default].",
)
@click.option("--bodies", is_flag=True, help="With the bodies.")
@click.option(
    "--masked",
    is_flag=True,
    help="With masked bodies: each value is replaced by another one of the same shape, and each id by another id.",
)
@click.option(
    "--limit",
    "max_events",
    type=click.IntRange(1, MAX_LIMIT),
    default=MAX_EVENTS,
    show_default=True,
    metavar="N",
    help="Maximum number of events, the newest ones.",
)
@click.option("--after", type=utf8, default="", metavar="ID", help="Continue after this event, towards older ones.")
@settings_options
def export_command(
    settings: Settings, *, event_filter: EventFilter, target: str, bodies: bool, masked: bool, **options: Any
) -> None:
    r"""Write events with their deliveries to a file, newest first. Reading needs no server.

    TEXT is the same as --query TEXT, as of `flowhooks events list`.

    CSV is for spreadsheets: UTF-8 with a byte order mark, and a text that a spreadsheet would take for a formula starts
    with an apostrophe. JSON lines are for programs and for `flowhooks.testing.stored_events`, which needs --bodies or
    --masked. --masked keeps what handlers are selected by (class, key, kind, conclusion); texts of errors and notes are
    left out.

    \b
    Examples:
      flowhooks events export --state dead --output dead.csv
      flowhooks events export --masked --limit 100 --output events.jsonl
      flowhooks events export --key leave --since 30d --bodies | jq .body.days

    Exit codes: 0 done, 1 error, 2 wrong usage.
    """
    if bodies and masked:
        raise click.UsageError("--masked writes the bodies, too: leave out --bodies, which would write the real ones.")
    if target == _STANDARD_OUTPUT and sys.stdout.isatty():
        raise click.UsageError("Give --output FILE, or redirect the output: stored text could control your terminal.")
    with closing(Reader(database_url(settings))) as reader:
        request = ExportRequest(
            event_filter=complete_filter(reader, event_filter, settings.search.fields),
            export_format=ExportFormat(options["export_format"] or _format_of(target)),
            bodies=Bodies.MASKED if masked else Bodies.STORED if bodies else Bodies.NONE,
            max_events=options["max_events"],
            before=options["after"],
        )
        export = EventExport(reader, request)
        with _open_target(target) as file:
            for part in export:
                file.write(part)
        if not export.written:
            note_unknown_handler(reader, request.event_filter)
    where = "" if target == _STANDARD_OUTPUT else f" to {escape_control(target)}"
    output.print_line(f"{output.pluralize(export.written, 'event')} written{where}.", err=True)
    if export.next:
        output.print_line(f"There are older events: raise --limit, or add --after {export.next}", err=True)


def _format_of(target: str) -> ExportFormat:
    return ExportFormat.CSV if target.lower().endswith(".csv") else ExportFormat.JSON_LINES


@contextmanager
def _open_target(target: str) -> Iterator[IO[bytes]]:
    """Open a file that gets its name when it is complete. Devices and pipes are written directly."""
    path = Path(target)
    if target == _STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        if path.exists() and (not path.is_file() or os.path.samestat(path.stat(), os.fstat(1))):
            # The second is /dev/stdout, if that is redirected to a file, which is written on from here.
            with os.fdopen(os.dup(1), "wb") if path.is_file() else path.open("wb") as file:
                yield file
            return
        with _replacement(Path(os.path.realpath(path))) as file:  # a link stays one
            yield file
    except OSError as error:
        why = error.strerror or error
        raise click.ClickException(f"cannot write {escape_control(target)}: {why}") from None


@contextmanager
def _replacement(path: Path) -> Iterator[IO[bytes]]:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
