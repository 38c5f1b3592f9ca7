"""The time for which new connections wait while a server on SQLite is replaced.

`python tests/benchmarks/replacing.py --output docs/explanation/performance.md` writes its table into that page. The
figures are of `flowhooks restart`, which prints for how long no process accepted connections. Meanwhile clients send 50
callbacks a second, each at its time, whether or not earlier ones were answered. The figures depend on the load of the
machine. `--events 1000000` fills the ledger first. `--running 12` also measures replacements while that many handlers
run and do not end, so that the successor recovers their deliveries.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
import filling
from bench import LATER
from profiling import replace_parts
from servers import RUNNER_THREADS, Site

from flowhooks.execution.runners.runner import max_per_handler
from flowhooks.ledger.upgrade import upgrade
from support.steady_clients import Clients
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from servers import Server

COMMAND = str(Path(sys.executable).with_name("flowhooks"))
BODY = {"businessKey": "HT-1", "callBackProcessClass": "com.cnooc.test.CallbackHandler"}
PLUGIN = '''"""A handler that does nothing, and one that does not end."""

import time

from flowhooks import handler, hookimpl


@handler(callback_class="com.cnooc.test.CallbackHandler", name="handler-0")
def nothing(event):
    """Do nothing."""


@handler(callback_class="com.cnooc.test.Endless", name="endless")
def endless(event):
    """Run until the process ends."""
    while True:
        time.sleep(60)


@hookimpl
def handlers():
    return [nothing, endless]
'''
ENDLESS = {"callBackProcessClass": "com.cnooc.test.Endless"}
MAX_RUNNING = max_per_handler(RUNNER_THREADS)
"""The maximum number of attempts of one handler that run at the same time."""
SETTINGS = {"FLOWHOOKS_SHUTDOWN_TIMEOUT": "1"}
"""A handler that does not end delays the replacement for this time, during which connections are accepted."""
RUNNING = (
    "SELECT count(*) FROM deliveries WHERE state IN ('running', 'dead', 'unknown') AND state = 'running'"
    " AND handler = 'bench:endless'"
)
"""The number of running deliveries of that handler; the repeated condition makes SQLite use the partial index."""


def waits(folder: Path, runs: int, *, events: int = 0, running: Collection[int] = (0,)) -> dict[int, list[float]]:
    """Replace a server; return the seconds for which connections waited, by the number of handlers that did not end.

    Args:
        folder: an empty folder for the site.
        runs: the number of replacements with each number of handlers.
        events: the number of events in the ledger before the replacements.
        running: the numbers of handlers that do not end.
    """
    site = Site(folder=folder, source=PLUGIN)
    if events:
        upgrade(f"sqlite:///{site.database}")
        filling.of_sqlite(site.database, events)
    seconds: dict[int, list[float]] = {count: [] for count in running}
    with site.serve(settings=SETTINGS) as server:
        address = urlsplit(server.url)
        with Clients((address.hostname, address.port), BODY) as clients:
            clients.until_more()
            for number in range(runs):
                for count, measured in seconds.items():
                    _run_endless(site, server, count, prefix=f"endless-{number}-{count}")
                    measured.append(_replace(site))
                    clients.until_more()
    if clients.failures or clients.statuses.keys() - {200, 202}:
        raise click.ClickException(f"{clients.failures[:3]} {clients.statuses}")
    return seconds


def _run_endless(site: Site, server: Server, count: int, *, prefix: str) -> None:
    """Start a number of handlers that do not end."""
    headers = {"Content-Type": "application/json", "Prefer": LATER}
    for number in range(count):
        with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)) as connection:
            path = f"/flow/{prefix}-{number}/call-back/complete"
            connection.request("POST", path, json.dumps(ENDLESS), headers)
            response = connection.getresponse()
            response.read()
        if response.status != HTTPStatus.ACCEPTED:
            raise click.ClickException(f"a callback was answered {response.status}")
    until(lambda: site.query_value(RUNNING) == count)


def _replace(site: Site) -> float:
    """Replace the server; return the seconds for which connections waited."""
    command = [COMMAND, "restart", "--json", "--database", str(site.database)]
    completed = subprocess.run(command, cwd=site.folder, capture_output=True, text=True, check=False)
    if completed.returncode:
        raise click.ClickException(completed.stderr)
    waited: float = json.loads(completed.stdout)["waited_seconds"]
    return waited


def table(times_by_case: Mapping[tuple[int, int], Sequence[float]]) -> list[str]:
    """The figures as a table in Markdown, by the number of events and of handlers that did not end."""
    lines = [
        "| events in the ledger | handlers that do not end | replacements | median, s | longest, s |",
        "|---|---|---|---|---|",
    ]
    for (events, running), seconds in times_by_case.items():
        cells = f"{len(seconds)} | {median(seconds):.2f} | {max(seconds):.2f}"
        lines.append(f"| {events:,} | {running} | {cells} |")
    return lines


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--runs", default=20, show_default=True, type=click.IntRange(1), help="Replacements.")
@click.option("--events", multiple=True, default=(0,), show_default=True, type=click.IntRange(0), help="In the ledger.")
@click.option(
    "--running", default=0, show_default=True, type=click.IntRange(0, MAX_RUNNING), help="Handlers that do not end."
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the table into this page, too.")
def main(runs: int, events: tuple[int, ...], running: int, output: Path | None) -> None:
    """Measure for how long connections wait while a server is replaced, for each number of events."""
    times_by_case = {}
    for event_count in events:
        with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder:
            seconds = waits(Path(folder), runs, events=event_count, running=sorted({0, running}))
        times_by_case |= {(event_count, count): times for count, times in seconds.items()}
    lines = table(times_by_case)
    click.echo("\n".join(lines))
    if output:
        output.write_text(replace_parts(output.read_text(), {"replacing": lines}))


if __name__ == "__main__":
    main()
