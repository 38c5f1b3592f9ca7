"""How commands print: tables, one JSON document, lines that no value can break out of.

rich is loaded only where it is used, for it takes as long as a short command.
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
"""Columns of a table that does not go to a terminal, unless COLUMNS says otherwise."""
MAX_CELL_CHARS: Final = 2_000
"""Characters of one value that people are shown; `--json` has all of them."""
PROGRESS_DELAY: Final = 1.0
"""Seconds after which a progress bar appears."""


def print_line(text: str = "", *, err: bool = False, style: str | None = None) -> None:
    """Print one line. Whatever is in `text`, it stays one line and moves no cursor.

    Args:
        text: the line.
        err: to the standard error.
        style: a colour, on a terminal only.
    """
    stream = _open_stream(err=err)
    text = escape_control(text)
    coloured = click.style(text, fg=style) if style and stream.isatty() and not os.environ.get("NO_COLOR") else text
    click.echo(coloured, err=err)


def print_lines(text: str, *, indent: str = "") -> None:
    """Print text of several lines, such as a body or a traceback, each line made inert."""
    for part in text.split("\n"):
        print_line(indent + part)


def confirm(question: str) -> None:
    """Ask on the standard error whether to go on.

    Raises:
        click.Abort: the answer is not yes.
    """
    click.confirm(escape_control(question), abort=True, err=True)


def print_json(document: Any) -> None:
    """Print one JSON document on the standard output; in it, nothing that a terminal would obey."""
    click.echo(to_json(document, ascii_only=not _writes_utf8(_open_stream())))


def to_json(document: Any, *, ascii_only: bool = False) -> str:
    """`document` as indented JSON in which every character can be seen, or is escaped as JSON escapes it."""
    text = json.dumps(document, ensure_ascii=ascii_only, indent=2)
    return "\n".join(escape_control(part) for part in text.split("\n"))


def format_body(body: str) -> str:
    """A body as people read it: JSON indented, anything else as it is."""
    try:
        return to_json(json.loads(body))
    except (ValueError, RecursionError):
        return body


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, unbroken: Sequence[str] = ()) -> None:
    """Print a table that fits the terminal; a cell may have several lines, each of which is made inert.

    Args:
        headings: one for each column.
        rows: a cell for each column.
        unbroken: headings of the columns whose cells are not broken into more lines than they have.
    """
    from rich import box  # noqa: PLC0415 (as the module says)
    from rich.table import Table  # noqa: PLC0415 (as above)
    from rich.text import Text  # noqa: PLC0415 (as above)

    rich_table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        rich_table.add_column(heading, overflow="fold", no_wrap=heading in unbroken)
    for row in rows:
        rich_table.add_row(
            *(Text("\n".join(escape_control(part, MAX_CELL_CHARS) for part in cell.split("\n"))) for cell in row)
        )
    # Trailing blanks are the table's filling, and only a nuisance to who copies a line.
    console = _open_console()
    with console.capture() as printed:
        console.print(rich_table)
    _open_stream()
    for row_text in printed.get().splitlines():
        click.echo(row_text.rstrip())


def escape_newlines(value: str) -> str:
    """A value for a cell, on one line: a line end within it must not look like one of ours."""
    return value.replace("\n", "\\n")


def pluralize(count: int, singular: str, plural: str = "") -> str:
    """A number with its word: `1 event`, `2 events`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def format_time(microseconds: int | None) -> str:
    """A time for people, in UTC, to the second; `-` where there is none."""
    return "-" if microseconds is None else to_datetime(microseconds).strftime("%Y-%m-%d %H:%M:%S")


def format_duration(microseconds: int) -> str:
    """How long something took: `12 ms`, `3.4 s`, `2 min 5 s`, `3 h 2 min`."""
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
    """A bar on the standard error, if that is a terminal and the work turns out to be slow.

    Args:
        what: is done, in a word or two.
        total: how much there is; asked only when the bar appears.

    Yields:
        What to call with how much more has been done.
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
    from rich import progress as parts  # noqa: PLC0415 (as the module says)

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
    from rich.console import Console  # noqa: PLC0415 (as the module says)

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
