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
"""Deliveries of the operation."""
RATE = "100/s"
"""The rate of the operation: its deliveries are run by the server that accepts the callbacks."""
LOOKS = 3
"""The number of counted requests for each page while the operation runs, after one that does not count."""
CALLBACKS = 50
"""Callbacks per second while pages are requested, in the case without full load."""
RELEASE_TIMEOUT = 60.0
"""Seconds until an operation must release deliveries: it pauses for longer after a transaction that took long."""


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
                began, used = time.perf_counter(), operating.so_far()
                operation_id = plan(site, server)
                took[case].append(time.perf_counter() - began)
                spent[case].append(operating.so_far() - used)
                _press(server, f"/console/operations/{operation_id}/cancel")
                in_plan = site.ask(f"SELECT planned FROM operations WHERE id = '{operation_id}'")
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
    each = [
        f"{case}, each time in seconds: {', '.join(f'{seconds:.2f}' for seconds in times)}"
        for case, times in took.items()
    ]
    return figures, each


def _plan_by_command(site: Site, _server: Server) -> str:
    """Plan and start an operation by a command; return its id."""
    words = ("events", "replay", "--all", "--rate", "6/min", "--detach", "--yes")
    operation_id: str = _command(site, *words)["id"]
    return operation_id


def _plan_in_console(_site: Site, server: Server) -> str:
    """Press the button that plans an operation, and load the page of the plan; return the operation's id."""
    path = _press(server, "/console/do/replay?state=dead")
    operating.asked(server, path)
    return urlsplit(path).path.rpartition("/")[2]


def _press(server: Server, path: str) -> str:
    """Press a button of the console; return the path to which it leads."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": server.admin}
    connection = http.client.HTTPConnection(urlsplit(server.admin).netloc, timeout=60)
    try:
        connection.request("POST", path, b"", headers)
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    if answer.status != http.client.SEE_OTHER:
        raise ServerError(f"{path} was answered {answer.status}")
    return answer.headers["Location"]


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
            with _operating(site, server) as operation_id, operating.meanwhile(partial(send, server)):
                own = f"/console/operations/{operation_id}"
                pages = operating.pages(events) | {
                    "the running operation": own,
                    "the running operation, refreshed part": f"{own}/live",
                    "the running operation, deliveries not released": f"{own}?items=planned",
                }
                looked = operating.look(bench, server, case, pages, LOOKS)
            longest = {page: max(times) for page, times in looked.took.items()}
            page = max(longest, key=lambda page: longest[page])
            figures.append(
                Figure(
                    case=f"{case}, {events:,} events",
                    measured=f"{longest[page]:.0f} ms, {page}",
                    judged=longest[page] / 1000,
                    ours=looked.cost(page),
                )
            )
            each = operating.pages_text(longest)
            notes.append(f"{case}, slowest of {LOOKS} requests. {each}")
    return figures, notes


def _senders(bench: Bench) -> dict[str, Callable[[Server, threading.Event], None]]:
    """Functions that send callbacks until an event is set, by the case of the row."""
    return {
        f"{CALLBACKS} callbacks per second": _send_steadily,
        f"{CONNECTIONS[0]} connections": partial(_send_at_once, seconds=bench.seconds),
    }


def _send_steadily(server: Server, over: threading.Event) -> None:
    """Send so many callbacks per second; late ones are made up for."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    body = json.dumps({"callBackProcessClass": "com.cnooc.test.CallbackHandler"})
    headers = {"Content-Type": "application/json", "Prefer": LATER}
    began = time.perf_counter()
    for number in count():
        if over.wait(max(0.0, began + number / CALLBACKS - time.perf_counter())):
            break
        connection.request("POST", f"steady-{number}".join(load.PATH), body, headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status not in {http.client.OK, http.client.ACCEPTED}:
            raise ServerError(f"a callback was answered {answer.status}")
    connection.close()


def _send_at_once(server: Server, over: threading.Event, *, seconds: float) -> None:
    """Send callbacks over several connections, each as soon as the one before is answered."""
    while not over.is_set():
        load.run(server.url, connections=CONNECTIONS[0], seconds=seconds, prefer=LATER)


@contextmanager
def _operating(site: Site, server: Server) -> Iterator[str]:
    """An operation releases dead deliveries while the context lasts; yields its id."""
    words = ("events", "replay", "--all", "--rate", RATE, "--detach", "--yes")
    operation = _command(site, *words)
    before = _remaining(site)
    yield operation["id"]
    end = time.monotonic() + RELEASE_TIMEOUT
    while (after := _remaining(site)) == before and time.monotonic() < end:
        time.sleep(0.1)
    if not 0 < after < before:
        raise ServerError(f"the operation was to run all the time: {before} deliveries were dead, then {after}")
    _press(server, f"/console/operations/{operation['id']}/cancel")


def _last_dead() -> int:
    """The number of the last event with a dead delivery: of so many events one is parked, and has no delivery."""
    return DEAD + DEAD // filling.PARKED_EACH


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
    """A site on SQLite with dead deliveries only, removed afterwards."""
    with _filled(bench, _last_dead(), *filling.dead_until(_last_dead())) as site:
        yield site


@contextmanager
def _filled(bench: Bench, events: int, *more: str) -> Iterator[Site]:
    """A site on SQLite with so many events, changed by further statements; removed afterwards."""
    with bench.site() as site:
        bench.show_progress("laying up dead deliveries")
        upgrade(f"sqlite:///{site.database}")
        filling.of_sqlite(site.database, events, *more)
        yield site
