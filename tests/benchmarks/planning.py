"""Rows about a bulk operation of 30,000 deliveries: its plan, and accepting callbacks while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import filling
import measuring
from bench import CONNECTIONS, LATER, compare, cost, rate
from figures import Figure
from measuring import Taken
from servers import ServerError

from flowhooks.ledger.upgrade import upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench import Bench
    from load import Load
    from servers import Site

DEAD = 30_000
"""Deliveries of the operation."""
RATE = "100/s"
"""The rate of the operation: its deliveries are run by the server that accepts the callbacks."""


def planned(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Seconds for a command that plans and starts an operation of 30,000 deliveries, from its start to its end."""
    with _dead(bench) as site, site.serve():
        deliveries, took = _remaining(site), []
        for number in range(bench.rounds):
            bench.tell("planning", number, bench.rounds)
            began = time.perf_counter()
            operation = _command(site, "events", "replay", "--all", "--rate", "6/min", "--detach", "--yes")
            took.append(time.perf_counter() - began)
            _command(site, "operations", "cancel", operation["id"])
            # One delivery of each earlier operation has run.
            if operation["planned"] < deliveries - number:
                raise ServerError(f"{deliveries} deliveries are dead, and the plan has {operation['planned']}")
    each = ", ".join(f"{seconds:.2f}" for seconds in took)
    figure = Figure(case=f"{deliveries:,} deliveries", measured=f"{median(took):.2f} s", judged=median(took))
    return [figure], [f"each command in seconds: {each}"]


def accepting(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Accept rate while an operation releases deliveries ÷ without."""
    figures = []
    with _dead(bench) as site:
        for connections in CONNECTIONS:

            def loaded(*, operating: bool, connections: int = connections) -> Load:
                with site.serve() as server, _operating(site) if operating else ExitStack():
                    bench.tell(f"{connections} connections{', an operation runs' if operating else ''}")
                    taken = Taken(url=server.url)
                    return measuring.loaded(taken, connections=connections, seconds=bench.seconds, prefer=LATER)

            (comparison,) = compare(bench.rounds, lambda: loaded(operating=False), lambda: loaded(operating=True))
            figures.append(
                Figure(
                    case=f"{connections} connections, {RATE}",
                    measured=f"{rate(comparison.ours)} beside the operation",
                    yardstick=f"{rate(comparison.yardstick)} without",
                    judged=comparison.ratio,
                    ours=cost(comparison.ours),
                    theirs=cost(comparison.yardstick),
                )
            )
    return figures, []


@contextmanager
def _operating(site: Site) -> Iterator[None]:
    """An operation releases dead deliveries while the context lasts."""
    words = ("events", "replay", "--all", "--rate", RATE, "--detach", "--yes")
    operation = _command(site, *words)
    before = _remaining(site)
    yield
    after = _remaining(site)
    _command(site, "operations", "cancel", operation["id"])
    if not 0 < after < before:
        raise ServerError(f"the operation was to run all the time: {before} deliveries were dead, then {after}")


def _remaining(site: Site) -> int:
    return int(site.ask("SELECT count(*) FROM deliveries WHERE state = 'dead'"))


def _command(site: Site, *words: str) -> dict:
    """The JSON that a command prints."""
    command = [str(Path(sys.executable).with_name("flowhooks")), *words, "--json", "--database", str(site.database)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    ended = subprocess.run(
        command, cwd=site.folder, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    if ended.returncode != 0:
        raise ServerError(f"{' '.join(words)} ended with {ended.returncode}: {ended.stderr.strip()[-500:]}")
    return json.loads(ended.stdout)


@contextmanager
def _dead(bench: Bench) -> Iterator[Site]:
    """A site on SQLite with dead deliveries, removed afterwards."""
    with bench.site() as site:
        bench.tell("laying up dead deliveries")
        upgrade(f"sqlite:///{site.database}")
        filling.of_sqlite(
            site.database,
            DEAD + DEAD // filling.PARKED_EACH,  # of so many events one is parked, and has no delivery
            "UPDATE deliveries SET state = 'dead'",
            "UPDATE attempts SET outcome = 'failed', error = 'ValueError: no'",
        )
        yield site
