"""The row about the trends of handlers and sources, compared with a server that counts none."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench import CONNECTIONS, LATER, Bench, compare, cost, rate
from figures import Figure
from measuring import Target, measure_load

from flowhooks.background.trends import FLUSH_INTERVAL

if TYPE_CHECKING:
    import load

WITHOUT = (sys.executable, str(Path(__file__).with_name("without_trends.py")))


def trends(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Processor time of a callback whose delivery runs meanwhile ÷ the same without trends."""
    bench.show_progress("with and without trends")
    with_flush = bench.with_seconds(max(bench.seconds, FLUSH_INTERVAL))
    subjects = (partial(_measure, with_flush, wrapper) for wrapper in (WITHOUT, ()))
    (pair,) = compare(bench.rounds, *subjects)
    figure = Figure(
        case=f"{CONNECTIONS[0]} connections, deliveries run meanwhile",
        measured=f"{rate(pair.ours)} with trends",
        yardstick=f"{rate(pair.yardstick)} without",
        judged=pair.processor,
        ours=cost(pair.ours),
        theirs=cost(pair.yardstick),
    )
    return [figure], []


def _measure(bench: Bench, wrapper: tuple[str, ...]) -> load.Load:
    with bench.site() as site, site.serve(wrapper=wrapper) as running_server:
        target = Target(url=running_server.url, count_unfinished=lambda _answered: site.count_unfinished())
        return measure_load(target, connections=CONNECTIONS[0], seconds=bench.seconds, prefer=LATER)
