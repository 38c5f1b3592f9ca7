"""Both runners on PostgreSQL in turn: how soon a delivery starts, how many run, and at what cost; no goals.

`python tests/benchmarks/runners.py` prints the figures on which decision 0102 is based.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import click
from bench import Bench
from cluster import RUNNERS, cluster
from promptness import measured
from sharing import ours


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="How often each has its turn.")
def main(rounds: int) -> None:
    """Print for each runner the medians and the results of each round."""
    started: dict[str, list[float]] = {runner: [] for runner in RUNNERS}
    rates: dict[str, list[float]] = {runner: [] for runner in RUNNERS}
    costs: dict[str, list[float]] = {runner: [] for runner in RUNNERS}
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as name, cluster(Path(name)) as postgresql:
        bench = Bench(seconds=1, events=0, folder=Path(name), tell=lambda *_args: None)
        for number in range(rounds):
            # The order alternates, so that neither runner always has an advantage.
            for runner in RUNNERS[:: -1 if number % 2 else 1]:
                started[runner].append(median(measured(bench, postgresql, runner).started))
                ran = ours(bench, postgresql, runner)
                rates[runner].append(ran.rate)
                costs[runner].append(ran.processor)
                click.echo(f"{runner}: {started[runner][-1]:.1f} ms, {ran.rate:,.0f}/s, {ran.processor:,.0f} µs")
    click.echo("| runner | arrival until run | deliveries run by two workers | their processor time per delivery |")
    click.echo("|---|---|---|---|")
    for runner in RUNNERS:
        times = f"{median(started[runner]):.1f} ms | {median(rates[runner]):,.0f}/s | {median(costs[runner]):,.0f} µs"
        click.echo(f"| {runner} | {times} |")


if __name__ == "__main__":
    main()
