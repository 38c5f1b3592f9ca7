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
"""Seconds of the same load before the measured load; callbacks stored then must be run, too."""
SECONDS = 2.0
"""The maximum duration of each measured load, because there are many."""
RUN_TIMEOUT = 5.0
"""Seconds after the load in which stored callbacks are run; callbacks left after that exceed the capacity."""
DRAIN_TIMEOUT = 45.0
"""Seconds after `RUN_TIMEOUT` in which all callbacks must have been run, so that their processor time is known."""
SQLITE = "flowhooks on SQLite"
POSTGRESQL = "flowhooks on PostgreSQL"
WEBHOOK_PATH = ("/hooks/complete?flow=", "")
"""The parts before and after the flowInstanceId in a path of webhook."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A program that accepts callbacks and runs a function for each.

    Attributes:
        name: the name in the table.
        run: runs the program while its context lasts.
        missing: returns how to install the requirements; `""` if they are installed.
        compared_with: the name of the subject with which the program is compared.
    """

    name: str
    run: Callable[[Bench], AbstractContextManager[Target]]
    missing: Callable[[], str] = lambda: ""
    compared_with: str = SQLITE


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The result of one load.

    Attributes:
        answered: callbacks answered per second.
        ran: runs per second, from the start of the load until no callback was left or `RUN_TIMEOUT` had passed.
        left: the number of callbacks that were answered and had not been run by then.
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
            url=server.url,
            count_unfinished=lambda _answered: postgresql.count_unfinished("procrastinate_jobs", "succeeded"),
        )


@contextmanager
def _dbos(bench: Bench) -> Iterator[Target]:
    with (
        bench.scratch() as folder,
        peers.on_postgresql(folder, bench.show_progress) as postgresql,
        postgresql.dbos() as server,
    ):
        yield Target(
            url=server.url,
            count_unfinished=lambda _answered: postgresql.count_unfinished("dbos.workflow_status", "SUCCESS"),
        )


@contextmanager
def _celery(bench: Bench, *, durable: bool) -> Iterator[Target]:
    with (
        bench.scratch() as folder,
        peers.peer(folder, bench.show_progress, durable=durable) as redis,
        redis.workers(peers.WORKERS),
        redis.serve() as server,
    ):
        yield Target(url=server.url, count_unfinished=lambda _answered: redis.count_unfinished())


@contextmanager
def _rq(bench: Bench, *, durable: bool) -> Iterator[Target]:
    with (
        bench.scratch() as folder,
        peers.peer(folder, bench.show_progress, durable=durable) as redis,
        redis.rq_workers(peers.WORKERS),
        redis.serve_flask() as server,
    ):
        yield Target(url=server.url, count_unfinished=lambda _answered: redis.count_unfinished())


@contextmanager
def _webhook(bench: Bench, command: str, *, waits: bool) -> Iterator[Target]:
    with bench.scratch() as folder, peers.webhook(folder, command, waits=waits) as (server, runs_file):
        yield Target(
            url=server.url,
            count_unfinished=lambda answered: max(0, answered - runs_file.stat().st_size),
            path=WEBHOOK_PATH,
        )


