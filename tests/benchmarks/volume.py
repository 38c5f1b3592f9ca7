"""Rows about the cost of many stored events."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import load
import processor
from bench import CONNECTIONS, LATER, Bench, compare, cost, rate
from figures import Cost, Figure
from measuring import Target, measure_load
from servers import Site

if TYPE_CHECKING:
    from servers import Server

FEW = 10_000
"""The number of callbacks before the first measurement of memory."""
QUIET = 5.0
"""Seconds between the last delivery and a measurement of memory."""
PATIENCE = 3600.0
"""Seconds in which deliveries may finish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """A site that one server process has filled.

    Attributes:
        site: the site.
        few: callbacks at the first measurement, and the process's MiB then.
        many: callbacks at the end, and the same process's MiB then.
        cost: the cost of a callback, stored and run, over all of them.
    """

    site: Site
    few: tuple[int, float]
    many: tuple[int, float]
    cost: Cost


def memory(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Memory of one server process after many callbacks ÷ after few."""
    stock = _stock(bench)
    (few, before), (many, after) = stock.few, stock.many
    figure = Figure(
        measured=f"{after:.1f} MiB after {many:,}",
        yardstick=f"{before:.1f} MiB after {few:,}",
        judged=after / before,
        ours=stock.cost,
    )
    size = stock.site.database.stat().st_size / 2**20
    seconds = many / stock.cost.rate
    note = f"{many:,} callbacks were stored and run in {seconds:,.0f} s; the database has {size:,.0f} MiB"
    return [figure], [note]


def stored(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Accept rate with many events stored ÷ with an empty database."""
    full = _stock(bench).site
    figures = []
    for connections in CONNECTIONS:

        def one(site: Site, name: str, connections: int = connections) -> load.Load:
            with site.serve() as server:
                bench.show_progress(f"{name}, {connections} connections")
                target = Target(url=server.url, count_unfinished=lambda _answered: site.unfinished())
                return measure_load(target, connections=connections, seconds=bench.seconds, prefer=LATER)

        def empty() -> load.Load:
            with bench.site() as site:
                return one(site, "empty")

        (comparison,) = compare(bench.rounds, empty, lambda: one(full, "full"))
        figures.append(
            Figure(
                case=f"{connections} connections",
                measured=f"{rate(comparison.ours)} stored",
                yardstick=f"{rate(comparison.yardstick)} when empty",
                judged=comparison.ratio,
                ours=cost(comparison.ours),
                theirs=cost(comparison.yardstick),
            )
        )
    total = full.ask("SELECT count(*) FROM events")
    return figures, [f"{total:,} events are stored at the end"]


def _stock(bench: Bench) -> Stock:
    """The large site of this session, filled at the first call."""
    if "stock" not in bench.cache:
        bench.cache["stock"] = _fill(bench)
    stock = bench.cache["stock"]
    assert isinstance(stock, Stock)
    return stock


def _fill(bench: Bench) -> Stock:
    folder = bench.folder / "many"
    folder.mkdir()
    site = Site(folder=folder)
    with site.serve() as server:
        loads: list[load.Load] = []
        began, spent = time.monotonic(), processor.spent()
        few, before = _post(bench, site, server, loads, upto=FEW, begin=0)
        many, after = _post(bench, site, server, loads, upto=bench.events, begin=few)
        took = time.monotonic() - began - 2 * QUIET
        of_a_callback = Cost(
            processor=(processor.spent() - spent) / many * 1e6,
            rate=many / took,
            p50=median(each.p50 for each in loads),
            p99=median(each.p99 for each in loads),
        )
        return Stock(site=site, few=(few, before), many=(many, after), cost=of_a_callback)


def _post(
    bench: Bench, site: Site, server: Server, loads: list[load.Load], *, upto: int, begin: int
) -> tuple[int, float]:
    """Post until `upto` callbacks are stored and run; return their exact number, and the MiB of the process then.

    Each load is added to `loads`.
    """
    pace = 1_000.0
    done = begin
    while done < upto:
        bench.show_progress("storing callbacks", done, upto)
        seconds = min(20.0, max(1.0, (upto - done) / pace))
        loads.append(load.run(server.url, connections=CONNECTIONS[-1], seconds=seconds, prefer=LATER))
        pace = loads[-1].rate
        done += loads[-1].counted
    bench.show_progress("waiting for deliveries", done, upto)
    site.settle(seconds=PATIENCE)
    time.sleep(QUIET)
    stored = site.ask("SELECT count(*) FROM events")
    if stored < done:
        raise load.LoadError(f"{done} callbacks were answered as stored, and {stored} are")
    return stored, server.memory()
