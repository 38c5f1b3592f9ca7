"""How many transactions servers and workers make on PostgreSQL while no callback arrives; no ratios, no goals.

`python tests/benchmarks/idling.py` prints the figures that `docs/explanation/scale.md` uses.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import click
import psycopg
from cluster import RUNNERS, Cluster, cluster

from flowhooks.execution.runners.procrastinate import ACTIVE_SECONDS

TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
REST = 5.0
"""Seconds after which processes that have nothing to do poll less often, beyond `ACTIVE_SECONDS`."""


@click.command()
@click.option("--handlers", type=click.IntRange(min=1), default=10_000, show_default=True, help="Number of handlers.")
@click.option("--seconds", type=click.FloatRange(min=1), default=30, show_default=True, help="Of each count.")
@click.option("--rest", type=click.FloatRange(min=0), default=ACTIVE_SECONDS + REST, show_default=True, help="Before.")
@click.option("--workers", multiple=True, default=(1, 2), show_default=True, help="Number of workers; may be repeated.")
def main(handlers: int, seconds: float, rest: float, workers: tuple[int, ...]) -> None:
    """Print the transactions a second of an idle server with idle workers, for each runner."""
    click.echo("| runner | handlers | workers | transactions a second |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder, cluster(Path(folder)) as postgresql:
        for runner in RUNNERS:
            for number in workers:
                found = transactions(postgresql, runner, handlers=handlers, workers=number, seconds=seconds, rest=rest)
                click.echo(f"| {runner} | {handlers:,} | {number} | {found:.1f} |")


def transactions(
    postgresql: Cluster, runner: str, *, handlers: int, workers: int, seconds: float, rest: float
) -> float:
    """The transactions a second of one server without a worker in it, and some workers, without the own ones."""
    with ExitStack() as stack:
        ledger = stack.enter_context(postgresql.ledger(runner, handlers=handlers))
        stack.enter_context(ledger.serve())
        for _ in range(workers):
            stack.enter_context(ledger.worker())
        time.sleep(rest)
        with closing(psycopg.connect(ledger.url, autocommit=True)) as connection:
            began, before = time.monotonic(), _count(connection)
            time.sleep(seconds)
            return (_count(connection) - before - 1) / (time.monotonic() - began)


def _count(connection: psycopg.Connection[tuple[int]]) -> int:
    """The number of transactions; the one of this query is counted afterwards."""
    found = connection.execute(TRANSACTIONS).fetchone()
    assert found is not None
    return found[0]


if __name__ == "__main__":
    main()
