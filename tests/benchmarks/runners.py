"""Both runners on PostgreSQL in turn: how soon a delivery starts and how many run; no ratios, no goals.

`python tests/benchmarks/runners.py` prints the figures on which decision 0027 is based.
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
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as name, cluster(Path(name)) as postgresql:
        bench = Bench(seconds=1, events=0, folder=Path(name), tell=lambda *_args: None)
        for number in range(rounds):
            # The order alternates, so that neither runner always has an advantage.
            for runner in RUNNERS[:: -1 if number % 2 else 1]:
                started[runner].append(median(measured(bench, postgresql, runner).started))
                rates[runner].append(ours(bench, postgresql, runner).rate)
                click.echo(f"{runner}: {started[runner][-1]:.1f} ms, {rates[runner][-1]:,.0f}/s")
    click.echo("| runner | arrival until run | deliveries run by two workers |\n|---|---|---|")
    for runner in RUNNERS:
        click.echo(f"| {runner} | {median(started[runner]):.1f} ms | {median(rates[runner]):,.0f}/s |")


if __name__ == "__main__":
    main()
