"""Rows about alternatives to flowhooks.

Each alternative accepts the same callbacks and runs an empty function for each, on the same two cores.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import load
import peers
import processor
from bench import CONNECTIONS, LATER
from cluster import cluster
from figures import Cost, Figure
from measuring import Target, wait_until_drained
from servers import ServerError, bare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from bench import Bench

WARM_UP = 1.0
"""Seconds of the same load before the measured load; its stored callbacks must be run, too."""
SECONDS = 2.0
"""The maximum duration of each measured load, because there are many."""
REST = 5.0
"""Seconds after the load in which the rest is run; callbacks left then exceed the capacity."""
DRAIN = 45.0
"""Seconds after that in which all must have been run, so that their processor time is known."""
SQLITE = "flowhooks on SQLite"
POSTGRESQL = "flowhooks on PostgreSQL"
HOOK = ("/hooks/complete?flow=", "")
"""The parts before and after the flowInstanceId in a path of webhook."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A program that accepts callbacks and runs a function for each.

    Attributes:
        name: for the table.
        open: runs it.
        missing: how to install its requirements; `""` if they are installed.
        beside: the name of the subject that it is compared with.
    """

    name: str
    open: Callable[[Bench], AbstractContextManager[Target]]
    missing: Callable[[], str] = lambda: ""
    beside: str = SQLITE


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The result of one load.

    Attributes:
        answered: callbacks answered per second.
        ran: runs per second, from the start of the load until none was left or the time was over.
        left: callbacks that were answered and had not been run by then.
        p50: milliseconds within which half of the responses arrived.
        p99: milliseconds within which 99 of 100 responses arrived.
        processor: microseconds of processor time for each callback until all had been run; 0 if not all were.
    """

    answered: float
    ran: float
    left: int
    p50: float
    p99: float
    processor: float


@contextmanager
def _flowhooks(bench: Bench) -> Iterator[Target]:
    with bench.site() as site, site.serve() as server:
        yield Target(url=server.url, count_unfinished=lambda _answered: site.count_unfinished())


@contextmanager
def _flowhooks_on_postgresql(bench: Bench) -> Iterator[Target]:
    with (
        bench.scratch() as folder,
        cluster(folder) as postgresql,
        postgresql.ledger("embedded") as ledger,
        ledger.serve(worker=True) as server,
    ):
        yield Target(url=server.url, count_unfinished=lambda _answered: ledger.count_unfinished())


@contextmanager
def _procrastinate(bench: Bench) -> Iterator[Target]:
    with (
        bench.scratch() as folder,
        peers.on_postgresql(folder, bench.show_progress) as postgresql,
        postgresql.procrastinate() as server,
    ):
        yield Target(
            url=server.url, count_unfinished=lambda _answered: postgresql.open("procrastinate_jobs", "succeeded")
        )


@contextmanager
def _dbos(bench: Bench) -> Iterator[Target]:
    with (
        bench.scratch() as folder,
        peers.on_postgresql(folder, bench.show_progress) as postgresql,
        postgresql.dbos() as server,
    ):
        yield Target(
            url=server.url, count_unfinished=lambda _answered: postgresql.open("dbos.workflow_status", "SUCCESS")
        )


@contextmanager
def _celery(bench: Bench, *, durable: bool) -> Iterator[Target]:
    with (
        bench.scratch() as folder,
        peers.peer(folder, bench.show_progress, durable=durable) as redis,
        redis.workers(peers.WORKERS),
        redis.serve() as server,
    ):
        yield Target(url=server.url, count_unfinished=lambda _answered: redis.open())


@contextmanager
def _rq(bench: Bench, *, durable: bool) -> Iterator[Target]:
    with (
        bench.scratch() as folder,
        peers.peer(folder, bench.show_progress, durable=durable) as redis,
        redis.rq_workers(peers.WORKERS),
        redis.serve_flask() as server,
    ):
        yield Target(url=server.url, count_unfinished=lambda _answered: redis.open())


