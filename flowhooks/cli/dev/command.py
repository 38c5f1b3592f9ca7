"""`flowhooks dev`: run a server, print each callback and its outcome, and restart the server when a file is saved."""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import output
from flowhooks.cli.dev.child import ServerProcess
from flowhooks.cli.dev.live_events import LiveEvents
from flowhooks.cli.dev.watched_paths import watched_paths
from flowhooks.cli.options import settings_source_options, utf8
from flowhooks.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowhooks.cli.options import SettingsSource

POLL_INTERVAL_MS: Final = 200
"""Milliseconds between two looks at the ledger."""
SUFFIXES: Final = (".json", ".toml")
"""Suffixes of the files whose changes restart the server, beside those of Python."""
DEBOUNCE_MS: Final = 400
"""Milliseconds within which changes of several files cause one restart."""


@click.command("dev", short_help="Run a server that reloads plugins when a file is saved.")
@click.option("--listen", type=utf8, metavar="ADDRESS", help="Accept callbacks on ADDRESS [default: the setting].")
@click.option("--admin", type=utf8, metavar="ADDRESS", help="Serve the console on ADDRESS [default: the setting].")
@click.option("--watch", type=click.Path(path_type=Path), multiple=True, metavar="PATH", help="Also watch this path.")
@settings_source_options
def command(settings_source: SettingsSource, *, watch: tuple[Path, ...]) -> None:
    r"""Run a server for the development of plugins, until Ctrl-C.

    It is `flowhooks serve` with a text log. Each callback and the outcome of each attempt is printed as it happens.
    When a file is saved, the server is restarted and loads the plugins again: files of plugins that are installed as
    editable, single-file plugins, the settings file and the schemas (*.py, *.toml, *.json). A plugin that cannot be
    loaded is quarantined with its error, until the next save. Needs the extra flowhooks[dev].

    \b
    Examples:
      flowhooks dev
      flowhooks dev --plugins-dir . --database /tmp/dev.db
      flowhooks dev --watch ../shared-library/src

    Exit codes: 0 done, 2 wrong usage, or the settings cannot be used.
    """
    watch_files = _watch_function()
    source = settings_source.pin()
    settings = source.load()
    paths = watched_paths(settings, source.config, watch)
    output.print_line(f"Watching {', '.join(map(str, paths)) if paths else 'no files'}", err=True)
    arguments = [
        *source.arguments,
        *(f"--{name}={value}" for name in ("listen", "admin") if (value := source.options[name]) is not None),
    ]
    with closing(ServerProcess(arguments)) as server, closing(LiveEvents()) as events:
        stopping = _stop_event()
        server.start()
        for saved in _changes(watch_files, paths, stopping):
            if saved:
                output.print_line(f"Saved: {', '.join(saved)}. Restarting the server.", err=True, style="green")
                server.restart()
                events.close()  # the settings may name another ledger now
            events.print_new(source)
            server.report_exit()


def _stop_event() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def _watch_function() -> Callable[..., Iterator[set[tuple[Any, str]]]]:
    try:
        from watchfiles import PythonFilter, watch  # noqa: PLC0415 (an extra)
    except ImportError:
        raise SettingsError("flowhooks dev needs watchfiles: pip install 'flowhooks[dev]'") from None
    # Not the ledger and the logs, which may be in the same folder.
    return partial(watch, watch_filter=PythonFilter(extra_extensions=SUFFIXES))


def _changes(
    watch_files: Callable[..., Iterator[set[tuple[Any, str]]]], paths: list[Path], stopping: threading.Event
) -> Iterator[list[str]]:
    """Yield the names of saved files, or an empty list after each poll interval, until shutdown."""
    if not paths:
        while not stopping.wait(POLL_INTERVAL_MS / 1000):
            yield []
        return
    changes = watch_files(
        *paths,
        debounce=DEBOUNCE_MS,
        stop_event=stopping,
        rust_timeout=POLL_INTERVAL_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
    )
    for changed in changes:
        yield sorted({Path(path).name for _, path in changed})
