"""The arguments of every row, comparisons of loads, and summaries of measured times."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median, quantiles
from typing import TYPE_CHECKING, Any

from figures import Cost
from servers import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import load
    from sharing import RunResult

ROUNDS = 3
"""The number of rounds, in each of which both subjects are measured, so that other load affects both of them. The
median of the ratios counts."""
CONNECTIONS = (8, 32)
LATER = "respond-async"
"""The `Prefer` header that requests a response as soon as the callback is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One session of measurements.

    Attributes:
        seconds: the duration of each load.
        events: the number of callbacks that the large rows store.
        folder: the folder for all files.
        rounds: how often each pair is measured.
        show_progress: takes a text and, where they are known, a count and its total.
        cache: measured data that several rows use, by name.
    """

    seconds: float
    events: int
    folder: Path
    rounds: int = ROUNDS
    show_progress: Callable[..., None] = print
    cache: dict[str, object] = field(default_factory=dict)

    def with_seconds(self, seconds: float) -> Bench:
        """Return the same session with another duration of each load."""
        return replace(self, seconds=seconds)

    @contextmanager
    def site(self, *, handlers: int = 1) -> Iterator[Site]:
        """Yield a new site in its own folder, which is removed afterwards."""
        with self.scratch() as folder:
            yield Site(folder=folder, handlers=handlers)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a new folder, which is removed afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Pairs of loads, each pair measured in turn.

    Attributes:
        ours: the measured subject.
        yardstick: the baseline.
    """

    ours: tuple[load.Load, ...]
    yardstick: tuple[load.Load, ...]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios of rates."""
        return self.median_of(lambda load_result: load_result.rate)

    @property
    def processor(self) -> float:
        """The median of the pairs' ratios of processor times."""
        return self.median_of(lambda load_result: load_result.processor)

    def median_of(self, figure: Callable[[load.Load], float]) -> float:
        """The median of the pairs' ratios of a figure."""
        return median(figure(ours) / figure(baseline) for ours, baseline in zip(self.ours, self.yardstick, strict=True))


def compare(rounds: int, yardstick: Callable[[], load.Load], *ours: Callable[[], load.Load]) -> tuple[Comparison, ...]:
    """Measure the baseline and each subject in turn, ending with the baseline; return a comparison for each subject."""
    rounds_of_loads = [[measure() for measure in (yardstick, *ours)] for _ in range(rounds)]
    baseline_loads, *loads_of_subjects = zip(*rounds_of_loads, strict=True)
    return tuple(Comparison(ours=loads, yardstick=baseline_loads) for loads in loads_of_subjects)


def rate(loads: tuple[load.Load, ...]) -> str:
    """The median rates as text."""
    return f"{median(each.rate for each in loads):,.0f}/s"


def cost(measured: Sequence[load.Load | RunResult | Cost]) -> Cost:
    """The median costs of a callback."""
    return Cost(
        processor=median(each.processor for each in measured),
        rate=median(each.rate for each in measured),
        p50=median(each.p50 for each in measured),
        p99=median(each.p99 for each in measured),
    )


def cost_of_repeated(milliseconds: Sequence[float], processor: float) -> Cost:
    """The cost of an action that one client repeats, each time as soon as it has ended.

    Args:
        milliseconds: the time of each action; the rate follows from these times.
        processor: microseconds of processor time for each action.
    """
    p50, p99 = spread(milliseconds)
    return Cost(processor=processor, rate=1000 / mean(milliseconds), p50=p50, p99=p99)


def spread(times: Sequence[float]) -> tuple[float, float]:
    """The median of times, and the time that 99 of 100 do not exceed; of a few times, nearly the longest."""
    return median(times), quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else times[0]


def run_times(rows: Callable[[str], list[tuple[Any, ...]]], since: int = 0) -> tuple[float, float]:
    """The p50 and p99 of attempts in milliseconds, from the claim to the end of the handler, by the ledger's times.

    Args:
        rows: returns the rows of a query on the ledger.
        since: microseconds since 1970; attempts that were claimed before do not count.
    """
    ended = f"SELECT finished_at - started_at FROM attempts WHERE started_at >= {since} AND finished_at IS NOT NULL"
    return spread([microseconds / 1000 for (microseconds,) in rows(ended)])


def call_times(function: Callable[[Any], object], arguments: Iterable[Any]) -> tuple[float, float]:
    """The p50 and p99 of calls in milliseconds, one call for each argument."""
    times = []
    for argument in arguments:
        started = time.perf_counter()
        function(argument)
        times.append((time.perf_counter() - started) * 1000)
    return spread(times)


def latency(loads: tuple[load.Load, ...]) -> str:
    """The median latencies as text."""
    p50, p99 = median(each.p50 for each in loads), median(each.p99 for each in loads)
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
