"""Rows about the latency of a single callback on PostgreSQL."""

from __future__ import annotations

import http.client
import json
import random
import time
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING

import load
import processor
from bench import spread
from cluster import RUNNERS, cluster
from figures import NOT_STATED, Cost, Figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench import Bench
    from cluster import Cluster

SAMPLES = 120
FIRST = 20
"""The number of first callbacks that are not counted, because they open connections and prepare statements."""
PAUSE = (0.02, 0.12)
"""Seconds between a response and the next callback, at random, so that no poll of the runner coincides."""
KNOWN_TIMEOUT = 60.0
"""Seconds until a server must know that a worker runs the handler; before that it waits for no result."""
BODY = {"callBackProcessClass": "com.cnooc.test.CallbackHandler", "businessKey": "HT-2026-0042"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Milliseconds of each callback.

    Attributes:
        started: from its arrival until a worker marked its delivery as running, by the times in the ledger.
        ran: from its arrival until its empty handler had run.
        answered: from then until its caller had the response.
        processor: microseconds of processor time, with those of idle processes between the callbacks.
    """

    started: tuple[float, ...]
    ran: tuple[float, ...]
    answered: tuple[float, ...]
    processor: float


def started(bench: Bench) -> tuple[list[Figure], list[str]]:
    """The median time from arrival until a worker in another process has started the delivery."""
    found = _times(bench)
    figures, notes = _shown(found, lambda times: times.started, worst=False)
    _, until_run = _shown(found, lambda times: times.ran, worst=False)
    return figures, [*notes, *(f"until the handler had run, {note}" for note in until_run)]


def answered(bench: Bench) -> tuple[list[Figure], list[str]]:
    """The time from the end of the handler in a worker until the caller has the server's response: 99 of 100."""
    return _shown(_times(bench), lambda times: times.answered, worst=True)


def _shown(
    found: dict[str, Times], of: Callable[[Times], tuple[float, ...]], *, worst: bool
) -> tuple[list[Figure], list[str]]:
    figures, notes = [], []
    for runner, both in found.items():
        times = of(both)
        p50, p99 = spread(times)
        judged = p99 if worst else p50
        figures.append(
            Figure(
                case=f"{runner}, {'p99' if worst else 'p50'}",
                measured=f"{judged:.1f} ms",
                judged=judged,
                ours=Cost(processor=both.processor, rate=NOT_STATED, p50=p50, p99=p99),
            )
        )
        notes.append(f"{runner}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(times)} callbacks")
    return figures, notes


def _times(bench: Bench) -> dict[str, Times]:
    """The times, measured once for both rows."""
    if "times" not in bench.cache:
        with bench.scratch() as folder, cluster(folder) as postgresql:
            bench.cache["times"] = {runner: measured(bench, postgresql, runner) for runner in RUNNERS}
    found = bench.cache["times"]
    assert isinstance(found, dict)
    return found


def measured(bench: Bench, postgresql: Cluster, runner: str) -> Times:
    """The times with one runner: a server without a worker, and one worker beside it."""
    with postgresql.ledger(runner) as ledger, ledger.serve() as server, ledger.worker():
        arrived: dict[str | None, float] = {}
        where = server.url.removeprefix("http://")
        with closing(http.client.HTTPConnection(where, timeout=30)) as connection:
            _until_worker_known(connection)
            began = processor.spent()
            for number in range(SAMPLES):
                bench.show_progress(f"one at a time, {runner}", number, SAMPLES)
                answer = _post(connection, str(number))
                now = time.time() * 1000
                if answer.status != HTTPStatus.OK:
                    raise load.LoadError(f"a callback was answered {answer.status}")
                if number >= FIRST:
                    arrived[answer.headers["Flowhooks-Event"]] = now
                time.sleep(random.uniform(*PAUSE))
        spent = (processor.spent() - began) / SAMPLES * 1e6
        rows = ledger.rows(
            "SELECT events.id, received_at / 1000.0, started_at / 1000.0, finished_at / 1000.0 FROM events"
            " JOIN deliveries ON event_id = events.id JOIN attempts ON delivery_id = deliveries.id"
        )
    counted = [(event, *map(float, times)) for event, *times in rows if event in arrived]
    return Times(
        started=tuple(began - received for _, received, began, _ in counted),
        ran=tuple(ended - received for _, received, _, ended in counted),
        answered=tuple(arrived[event] - ended for event, _, _, ended in counted),
        processor=spent,
    )


def _post(connection: http.client.HTTPConnection, instance: str) -> http.client.HTTPResponse:
    """Send a callback, and read the response to its end."""
    headers = {"Content-Type": "application/json"}
    connection.request("POST", f"/flow/{instance}/call-back/complete", json.dumps(BODY), headers)
    answer = connection.getresponse()
    answer.read()
    return answer


def _until_worker_known(connection: http.client.HTTPConnection) -> None:
    """Wait until the server waits for the result of a callback.

    Raises:
        LoadError: this took too long.
    """
    end = time.monotonic() + KNOWN_TIMEOUT
    for number in count():
        # Each time another callback, because a repeated one is answered 200 once it has run.
        if (status := _post(connection, f"first-{number}").status) == HTTPStatus.OK:
            break
        if time.monotonic() > end:
            raise load.LoadError(f"a callback was still answered {status} after {KNOWN_TIMEOUT:.0f} s")
        time.sleep(PAUSE[0])
