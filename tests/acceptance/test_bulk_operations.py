"""Commands on thousands of deliveries are stopped in the middle and repeated, on both databases.

Changes made before the stop stay. The repeated command makes the remaining changes, and no change twice.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter

import pytest

from flowhooks.clock import Clock, to_datetime
from flowhooks.ledger.ledger import Ledger
from flowhooks.ledger.new_event import NewEvent
from flowhooks.ledger.upgrade import upgrade
from flowhooks.model.event import digest, from_body
from support import fork_server

PLUGIN = '''
import os
from flowhooks import handler, hookimpl

FILE = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

@handler(process_key="first")
def first(event, delivery):
    """What the event was routed to when it came."""
    os.write(FILE, f"first {delivery.id}\\n".encode())

@handler(process_key="first")
def late(event, delivery):
    """What was installed since."""
    os.write(FILE, f"late {delivery.id}\\n".encode())

@hookimpl
def handlers():
    return [first, late]
'''


def fill(url, many, *, dead):
    """Store `many` events, routed to `first` before `late` existed: each is dead after one attempt, or waiting."""
    clock = Clock()
    ledger = Ledger(url, runner=Nobody(), clock=clock)
    try:
        tickets = []
        for number in range(many):
            body = {"processDefinitionKey": "first", "number": number}
            now = clock.now()
            event = from_body(
                body,
                id=clock.new_id(),
                source="default",
                kind="complete",
                flow_instance_id=f"i{number}",
                received_at=to_datetime(now),
            )
            new = NewEvent(
                event=event,
                body=json.dumps(body),
                digest=digest(body, ()),
                state="routed",
                route={"demo:first": "key first"},
                deliveries=[(clock.new_id(), "demo:first")],
                missing_handlers=frozenset(),
                now=now,
            )
            tickets.append(ledger.accept(new))
            if len(tickets) == 500:
                for ticket in tickets:
                    ticket.result(30)
                tickets.clear()
        if dead:
            ledger.write(_die, 60)
        else:
            ledger.write(_succeed, 60)
    finally:
        ledger.close()


class Nobody:
    """A runner that starts no deliveries."""

    def enqueue(self, transaction, queued, not_before):
        """Leave the delivery waiting."""

    def reserve(self, transaction, queued):
        """Reserve no delivery."""
        return ()


def _end(transaction, state, outcome):
    run = transaction.connection.exec_driver_sql
    run(
        "INSERT INTO attempts (delivery_id, number, process, started_at, finished_at, outcome, error, traceback)"
        f" SELECT id, 1, (SELECT min(id) FROM processes), created_at, changed_at, '{outcome}', '', '' FROM deliveries"
    )
    run(f"UPDATE deliveries SET state = '{state}', attempt = 1, due_at = NULL")


def _die(transaction):
    _end(transaction, "dead", "failed")


def _succeed(transaction):
    _end(transaction, "succeeded", "succeeded")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def site(request, make_site, postgresql_server):
    """A site on either database, with the plugin and empty tables."""
    site = make_site()
    name = f"many_{time.time_ns()}"
    if request.param == "postgresql":
        site.database = site.url = postgresql_server.make(name)
    upgrade(site.url)
    site.plugin("demo", PLUGIN)
    yield site
    for server in site._servers:
        if server.process.poll() is None:
            server.stop()
    if request.param == "postgresql":
        postgresql_server.drop(name)


def ran(site):
    """How often each of the two handlers was entered, and whether a delivery exists twice."""
    lines = [line.split() for line in site.journal.read_text().splitlines()] if site.journal.exists() else []
    assert len({delivery for _, delivery in lines}) == len(lines), "a delivery ran twice"
    return Counter(name for name, _ in lines)


LONG = [
    pytest.param(act, number, 10_000, id=f"{act}-{number.name}-10000", marks=pytest.mark.long)
    for act in ("replay", "reroute")
    for number in (signal.SIGINT, signal.SIGKILL)
]


@pytest.mark.parametrize(("act", "number", "many"), [pytest.param("replay", signal.SIGKILL, 3_000, id="replay"), *LONG])
def test_a_stopped_bulk_command_can_be_repeated(site, act, number, many):
    """A command that is stopped and repeated runs each delivery once, misses none, and the counts balance.

    A stopped replay continues in the server. The repeated command plans what is left, and changes nothing twice.
    """
    fill(site.url, many, dead=act == "replay")
    server = site.start(runner__threads=4)
    words = site.command(
        "events", act, "--key", "first", "--yes", "--json", "--database", site.database, "--plugins-dir", site.plugins
    )
    began = time.monotonic()
    env = site._environ({"plugins_allow": "demo"})
    # At this rate most of a replay is left, even if this process is delayed; a reroute has none.
    slowly, enough = (["--rate", "400/s"], 500) if act == "replay" else ([], 1_000)
    stopped = fork_server.start([*words, *slowly], cwd=site.folder, env=env, stderr=subprocess.DEVNULL)
    half = made(site, act, at_least=enough)
    stopped.send_signal(number)
    assert stopped.wait(60) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    before = made(site, act)
    assert half <= before < many
    again = fork_server.run(words, cwd=site.folder, env=env)
    assert again.returncode == 0, again.stderr
    took = time.monotonic() - began
    done = json.loads(again.stdout)
    if act == "replay":
        assert done["planned"] <= many - before
        assert done["remaining"] == 0
    else:
        # A server completes the page that a killed command requested.
        assert many - before - 500 <= done["deliveries"] <= many - before
    handler = "first" if act == "replay" else "late"
    site.until(
        lambda ledger: sum(ledger.count_by_state()[state] for state in ("waiting", "running", "dead")) == 0, within=120
    )
    assert ran(site) == {handler: many}
    assert made(site, act) == many
    site.balance()
    server.stop()
    whole = time.monotonic() - began
    print(f"\n{act}: {many:,} in {took:.1f} s by two commands; all had run after {whole:.1f} s")  # noqa: T201 (a figure)


def made(site, act, *, at_least=0):
    """The number of deliveries that have been replayed or created; waits until it reaches a number."""
    count = {
        "replay": "SELECT count(*) FROM deliveries WHERE retry_base = 1",
        "reroute": "SELECT count(*) FROM deliveries WHERE handler = 'demo:late'",
    }[act]

    def found(ledger):
        with ledger.connection() as connection:
            number = connection.exec_driver_sql(count).scalar_one()
        return (number,) if number >= at_least else None

    return site.until(found)[0]
