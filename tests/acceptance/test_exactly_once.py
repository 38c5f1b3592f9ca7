"""Handlers write into the ledger's own PostgreSQL and are killed or stopped at every moment: each row exists once."""

from __future__ import annotations

import signal

import psycopg
import pytest

from support.process_trials import FAST_EXPIRY

PLUGIN = '''
import os, pathlib, time
from sqlalchemy import text
from flowhooks import Retry, handler, hookimpl

FOLDER = pathlib.Path(os.environ["JOURNAL"]).parent

def moment(name, event, delivery):
    """Say that this moment has come; wait as long as its gate is shut."""
    with open(os.environ["JOURNAL"], "a") as journal:
        print(name, event.flow_instance_id, delivery.attempt, os.getpid(), file=journal, flush=True)
    while (FOLDER / f"shut-{name}").exists():
        time.sleep(0.01)

@handler(process_key="contract", retry=Retry(attempts=5, delays=[0.05], jitter=0))
def archive(event, delivery):
    """Write a row for the event; no constraint would keep a second one away."""
    moment("before", event, delivery)
    with delivery.transaction() as connection:
        values = {"flow": event.flow_instance_id, "attempt": delivery.attempt}
        connection.execute(text("INSERT INTO contracts VALUES (:flow, :attempt)"), values)
        moment("within", event, delivery)
    moment("after", event, delivery)

@handler(process_key="once")
def no_retry(event, delivery):
    """The same without `retry=`."""
    archive.function(event, delivery)

@hookimpl
def handlers():
    return [archive, no_retry]
'''
ASYNC = {"Prefer": "respond-async"}
BODY = {"processDefinitionKey": "contract"}


@pytest.fixture
def shared(sharing, postgresql_url):
    """A site whose processes share a ledger on PostgreSQL, with a business table beside it."""
    site = sharing
    site.settings |= FAST_EXPIRY | {"ledger__write_timeout": 20}  # a commit may take seconds on a busy machine
    site.plugin("p", PLUGIN)
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS contracts")
        connection.execute("CREATE TABLE contracts (flow text, attempt int)")
        yield site
        connection.execute("DROP TABLE contracts")


def rows(site):
    """The rows of the business table."""
    with psycopg.connect(site.url) as connection:
        return connection.execute("SELECT flow, attempt FROM contracts ORDER BY flow").fetchall()


def moments(site):
    """(moment, instance, attempt, process) of each moment that a handler reached."""
    lines = site.journal.read_text().splitlines() if site.journal.exists() else []
    return [(name, instance, int(attempt), int(pid)) for name, instance, attempt, pid in map(str.split, lines)]


def shut(site, moment):
    """Make handlers wait at a moment; removing the returned file lets them continue."""
    gate = site.folder / f"shut-{moment}"
    gate.touch()
    return gate


def worker(site):
    """A worker with the plugin."""
    return site.start_worker("--plugins-dir", site.plugins, "--concurrency", "8", **site.settings)


def state(event_id):
    """A function of the ledger that returns the state of the event's delivery."""
    return lambda ledger: ledger.delivery_statuses(event_id)[0].state


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.long), "within", "after"])
def test_each_row_exists_once_after_a_kill_at_any_moment(shared, moment):
    """The rows of a killed attempt are rolled back, and the next attempt writes them."""
    server = shared.start("--no-worker", **shared.settings)
    victim = worker(shared)
    gate = shut(shared, moment)
    event_id = server.post("i", BODY, **ASYNC).event_id
    shared.until(lambda _ledger: [entry for entry in moments(shared) if entry[0] == moment])
    assert rows(shared) == []
    victim.kill()
    gate.unlink()
    heir = worker(shared)
    shared.until(lambda ledger: state(event_id)(ledger) == "succeeded")
    assert rows(shared) == [("i", 2)]
    for process in (server, heir):
        process.stop()
    shared.balance()


def test_a_killed_attempt_without_retry_is_unknown_and_rolled_back(shared):
    """Without `retry=` a killed attempt is unknown, and its rows are rolled back."""
    server = shared.start("--no-worker", **shared.settings)
    victim = worker(shared)
    shut(shared, "after")
    event_id = server.post("i", {"processDefinitionKey": "once"}, **ASYNC).event_id
    shared.until(lambda _ledger: [entry for entry in moments(shared) if entry[0] == "after"])
    victim.kill()
    shared.until(lambda ledger: state(event_id)(ledger) == "unknown")
    assert rows(shared) == []
    server.stop()
    shared.balance()


@pytest.mark.parametrize("moment", [pytest.param("within", marks=pytest.mark.long), "after"])
def test_a_worker_stopped_until_its_expiry_writes_no_row(shared, moment):
    """A worker stopped by SIGSTOP until its delivery was rerun writes no row after SIGCONT."""
    server = shared.start("--no-worker", **shared.settings)
    sleeper = worker(shared)
    gate = shut(shared, moment)
    event_id = server.post("i", BODY, **ASYNC).event_id
    shared.until(lambda _ledger: [entry for entry in moments(shared) if entry[0] == moment])
    sleeper.freeze()
    gate.unlink()
    heir = worker(shared)
    shared.until(lambda ledger: state(event_id)(ledger) == "succeeded")
    assert rows(shared) == [("i", 2)]
    sleeper.signal(signal.SIGCONT)
    sleeper.until_logged("stale_attempt", attempt=1)
    assert rows(shared) == [("i", 2)]
    for process in (server, sleeper, heir):
        process.stop()
    shared.balance()


def test_each_of_many_rows_exists_once_after_workers_are_killed(shared):
    """Two of three workers are killed while a hundred deliveries run: each row exists once."""
    server = shared.start("--no-worker", **shared.settings)
    workers = [worker(shared) for _ in range(3)]
    # Each worker blocks some deliveries before any continues: together fewer than a hundred.
    gate = shut(shared, "before")
    events = [server.post(f"i{number:03}", BODY, **ASYNC).event_id for number in range(100)]
    pids = {worker.process.pid for worker in workers}
    shared.until(lambda _ledger: {pid for *_, pid in moments(shared)} == pids)
    gate.unlink()
    for victim in workers[:2]:
        victim.kill()
    shared.until(lambda ledger: all(state(event_id)(ledger) == "succeeded" for event_id in events))
    assert [flow for flow, _ in rows(shared)] == [f"i{number:03}" for number in range(100)]
    for process in (server, workers[2]):
        process.stop()
    shared.balance()
