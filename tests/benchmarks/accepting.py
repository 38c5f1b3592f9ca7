"""Rows about taking call-backs in, beside the bare app; it must not know how results are shown."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import load
from bench import CONNECTIONS, LATER, Bench, compare, latency, rate
from figures import Figure
from servers import bare

if TYPE_CHECKING:
    from bench import Comparison

WARM_UP = 1.0
"""Seconds of the same load before each one that counts."""


def durable_accept(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Accept, stored before the answer, ÷ bare. Each call-back goes to a handler, which runs meanwhile."""
    return _beside_bare(bench, "stored", prefer=LATER)


def outcome(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Answers with the handler's outcome, status 200 alone, ÷ bare."""
    return _beside_bare(bench, "run", prefer="")


def _beside_bare(bench: Bench, done: str, *, prefer: str) -> tuple[list[Figure], list[str]]:
    figures, notes = [], []
    for connections in CONNECTIONS:
        comparison = _measured(bench, connections, prefer)
        ours, yardstick = comparison.ours, comparison.yardstick
        figures.append(
            Figure(
                case=f"{connections} connections",
                measured=f"{rate(ours)} {done}",
                yardstick=f"{rate(yardstick)} bare",
                judged=comparison.ratio,
            )
        )
        notes.append(f"{connections} connections: flowhooks {latency(ours)}; bare {latency(yardstick)}")
        if any(each.later for each in ours):
            share = median(each.later / (each.later + each.counted) for each in ours)
            notes.append(f"{connections} connections: {share:.1%} were answered 202 before their outcome; not counted")
    return figures, notes


def _measured(bench: Bench, connections: int, prefer: str) -> Comparison:
    def one(url: str, name: str) -> load.Load:
        bench.tell(f"{name}, {connections} connections")
        for seconds in (WARM_UP, bench.seconds):
            last = load.run(url, connections=connections, seconds=seconds, prefer=prefer, only_200=not prefer)
        return last

    def yardstick() -> load.Load:
        with bench.scratch() as folder, bare(folder) as server:
            return one(server.url, "bare")

    def ours() -> load.Load:
        with bench.site() as site, site.serve() as server:
            return one(server.url, "flowhooks")

    return compare(ours, yardstick)