@contextmanager
def _webhook(bench: Bench, command: str, *, waits: bool) -> Iterator[Target]:
    with bench.scratch() as folder, peers.webhook(folder, command, waits=waits) as (server, counted):
        yield Target(
            url=server.url, count_unfinished=lambda answered: max(0, answered - counted.stat().st_size), path=HOOK
        )


OURS = Contender(name=SQLITE, open=_flowhooks)
OURS_ON_POSTGRESQL = Contender(name=POSTGRESQL, open=_flowhooks_on_postgresql)
OTHERS = (
    Contender(
        name="FastAPI + Celery + Redis, as installed",
        missing=peers.missing_redis,
        open=lambda bench: _celery(bench, durable=False),
    ),
    Contender(
        name="FastAPI + Celery + Redis, as durable as can be",
        missing=peers.missing_redis,
        open=lambda bench: _celery(bench, durable=True),
    ),
    Contender(
        name="Flask + RQ + Redis, as installed",
        missing=peers.missing_redis,
        open=lambda bench: _rq(bench, durable=False),
    ),
    Contender(
        name="Flask + RQ + Redis, as durable as can be",
        missing=peers.missing_redis,
        open=lambda bench: _rq(bench, durable=True),
    ),
    Contender(
        name="webhook + shell, as installed",
        missing=peers.missing_webhook,
        open=lambda bench: _webhook(bench, peers.SHELL, waits=False),
    ),
    Contender(
        name="webhook + shell, answered when it has ended",
        missing=peers.missing_webhook,
        open=lambda bench: _webhook(bench, peers.SHELL, waits=True),
    ),
    Contender(name="FastAPI + Procrastinate", open=_procrastinate, beside=POSTGRESQL),
    Contender(name="FastAPI + DBOS", open=_dbos, beside=POSTGRESQL),
    # Not the default: webhook would start a process for each callback at once, until the memory is full.
    Contender(
        name="webhook + Python, answered when it has ended",
        missing=peers.missing_webhook,
        open=lambda bench: _webhook(bench, peers.PYTHON, waits=True),
    ),
)
"""Alternatives that are not installed are left out and named."""


