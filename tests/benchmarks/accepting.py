"""Rows about accepting callbacks, compared with the bare app: one session of loads, and several views of it."""

from __future__ import annotations

import os
from statistics import median
from typing import TYPE_CHECKING

import load
from bench import CONNECTIONS, LATER, Bench, Comparison, cost, rate
from figures import Figure
from measuring import Target, measure_load
from servers import THREADS, bare

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

BARE = "bare"
STORES = "bare, each body stored"
"""The bare app with a table: the minimum cost of a durable callback."""
WAITS = "deliveries wait"
RUNS = "deliveries run meanwhile"
OUTCOME = "outcome"
SUBJECTS = (BARE, STORES, WAITS, RUNS, OUTCOME)
SPREAD_ROUNDS = 5
"""From this number of rounds, a note has the lowest and the highest processor time, so that two levels are seen."""
LoadsByCase = dict[tuple[str, int], dict[str, list[load.Load]]]
"""The loads of each subject, round by round, by the cores and the number of connections."""


def modes() -> dict[str, tuple[Collection[int], Collection[int]]]:
    """The cores of a server and of wrk in each case; empty: all."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    return {"one core": (cores[-1:], cores[:-1]), "all cores": ((), ())} if len(cores) > 1 else {"all cores": ((), ())}


def accept_processor(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Processor time of storing a callback before the response ÷ bare."""
    return _figures(bench, (WAITS, RUNS), "stored", lambda pair: pair.processor)


def accept_rate(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Rate with storage before the response ÷ bare: without the handler, and with a run for each callback."""
    return _figures(bench, (WAITS, RUNS), "stored", lambda pair: pair.ratio)


def outcome_processor(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Processor time of a callback that is answered with the handler's outcome ÷ bare."""
    return _figures(bench, (OUTCOME,), "run", lambda pair: pair.processor)


def outcome_rate(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Responses with the handler's outcome, status 200 alone, ÷ bare."""
    return _figures(bench, (OUTCOME,), "run", lambda pair: pair.ratio)


def outcome_p99(bench: Bench) -> tuple[list[Figure], list[str]]:
    """The slowest of a hundred responses with the handler's outcome ÷ bare's, with many connections."""
    return _figures(bench, (OUTCOME,), "run", lambda pair: pair.median_of(lambda result: result.p99), CONNECTIONS[-1:])


def _figures(
    bench: Bench,
    subjects: tuple[str, ...],
    done: str,
    ratio_of: Callable[[Comparison], float],
    connections: tuple[int, ...] = CONNECTIONS,
) -> tuple[list[Figure], list[str]]:
    figures, notes = [], []
    for (cores, many), loads in _cached_loads(bench).items():
        if many not in connections:
            continue
        if WAITS in subjects:
            baseline_ratio = ratio_of(Comparison(ours=tuple(loads[STORES]), yardstick=tuple(loads[BARE])))
            notes.append(
                f"{many} connections, {cores}: {baseline_ratio:.2f} for the bare app if it stores each body in SQLite"
            )
        for subject in subjects:
            pair = Comparison(ours=tuple(loads[subject]), yardstick=tuple(loads[BARE]))
            case = ", ".join([f"{many} connections", cores, *([] if subject == OUTCOME else [subject])])
            figures.append(
                Figure(
                    case=case,
                    measured=f"{rate(pair.ours)} {done}",
                    yardstick=f"{rate(pair.yardstick)} bare",
                    judged=ratio_of(pair),
                    ours=cost(pair.ours),
                    theirs=cost(pair.yardstick),
                )
            )
            if len(pair.ours) >= SPREAD_ROUNDS:
                times = sorted(each.processor for each in pair.ours)
                notes.append(f"{case}: {times[0]:,.0f} to {times[-1]:,.0f} µs of processor time in {len(times)} rounds")
            if any(each.later for each in pair.ours):
                share = median(each.later / (each.later + each.counted) for each in pair.ours)
                notes.append(f"{case}: {share:.1%} were answered 202 before their outcome; they are not in the rate")
    return figures, notes


def _cached_loads(bench: Bench) -> LoadsByCase:
    """The loads of all subjects in turn, measured at the first call."""
    if "accepting" not in bench.cache:
        bench.cache["accepting"] = {
            (cores, many): _measure_rounds(bench, many, *core_sets)
            for cores, core_sets in modes().items()
            for many in CONNECTIONS
        }
    loads: LoadsByCase = bench.cache["accepting"]  # type: ignore[assignment]  # stored above
    return loads


def _measure_rounds(
    bench: Bench, many: int, server: Collection[int], client: Collection[int]
) -> dict[str, list[load.Load]]:
    loads: dict[str, list[load.Load]] = {subject: [] for subject in SUBJECTS}
    for number in range(bench.rounds):
        for subject in SUBJECTS:
            bench.show_progress(f"{subject}, {many} connections", number, bench.rounds)
            loads[subject].append(measure_subject(bench, subject, many, server=server, client=client))
    return loads


def measure_subject(
    bench: Bench,
    subject: str,
    connections: int,
    *,
    size: int = 0,
    server: Collection[int] = (),
    client: Collection[int] = (),
) -> load.Load:
    """One load on a new server with its default settings.

    Args:
        bench: duration and folder.
        subject: one of `SUBJECTS`.
        connections: concurrent connections.
        size: see `load.run`.
        server: the cores of the server; default: all.
        client: the cores of wrk; default: all.
    """

    def measure(target: Target) -> load.Load:
        options = {"prefer": "", "only_200": True} if subject == OUTCOME else {"prefer": LATER, "only_200": False}
        return measure_load(target, connections=connections, seconds=bench.seconds, size=size, cores=client, **options)

    if subject in {BARE, STORES}:
        stores = subject == STORES
        with bench.scratch() as folder, bare(folder, threads=THREADS, cores=server, stores=stores) as running_server:
            return measure(Target(url=running_server.url))
    with bench.site() as site:
        if subject == WAITS:
            with site.serve():  # registers its handler, so that deliveries wait for it
                pass
            with site.serve(plugin=False, cores=server) as running_server:
                return measure(Target(url=running_server.url))
        with site.serve(cores=server) as running_server:
            return measure(Target(url=running_server.url, count_unfinished=lambda _answered: site.count_unfinished()))
