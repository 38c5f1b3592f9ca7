"""`flowhooks dev`: run a server, print each callback and its outcome, and restart the server when a file is saved."""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowhooks.cli import output
from flowhooks.cli.dev.child import ServerProcess
from flowhooks.cli.dev.live_events import LiveEvents
from flowhooks.cli.dev.saved_files import import_watcher, saved_files
from flowhooks.cli.dev.watched_paths import watched_paths
from flowhooks.cli.options import settings_source_options, utf8

if TYPE_CHECKING:
    from flowhooks.cli.options import SettingsSource


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
    watcher = import_watcher()
    source = settings_source.pin()
    settings = source.load()
    paths = watched_paths(settings, source.config, watch)
    output.print_line(f"Watching {', '.join(map(str, paths)) if paths else 'no files'}", err=True)
    arguments = [
        *source.arguments,
        *(f"--{name}={value}" for name in ("listen", "admin") if (value := source.options[name]) is not None),
    ]
    with closing(ServerProcess(arguments)) as server, closing(LiveEvents()) as events:
        saves = saved_files(*watcher, paths, _stop_event())
        next(saves, None)  # it watches from now on: no file that is saved after the server has loaded it is missed
        server.start()
        for saved in saves:
            if saved:
                output.print_line(f"Saved: {', '.join(saved)}. Restarting the server.", err=True, style="green")
                server.restart()
                events.close()  # the settings may name another ledger now
            events.print_new(source)
            server.report_exit()


def _stop_event() -> threading.Event:
    """Return an event that is set by SIGINT, SIGTERM and the end of the terminal, from which the server is detached."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # ignored by `nohup`
            signal.signal(number, lambda *_: stopping.set())
    return stopping
