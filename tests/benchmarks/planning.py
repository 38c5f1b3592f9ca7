"""Rows about a bulk operation of 30,000 deliveries: its plan, and callbacks and pages while it runs."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import filling
import load
import measuring
import operating
from bench import CONNECTIONS, LATER, compare, cost, cost_of_repeated, rate
from figures import Figure
from measuring import Target
from servers import ServerError

from flowhooks.ledger.upgrade import upgrade

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from bench import Bench
    from load import Load
    from servers import Server, Site

DEAD = 30_000
"""The number of deliveries of the operation."""
RATE = "100/s"
"""The rate of the operation: its deliveries are run by the server that accepts the callbacks."""
REQUESTS_PER_PAGE = 3
"""The number of counted requests for each page while the operation runs, after one that is not counted."""
CALLBACKS = 50
"""Callbacks per second while pages are requested, in the case without full load."""
RELEASE_TIMEOUT = 60.0
"""Seconds until an operation must release deliveries. It pauses longer after a long transaction."""


def planned(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Seconds until an operation of 30,000 deliveries is started by a command, and until the console shows its plan."""
    plans = {
        "a command plans and starts it": _plan_by_command,
        "the console plans it and shows the plan": _plan_in_console,
    }
    took: dict[str, list[float]] = {case: [] for case in plans}
    spent: dict[str, list[float]] = {case: [] for case in plans}
    with _dead(bench) as site, site.serve() as server:
        deliveries = _remaining(site)
        for number in range(bench.rounds):
            bench.show_progress("planning", number, bench.rounds)
            for case, plan in plans.items():
                started, spent_before = time.perf_counter(), operating.processor_time()
                operation_id = plan(site, server)
                took[case].append(time.perf_counter() - started)
                spent[case].append(operating.processor_time() - spent_before)
                _press(server, f"/console/operations/{operation_id}/cancel")
                in_plan = site.query_value(f"SELECT planned FROM operations WHERE id = '{operation_id}'")
                # One delivery of each operation that was started has run.
                if in_plan < deliveries - number - 1:
                    raise ServerError(f"{deliveries} deliveries are dead, and the plan has {in_plan}")
    figures = [
        Figure(
            case=f"{deliveries:,} deliveries, {case}",
            measured=f"{median(times):.2f} s",
            judged=median(times),
            ours=cost_of_repeated([seconds * 1000 for seconds in times], median(spent[case]) * 1e6),
        )
        for case, times in took.items()
    ]
    notes = [
        f"{case}, each time in seconds: {', '.join(f'{seconds:.2f}' for seconds in times)}"
        for case, times in took.items()
    ]
    return figures, notes


def _plan_by_command(site: Site, _server: Server) -> str:
    """Plan and start an operation by a command; return its id."""
    arguments = ("events", "replay", "--all", "--rate", "6/min", "--detach", "--yes")
    operation_id: str = _command(site, *arguments)["id"]
    return operation_id


def _plan_in_console(_site: Site, server: Server) -> str:
    """Press the button that plans an operation, and load the page of the plan; return the operation's id."""
    path = _press(server, "/console/do/replay?state=dead")
    operating.request_page(server, path)
    return urlsplit(path).path.rpartition("/")[2]


def _press(server: Server, path: str) -> str:
    """Press a button of the console; return the path of the redirect."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": server.admin}
    connection = http.client.HTTPConnection(urlsplit(server.admin).netloc, timeout=60)
    try:
        connection.request("POST", path, b"", headers)
        response = connection.getresponse()
        response.read()
    finally:
        connection.close()
    if response.status != http.client.SEE_OTHER:
        raise ServerError(f"{path} was answered {response.status}")
    return response.headers["Location"]


def accepting(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Accept rate while an operation releases deliveries ÷ without."""
    figures = []
    with _dead(bench) as site:
        for connections in CONNECTIONS:

            def measure(*, beside: bool, connections: int = connections) -> Load:
                with site.serve() as server, _operating(site, server) if beside else ExitStack():
                    bench.show_progress(f"{connections} connections{', an operation runs' if beside else ''}")
                    target = Target(url=server.url)
                    return measuring.measure_load(target, connections=connections, seconds=bench.seconds, prefer=LATER)

            (comparison,) = compare(bench.rounds, lambda: measure(beside=False), lambda: measure(beside=True))
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


