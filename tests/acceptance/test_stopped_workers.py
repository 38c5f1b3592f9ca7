"""Workers are stopped until they expire and then continue, round after round: no stale outcome is written."""

from __future__ import annotations

import signal
import time

import pytest

from support.process_trials import NOT_RETRYABLE, RETRYABLE, check_invariants, entered, rows, shut

QUICK = {"ledger__heartbeat_timeout": 1.0}
ATTEMPTS = (
    "SELECT attempts.delivery_id, attempts.number, attempts.outcome FROM attempts"
    " JOIN deliveries ON deliveries.id = attempts.delivery_id JOIN events ON events.id = deliveries.event_id"
    " WHERE events.flow_instance_id = '{}'"
)


def attempts_of(site, instance):
    """The outcome of each attempt of an instance's delivery by number, and the delivery's id."""
    found = rows(site.direct, ATTEMPTS.format(instance))
    return {number: outcome for _, number, outcome in found}, found[0][0]


def runs(site, instance):
    """The process that entered each attempt of an instance's delivery, by number."""
    return {attempt: pid for name, attempt, pid in entered(site) if name == instance}


def stopped_in_the_middle(site, server, workers, number):
    """One round: each running worker is stopped, expires and continues; return the event of each instance."""
    again, once = f"again-{number}", f"once-{number}"
    gates = [shut(site, again), shut(site, once)]
    told = {
        again: server.post(again, RETRYABLE, Prefer="respond-async").event_id,
        once: server.post(once, NOT_RETRYABLE, Prefer="respond-async").event_id,
    }
    site.until(lambda _ledger: {again, once} <= {instance for instance, _, _ in entered(site)})
    # On a busy machine a worker that runs may have expired, and the next attempt begun: the last run is the one that
    # is stopped. Its worker may have noticed just now that it had expired, and not expire again.
    stopped = max(runs(site, again))
    sleeper = workers[runs(site, again)[stopped]]
    sleeper.signal(signal.SIGSTOP)
    try:
        # Another worker makes the next attempt.
        site.until(lambda _ledger: runs(site, again).get(stopped + 1))
    finally:
        sleeper.signal(signal.SIGCONT)
    sleeper.until_logged("process_expired")
    for gate in gates:
        gate.unlink()
    _, delivery = attempts_of(site, again)
    for attempt in range(1, stopped + 1):
        workers[runs(site, again)[attempt]].until_logged("stale_attempt", delivery=delivery, attempt=attempt)
    site.until(lambda ledger: ledger.delivery_statuses(told[again])[0].state == "succeeded")
    return told


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "rounds"),
    [
        ("embedded", 3),
        ("procrastinate", 1),
        pytest.param("embedded", 20, marks=pytest.mark.long),
        pytest.param("procrastinate", 20, marks=pytest.mark.long),
    ],
)
def test_a_stopped_worker_stores_no_stale_outcome(broken, kind, rounds):
    """A worker is stopped by SIGSTOP until it expires; after SIGCONT its outcomes are too late, each time."""
    settings = QUICK | {"runner__kind": kind}
    server = broken.start("--no-worker", **settings)
    started = [broken.start_worker("--plugins-dir", broken.plugins, **settings) for _ in range(2)]
    workers = {worker.process.pid: worker for worker in started}
    began, told = time.monotonic(), {}
    for number in range(rounds):
        told |= stopped_in_the_middle(broken, server, workers, number)
    print(f"{kind}, {rounds} rounds: {(time.monotonic() - began) / rounds:.1f} s each")  # noqa: T201 (a figure, with -s)
    # A delivery without `retry=` is unknown if its own worker was stopped.
    check_invariants(broken, broken.direct, told, may_be_unknown=True)
    for instance in told:
        outcomes, delivery = attempts_of(broken, instance)
        late = {record["attempt"] for worker in started for record in worker.logged("stale_attempt", delivery=delivery)}
        assert {outcomes[attempt] for attempt in late} <= {"lost"}, (instance, outcomes)
        assert list(outcomes.values()).count("succeeded") <= 1
        if instance.startswith("again"):
            assert 1 in late
            assert outcomes[max(outcomes)] == "succeeded"
    for process in (server, *started):
        process.stop()
        process.check_log()
