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

FEW_CALLBACKS = 10_000
"""The number of callbacks before the first measurement of memory."""
QUIET = 5.0
"""Seconds between the last delivery and a measurement of memory."""
SETTLE_TIMEOUT = 3600.0
"""Seconds in which all deliveries must have finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledSite:
    """A site that one server process has filled with events.

    Attributes:
        site: the site.
        few: the number of callbacks at the first measurement, and the MiB of the process then.
        many: the number of callbacks at the end, and the MiB of the same process then.
        cost: the cost of a callback, stored and run, over all of them.
    """

    site: Site
    few: tuple[int, float]
    many: tuple[int, float]
    cost: Cost


def memory(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Memory of one server process after many callbacks ÷ after few."""
    filled = _filled_site(bench)
    (few, few_mebibytes), (many, many_mebibytes) = filled.few, filled.many
    figure = Figure(
        measured=f"{many_mebibytes:.1f} MiB after {many:,}",
        yardstick=f"{few_mebibytes:.1f} MiB after {few:,}",
        judged=many_mebibytes / few_mebibytes,
        ours=filled.cost,
    )
    size = filled.site.database.stat().st_size / 2**20
    seconds = many / filled.cost.rate
    note = f"{many:,} callbacks were stored and run in {seconds:,.0f} s; the database has {size:,.0f} MiB"
    return [figure], [note]


def stored(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Accept rate with many events stored ÷ with an empty database."""
    full = _filled_site(bench).site
    figures = []
    for connections in CONNECTIONS:

        def measure(site: Site, name: str, connections: int = connections) -> load.Load:
            with site.serve() as server:
                bench.show_progress(f"{name}, {connections} connections")
                target = Target(url=server.url, count_unfinished=lambda _answered: site.count_unfinished())
                return measure_load(target, connections=connections, seconds=bench.seconds, prefer=LATER)

        def empty() -> load.Load:
            with bench.site() as site:
                return measure(site, "empty")

        (comparison,) = compare(bench.rounds, empty, lambda: measure(full, "full"))
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
    total = full.query_value("SELECT count(*) FROM events")
    return figures, [f"{total:,} events are stored at the end"]


def _filled_site(bench: Bench) -> FilledSite:
    """Return the large site of this session; fill it at the first call."""
    if "filled_site" not in bench.cache:
        bench.cache["filled_site"] = _fill_site(bench)
    filled = bench.cache["filled_site"]
    assert isinstance(filled, FilledSite)
    return filled


def _fill_site(bench: Bench) -> FilledSite:
    folder = bench.folder / "many"
    folder.mkdir()
    site = Site(folder=folder)
    with site.serve() as server:
        loads: list[load.Load] = []
        started, spent = time.monotonic(), processor.spent()
        few, few_mebibytes = _post(bench, site, server, loads, until=FEW_CALLBACKS, stored_before=0)
        many, many_mebibytes = _post(bench, site, server, loads, until=bench.events, stored_before=few)
        elapsed = time.monotonic() - started - 2 * QUIET
        cost_of_callback = Cost(
            processor=(processor.spent() - spent) / many * 1e6,
            rate=many / elapsed,
            p50=median(each.p50 for each in loads),
            p99=median(each.p99 for each in loads),
        )
        return FilledSite(site=site, few=(few, few_mebibytes), many=(many, many_mebibytes), cost=cost_of_callback)


def _post(
    bench: Bench, site: Site, server: Server, loads: list[load.Load], *, until: int, stored_before: int
) -> tuple[int, float]:
    """Post until at least `until` callbacks are stored and run; return their number and the MiB of the process then.

    Each load is appended to `loads`.
    """
    load_rate = 1_000.0
    done = stored_before
    while done < until:
        bench.show_progress("storing callbacks", done, until)
        seconds = min(20.0, max(1.0, (until - done) / load_rate))
        loads.append(load.run(server.url, connections=CONNECTIONS[-1], seconds=seconds, prefer=LATER))
        load_rate = loads[-1].rate
        done += loads[-1].counted
    bench.show_progress("waiting for deliveries", done, until)
    site.settle(seconds=SETTLE_TIMEOUT)
    time.sleep(QUIET)
    stored_events = site.query_value("SELECT count(*) FROM events")
    if stored_events < done:
        raise load.LoadError(f"{done} callbacks were answered as stored, and {stored_events} are")
    return stored_events, server.memory()
