"""Print tables, JSON documents and escaped lines.

rich is imported only where it is used, because its import takes as long as a short command.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import textwrap
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from flowhooks.clock import to_datetime
from flowhooks.forks import close_in_children
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from rich.console import Console

COLUMN_GAP: Final = 2
"""Number of spaces between two columns of a table."""
MIN_TEXT_WIDTH: Final = 20
"""Width in columns down to which free text is narrowed, which is enough for a time."""
MAX_WORD_WIDTH: Final = 80
"""Width in columns up to which a word of free text stays whole in a table on a terminal."""
MAX_CELL_CHARS: Final = 2_000
"""Maximum length of a printed value. `--json` prints all of it."""
PROGRESS_DELAY: Final = 1.0
"""Seconds after which a progress bar appears."""


class _PluginOutput:
    """Stands for `sys.stdout` once plugins are loaded: it writes to standard error.

    Attributes:
        results: the standard output, for the results of the command only.
        is_exclusive: whether processes and extension modules of plugins cannot write to it, either.
    """

    def __init__(self, results: TextIO, *, is_exclusive: bool) -> None:
        self.results = results
        self.is_exclusive = is_exclusive

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def reserve_stdout() -> None:
    """Reserve standard output for the results of this command, until its end.

    Plugins, and their threads, exit functions and processes, then write to standard error.
    """
    stream = sys.stdout
    if isinstance(stream, _PluginOutput):
        return
    is_exclusive = _is_stdout(stream)
    if is_exclusive:
        stream.flush()
        # No new program inherits the copy. A process that a plugin forks loses it, because the reader of the results
        # would wait for the end of that process. Not closed: another file could get its number.
        stream = os.fdopen(os.dup(1), "w", encoding=stream.encoding, errors=stream.errors)
        close_in_children(stream, lambda results: os.dup2(2, results.fileno()))
        os.dup2(2, 1)
    sys.stdout = _PluginOutput(stream, is_exclusive=is_exclusive)


def close_reserved_stdout() -> bool:
    """Close standard output at the end of the process; return False if it was not reserved."""
    stream = sys.stdout
    if not (isinstance(stream, _PluginOutput) and stream.is_exclusive):
        return False
    with suppress(OSError):  # its reader has gone
        stream.results.close()
    return True


def _is_stdout(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 1
    except OSError:  # io.UnsupportedOperation: tests have replaced it
        return False


def _results() -> TextIO:
    return sys.stdout.results if isinstance(sys.stdout, _PluginOutput) else sys.stdout


def _echo(text: str, *, err: bool = False) -> None:
    file = sys.stdout.results if isinstance(sys.stdout, _PluginOutput) and not err else None
    try:
        click.echo(text, file=file, err=err)
    except OSError as error:
        if err or error.errno == errno.EPIPE:  # click ends the command
            raise
        if _is_stdout(sys.stdout):  # otherwise Python would try again at its exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise click.ClickException(f"the result cannot be written to the standard output: {error.strerror}") from error


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
    _echo(coloured, err=err)


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
    _echo(to_json(document, ascii_only=not _writes_utf8(_open_stream())))


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


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    free_text: Collection[str] = (),
    optional: Collection[str] = (),
    err: bool = False,
) -> None:
    """Print a table. A cell may have several lines; control characters are escaped.

    On a terminal, free text is wrapped between words. Ids, classes, keys and all other values stay whole, even if the
    table is then wider than the terminal. Nothing is wrapped if the output is not a terminal.

    Args:
        headings: one heading per column.
        rows: one cell per column.
        free_text: headings of the columns whose cells may be wrapped.
        optional: headings of the columns that are left out if all their cells are empty or `-`.
        err: whether to print to standard error.
    """
    from rich import box  # noqa: PLC0415 (see the module's docstring)
    from rich.table import Table  # noqa: PLC0415 (as above)
    from rich.text import Text  # noqa: PLC0415 (as above)

    columns = {
        heading: ["\n".join(escape_control(part, MAX_CELL_CHARS) for part in cell.split("\n")) for cell in cells]
        for heading, *cells in zip(headings, *rows, strict=True)
        if heading not in optional or any(cell not in {"", "-"} for cell in cells)
    }
    console = _open_console(err=err)
    padding = COLUMN_GAP * (len(columns) - 1)
    if console.is_terminal:
        widths = _fit_columns(columns, free_text, console.width - padding)
    else:
        widths = {heading: _text_width([heading, *cells]) for heading, cells in columns.items()}
    console.width = sum(widths.values()) + padding
    rich_table = Table(box=box.SIMPLE_HEAD, padding=(0, COLUMN_GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for heading, width in widths.items():
        header = Text("\n".join(textwrap.wrap(heading, width)))
        rich_table.add_column(header, overflow="fold", width=width, no_wrap=heading not in free_text)
    for row in zip(*columns.values(), strict=True):
        rich_table.add_row(*map(Text, row))
    # Remove the trailing padding of the table, which is a nuisance when a line is copied.
    with console.capture() as printed:
        console.print(rich_table)
    _open_stream(err=err)
    for row_text in printed.get().splitlines():
        _echo(row_text.rstrip(), err=err)


def _fit_columns(columns: Mapping[str, Sequence[str]], free_text: Collection[str], available: int) -> dict[str, int]:
    """Return the width of each column by its heading. The widest free text is narrowed first."""
    widths, smallest = {}, {}
    for heading, cells in columns.items():
        longest_word = _text_width([heading.replace(" ", "\n")])
        widths[heading] = max(_text_width(cells), longest_word)
        words = _text_width(["\n".join(cell.split()) for cell in cells])
        smallest[heading] = max(min(max(words, MIN_TEXT_WIDTH), MAX_WORD_WIDTH), longest_word)
    while sum(widths.values()) > available:
        narrowed = [heading for heading in widths if heading in free_text and widths[heading] > smallest[heading]]
        if not narrowed:
            break
        widths[max(narrowed, key=widths.__getitem__)] -= 1
    return widths


def _text_width(texts: Iterable[str]) -> int:
    """Return the width of the widest line in columns of a terminal: Chinese characters take two."""
    from rich.cells import cell_len  # noqa: PLC0415 (see the module's docstring)

    return max((cell_len(line) for text in texts for line in text.split("\n")), default=0)


def escape_newlines(value: str) -> str:
    """Escape line breaks in a value, so that it stays on one line of a cell."""
    return value.replace("\n", "\\n")


def pluralize(count: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun, such as `1 event` or `2 events`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def format_time(microseconds: int | None) -> str:
    """Format a time in UTC, to the second; `-` if there is none."""
    return "-" if microseconds is None else to_datetime(microseconds).strftime("%Y-%m-%d %H:%M:%S")


def format_megabytes(size: int) -> str:
    """Format a number of bytes, such as `1,024.5 MB`."""
    return f"{size / 1_000_000:,.1f} MB"


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

    stream = sys.stderr if err else _results()
    return Console(
        file=stream, force_terminal=stream.isatty(), markup=False, highlight=False, emoji=False, soft_wrap=False
    )


def _writes_utf8(stream: Any) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


def _open_stream(*, err: bool = False) -> Any:
    # Characters that the encoding lacks are escaped: an error message must not fail with an error.
    stream = sys.stderr if err else _results()
    if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
        stream.reconfigure(errors="backslashreplace")
    return stream
