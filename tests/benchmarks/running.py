"""Rows about running deliveries and starting."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import load
import processor
from bench import CONNECTIONS, LATER, cost, cost_of_repeated, run_times
from figures import Cost, Figure
from sharing import run_celery

if TYPE_CHECKING:
    from bench import Bench

DONE = "SELECT count(*) FROM attempts WHERE outcome = 'succeeded'"
PER_SECOND = 5_000
"""The number of stored deliveries for each second of the measurement."""
START_COUNT = 10
SETTLE_TIMEOUT = 1800.0
"""Seconds in which all deliveries must have finished."""


def deliveries(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Deliveries run per second, from the first claim to the last outcome, according to the ledger, ÷ by Celery.

    A server without its plugin stores them. The handlers are registered, so the deliveries wait.
    """
    theirs = run_celery(bench)
    needed = round(bench.seconds * PER_SECOND)
    with bench.site() as site:
        with site.serve():
            pass
        stored = 0
        with site.serve(plugin=False) as server:
            while stored < needed:
                bench.show_progress("laying up deliveries", stored, needed)
                stored += load.run(server.url, connections=CONNECTIONS[-1], seconds=2, prefer=LATER).counted
        with site.serve():
            bench.show_progress("running them")
            spent_before, done_before = processor.spent(), site.query_value(DONE)
            site.settle(seconds=SETTLE_TIMEOUT)
            spent = (processor.spent() - spent_before) / max(1, site.query_value(DONE) - done_before) * 1e6
        count = site.query_value(DONE)
        if count < stored:
            raise load.LoadError(f"of {stored} deliveries laid up only {count} were run")
        seconds = site.query_value("SELECT max(finished_at) - min(started_at) FROM attempts") / 1e6
        p50, p99 = run_times(site.rows)
    figure = Figure(
        measured=f"{count / seconds:,.0f}/s",
        yardstick=f"{theirs.rate:,.0f}/s Celery + Redis",
        judged=count / seconds / theirs.rate,
        ours=Cost(processor=spent, rate=count / seconds, p50=p50, p99=p99),
        theirs=cost([theirs]),
    )
    return [figure], [f"{count:,} deliveries in {seconds:.1f} s; {theirs.count:,} tasks in {theirs.seconds:.1f} s"]


def start(bench: Bench) -> tuple[list[Figure], list[str]]:
    """The time from the start of the process until `/readyz` answers 200."""
    with bench.site() as site:
        bench.show_progress("the first start")
        with site.serve() as server:
            first_start = server.ready_after
        seconds_to_ready, spent = [], []
        for number in range(START_COUNT):
            bench.show_progress("starting again", number, START_COUNT)
            with site.serve() as server:
                spent.append(processor.spent() * 1e6)
                seconds_to_ready.append(server.ready_after)
    ours = cost_of_repeated([seconds * 1000 for seconds in seconds_to_ready], median(spent))
    figure = Figure(measured=f"{median(seconds_to_ready):.2f} s", judged=median(seconds_to_ready), ours=ours)
    slowest = f"slowest of {START_COUNT} {max(seconds_to_ready):.2f} s"
    return [figure], [f"{slowest}; the very first, which makes the database, {first_start:.2f} s"]
