"""Rows about accepting callbacks, compared with the bare app."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import load
from bench import CONNECTIONS, LATER, Bench, compare, latency, rate
from figures import Figure
from servers import THREADS, bare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servers import Server

WARM_UP = 1.0
"""Seconds of the same load before each measured load."""


def durable_accept(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Accept rate with storage before the response ÷ bare: without the handler, and with a run for each callback."""
    cases = {"deliveries wait": False, "deliveries run meanwhile": True}
    return _beside_bare(bench, cases, done="stored", prefer=LATER)


def outcome(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Responses with the handler's outcome, status 200 alone, ÷ bare.

    Only half of flowhooks' HTTP threads may wait for handlers, and half of its runner's threads may run one handler. So
    both servers get two HTTP threads for each connection, and the runner as many.
    """
    return _beside_bare(bench, {"": True}, done="run", prefer="", spare=2)


def _beside_bare(
    bench: Bench, cases: Mapping[str, bool], *, done: str, prefer: str, spare: int = 0
) -> tuple[list[Figure], list[str]]:
    figures, notes = [], []
    for connections in CONNECTIONS:
        threads = max(THREADS, connections * spare)
        measure = _Measure(bench=bench, connections=connections, prefer=prefer, threads=threads)
        comparisons = compare(measure.bare, *(partial(measure.ours, plugin=plugin) for plugin in cases.values()))
        for case, comparison in zip(cases, comparisons, strict=True):
            named = ", ".join(filter(None, [f"{connections} connections", case]))
            ours, yardstick = comparison.ours, comparison.yardstick
            figures.append(
                Figure(
                    case=named,
                    measured=f"{rate(ours)} {done}",
                    yardstick=f"{rate(yardstick)} bare",
                    judged=comparison.ratio,
                )
            )
            notes.append(f"{named}, {threads} threads: flowhooks {latency(ours)}; bare {latency(yardstick)}")
            if any(each.later for each in ours):
                share = median(each.later / (each.later + each.counted) for each in ours)
                notes.append(f"{named}: {share:.1%} were answered 202 before their outcome; not counted")
    return figures, notes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    """The same load on one server or the other."""

    bench: Bench
    connections: int
    prefer: str
    threads: int

    def bare(self) -> load.Load:
        with self.bench.scratch() as folder, bare(folder, threads=self.threads) as server:
            return self._load(server, "bare")

    def ours(self, *, plugin: bool) -> load.Load:
        with self.bench.site() as site:
            if not plugin:
                with site.serve():  # registers its handler, so that deliveries wait for it
                    pass
            with site.serve(plugin=plugin, threads=self.threads) as server:
                return self._load(server, "flowhooks")

    def _load(self, server: Server, name: str) -> load.Load:
        self.bench.tell(f"{name}, {self.connections} connections")
        for seconds in (WARM_UP, self.bench.seconds):
            last = load.run(
                server.url,
                connections=self.connections,
                seconds=seconds,
                prefer=self.prefer,
                only_200=not self.prefer,
            )
        return last
