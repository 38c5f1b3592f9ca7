"""Both runners on PostgreSQL in turn, row by row: the figures on which decision 0102 is based.

`python tests/benchmarks/runners.py` prints each figure of both runners side by side, and whether `procrastinate`
reaches nine tenths of `embedded` on every row.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click
import load
import report
from bench import CONNECTIONS, Bench
from cluster import RUNNERS, Cluster, cluster
from promptness import measure_times
from sharing import measure_accept, run_flowhooks

if TYPE_CHECKING:
    from collections.abc import Callable

MIN_RATIO = 0.9
"""The part of each figure of `embedded` that `procrastinate` must reach to be the only runner on PostgreSQL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure: its title, how it is shown, and whether a smaller one is better."""

    title: str
    text: Callable[[float], str]
    smaller_is_better: bool = False

    def ratio(self, embedded: float, procrastinate: float) -> float:
        """How much of `embedded`'s performance `procrastinate` has; more than 1 is better than `embedded`."""
        return embedded / procrastinate if self.smaller_is_better else procrastinate / embedded


def _per_second(figure: float) -> str:
    return f"{figure:,.0f}/s"


def _microseconds(figure: float) -> str:
    return f"{figure:,.0f} µs"


def _milliseconds(figure: float) -> str:
    return f"{figure:.1f} ms"


ROWS = {
    **{
        name: row
        for connections in CONNECTIONS
        for name, row in (
            (f"accept {connections}", Row(title=f"callbacks stored, {connections} connections", text=_per_second)),
            (
                f"cost {connections}",
                Row(
                    title=f"processor time of each, {connections} connections",
                    text=_microseconds,
                    smaller_is_better=True,
                ),
            ),
        )
    },
    "deliveries": Row(title="deliveries run by two workers", text=_per_second),
    "cost": Row(title="processor time of each delivery", text=_microseconds, smaller_is_better=True),
    "started": Row(title="accepted until started, p50", text=_milliseconds, smaller_is_better=True),
    "ran": Row(title="accepted until run, p50", text=_milliseconds, smaller_is_better=True),
    "answered": Row(title="run until answered, p50", text=_milliseconds, smaller_is_better=True),
}


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="How often each has its turn.")
@click.option("--seconds", type=click.FloatRange(min=1), default=5, show_default=True, help="For each load.")
def main(rounds: int, seconds: float) -> None:
    """Print a table with the medians of both runners, and the figures of each round before it."""
    if not load.is_installed():
        click.echo(load.INSTALL_HINT, err=True)
        sys.exit(2)
    click.echo(f"before: {report.busy()}")
    figures_by_runner: dict[str, dict[str, list[float]]] = {runner: defaultdict(list) for runner in RUNNERS}
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as name, cluster(Path(name)) as postgresql:
        bench = Bench(seconds=seconds, events=0, folder=Path(name), show_progress=lambda *_args: None)
        for number in range(rounds):
            # The order alternates, so that neither runner always has an advantage.
            for runner in RUNNERS[:: -1 if number % 2 else 1]:
                figures = one_round(bench, postgresql, runner)
                for row, figure in figures.items():
                    figures_by_runner[runner][row].append(figure)
                text = ", ".join(f"{ROWS[row].title} {ROWS[row].text(figure)}" for row, figure in figures.items())
                click.echo(f"{runner}: {text}")
    click.echo(f"after: {report.busy()}")
    for line in table(figures_by_runner):
        click.echo(line)


def one_round(bench: Bench, postgresql: Cluster, runner: str) -> dict[str, float]:
    """The figures of one runner, measured once."""
    figures = {}
    for connections in CONNECTIONS:
        stored = measure_accept(bench, postgresql, runner, connections)
        figures |= {f"accept {connections}": stored.rate, f"cost {connections}": stored.processor}
    ran = run_flowhooks(bench, postgresql, runner)
    times = measure_times(bench, postgresql, runner)
    return figures | {
        "deliveries": ran.rate,
        "cost": ran.processor,
        "started": median(times.started),
        "ran": median(times.ran),
        "answered": median(times.answered),
    }


def table(figures_by_runner: dict[str, dict[str, list[float]]]) -> list[str]:
    """The lines of a table with the medians of both runners and of the ratios of each round, and the conclusion."""
    lines = ["| figure | embedded | procrastinate | procrastinate ÷ embedded |", "|---|---|---|---|"]
    missed = []
    for name, row in ROWS.items():
        pairs = list(zip(*(figures_by_runner[runner][name] for runner in RUNNERS), strict=True))
        ratio = median(row.ratio(*pair) for pair in pairs)
        medians = " | ".join(row.text(median(figures)) for figures in zip(*pairs, strict=True))
        lines.append(f"| {row.title} | {medians} | {ratio:.2f} |")
        missed += [row.title] if round(ratio, 2) < MIN_RATIO else []
    conclusion = (
        f"less than {MIN_RATIO} of embedded: {'; '.join(missed)}" if missed else f"{MIN_RATIO} or more on every row"
    )
    return [*lines, "", f"procrastinate has {conclusion}"]


if __name__ == "__main__":
    main()
