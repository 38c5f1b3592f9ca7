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
WARM_UP_CALLBACKS = 20
"""The number of first callbacks that are not counted, because they open connections and prepare statements."""
PAUSE = (0.02, 0.12)
"""The range of random seconds between a response and the next callback, so that callbacks and polls do not coincide."""
KNOWN_TIMEOUT = 60.0
"""Seconds in which a server must know that a worker runs the handler; until then it does not wait for results."""
BODY = {"callBackProcessClass": "com.cnooc.test.CallbackHandler", "businessKey": "HT-2026-0042"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Milliseconds of each callback.

    Attributes:
        started: from the arrival until a worker marked the delivery as running, by the times in the ledger.
        ran: from the arrival until the empty handler had ended.
        answered: from the end of the handler until the client had the response.
        processor: microseconds of processor time, including idle processes between the callbacks.
    """

    started: tuple[float, ...]
    ran: tuple[float, ...]
    answered: tuple[float, ...]
    processor: float


def started(bench: Bench) -> tuple[list[Figure], list[str]]:
    """The median time from arrival until a worker in another process has started the delivery."""
    times_by_runner = _cached_times(bench)
    figures, notes = _summarize(times_by_runner, lambda times: times.started, worst=False)
    _, until_run = _summarize(times_by_runner, lambda times: times.ran, worst=False)
    return figures, [*notes, *(f"until the handler had run, {note}" for note in until_run)]


def answered(bench: Bench) -> tuple[list[Figure], list[str]]:
    """The time from the end of the handler in a worker until the caller has the server's response: 99 of 100."""
    return _summarize(_cached_times(bench), lambda times: times.answered, worst=True)


def _summarize(
    times_by_runner: dict[str, Times], select: Callable[[Times], tuple[float, ...]], *, worst: bool
) -> tuple[list[Figure], list[str]]:
    figures, notes = [], []
    for runner, runner_times in times_by_runner.items():
        times = select(runner_times)
        p50, p99 = spread(times)
        judged = p99 if worst else p50
        figures.append(
            Figure(
                case=f"{runner}, {'p99' if worst else 'p50'}",
                measured=f"{judged:.1f} ms",
                judged=judged,
                ours=Cost(processor=runner_times.processor, rate=NOT_STATED, p50=p50, p99=p99),
            )
        )
        notes.append(f"{runner}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(times)} callbacks")
    return figures, notes


def _cached_times(bench: Bench) -> dict[str, Times]:
    """The times, measured once for both rows."""
    if "times" not in bench.cache:
        with bench.scratch() as folder, cluster(folder) as postgresql:
            bench.cache["times"] = {runner: measure_times(bench, postgresql, runner) for runner in RUNNERS}
    times_by_runner = bench.cache["times"]
    assert isinstance(times_by_runner, dict)
    return times_by_runner


def measure_times(bench: Bench, postgresql: Cluster, runner: str) -> Times:
    """Measure the times with one runner: a server without a worker, and a separate worker."""
    with postgresql.ledger(runner) as ledger, ledger.serve() as server, ledger.worker():
        arrived: dict[str | None, float] = {}
        address = server.url.removeprefix("http://")
        with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
            _wait_until_worker_known(connection)
            began = processor.spent()
            for number in range(SAMPLES):
                bench.show_progress(f"one at a time, {runner}", number, SAMPLES)
                response = _post(connection, str(number))
                received_at = time.time() * 1000
                if response.status != HTTPStatus.OK:
                    raise load.LoadError(f"a callback was answered {response.status}")
                if number >= WARM_UP_CALLBACKS:
                    arrived[response.headers["Flowhooks-Event"]] = received_at
                time.sleep(random.uniform(*PAUSE))
        spent = (processor.spent() - began) / SAMPLES * 1e6
        rows = ledger.rows(
            "SELECT events.id, received_at / 1000.0, started_at / 1000.0, finished_at / 1000.0 FROM events"
            " JOIN deliveries ON event_id = events.id JOIN attempts ON delivery_id = deliveries.id"
        )
    counted_rows = [(event, *map(float, times)) for event, *times in rows if event in arrived]
    return Times(
        started=tuple(began - received for _, received, began, _ in counted_rows),
        ran=tuple(ended - received for _, received, _, ended in counted_rows),
        answered=tuple(arrived[event] - ended for event, _, _, ended in counted_rows),
        processor=spent,
    )


def _post(connection: http.client.HTTPConnection, instance: str) -> http.client.HTTPResponse:
    """Send a callback, and read the whole response."""
    headers = {"Content-Type": "application/json"}
    connection.request("POST", f"/flow/{instance}/call-back/complete", json.dumps(BODY), headers)
    response = connection.getresponse()
    response.read()
    return response


def _wait_until_worker_known(connection: http.client.HTTPConnection) -> None:
    """Wait until the server waits for the result of a callback.

    Raises:
        LoadError: this took too long.
    """
    end = time.monotonic() + KNOWN_TIMEOUT
    for number in count():
        # Send another callback each time, because a repeated callback is answered 200 once it has run.
        if (status := _post(connection, f"first-{number}").status) == HTTPStatus.OK:
            break
        if time.monotonic() > end:
            raise load.LoadError(f"a callback was still answered {status} after {KNOWN_TIMEOUT:.0f} s")
        time.sleep(PAUSE[0])
