"""Rows about operators' pages and commands, with many events stored."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import filling
import measuring
import processor
from bench import CONNECTIONS, LATER, compare, cost, cost_of_repeated, rate, run_times
from cluster import cluster
from figures import Cost, Figure
from measuring import Target
from servers import ServerError

from flowhooks.ledger.upgrade import upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench import Bench
    from load import Load
    from servers import Server, Site

REQUESTS_PER_PAGE = 30
"""The number of counted requests for each page, after one that is not counted."""
DEAD = 10_000
"""The number of dead deliveries that are replayed."""
_VERSION = "bench%3D%3D1.4"
RELOAD_INTERVAL = 1.0
"""Seconds between two requests for the open page while callbacks arrive."""


def pages(events: int) -> dict[str, str]:
    """The path of every page of the console, by its name, for a ledger with `events` events."""
    dead_event = events // 2 // filling.DEAD_EACH * filling.DEAD_EACH + 1  # a dead delivery
    return {
        "overview": "/console/",
        "overview, refreshed part": "/console/live",
        "events": "/console/events",
        "events, by business key": f"/console/events?business_key={filling.BUSINESS_KEY.format(dead_event)}",
        "events, by a business key that is not there": "/console/events?business_key=nobody-has-this",
        "events, by flow instance": f"/console/events?flow={filling.flow_instance_id(dead_event)}",
        "events, by class": "/console/events?class=com.example.Nobody",
        "events, by key": "/console/events?key=contract_approval",
        "events, by handler and dead": "/console/events?state=dead&handler=bench:handler-0",
        "events, parked": "/console/events?state=parked",
        "events, by time": "/console/events?since=2023-11-14T22:15&until=2023-11-14T22:16",
        "events, replayed": "/console/events?trigger=replay",
        "events, by first attempts": "/console/events?trigger=first",
        "events, by a reason that no attempt has": "/console/events?trigger=probe",
        "events, by plugin": "/console/events?plugin=bench",
        "events, by version": f"/console/events?plugin={_VERSION}",
        "events, by a version that is not there": "/console/events?plugin=bench%3D%3D9.9",
        "events, by the version of the last attempt": f"/console/events?ran_by={_VERSION}",
        "events, replayed with a version and dead": f"/console/events?trigger=replay&plugin={_VERSION}&state=dead",
        "events, by time of an attempt": "/console/events?attempted_since=2023-11-14T22:15",
        "events, by error": f"/console/events?error_group={filling.ERROR_GROUP}",
        "one event": f"/console/events/{filling.event_id(dead_event)}",
        "handlers": "/console/handlers",
        "one handler": "/console/handlers/bench:handler-0",
        "one handler, 30 days": "/console/handlers/bench:handler-0?from=30d",
        "parked": "/console/parked",
        "sources": "/console/sources",
        "one source": "/console/sources/default",
        "one source, 30 days": "/console/sources/default?from=30d",
        "engines": "/console/engines",
        "rejected": "/console/rejected-requests",
        "alerts": "/console/alerts",
        "audit": "/console/audit",
        "audit, by operator": "/console/audit?actor=ann",
        "storage": "/console/storage",
        "errors": "/console/errors",
        "errors, by handler": "/console/errors?handler=bench:handler-0",
        "one error": f"/console/errors/{filling.ERROR_GROUP}",
        "operations": "/console/operations",
        "one operation": f"/console/operations/{filling.operation_id(1)}",
        "one operation, failed deliveries": f"/console/operations/{filling.operation_id(1)}?items=failed",
        "one operation, no such delivery": f"/console/operations/{filling.operation_id(1)}?items=succeeded",
        "a plan": f"/console/operations/{filling.operation_id(2)}",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTimes:
    """The time until the first byte of each page; the first request of each page is not counted.

    Attributes:
        case: the database, or the work that runs at the same time.
        took: the milliseconds of each request, by the name of the page.
        spent: the microseconds of processor time of a request, by the name of the page.
    """

    case: str
    took: dict[str, list[float]]
    spent: dict[str, float]

    def cost(self, page: str) -> Cost:
        """The cost of a page."""
        return cost_of_repeated(self.took[page], self.spent[page])


def first_byte(bench: Bench) -> tuple[list[Figure], list[str]]:
    """The median of the slowest page in milliseconds, with many events stored."""
    return _first_byte(bench, median, "median")


def first_byte_worst(bench: Bench) -> tuple[list[Figure], list[str]]:
    """The slowest request of all pages in milliseconds, with many events stored."""
    return _first_byte(bench, max, "slowest look")


def _first_byte(bench: Bench, statistic: Callable[[list[float]], float], name: str) -> tuple[list[Figure], list[str]]:
    figures, notes = [], []
    for page_times in _page_times(bench):
        page = max(page_times.took, key=lambda page: statistic(page_times.took[page]))
        slowest = statistic(page_times.took[page])
        case = f"{page_times.case}, {bench.events:,} events"
        measured = f"{slowest:.0f} ms, {page}"
        figures.append(Figure(case=case, measured=measured, judged=slowest, ours=page_times.cost(page)))
        page_list = pages_text({page: statistic(took) for page, took in page_times.took.items()})
        notes.append(f"{case}, {name} of {REQUESTS_PER_PAGE} looks. {page_list}")
    return figures, notes


def pages_text(took: Mapping[str, float]) -> str:
    """The milliseconds of each page, each as a sentence, the slowest page first."""
    slowest_first = sorted(took.items(), key=lambda page: -page[1])
    return " ".join(f"{page[0].upper()}{page[1:]}: {milliseconds:.0f} ms." for page, milliseconds in slowest_first)


def _page_times(bench: Bench) -> list[PageTimes]:
    """The times of all pages on both databases, measured at the first call."""
    if "page_times" not in bench.cache:
        all_page_times = []
        with _filled_site(bench) as site, site.serve() as server:
            all_page_times.append(measure_pages(bench, server, "SQLite", pages(bench.events), REQUESTS_PER_PAGE))
        with bench.scratch() as folder, cluster(folder) as postgresql, postgresql.ledger("embedded") as full:
            bench.show_progress("filling PostgreSQL")
            full.rows(filling.of_postgresql(bench.events, *filling.HISTORY))
            full.rows("VACUUM ANALYZE")
            with full.serve() as server, full.worker():
                all_page_times.append(
                    measure_pages(bench, server, "PostgreSQL", pages(bench.events), REQUESTS_PER_PAGE)
                )
        bench.cache["page_times"] = all_page_times
    return bench.cache["page_times"]  # type: ignore[return-value]  # stored above


def measure_pages(bench: Bench, server: Server, case: str, paths: Mapping[str, str], times: int) -> PageTimes:
    """Request each page `times` times, after one request that is not counted.

    The processor time of a page is that of all measured processes during its requests.
    """
    took: dict[str, list[float]] = {}
    spent: dict[str, float] = {}
    for page, path in paths.items():
        bench.show_progress(f"{case}: {page}")
        request_page(server, path)
        spent_before = processor.spent()
        took[page] = [request_page(server, path) for _ in range(times)]
        spent[page] = (processor.spent() - spent_before) / times * 1e6
    return PageTimes(case=case, took=took, spent=spent)


def request_page(server: Server, path: str) -> float:
    """Request a page on a new connection; return the milliseconds until the first byte of its response.

    Raises:
        ServerError: the response is not the page.
    """
    connection = http.client.HTTPConnection(urlsplit(server.admin).netloc, timeout=60)
    try:
        started = time.perf_counter()
        connection.request("GET", path)
        response = connection.getresponse()
        took = time.perf_counter() - started
        body = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK or not body:
        raise ServerError(f"{path} was answered {response.status}")
    return took * 1000


def reloading(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Accept rate while the overview is reloaded each second ÷ without, with many events stored."""
    figures, notes = [], []
    with _filled_site(bench) as site:
        for connections in CONNECTIONS:

            def measure(*, watched: bool, connections: int = connections) -> Load:
                with site.serve() as server, in_background(partial(_reload, server)) if watched else ExitStack():
                    bench.show_progress(f"{connections} connections{', the overview open' if watched else ''}")
                    target = Target(url=server.url, count_unfinished=lambda _answered: site.count_unfinished())
                    return measuring.measure_load(target, connections=connections, seconds=bench.seconds, prefer=LATER)

            (comparison,) = compare(bench.rounds, lambda: measure(watched=False), lambda: measure(watched=True))
            figures.append(
                Figure(
                    case=f"{connections} connections",
                    measured=f"{rate(comparison.ours)} with the overview loaded",
                    yardstick=f"{rate(comparison.yardstick)} without",
                    judged=comparison.ratio,
                    ours=cost(comparison.ours),
                    theirs=cost(comparison.yardstick),
                )
            )
    return figures, notes


@contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` in a thread until the context ends; it must return when its event is set. Its error is raised then."""
    stop = threading.Event()
    errors: list[Exception] = []

    def run() -> None:
        try:
            work(stop)
        except Exception as error:  # noqa: BLE001 (raised again below, in the main thread)
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


def _reload(server: Server, stop: threading.Event) -> None:
    """Request the overview each second until `stop` is set."""
    while not stop.wait(RELOAD_INTERVAL):
        request_page(server, "/console/")


def replaying(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Seconds for one command that replays 10,000 dead deliveries, and for an interrupted command that is repeated."""
    figures, notes = [], []
    for interrupted in (False, True):
        with bench.site() as site:
            bench.show_progress("laying up dead deliveries")
            upgrade(f"sqlite:///{site.database}")
            filling.of_sqlite(
                site.database,
                DEAD,
                "UPDATE deliveries SET state = 'dead'",
                "UPDATE attempts SET outcome = 'failed', error = 'ValueError: no'",
            )
            dead = site.query_value("SELECT count(*) FROM deliveries")
            with site.serve():
                bench.show_progress("replaying them")
                began, spent = time.time_ns() // 1000, processor_time()
                took, runs = _replay(site, interrupt=interrupted)
                site.settle(seconds=120)
                spent = processor_time() - spent
                p50, p99 = run_times(site.rows, began)
            run_again = site.query_value("SELECT count(*) FROM deliveries WHERE state = 'succeeded' AND attempt = 2")
        if run_again != dead:
            raise ServerError(f"{dead} deliveries were dead, and {run_again} were run once more")
        case = f"{dead:,} deliveries{', interrupted and continued' if interrupted else ''}"
        measured = f"{took:.1f} s, {runs} commands"
        ours = Cost(processor=spent / dead * 1e6, rate=dead / took, p50=p50, p99=p99)
        figures.append(Figure(case=case, measured=measured, judged=took, ours=ours))
    notes.append("each of them was run exactly once more, also where the command was interrupted half-way")
    return figures, notes


def processor_time() -> float:
    """The seconds of processor time of the server and of ended commands so far."""
    times = os.times()
    return processor.spent() + times.children_user + times.children_system


def _replay(site: Site, *, interrupt: bool) -> tuple[float, int]:
    """Run commands until no dead delivery is left; return their seconds and their number."""
    arguments = ("events", "replay", "--all", "--yes", "--json", "--database", str(site.database))
    command = [str(Path(sys.executable).with_name("flowhooks")), *arguments]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    took, runs = 0.0, 0
    while site.query_value("SELECT count(*) FROM deliveries WHERE state = 'dead'"):
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=site.folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if interrupt and not runs:
            while site.query_value("SELECT count(*) FROM deliveries WHERE state = 'dead'") > DEAD // 2:
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
        took += time.perf_counter() - started
        runs += 1
        if process.returncode not in {0, 130}:
            raise ServerError(f"the command ended with {process.returncode}: {err.strip()[-500:]}")
        if process.returncode == 0:
            json.loads(out)
    return took, runs


@contextmanager
def _filled_site(bench: Bench) -> Iterator[Site]:
    """Yield a site on SQLite with many events, which is removed afterwards."""
    with bench.site() as site:
        bench.show_progress("filling SQLite")
        upgrade(f"sqlite:///{site.database}")
        filling.of_sqlite(site.database, bench.events, *filling.HISTORY)
        yield site
