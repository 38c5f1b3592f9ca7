"""PostgreSQL restarts, crashes and is away: callbacks get 503, and all work continues without an operator."""

from __future__ import annotations

import time

import pytest

from support.process_trials import (
    NOT_RETRYABLE,
    RETRYABLE,
    Engines,
    check_invariants,
    entered,
    shut,
    until_worker_known,
)
from support.waiting import until

QUICK = {"ledger__heartbeat_timeout": 8.0}
"""More than a busy machine delays heartbeats: no process may expire."""
RUNNERS = ["embedded", pytest.param("procrastinate", marks=pytest.mark.long)]


@pytest.fixture(params=RUNNERS)
def cluster(request, broken):
    """A site with two servers that only accept callbacks and two workers, on a runner."""
    return broken, request.param


def start(site, kind, **settings):
    """A server without a worker, a server with one, and a worker."""
    settings = {"runner__kind": kind} | settings
    return [
        site.start("--no-worker", **settings),
        site.start(**settings),
        site.start_worker("--plugins-dir", site.plugins, "--admin", "127.0.0.1:0", **settings),
    ]


def ready(process):
    """The response of /readyz: its status and the reasons."""
    answer = process.ask("GET", "/readyz", admin=True)
    return answer.status, answer.json["trouble"]


def until_ready(processes):
    """Wait until all processes are ready; return the seconds."""
    began = time.monotonic()
    until(
        lambda: all(ready(process)[0] == 200 for process in processes), poll=0.05, why=lambda: [*map(ready, processes)]
    )
    return time.monotonic() - began


def until_entered(site, *instances):
    """Wait until handlers have been entered for these instances."""
    site.until(lambda _ledger: set(instances) <= {instance for instance, _, _ in entered(site)})


def stop(processes):
    """Stop the processes in order, and check that none was restarted or expired."""
    for process in processes:
        assert process.process.poll() is None, "\n".join(process.lines[-20:])
        assert not process.logged("process_expired")
        assert not process.logged("stale_attempt")
    for process in processes:
        process.stop()
        process.check_log()


def outage(site, processes, engines, seconds):
    """Stop the database server, wait, start it, and return the responses to what was requested meanwhile."""
    site.server.stop("immediate")
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(min(1.0, seconds / 5))
        until(lambda: all(ready(process)[0] == 503 for process in processes), poll=0.05)
    for process in processes:
        status, problems = ready(process)
        assert status == 503
        assert problems
        # Log records are one line each, without a statement or a password.
        assert not any("\n" in why or "SELECT" in why or "postgresql://" in why for why in problems), problems
    answers = [answer for answer in engines.since(0) if answer.began > began]
    site.server.start()
    return answers


def check_refusals(answers):
    """Check that all responses during an outage are 503 with a Retry-After."""
    assert answers
    assert {answer.status for answer in answers} == {503}
    assert all(answer.retry_after for answer in answers)


def go_through(site, kind, seconds, **settings):
    """Send callbacks through an outage of the database; return figures."""
    processes = start(site, kind, **settings)
    gates = [shut(site, "long-again"), shut(site, "long-once")]
    told = {
        "long-again": processes[0].post("long-again", RETRYABLE, Prefer="respond-async").event_id,
        "long-once": processes[0].post("long-once", NOT_RETRYABLE, Prefer="respond-async").event_id,
        "later": processes[0].post("later", RETRYABLE | {"fails": 3}, Prefer="respond-async").event_id,
    }
    until_entered(site, "long-again", "long-once")
    engines = Engines(*processes[:2])
    place = len(engines.responses)
    site.until(lambda _ledger: len(engines.since(place)) > 20)
    answers = outage(site, processes, engines, seconds)
    # The processes are stopped while they reconnect.
    for gate in gates:
        gate.unlink()
    began = time.monotonic()
    recovered = until_ready(processes)
    place = len(engines.responses)
    site.until(lambda _ledger: len([response for response in engines.since(place) if response.status == 202]) > 20)
    taken = time.monotonic() - began
    told |= engines.stop()
    # The outcome arrives through LISTEN on a new connection: a server without a worker answers with it.
    processes[0].until_logged("notifications_reconnected")
    until_worker_known(processes[0])
    last = processes[0].post("last", RETRYABLE, Prefer="wait=20")
    assert last.status == 200
    told["last"] = last.event_id
    check_invariants(site, site.direct, told)
    # An attempt that ran during the outage ran once, and its outcome is recorded.
    ran = [(instance, attempt) for instance, attempt, _ in entered(site)]
    assert ran.count(("long-again", 1)) == ran.count(("long-once", 1)) == 1
    assert ("long-again", 2) not in ran
    stop(processes)
    check_refusals(answers)
    return {
        "answers": len(answers),
        "slowest": max(answer.seconds for answer in answers),
        "ready": recovered,
        "202": taken,
    }


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cluster", ["embedded", "procrastinate"], indirect=True)
def test_an_outage_longer_than_the_expiry_time(cluster):
    """In an outage longer than the expiry time no process expires another, and finished attempts are recorded."""
    site, kind = cluster
    print(kind, go_through(site, kind, 10.0, **QUICK))  # noqa: T201 (figures, for those who look with -s)


@pytest.mark.timeout(240)
def test_restarts_and_crashes(cluster):
    """Callbacks are processed before and after a fast restart, an immediate one and a `kill -9`; the counts balance."""
    site, kind = cluster
    processes = start(site, kind, **QUICK)
    engines = Engines(*processes[:2])
    for end in (lambda: site.server.stop("fast"), lambda: site.server.stop("immediate"), site.server.kill):
        place = len(engines.responses)
        site.until(lambda _ledger, place=place: len(engines.since(place)) > 30)
        end()
        site.server.start()
        place = len(engines.responses)
        site.until(lambda _ledger, place=place: sum(response.status == 202 for response in engines.since(place)) > 30)
    told = engines.stop()
    # 200: a COMMIT of which only the reply was lost, and the handler had ended before the callback was repeated.
    assert {answer.status for answer in engines.responses} <= {200, 202, 503}
    until_ready(processes)
    check_invariants(site, site.direct, told)
    stop(processes)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seconds", [45.0, 120.0])
def test_long_outages(cluster, seconds):
    """The same as above with the default settings and an outage longer than all timeouts."""
    site, kind = cluster
    print(kind, seconds, go_through(site, kind, seconds))  # noqa: T201 (as above)