OURS = Contender(name=SQLITE, run=_flowhooks)
OURS_ON_POSTGRESQL = Contender(name=POSTGRESQL, run=_flowhooks_on_postgresql)
OTHERS = (
    Contender(
        name="FastAPI + Celery + Redis, as installed",
        missing=peers.missing_redis,
        run=lambda bench: _celery(bench, durable=False),
    ),
    Contender(
        name="FastAPI + Celery + Redis, as durable as can be",
        missing=peers.missing_redis,
        run=lambda bench: _celery(bench, durable=True),
    ),
    Contender(
        name="Flask + RQ + Redis, as installed",
        missing=peers.missing_redis,
        run=lambda bench: _rq(bench, durable=False),
    ),
    Contender(
        name="Flask + RQ + Redis, as durable as can be",
        missing=peers.missing_redis,
        run=lambda bench: _rq(bench, durable=True),
    ),
    Contender(
        name="webhook + shell, as installed",
        missing=peers.missing_webhook,
        run=lambda bench: _webhook(bench, peers.SHELL, waits=False),
    ),
    Contender(
        name="webhook + shell, answered when it has ended",
        missing=peers.missing_webhook,
        run=lambda bench: _webhook(bench, peers.SHELL, waits=True),
    ),
    Contender(name="FastAPI + Procrastinate", run=_procrastinate, compared_with=POSTGRESQL),
    Contender(name="FastAPI + DBOS", run=_dbos, compared_with=POSTGRESQL),
    # Not the default: webhook would start a process for each callback at once, until the memory is full.
    Contender(
        name="webhook + Python, answered when it has ended",
        missing=peers.missing_webhook,
        run=lambda bench: _webhook(bench, peers.PYTHON, waits=True),
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
    for (name, connections), scores in _scores(bench).items():
        if left := max(score.left for score in scores):
            notes.append(f"{name}, {connections} connections: {left:,} answered and not run {RUN_TIMEOUT:.0f} s later")
    return figures, notes


def cheapest(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Processor time of a callback from its request to the end of its handler, ÷ by each alternative."""
    figures, notes = _figures(bench, lambda score: score.processor, "answered")
    notes += [
        f"{name}, {connections} connections: not all was run {RUN_TIMEOUT + DRAIN_TIMEOUT:.0f} s after the load, so "
        "its processor time is unknown"
        for (name, connections), scores in _scores(bench).items()
        if not all(score.processor for score in scores)
    ]
    return figures, notes


def _figures(bench: Bench, value_of: Callable[[Score], float], verb: str) -> tuple[list[Figure], list[str]]:
    scores = _scores(bench)
    figures = []
    for connections in CONNECTIONS:
        for alternative in OTHERS:
            ours, theirs = (
                scores.get((name, connections), []) for name in (alternative.compared_with, alternative.name)
            )
            pairs = [
                (value_of(our_score), value_of(their_score))
                for our_score, their_score in zip(ours, theirs, strict=bool(ours and theirs))
            ]
            if not pairs or not all(min(pair) for pair in pairs):
                continue  # not installed, or unknown
            rates = [score.ran if verb == "run" else score.answered for score in (*ours, *theirs)]
            figures.append(
                Figure(
                    case=f"{connections} connections, {alternative.name}",
                    measured=f"{median(rates[: len(ours)]):,.0f}/s {verb}",
                    yardstick=f"{median(rates[len(ours) :]):,.0f}/s",
                    judged=median(our_value / their_value for our_value, their_value in pairs),
                    ours=_cost(ours, rates[: len(ours)]),
                    theirs=_cost(theirs, rates[len(ours) :]),
                )
            )
    notes = [
        f"{alternative.name} is left out: {missing}" for alternative in OTHERS if (missing := alternative.missing())
    ]
    notes += [
        f"{connections} connections, {contender.name}: nothing was answered in the time of a load"
        for connections in CONNECTIONS
        for contender in (OURS, OURS_ON_POSTGRESQL, *OTHERS)
        if (contender.name, connections) not in scores and not contender.missing()
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
    scores_by_case: dict[tuple[str, int], list[Score]]
    if "peers" in bench.cache:
        scores_by_case = bench.cache["peers"]  # type: ignore[assignment]  # stored below
        return scores_by_case
    scores_by_case = {}
    installed = [contender for contender in (OURS, OURS_ON_POSTGRESQL, *OTHERS) if not contender.missing()]
    for connections in CONNECTIONS:
        for number in range(bench.rounds):
            for contender in installed:
                bench.show_progress(f"{contender.name}, {connections} connections", number, bench.rounds)
                with suppress(load.NoResponses), contender.run(bench) as target:
                    score = measure(target, connections, min(bench.seconds, SECONDS))
                    scores_by_case.setdefault((contender.name, connections), []).append(score)
    scores_by_case = {case: scores for case, scores in scores_by_case.items() if len(scores) == bench.rounds}
    bench.cache["peers"] = scores_by_case
    return scores_by_case


def measure(target: Target, connections: int, seconds: float) -> Score:
    """Load one program, then count how many of its answered callbacks it has run."""
    started, spent_before = time.monotonic(), processor.spent()
    run = partial(load.run, target.url, connections=connections, prefer=LATER, path=target.path)
    answered_count = 0
    with suppress(load.NoResponses):  # no response during the warm-up: the measured load shows the rate
        answered_count = run(seconds=WARM_UP).counted
    measured = run(seconds=seconds)
    answered_count += measured.counted
    is_drained = wait_until_drained(target, answered_count, RUN_TIMEOUT)
    spent, left = time.monotonic() - started, 0 if is_drained else target.count_unfinished(answered_count)
    ran = max(1, answered_count - left)  # requests that wrk did not wait for were answered, too
    is_drained = is_drained or wait_until_drained(target, answered_count, DRAIN_TIMEOUT)
    # When wrk stops, each connection has one unanswered request, which the server processes too.
    cost = (processor.spent() - spent_before) / (answered_count + 2 * connections) * 1e6
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
