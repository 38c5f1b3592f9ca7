"""PostgreSQL's log and commits for a callback; no ratios, no goals.

`python tests/benchmarks/costs.py` prints the figures that `docs/explanation/scale.md` uses.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
import load
from bench import CONNECTIONS, LATER
from cluster import RUNNERS, Cluster, cluster

COUNTERS = """
SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn,
    (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()),
    (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) - 1,
    (SELECT count(*) FROM events)
"""
REPORT_DELAY = 2.0
"""Seconds after which all processes have reported their figures: PostgreSQL's counters are up to one second late."""


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=3, show_default=True, help="Of load.")
def main(seconds: float) -> None:
    """Print the cost of a callback that is stored and run, for each runner."""
    click.echo("| runner | what | figure |\n|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder, cluster(Path(folder)) as postgresql:
        for runner in RUNNERS:
            for name, figure in _costs(postgresql, runner, seconds).items():
                click.echo(f"| {runner} | {name} | {figure:,.1f} |")


def _costs(postgresql: Cluster, runner: str, seconds: float) -> dict[str, float]:
    costs = {}
    with postgresql.ledger(runner) as ledger:
        with ledger.serve() as server:
            before = ledger.rows(COUNTERS)[0]
            load.run(server.url, connections=CONNECTIONS[-1], seconds=seconds, prefer=LATER)
            time.sleep(REPORT_DELAY)
            after = ledger.rows(COUNTERS)[0]
            events = after[3] - before[3]
            costs["bytes of log for a callback stored"] = float(after[0] - before[0]) / events
            costs["commits for a callback stored"] = (after[1] - before[1]) / events
            costs["connections of a server"] = float(after[2])
        with ledger.worker():
            ledger.settle(seconds=120)
            time.sleep(REPORT_DELAY)
            after_run = ledger.rows(COUNTERS)[0]
            costs["bytes of log for a delivery run"] = float(after_run[0] - after[0]) / events
            costs["commits for a delivery run"] = (after_run[1] - after[1]) / events
            costs["connections of a worker"] = float(after_run[2])
    return costs


if __name__ == "__main__":
    main()
