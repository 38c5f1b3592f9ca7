"""Rows about how the cost of a callback grows with handlers, stored events, connections and the size of a body."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import accepting
import filling
import load
import processor
from bench import LATER, Bench, cost
from cluster import cluster
from figures import Figure
from measuring import Target, measure_load
from plots import Plot, Point

from flowhooks.ledger.upgrade import upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HANDLERS = (1, 10, 100, 1_000, 10_000)
EVENTS = (0, 10_000, 100_000, 1_000_000, 10_000_000)
"""The numbers of stored events; those above `--events` are left out."""
CONNECTIONS = (1, 8, 32, 100, 500)
BODIES = (230, 2_000, 20_000, 200_000, 1_000_000)
"""The approximate bytes of a body; the first size is a body without variables."""
SECONDS = 2.0
"""The maximum duration of each load, because there are many."""
OURS = {accepting.RUNS: "stored and run", accepting.OUTCOME: "answered with the outcome", accepting.BARE: "bare app"}
Measure = dict[str, "Callable[[int], load.Load]"]
LoadsBySeries = dict[str, dict[int, list[load.Load]]]
"""The loads of each series, round by round, by size."""


def handlers(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Cost of a callback with 1 to 10,000 handlers of different classes, which all are called."""

    def measure(handler_count: int) -> load.Load:
        with bench.site(handlers=handler_count) as site, site.serve() as server:
            target = Target(url=server.url, count_unfinished=lambda _answered: site.count_unfinished())
            return measure_load(target, connections=32, seconds=_seconds(bench), prefer=LATER, classes=handler_count)

    loads_by_series = _measure_sizes(bench, {"stored and run": measure}, HANDLERS, "handlers")
    bench.cache["plot"] = _plot("Handlers", "handlers of different classes", loads_by_series)
    return _against_first(loads_by_series, "handlers"), []