def answered(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Callbacks answered per second while handlers run, ÷ by each alternative."""
    figures, notes = _figures(bench, lambda score: score.answered, "answered")
    for connections in CONNECTIONS:
        rates = [_bare(bench, connections) for _ in range(bench.rounds)]
        notes.append(f"{connections} connections: the bare app, which stores and runs nothing, {median(rates):,.0f}/s")
    notes.append(f"versions: {peers.versions()}")
    return figures, notes


def ran(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Handlers run per second, ÷ by each alternative."""
    figures, notes = _figures(bench, lambda score: score.ran, "run")
    for (name, connections), found in _scores(bench).items():
        if left := max(score.left for score in found):
            notes.append(f"{name}, {connections} connections: {left:,} answered and not run {REST:.0f} s later")
    return figures, notes


def cheapest(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Processor time of a callback from its request to the end of its handler, ÷ by each alternative."""
    figures, notes = _figures(bench, lambda score: score.processor, "answered")
    notes += [
        f"{name}, {connections} connections: not all was run {REST + DRAIN:.0f} s after the load, so its processor "
        "time is unknown"
        for (name, connections), found in _scores(bench).items()
        if not all(score.processor for score in found)
    ]
    return figures, notes


def _figures(bench: Bench, of: Callable[[Score], float], done: str) -> tuple[list[Figure], list[str]]:
    scores = _scores(bench)
    figures = []
    for connections in CONNECTIONS:
        for other in OTHERS:
            ours, theirs = (scores.get((name, connections), []) for name in (other.beside, other.name))
            pairs = [(of(one), of(another)) for one, another in zip(ours, theirs, strict=bool(ours and theirs))]
            if not pairs or not all(min(pair) for pair in pairs):
                continue  # not installed, or unknown
            shown = [score.ran if done == "run" else score.answered for score in (*ours, *theirs)]
            figures.append(
                Figure(
                    case=f"{connections} connections, {other.name}",
                    measured=f"{median(shown[: len(ours)]):,.0f}/s {done}",
                    yardstick=f"{median(shown[len(ours) :]):,.0f}/s",
                    judged=median(one / another for one, another in pairs),
                    ours=_cost(ours, shown[: len(ours)]),
                    theirs=_cost(theirs, shown[len(ours) :]),
                )
            )
    notes = [f"{other.name} is left out: {missing}" for other in OTHERS if (missing := other.missing())]
    notes += [
        f"{connections} connections, {one.name}: nothing was answered in the time of a load"
        for connections in CONNECTIONS
        for one in (OURS, OURS_ON_POSTGRESQL, *OTHERS)
        if (one.name, connections) not in scores and not one.missing()
    ]
    if not figures:
        raise ServerError("; ".join(notes) or "nothing was measured")
    return figures, notes


def _cost(scores: list[Score], rates: list[float]) -> Cost:
    return Cost(
        processor=median(score.processor for score in scores) if all(score.processor for score in scores) else 0.0,
        rate=median(rates),
        p50=median(score.p50 for score in scores),
        p99=median(score.p99 for score in scores),
    )


def _scores(bench: Bench) -> dict[tuple[str, int], list[Score]]:
    """The results of each alternative with a number of connections, round by round; measured at the first call."""
    found: dict[tuple[str, int], list[Score]]
    if "peers" in bench.cache:
        found = bench.cache["peers"]  # type: ignore[assignment]  # put there below
        return found
    found = {}
    there = [one for one in (OURS, OURS_ON_POSTGRESQL, *OTHERS) if not one.missing()]
    for connections in CONNECTIONS:
        for number in range(bench.rounds):
            for contender in there:
                bench.show_progress(f"{contender.name}, {connections} connections", number, bench.rounds)
                with suppress(load.NoResponses), contender.open(bench) as target:
                    score = measure(target, connections, min(bench.seconds, SECONDS))
                    found.setdefault((contender.name, connections), []).append(score)
    found = {of: scores for of, scores in found.items() if len(scores) == bench.rounds}
    bench.cache["peers"] = found
    return found


def measure(target: Target, connections: int, seconds: float) -> Score:
    """Load one alternative, then count how many of its answered callbacks it has run."""
    began, before = time.monotonic(), processor.spent()
    run = partial(load.run, target.url, connections=connections, prefer=LATER, path=target.path)
    answered_count = 0
    with suppress(load.NoResponses):  # too slow for one second: the measured load shows how slow
        answered_count = run(seconds=WARM_UP).counted
    measured = run(seconds=seconds)
    answered_count += measured.counted
    is_drained = wait_until_drained(target, answered_count, REST)
    spent, left = time.monotonic() - began, 0 if is_drained else target.count_unfinished(answered_count)
    ran = max(1, answered_count - left)  # requests that wrk did not wait for were answered, too
    is_drained = is_drained or wait_until_drained(target, answered_count, DRAIN)
    # When wrk stops, each connection has one unanswered request, which the server processes too.
    cost = (processor.spent() - before) / (answered_count + 2 * connections) * 1e6
    return Score(
        answered=measured.rate,
        ran=ran / spent,
        left=left,
        p50=measured.p50,
        p99=measured.p99,
        processor=cost if is_drained else 0.0,
    )


def _bare(bench: Bench, connections: int) -> float:
    bench.show_progress(f"bare, {connections} connections")
    with bench.scratch() as folder, bare(folder) as server:
        load.run(server.url, connections=connections, seconds=WARM_UP, prefer=LATER)
        return load.run(server.url, connections=connections, seconds=min(bench.seconds, SECONDS), prefer=LATER).rate
