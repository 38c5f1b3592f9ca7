"""A network that resets, delays or drops data: faults are detected in time, callbacks get 503, and work continues."""

from __future__ import annotations

import time

import pytest

from support.process_trials import NOT_RETRYABLE, Engines, check_invariants, entered, shut, until_worker_known
from support.waiting import until

QUICK = {"ledger__heartbeat_timeout": 8.0}
"""More than a busy machine delays heartbeats: where connections are cut, no process may expire."""

RUNNERS = ["embedded", pytest.param("procrastinate", marks=pytest.mark.long)]


def start(site, kind, **settings):
    """A server without a worker and a worker, which the server knows, both connected through the proxy."""
    site.database = site.proxied
    settings = QUICK | {"runner__kind": kind} | settings
    server = site.start("--no-worker", **settings)
    worker = site.start_worker("--plugins-dir", site.plugins, "--admin", "127.0.0.1:0", **settings)
    until_worker_known(server)
    return server, worker


@pytest.fixture(params=RUNNERS)
def cluster(request, broken):
    """A site, a server and a worker, on a runner."""
    return broken, *start(broken, request.param)


def ready(process):
    """Whether /readyz reports ready."""
    return process.ask("GET", "/readyz", admin=True).status == 200


def flows(site, engines, status=202, *, several=20):
    """Wait until `several` callbacks have this result; return the seconds."""
    began, place = time.monotonic(), len(engines.responses)
    site.until(lambda _ledger: sum(response.status == status for response in engines.since(place)) >= several)
    return time.monotonic() - began


def until_all_run(*processes):
    """Wait until callbacks run and are answered with their outcome."""
    until_worker_known(processes[0])
    until(lambda: all(map(ready, processes)), poll=0.05)


def stop(*processes):
    """Stop the processes in order, and check that none was restarted or logged a fault of its own."""
    for process in processes:
        process.stop()
        process.check_log()


def test_connections_that_are_reset(cluster):
    """While connections are reset repeatedly, each callback is stored once and run to its end."""
    site, server, worker = cluster
    engines = Engines(server)
    for _ in range(5):
        flows(site, engines, several=10)
        site.proxy.cut()
    flows(site, engines)
    until_all_run(server, worker)
    told = engines.stop()
    # 200: the callback was stored, its response was lost, and it ran before the repeat.
    assert {response.status for response in engines.responses} <= {200, 202, 503}
    check_invariants(site, site.direct, told)
    stop(server, worker)


@pytest.mark.parametrize("seconds", [0.1, pytest.param(0.3, marks=pytest.mark.long)])
def test_a_slow_network(broken, seconds):
    """A delay of a tenth of a second or three seconds each way has no effect except slowness."""
    server, worker = start(broken, "embedded", ledger__write_timeout=30, ledger__heartbeat_timeout=30)
    broken.proxy.delay = seconds
    began = time.monotonic()
    answer = server.post("slow", NOT_RETRYABLE, Prefer="wait=60", timeout=90)
    print(f"answered with the outcome after {time.monotonic() - began:.1f} s")  # noqa: T201 (a figure, with -s)
    assert answer.status == 200
    broken.proxy.restore()
    until_all_run(server, worker)
    check_invariants(broken, broken.direct, {"slow": answer.event_id})
    for process in (server, worker):
        assert not process.logged("process_expired")
        assert not process.logged("ledger_write_failed")
    stop(server, worker)


@pytest.mark.timeout(240)
def test_connections_that_drop_data(cluster):
    """If data is dropped without an error, callers get 503 in time, and new connections are made in time."""
    site, server, worker = cluster
    gate = shut(site, "long")
    told = {"long": server.post("long", NOT_RETRYABLE, Prefer="respond-async").event_id}
    site.until(lambda _ledger: "long" in {instance for instance, _, _ in entered(site)})  # probes ran before
    engines = Engines(server, count=10)
    flows(site, engines)
    place = len(engines.responses)
    site.proxy.discard()
    # The first callbacks wait for the timeout; later ones are answered at once, or the test would take minutes.
    flows(site, engines, 503, several=300)
    refused = [response for response in engines.since(place) if response.status == 503]
    assert all(response.retry_after for response in refused)
    # A process that had nothing to write finds it at its next heartbeat.
    until(lambda: not ready(server) and not ready(worker))
    gate.unlink()
    site.proxy.restore()
    began, before = time.monotonic(), len(entered(site))
    stored = flows(site, engines)
    site.until(lambda _ledger: len(entered(site)) > before)
    ran = time.monotonic() - began
    print(f"stored again after {stored:.1f} s, run again after {ran:.1f} s")  # noqa: T201 (figures, with -s)
    # The backlog runs first.
    told |= engines.stop()
    until_all_run(server, worker)
    check_invariants(site, site.direct, told, may_be_unknown=True)
    # The outcome was recorded late, and the delivery did not run again.
    assert [attempt for instance, attempt, _ in entered(site) if instance == "long"] == [1]
    stop(server, worker)
