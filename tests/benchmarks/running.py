"""Rows about running deliveries and starting."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import load
import processor
from bench import CONNECTIONS, LATER, cost, cost_of_repeated, run_times
from figures import Cost, Figure
from sharing import celery

if TYPE_CHECKING:
    from bench import Bench

DONE = "SELECT count(*) FROM attempts WHERE outcome = 'succeeded'"
PER_SECOND = 5_000
"""Deliveries stored for each second of the measurement."""
STARTS = 10
PATIENCE = 1800.0
"""Seconds in which the deliveries may finish."""


def deliveries(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Deliveries run per second, from the first claim to the last outcome, according to the ledger, ÷ by Celery.

    They are stored by a server whose plugin is missing: its handlers are known, so their deliveries wait.
    """
    theirs = celery(bench)
    wanted = round(bench.seconds * PER_SECOND)
    with bench.site() as site:
        with site.serve():
            pass
        laid_up = 0
        with site.serve(plugin=False) as server:
            while laid_up < wanted:
                bench.show_progress("laying up deliveries", laid_up, wanted)
                laid_up += load.run(server.url, connections=CONNECTIONS[-1], seconds=2, prefer=LATER).counted
        with site.serve():
            bench.show_progress("running them")
            before, done = processor.spent(), site.query_value(DONE)
            site.settle(seconds=PATIENCE)
            spent = (processor.spent() - before) / max(1, site.query_value(DONE) - done) * 1e6
        count = site.query_value(DONE)
        if count < laid_up:
            raise load.LoadError(f"of {laid_up} deliveries laid up only {count} were run")
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
            first = server.ready_after
        took, spent = [], []
        for number in range(STARTS):
            bench.show_progress("starting again", number, STARTS)
            with site.serve() as server:
                spent.append(processor.spent() * 1e6)
                took.append(server.ready_after)
    ours = cost_of_repeated([seconds * 1000 for seconds in took], median(spent))
    figure = Figure(measured=f"{median(took):.2f} s", judged=median(took), ours=ours)
    slowest = f"slowest of {STARTS} {max(took):.2f} s"
    return [figure], [f"{slowest}; the very first, which makes the database, {first:.2f} s"]
