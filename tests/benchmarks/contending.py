"""Rows about alternatives to flowhooks.

Each alternative accepts the same callbacks and runs an empty function for each, on the same two cores.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import load
import peers
from bench import CONNECTIONS, LATER
from figures import Figure
from servers import ServerError, bare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from bench import Bench

WARM_UP = 1.0
"""Seconds of the same load before the measured load; its stored callbacks must be run, too."""
SECONDS = 3.0
"""The maximum duration of each measured load, because there are many."""
REST = 5.0
"""Seconds after the load in which the rest is run; callbacks left then exceed the capacity."""
ROUNDS = 3
HOOK = ("/hooks/complete?flow=", "")
"""The parts before and after the flowInstanceId in a path of webhook."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A running alternative.

    Attributes:
        url: root of its server.
        left: returns how many of a number of answered callbacks have not been run.
        path: the parts of the path before and after the flowInstanceId.
    """

    url: str
    left: Callable[[int], int]
    path: tuple[str, str] = load.PATH


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A program that accepts callbacks and runs a function for each.

    Attributes:
        name: for the table.
        missing: how to install its requirements; `""` if they are installed.
        open: runs it.
    """

    name: str
    missing: Callable[[], str]
    open: Callable[[Bench], AbstractContextManager[Taken]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The result of one load.

    Attributes:
        answered: callbacks answered per second.
        ran: runs per second, from the start of the load until none was left or the time was over.
        left: callbacks that were answered and had not been run by then.
        p99: milliseconds within which 99 of 100 responses arrived.
    """

    answered: float
    ran: float
    left: int
    p99: float


@contextmanager
def _flowhooks(bench: Bench) -> Iterator[Taken]:
    with bench.site() as site, site.serve() as server:
        yield Taken(url=server.url, left=lambda _answered: site.unfinished())


@contextmanager
def _celery(bench: Bench, *, durable: bool) -> Iterator[Taken]:
    with (
        bench.scratch() as folder,
        peers.peer(folder, bench.tell, durable=durable) as redis,
        redis.workers(peers.WORKERS),
        redis.serve() as server,
    ):
        yield Taken(url=server.url, left=lambda _answered: redis.open())


@contextmanager
def _rq(bench: Bench, *, durable: bool) -> Iterator[Taken]:
    with (
        bench.scratch() as folder,
        peers.peer(folder, bench.tell, durable=durable) as redis,
        redis.rq_workers(peers.WORKERS),
        redis.serve_flask() as server,
    ):
        yield Taken(url=server.url, left=lambda _answered: redis.open())


@contextmanager
def _webhook(bench: Bench, command: str, *, waits: bool) -> Iterator[Taken]:
    with bench.scratch() as folder, peers.webhook(folder, command, waits=waits) as (server, counted):
        yield Taken(url=server.url, left=lambda answered: max(0, answered - counted.stat().st_size), path=HOOK)


OURS = Contender(name="flowhooks on SQLite", missing=lambda: "", open=_flowhooks)
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
    scores = _scores(bench)
    for connections in CONNECTIONS:
        one = {name: found for (name, of), found in scores.items() if of == connections}
        took = "; ".join(f"{name} {median(score.p99 for score in found):,.0f}" for name, found in one.items())
        notes.append(f"{connections} connections, p99 in ms: {took}")
        rates = [_bare(bench, connections) for _ in range(ROUNDS)]
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


def _figures(bench: Bench, of: Callable[[Score], float], done: str) -> tuple[list[Figure], list[str]]:
    scores = _scores(bench)
    figures = [
        Figure(
            case=f"{connections} connections, {other.name}",
            measured=f"{median(map(of, ours)):,.0f}/s {done}",
            yardstick=f"{median(map(of, theirs)):,.0f}/s",
            judged=median(of(one) / of(another) for one, another in zip(ours, theirs, strict=True)),
        )
        for connections in CONNECTIONS
        for other in OTHERS
        if (ours := scores.get((OURS.name, connections))) and (theirs := scores.get((other.name, connections)))
    ]
    notes = [f"{other.name} is left out: {missing}" for other in OTHERS if (missing := other.missing())]
    if not figures:
        raise ServerError("; ".join(notes))
    return figures, notes


def _scores(bench: Bench) -> dict[tuple[str, int], list[Score]]:
    """The results of each alternative with a number of connections, round by round; measured at the first call."""
    found: dict[tuple[str, int], list[Score]]
    if "peers" in bench.kept:
        found = bench.kept["peers"]  # type: ignore[assignment]  # put there below
        return found
    found = {}
    there = [one for one in (OURS, *OTHERS) if not one.missing()]
    for connections in CONNECTIONS:
        for number in range(ROUNDS):
            for contender in there:
                bench.tell(f"{contender.name}, {connections} connections", number, ROUNDS)
                with contender.open(bench) as taken:
                    score = measure(taken, connections, min(bench.seconds, SECONDS))
                found.setdefault((contender.name, connections), []).append(score)
    bench.kept["peers"] = found
    return found


def measure(taken: Taken, connections: int, seconds: float) -> Score:
    """Load one alternative, then count how many of its answered callbacks it has run."""
    began = time.monotonic()
    loads = [
        load.run(taken.url, connections=connections, seconds=each, prefer=LATER, path=taken.path)
        for each in (WARM_UP, seconds)
    ]
    whole = sum(each.counted for each in loads)
    end = time.monotonic() + REST
    while (left := taken.left(whole)) and time.monotonic() < end:
        time.sleep(0.05)
    spent = time.monotonic() - began
    ran = max(1, whole - left)  # requests that wrk did not wait for were answered, too
    return Score(answered=loads[-1].rate, ran=ran / spent, left=left, p99=loads[-1].p99)


def _bare(bench: Bench, connections: int) -> float:
    bench.tell(f"bare, {connections} connections")
    with bench.scratch() as folder, bare(folder) as server:
        load.run(server.url, connections=connections, seconds=WARM_UP, prefer=LATER)
        return load.run(server.url, connections=connections, seconds=min(bench.seconds, SECONDS), prefer=LATER).rate
