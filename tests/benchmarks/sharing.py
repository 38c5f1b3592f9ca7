"""Rows about a ledger on PostgreSQL, compared with FastAPI + Celery + Redis."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import load
import measuring
import processor
from bench import CONNECTIONS, LATER, compare, cost, rate, run_times
from cluster import RUNNERS, cluster
from figures import Figure
from measuring import Target
from peers import peer

if TYPE_CHECKING:
    from bench import Bench
    from cluster import Cluster, SharedLedger
    from servers import Server

SECONDS = 5.0
"""The maximum duration of each measured load, because there are many."""
BACKLOG_SECONDS = 4.0
"""The seconds for which callbacks are sent whose deliveries or tasks are run afterwards."""
SETTLE_TIMEOUT = 120.0
"""Seconds in which all stored deliveries or tasks must have been run."""
WORKERS = 2
IDLE_WORKER = """
INSERT INTO processes (id, host, pid, kind, handlers, started_at, heartbeat_at)
SELECT '0', 'idle', 0, 'worker', '["bench:handler-0"]', now.at, now.at + 86400000000
FROM (SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)) AS now (at)
"""
"""Register a worker that does nothing. Without a registered worker, `procrastinate` would store no jobs."""
DONE = "SELECT count(*) FROM attempts WHERE finished_at IS NOT NULL"


def accept(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Callbacks stored before the response by a server that runs none, ÷ by FastAPI, Celery and Redis."""
    figures: list[Figure] = []
    with bench.scratch() as folder, cluster(folder) as postgresql:
        for connections in CONNECTIONS:

            def theirs(connections: int = connections) -> load.Load:
                with bench.scratch() as folder, peer(folder, bench.show_progress) as redis, redis.serve() as server:
                    return _loaded(bench, server, "FastAPI + Celery", connections)

            def ours(runner: str, connections: int = connections) -> load.Load:
                return measure_accept(bench, postgresql, runner, connections)

            for runner, comparison in zip(
                RUNNERS,
                compare(bench.rounds, theirs, *(lambda runner=runner: ours(runner) for runner in RUNNERS)),
                strict=True,
            ):
                case = f"{connections} connections, {runner}"
                figures.append(
                    Figure(
                        case=case,
                        measured=f"{rate(comparison.ours)} stored",
                        yardstick=f"{rate(comparison.yardstick)} FastAPI + Celery",
                        judged=comparison.ratio,
                        ours=cost(comparison.ours),
                        theirs=cost(comparison.yardstick),
                    )
                )
    return figures, []


def measure_accept(bench: Bench, postgresql: Cluster, runner: str, connections: int) -> load.Load:
    """Load a server that stores callbacks for a worker that runs none of them, with one runner."""
    with postgresql.ledger(runner) as ledger:
        ledger.rows(IDLE_WORKER)
        with ledger.serve() as server:
            return _loaded(bench, server, runner, connections)


def _loaded(bench: Bench, server: Server, name: str, connections: int) -> load.Load:
    bench.show_progress(f"{name}, {connections} connections")
    seconds = min(bench.seconds, SECONDS)
    return measuring.measure_load(Target(url=server.url), connections=connections, seconds=seconds, prefer=LATER)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The deliveries or tasks that workers ran.

    Attributes:
        count: the number of deliveries or tasks.
        seconds: the seconds from the first to the last delivery or task.
        processor: microseconds of processor time for each delivery or task, without the start of the workers.
        p50: the median milliseconds from the claim of a delivery to the end of its handler; 0 if unknown.
        p99: the milliseconds that 99 of 100 of these times do not exceed; 0 if unknown.
    """

    count: int
    seconds: float
    processor: float
    p50: float = 0.0
    p99: float = 0.0

    @property
    def rate(self) -> float:
        """Deliveries per second."""
        return self.count / self.seconds


def deliveries(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Deliveries run per second by two workers ÷ tasks by two processes of Celery, all stored before."""
    with bench.scratch() as folder, cluster(folder) as postgresql:
        rounds = [
            {"": run_celery(bench)} | {runner: run_flowhooks(bench, postgresql, runner) for runner in RUNNERS}
            for _ in range(bench.rounds)
        ]
    figures = [
        Figure(
            case=runner,
            measured=f"{median(by_runner[runner].rate for by_runner in rounds):,.0f}/s",
            yardstick=f"{median(by_runner[''].rate for by_runner in rounds):,.0f}/s Celery",
            judged=median(by_runner[runner].rate / by_runner[""].rate for by_runner in rounds),
            ours=cost([by_runner[runner] for by_runner in rounds]),
            theirs=cost([by_runner[""] for by_runner in rounds]),
        )
        for runner in RUNNERS
    ]
    notes = [
        f"{runner or 'Celery'}: "
        + ", ".join(f"{by_runner[runner].count:,} in {by_runner[runner].seconds:.1f} s" for by_runner in rounds)
        for runner in ("", *RUNNERS)
    ]
    return figures, notes


def run_celery(bench: Bench) -> RunResult:
    """Run the tasks of `BACKLOG_SECONDS` of callbacks by two processes of Celery."""
    with bench.scratch() as folder, peer(folder, bench.show_progress) as redis:
        with redis.serve() as server:
            _store_backlog(bench, server, "tasks for Celery")
        bench.show_progress("running them by Celery")
        with redis.workers(WORKERS):
            count, seconds, spent = redis.drain(seconds=SETTLE_TIMEOUT)
            return RunResult(count=count, seconds=seconds, processor=spent * 1e6)


def run_flowhooks(bench: Bench, postgresql: Cluster, runner: str) -> RunResult:
    """Run the deliveries of `BACKLOG_SECONDS` of callbacks by two workers, with one runner."""
    with postgresql.ledger(runner) as ledger:
        with ledger.serve() as server:
            _store_backlog(bench, server, "deliveries")
        bench.show_progress(f"running them, {runner}")
        return run_all(ledger, WORKERS)


def _store_backlog(bench: Bench, server: Server, name: str) -> None:
    bench.show_progress(f"laying up {name}")
    load.run(server.url, connections=CONNECTIONS[-1], seconds=BACKLOG_SECONDS, prefer=LATER)


def run_all(ledger: SharedLedger, workers: int) -> RunResult:
    """Run all waiting deliveries by workers; the times are those of the ledger, from first claim to last outcome."""
    first_started_at = time.time_ns() // 1000
    with ExitStack() as stack, ThreadPoolExecutor(workers) as executor:
        # All workers start together, because a worker that starts first would run deliveries before the others.
        list(executor.map(lambda _: stack.enter_context(ledger.worker()), range(workers)))
        spent, done = processor.spent(), int(ledger.query_value(DONE))
        ledger.settle(seconds=SETTLE_TIMEOUT)
        spent = (processor.spent() - spent) / max(1, int(ledger.query_value(DONE)) - done)
    ((count, microseconds),) = ledger.rows(
        f"SELECT count(*), max(finished_at) - min(started_at) FROM attempts WHERE started_at >= {first_started_at}"
    )
    p50, p99 = run_times(ledger.rows, first_started_at)
    return RunResult(count=count, seconds=microseconds / 1e6, processor=spent * 1e6, p50=p50, p99=p99)
