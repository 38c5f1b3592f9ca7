"""Real servers: the circuit of a failing handler opens, a trial runs, and it closes, even if processes are killed."""

from __future__ import annotations

import json

import pytest

from support.process_trials import FAST_EXPIRY

PLUGIN = '''
import os, pathlib, time
from flowhooks import Retry, handler, hookimpl

RELEASE = 1

@handler(process_key="leave", retry=Retry(attempts=50, delays=[0.05], jitter=0))
def grant(event, delivery):
    """Fail as long as the fault is there; hang as long as the gate is shut."""
    folder = pathlib.Path(os.environ["JOURNAL"]).parent
    with open(os.environ["JOURNAL"], "a") as journal:
        print(event.flow_instance_id, delivery.attempt, os.getpid(), file=journal, flush=True)
    if (folder / "shut").exists():
        (folder / f"held-{os.getpid()}").touch()
    while (folder / "shut").exists():
        time.sleep(0.01)
    if (folder / "fault").exists():
        raise ValueError("the archive is away")

@hookimpl
def handlers():
    return [grant]
'''
QUICK = {
    "circuit_breaker__failures": 3,
    "circuit_breaker__retry_interval": 1.0,
    "ledger__write_timeout": 20,  # a commit may take seconds on a busy machine
}
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def site(make_site):
    """A site whose only handler fails."""
    site = make_site()
    site.plugin("p", PLUGIN)
    (site.folder / "fault").touch()
    return site


def post(server, many, start=0):
    """Send callbacks without waiting for them; return the ids of their events."""
    return [server.post(f"i{start + n}", {"processDefinitionKey": "leave"}, **ASYNC).event_id for n in range(many)]


def open_circuit(site):
    """Wait until the handler's circuit is open; return the reason."""
    return site.until(lambda ledger: ledger.open_circuits())["p:grant"].reason


def succeeded(*event_ids):
    """Whether all deliveries of these events have succeeded."""
    return lambda ledger: all(
        (found := ledger.delivery_statuses(event_id)) and {it.state for it in found} == {"succeeded"}
        for event_id in event_ids
    )


def test_the_circuit_opens_and_closes_after_a_trial(site):
    """No delivery is lost or dead, the command line shows why they wait, and all run after the fix."""
    server = site.start(**QUICK)
    first = post(server, 3)
    assert "the archive is away" in open_circuit(site)
    later = post(server, 20, start=3)
    assert server.post("more", {"processDefinitionKey": "leave"}, Prefer="wait=60").status == 202
    options = ("--database", site.database, "--plugins-dir", site.plugins)
    listed = site.run("handlers", "list", *options, "--json", **QUICK)
    found = next(handler for handler in json.loads(listed.stdout)["handlers"] if handler["id"] == "p:grant")
    assert (found["circuit_reason"], bool(found["circuit_retry_at"])) == ("ValueError: the archive is away", True)
    assert "circuit open:" in site.run("handlers", "list", *options, **QUICK).stdout
    # The delivery of a trial is running and has no due time until it waits again.
    show = ("events", "show", later[0], *options[:2])
    text = "when its handler works again: its circuit is open since 20"
    site.until(lambda _: text in site.run(*show, **QUICK).stdout)
    checked = site.run("check", *options, **QUICK)
    assert checked.returncode == 1
    assert "the circuit breaker of p:grant is open since 20" in checked.stdout
    (site.folder / "fault").unlink()
    site.until(succeeded(*first, *later))
    server.stop()
    server.check_log()
    entries = [record["event"] for record in server.records]
    assert {"circuit_opened", "circuit_half_open", "circuit_closed"} <= set(entries)


def test_kill_during_a_trial(site):
    """A killed trial is lost and repeated according to `retry=`; the circuit stays open until a trial succeeds."""
    server = site.start(**QUICK)
    events = post(server, 3)
    open_circuit(site)
    (site.folder / "shut").touch()
    site.until(lambda ledger: ledger.count_by_state()["running"])
    server.kill()
    (site.folder / "shut").unlink()
    server = site.start(**QUICK)
    assert "the archive is away" in open_circuit(site)
    (site.folder / "fault").unlink()
    site.until(succeeded(*events))
    server.stop()
    server.check_log()


def test_the_circuit_of_a_fixed_plugin_closes(site):
    """A new release of a plugin closes its circuits at start, without a trial."""
    settings = QUICK | {"circuit_breaker__retry_interval": 3600.0}
    server = site.start(**settings)
    events = post(server, 3)
    open_circuit(site)
    server.stop()
    (site.folder / "fault").unlink()
    server = site.start(**settings)
    assert open_circuit(site)
    server.stop()
    site.plugin("p", PLUGIN.replace("RELEASE = 1", "RELEASE = 2"))
    server = site.start(**settings)
    site.until(succeeded(*events))
    server.stop()
    server.check_log()


@pytest.mark.parametrize("sharing", [pytest.param("embedded", marks=pytest.mark.long), "procrastinate"], indirect=True)
def test_workers_share_a_circuit(sharing):
    """A worker that is killed while it runs a trial leaves the circuit open, and the other worker closes it."""
    site, settings = sharing, sharing.settings | QUICK | FAST_EXPIRY
    site.plugin("p", PLUGIN)
    (site.folder / "fault").touch()
    server = site.start("--no-worker", **settings)
    workers = [site.start_worker("--plugins-dir", site.plugins, **settings) for _ in range(2)]
    events = post(server, 6)
    open_circuit(site)
    (site.folder / "shut").touch()
    # While a trial is held, no other one starts.
    held, *_ = site.until(lambda _ledger: list(site.folder.glob("held-*")))
    running = int(held.name.removeprefix("held-"))
    victim, heir = sorted(workers, key=lambda worker: worker.process.pid != running)
    victim.kill()
    (site.folder / "shut").unlink()
    assert "the archive is away" in open_circuit(site)
    (site.folder / "fault").unlink()
    site.until(succeeded(*events))
    heir.until_logged("circuit_closed")
    for process in (server, heir):
        process.stop()
        process.check_log()