def looking(bench: Bench) -> tuple[list[Figure], list[str]]:
    """The slowest request of any page in seconds, while an operation releases deliveries and callbacks arrive."""
    figures, notes = [], []
    events, statements = max(bench.events, _last_dead()), (*filling.dead_until(_last_dead()), *filling.HISTORY)
    with _filled(bench, events, *statements) as site, site.serve() as server:
        for case, send in _senders(bench).items():
            with _operating(site, server) as operation_id, operating.in_background(partial(send, server)):
                path = f"/console/operations/{operation_id}"
                pages = operating.pages(events) | {
                    "the running operation": path,
                    "the running operation, refreshed part": f"{path}/live",
                    "the running operation, deliveries not released": f"{path}?items=planned",
                }
                page_times = operating.measure_pages(bench, server, case, pages, REQUESTS_PER_PAGE)
            longest = {page: max(times) for page, times in page_times.took.items()}
            page = max(longest, key=lambda page: longest[page])
            figures.append(
                Figure(
                    case=f"{case}, {events:,} events",
                    measured=f"{longest[page]:.0f} ms, {page}",
                    judged=longest[page] / 1000,
                    ours=page_times.cost(page),
                )
            )
            page_list = operating.pages_text(longest)
            notes.append(f"{case}, slowest of {REQUESTS_PER_PAGE} requests. {page_list}")
    return figures, notes


def _senders(bench: Bench) -> dict[str, Callable[[Server, threading.Event], None]]:
    """Functions that send callbacks until an event is set, by the case of the row."""
    return {
        f"{CALLBACKS} callbacks per second": _send_steadily,
        f"{CONNECTIONS[0]} connections": partial(_send_at_once, seconds=bench.seconds),
    }


def _send_steadily(server: Server, stop: threading.Event) -> None:
    """Send `CALLBACKS` callbacks per second until `stop` is set; send late callbacks at once."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    body = json.dumps({"callBackProcessClass": "com.cnooc.test.CallbackHandler"})
    headers = {"Content-Type": "application/json", "Prefer": LATER}
    started = time.perf_counter()
    for number in count():
        if stop.wait(max(0.0, started + number / CALLBACKS - time.perf_counter())):
            break
        connection.request("POST", f"steady-{number}".join(load.PATH), body, headers)
        response = connection.getresponse()
        response.read()
        if response.status not in {http.client.OK, http.client.ACCEPTED}:
            raise ServerError(f"a callback was answered {response.status}")
    connection.close()


def _send_at_once(server: Server, stop: threading.Event, *, seconds: float) -> None:
    """Send callbacks over several connections until `stop` is set, each as soon as the previous one is answered."""
    while not stop.is_set():
        load.run(server.url, connections=CONNECTIONS[0], seconds=seconds, prefer=LATER)


@contextmanager
def _operating(site: Site, server: Server) -> Iterator[str]:
    """Run an operation that releases dead deliveries until the context ends; yield its id."""
    arguments = ("events", "replay", "--all", "--rate", RATE, "--detach", "--yes")
    operation = _command(site, *arguments)
    before = _remaining(site)
    yield operation["id"]
    end = time.monotonic() + RELEASE_TIMEOUT
    while (after := _remaining(site)) == before and time.monotonic() < end:
        time.sleep(0.1)
    if not 0 < after < before:
        raise ServerError(f"the operation was to run all the time: {before} deliveries were dead, then {after}")
    _press(server, f"/console/operations/{operation['id']}/cancel")


def _last_dead() -> int:
    """The number of the last event with a dead delivery; parked events before it have no delivery."""
    return DEAD + DEAD // filling.PARKED_EACH


def _remaining(site: Site) -> int:
    return int(site.query_value("SELECT count(*) FROM deliveries WHERE state = 'dead'"))


def _command(site: Site, *arguments: str) -> dict:
    """The JSON that a command prints."""
    command = [str(Path(sys.executable).with_name("flowhooks")), *arguments, "--json", "--database", str(site.database)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    completed = subprocess.run(
        command, cwd=site.folder, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    if completed.returncode != 0:
        raise ServerError(f"{' '.join(arguments)} ended with {completed.returncode}: {completed.stderr.strip()[-500:]}")
    return json.loads(completed.stdout)


@contextmanager
def _dead(bench: Bench) -> Iterator[Site]:
    """Yield a site on SQLite with dead deliveries only, which is removed afterwards."""
    with _filled(bench, _last_dead(), *filling.dead_until(_last_dead())) as site:
        yield site


@contextmanager
def _filled(bench: Bench, events: int, *more: str) -> Iterator[Site]:
    """Yield a site on SQLite with `events` events, changed by further statements; it is removed afterwards."""
    with bench.site() as site:
        bench.show_progress("laying up dead deliveries")
        upgrade(f"sqlite:///{site.database}")
        filling.of_sqlite(site.database, events, *more)
        yield site
