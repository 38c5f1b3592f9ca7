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
LAY_UP = 4.0
"""Seconds of callbacks whose deliveries or tasks are run afterwards."""
PATIENCE = 120.0
"""Seconds in which the stored work must be done."""
WORKERS = 2
IDLE_WORKER = """
INSERT INTO processes (id, host, pid, kind, handlers, started_at, heartbeat_at)
SELECT '0', 'idle', 0, 'worker', '["bench:handler-0"]', now.at, now.at + 86400000000
FROM (SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)) AS now (at)
"""
"""Register a worker that does nothing: without one, `procrastinate` would store no jobs."""
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
                return accepted(bench, postgresql, runner, connections)

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


def accepted(bench: Bench, postgresql: Cluster, runner: str, connections: int) -> load.Load:
    """The load of callbacks that a server stores for a worker which takes none of them, with one runner."""
    with postgresql.ledger(runner) as ledger:
        ledger.rows(IDLE_WORKER)
        with ledger.serve() as server:
            return _loaded(bench, server, runner, connections)


def _loaded(bench: Bench, server: Server, name: str, connections: int) -> load.Load:
    bench.show_progress(f"{name}, {connections} connections")
    seconds = min(bench.seconds, SECONDS)
    return measuring.measure_load(Target(url=server.url), connections=connections, seconds=seconds, prefer=LATER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """The deliveries or tasks that workers ran.

    Attributes:
        count: their number.
        seconds: the time from the first to the last.
        processor: microseconds of processor time for each, without the start of the workers.
        p50: milliseconds from its claim to the end of the handler that half did not exceed; 0 if it is not known.
        p99: the same of 99 of 100.
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
            {"": celery(bench)} | {runner: ours(bench, postgresql, runner) for runner in RUNNERS}
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


def celery(bench: Bench) -> Ran:
    """The result of two processes of Celery for some seconds of callbacks."""
    with bench.scratch() as folder, peer(folder, bench.show_progress) as redis:
        with redis.serve() as server:
            _lay_up(bench, server, "tasks for Celery")
        bench.show_progress("running them by Celery")
        with redis.workers(WORKERS):
            count, seconds, spent = redis.drained(seconds=PATIENCE)
            return Ran(count=count, seconds=seconds, processor=spent * 1e6)


def ours(bench: Bench, postgresql: Cluster, runner: str) -> Ran:
    """The result of two workers for some seconds of callbacks, with one runner."""
    with postgresql.ledger(runner) as ledger:
        with ledger.serve() as server:
            _lay_up(bench, server, "deliveries")
        bench.show_progress(f"running them, {runner}")
        return run_all(ledger, WORKERS)


def _lay_up(bench: Bench, server: Server, what: str) -> None:
    bench.show_progress(f"laying up {what}")
    load.run(server.url, connections=CONNECTIONS[-1], seconds=LAY_UP, prefer=LATER)


def run_all(ledger: SharedLedger, workers: int) -> Ran:
    """Let workers run all waiting deliveries, from the first claim to the last outcome according to the ledger."""
    before = time.time_ns() // 1000
    with ExitStack() as stack, ThreadPoolExecutor(workers) as starting:
        # The workers start together, because work done by one before the others would count for all.
        list(starting.map(lambda _: stack.enter_context(ledger.worker()), range(workers)))
        spent, done = processor.spent(), int(ledger.query_value(DONE))
        ledger.settle(seconds=PATIENCE)
        spent = (processor.spent() - spent) / max(1, int(ledger.query_value(DONE)) - done)
    ((count, microseconds),) = ledger.rows(
        f"SELECT count(*), max(finished_at) - min(started_at) FROM attempts WHERE started_at >= {before}"
    )
    p50, p99 = run_times(ledger.rows, before)
    return Ran(count=count, seconds=microseconds / 1e6, processor=spent * 1e6, p50=p50, p99=p99)
