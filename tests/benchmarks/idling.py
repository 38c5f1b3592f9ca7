"""Count the transactions of servers and workers on PostgreSQL while no callback arrives; no ratios, no goals.

`python tests/benchmarks/idling.py` prints the figures that `docs/explanation/scale.md` uses.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from statistics import median

import click
import psycopg
from cluster import RUNNERS, Cluster, cluster

from flowhooks.execution.runners.procrastinate import ACTIVE_SECONDS

TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
IDLE_MARGIN = 5.0
"""Seconds after which processes that have nothing to do poll less often, beyond `ACTIVE_SECONDS`."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--handlers", type=click.IntRange(min=1), default=10_000, show_default=True, help="Number of handlers.")
@click.option("--seconds", type=click.FloatRange(min=1), default=30, show_default=True, help="Of each window.")
@click.option("--windows", type=click.IntRange(min=1), default=3, show_default=True, help="Counts of each case.")
@click.option(
    "--rest", type=click.FloatRange(min=0), default=ACTIVE_SECONDS + IDLE_MARGIN, show_default=True, help="Before."
)
@click.option("--workers", multiple=True, default=(1, 2), show_default=True, help="Number of workers; may be repeated.")
@click.option("--runner", "runners", multiple=True, type=click.Choice(RUNNERS), default=RUNNERS, help="Default: both.")
def main(
    *, handlers: int, seconds: float, windows: int, rest: float, workers: tuple[int, ...], runners: tuple[str, ...]
) -> None:
    """Print the transactions a second of an idle server with idle workers: the median of the windows, and the range."""
    click.echo("| runner | handlers | workers | transactions a second |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder, cluster(Path(folder)) as postgresql:
        for runner in runners:
            for number in workers:
                counts = transactions(
                    postgresql,
                    runner,
                    handlers=handlers,
                    workers=number,
                    seconds=seconds,
                    windows=windows,
                    rest=rest,
                )
                summary = f"{median(counts):.1f} ({min(counts):.1f} to {max(counts):.1f})"
                click.echo(f"| {runner} | {handlers:,} | {number} | {summary} |")


def transactions(
    postgresql: Cluster, runner: str, *, handlers: int, workers: int, seconds: float, windows: int, rest: float
) -> list[float]:
    """The transactions a second in each window, of a server without a worker in it and of some workers."""
    with ExitStack() as stack:
        ledger = stack.enter_context(postgresql.ledger(runner, handlers=handlers))
        stack.enter_context(ledger.serve())
        for _ in range(workers):
            stack.enter_context(ledger.worker())
        time.sleep(rest)
        with closing(psycopg.connect(ledger.url, autocommit=True)) as connection:
            counts = [(time.monotonic(), _count(connection))]
            for _ in range(windows):
                time.sleep(seconds)
                counts.append((time.monotonic(), _count(connection)))
    # Each query of this program is a transaction, too.
    return [(after - before - 1) / (ended - began) for (began, before), (ended, after) in pairwise(counts)]


def _count(connection: psycopg.Connection[tuple[int]]) -> int:
    """The number of transactions; the one of this query is counted afterwards."""
    row = connection.execute(TRANSACTIONS).fetchone()
    assert row is not None
    return row[0]


if __name__ == "__main__":
    main()
