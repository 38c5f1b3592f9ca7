"""Print tables, JSON documents and escaped lines.

rich is imported only where it is used, because its import takes as long as a short command.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.clock import to_datetime
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import Console

DEFAULT_WIDTH: Final = 120
"""Width in columns of a table that is not printed to a terminal; COLUMNS overrides it."""
MAX_CELL_CHARS: Final = 2_000
"""Maximum length of a printed value. `--json` prints all of it."""
PROGRESS_DELAY: Final = 1.0
"""Seconds after which a progress bar appears."""


def print_line(text: str = "", *, err: bool = False, style: str | None = None) -> None:
    """Print one line, with control characters and line breaks in `text` escaped.

    Args:
        text: the line.
        err: whether to print to standard error.
        style: a colour, used on a terminal only.
    """
    stream = _open_stream(err=err)
    text = escape_control(text)
    coloured = click.style(text, fg=style) if style and stream.isatty() and not os.environ.get("NO_COLOR") else text
    click.echo(coloured, err=err)


def print_lines(text: str, *, indent: str = "") -> None:
    """Print text of several lines, such as a body or a traceback, with control characters in each line escaped."""
    for part in text.split("\n"):
        print_line(indent + part)


def confirm(question: str) -> None:
    """Ask for confirmation on standard error.

    Raises:
        click.Abort: the answer is not yes.
    """
    click.confirm(escape_control(question), abort=True, err=True)


def print_json(document: Any) -> None:
    """Print one JSON document to standard output, with control characters escaped."""
    click.echo(to_json(document, ascii_only=not _writes_utf8(_open_stream())))


def to_json(document: Any, *, ascii_only: bool = False) -> str:
    """Return `document` as indented JSON, with characters that are not printable escaped."""
    text = json.dumps(document, ensure_ascii=ascii_only, indent=2)
    return "\n".join(escape_control(part) for part in text.split("\n"))


def format_body(body: str) -> str:
    """Return a body for display: indented JSON, or the text unchanged if it is not JSON."""
    try:
        return to_json(json.loads(body))
    except (ValueError, RecursionError):
        return body


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, unbroken: Sequence[str] = ()) -> None:
    """Print a table that fits the terminal. A cell may have several lines; control characters are escaped.

    Args:
        headings: one heading per column.
        rows: one cell per column.
        unbroken: headings of the columns whose cells are not wrapped.
    """
    from rich import box  # noqa: PLC0415 (see the module's docstring)
    from rich.table import Table  # noqa: PLC0415 (as above)
    from rich.text import Text  # noqa: PLC0415 (as above)

    rich_table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        rich_table.add_column(heading, overflow="fold", no_wrap=heading in unbroken)
    for row in rows:
        rich_table.add_row(
            *(Text("\n".join(escape_control(part, MAX_CELL_CHARS) for part in cell.split("\n"))) for cell in row)
        )
    # Remove the trailing padding of the table, which is a nuisance when a line is copied.
    console = _open_console()
    with console.capture() as printed:
        console.print(rich_table)
    _open_stream()
    for row_text in printed.get().splitlines():
        click.echo(row_text.rstrip())


def escape_newlines(value: str) -> str:
    """Escape line breaks in a value, so that it stays on one line of a cell."""
    return value.replace("\n", "\\n")


def pluralize(count: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun, such as `1 event` or `2 events`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def format_time(microseconds: int | None) -> str:
    """Format a time in UTC, to the second; `-` if there is none."""
    return "-" if microseconds is None else to_datetime(microseconds).strftime("%Y-%m-%d %H:%M:%S")


def format_duration(microseconds: int) -> str:
    """Format a duration, such as `12 ms`, `3.4 s`, `2 min 5 s` or `3 h 2 min`."""
    seconds = microseconds / 1_000_000
    if seconds < 1:
        return f"{microseconds / 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 (a minute)
        return f"{seconds:.1f} s"
    minutes, left_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left_seconds} s"


@contextmanager
def progress_bar(what: str, total: Callable[[], int]) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error, if that is a terminal and the work takes longer than `PROGRESS_DELAY`.

    Args:
        what: title of the bar.
        total: returns the total; called only when the bar appears.

    Yields:
        A function to call with the number of newly completed steps.
    """
    bar: Any = None
    done, started = 0, time.monotonic()

    def advance(more: int) -> None:
        nonlocal bar, done
        done += more
        if bar is None and sys.stderr.isatty() and time.monotonic() - started > PROGRESS_DELAY:
            bar = _start_bar(what, total())
        if bar is not None:
            bar.update(0, completed=done)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


def _start_bar(what: str, total: int) -> Any:
    from rich import progress as parts  # noqa: PLC0415 (see the module's docstring)

    columns = (
        parts.TextColumn("{task.description}"),
        parts.BarColumn(),
        parts.MofNCompleteColumn(),
        parts.TimeRemainingColumn(),
    )
    bar = parts.Progress(*columns, console=_open_console(err=True), transient=True)
    bar.add_task(what, total=total)
    bar.start()
    return bar


def _open_console(*, err: bool = False) -> Console:
    from rich.console import Console  # noqa: PLC0415 (see the module's docstring)

    stream = sys.stderr if err else sys.stdout
    terminal = stream.isatty()
    columns = os.environ.get("COLUMNS", "")
    width = None if terminal else int(columns) if columns.isdecimal() and int(columns) > 0 else DEFAULT_WIDTH
    return Console(
        file=stream, width=width, force_terminal=terminal, markup=False, highlight=False, emoji=False, soft_wrap=False
    )


def _writes_utf8(stream: Any) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


def _open_stream(*, err: bool = False) -> Any:
    # Characters that the encoding lacks are escaped: an error message must not fail with an error.
    stream = sys.stderr if err else sys.stdout
    if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
        stream.reconfigure(errors="backslashreplace")
    return stream