def events(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Cost of a callback with up to ten million stored events, on both databases."""
    levels = [level for level in EVENTS if level <= bench.events]
    with ExitStack() as stack:
        postgresql = stack.enter_context(cluster(stack.enter_context(bench.scratch())))
        sites, ledgers = {}, {}
        for level in levels:
            bench.show_progress(f"filling {level:,} events")
            sites[level] = stack.enter_context(bench.site())
            upgrade(f"sqlite:///{sites[level].database}")
            ledgers[level] = stack.enter_context(postgresql.ledger("embedded"))
            if level:
                filling.of_sqlite(sites[level].database, level)
                ledgers[level].rows(filling.of_postgresql(level))
                ledgers[level].rows("VACUUM ANALYZE")
                ledgers[level].rows("CHECKPOINT")
        os.sync()  # the stored events must be on the disk before loads are measured

        def sqlite(level: int) -> load.Load:
            _read_once(sites[level].database)
            with sites[level].serve() as server:
                processor.until_quiet()
                target = Target(url=server.url, count_unfinished=lambda _answered: sites[level].count_unfinished())
                return measure_load(target, connections=32, seconds=_seconds(bench), prefer=LATER)

        def on_postgresql(level: int) -> load.Load:
            database_id = ledgers[level].query_value("SELECT oid FROM pg_database WHERE datname = current_database()")
            _read_once(*(Path(ledgers[level].query_value("SHOW data_directory")) / "base" / str(database_id)).iterdir())
            with ledgers[level].serve(worker=True) as server:
                processor.until_quiet()
                target = Target(url=server.url, count_unfinished=lambda _answered: ledgers[level].count_unfinished())
                return measure_load(target, connections=32, seconds=_seconds(bench), prefer=LATER)

        loads_by_series = _measure_sizes(bench, {"SQLite": sqlite, "PostgreSQL": on_postgresql}, levels, "events")
    bench.cache["plot"] = _plot("Stored events", "events stored before the load", loads_by_series)
    notes = [] if bench.events >= EVENTS[-1] else [f"more than {levels[-1]:,} events only with `--events {EVENTS[-1]}`"]
    return _against_first(loads_by_series, "events"), notes


def connections(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Cost of a callback with 1 to 500 connections, beside the bare app."""
    measures: Measure = {
        name: lambda connection_count, subject=subject: accepting.measure_subject(
            bench.with_seconds(_seconds(bench)), subject, connection_count
        )
        for subject, name in OURS.items()
    }
    loads_by_series = _measure_sizes(bench, measures, CONNECTIONS, "connections")
    bench.cache["plot"] = _plot("Connections", "connections at once", loads_by_series)
    return _against_bare(loads_by_series, "connections"), []


def bodies(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Cost of a callback with bodies of 230 bytes to a megabyte, beside the bare app."""
    measures: Measure = {
        OURS[subject]: lambda size, subject=subject: accepting.measure_subject(
            bench.with_seconds(_seconds(bench)), subject, 8, size=size if size > BODIES[0] else 0
        )
        for subject in (accepting.RUNS, accepting.BARE)
    }
    loads_by_series = _measure_sizes(bench, measures, BODIES, "bytes")
    bench.cache["plot"] = _plot("Size of the body", "bytes of the body", loads_by_series)
    return _against_bare(loads_by_series, "bytes"), []


def _read_once(*files: Path) -> None:
    """Read files, so that they are in the system's cache, like the files of a server that has run for some time."""
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.read(2**24):
                pass


def _seconds(bench: Bench) -> float:
    return min(bench.seconds, SECONDS)


def _measure_sizes(
    bench: Bench, measures: Mapping[str, Callable[[int], load.Load]], sizes: Sequence[int], unit: str
) -> LoadsBySeries:
    loads_by_series: LoadsBySeries = {name: {size: [] for size in sizes} for name in measures}
    for number in range(bench.rounds):
        for size in sizes:
            for name, measure_size in measures.items():
                bench.show_progress(f"{name}, {size:,} {unit}", number, bench.rounds)
                with suppress(load.NoResponses):  # no response during a load: the plot has no point for this size
                    loads_by_series[name][size].append(measure_size(size))
    return {
        name: {size: loads for size, loads in by_size.items() if len(loads) == bench.rounds}
        for name, by_size in loads_by_series.items()
    }


def _against_first(loads_by_series: LoadsBySeries, unit: str) -> list[Figure]:
    """A figure for each series and size beyond the first one, ÷ the first one."""
    figures = []
    for name, by_size in loads_by_series.items():
        (first_size, first_loads), *larger_sizes = by_size.items()
        figures += [
            _figure(f"{name}, {size:,} {unit}", loads, first_loads, f"{first_size:,} {unit}")
            for size, loads in larger_sizes
        ]
    return figures


def _against_bare(loads_by_series: LoadsBySeries, unit: str) -> list[Figure]:
    """A figure for each series and size, ÷ the bare app."""
    bare = loads_by_series[OURS[accepting.BARE]]
    return [
        _figure(f"{name}, {size:,} {unit}", loads, bare[size], "bare")
        for name, by_size in loads_by_series.items()
        if by_size is not bare
        for size, loads in by_size.items()
        if size in bare
    ]


def _figure(case: str, ours: Sequence[load.Load], theirs: Sequence[load.Load], name: str) -> Figure:
    return Figure(
        case=case,
        measured=f"{median(load_result.rate for load_result in ours):,.0f}/s",
        yardstick=f"{median(load_result.rate for load_result in theirs):,.0f}/s {name}",
        judged=median(
            load_result.processor / baseline_load.processor
            for load_result, baseline_load in zip(ours, theirs, strict=True)
        ),
        ours=cost(tuple(ours)),
        theirs=cost(tuple(theirs)),
    )


def _plot(title: str, axis: str, loads_by_series: LoadsBySeries) -> Plot:
    series = {
        name: tuple(Point(size=size, cost=cost(tuple(loads))) for size, loads in by_size.items())
        for name, by_size in loads_by_series.items()
    }
    return Plot(title=title, axis=axis, series=series)
