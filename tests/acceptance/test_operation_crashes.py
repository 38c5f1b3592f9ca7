"""Bulk operations of real servers: killed at each step, paused and cancelled by another process; never twice."""

from __future__ import annotations

import http.client
import json
import signal
from collections import Counter
from contextlib import suppress

import pytest

from flowhooks.failpoints import FAILPOINTS
from flowhooks.ledger import bulk_operations
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import ItemStatus
from support.process_trials import FAST_EXPIRY

PLUGIN = """
import os
from pathlib import Path
from flowhooks import Reject, Retry, handler, hookimpl

HERE = Path(os.environ["JOURNAL"]).parent

@handler(process_key="moody", retry=Retry(attempts=50, delays=[0.05], jitter=0))
def moody(event, delivery):
    if not (HERE / "allowed").exists():
        raise Reject("not yet")

@hookimpl
def handlers():
    return [moody]
"""
TOKEN = "operator-token-0123456789abcdef"
DELIVERIES = 5
POINTS = {
    "operation.plan_written": 1,
    "operation.plan_committed": 1,
    "operation.release_written": 2,
    "operation.release_committed": 2,
    "operation.finish_written": 1,
    "operation.finish_committed": 1,
}
"""Each failpoint of an operation, and at which hit the process is killed."""


def prepared(site, url):
    """A site with the plugin and an operator, on SQLite or on PostgreSQL."""
    site.plugin("demo", PLUGIN)
    secret = site.folder / "token"
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(0o600)
    site.config = f'[operators.ann]\nrole = "operate"\ntoken_file = "{secret}"\n'
    if url:
        site.database = site.url = url
    return site


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, make_site):
    """A site on each database."""
    return prepared(make_site(), request.getfixturevalue("postgresql_url") if request.param == "postgresql" else "")


@pytest.fixture
def shared(make_site, postgresql_url):
    """A site on PostgreSQL."""
    return prepared(make_site(), postgresql_url)


def with_dead_deliveries(site, server):
    """Let deliveries fail for good, then repair what they need."""
    for number in range(DELIVERIES):
        server.post(f"i{number}", {"processDefinitionKey": "moody"})
    site.until(lambda ledger: states(ledger) == Counter({("dead", 1): DELIVERIES}))
    (site.folder / "allowed").touch()


def states(ledger):
    """The states and attempts of all deliveries."""
    found = [
        delivery_status
        for stored in ledger.find(EventFilter(), limit=100)
        for delivery_status in stored.delivery_statuses
    ]
    return Counter((delivery_status.state.value, delivery_status.attempt) for delivery_status in found)


def done(server, name, **arguments):
    """Call an operation of the administration API; return its answer."""
    answer = server.operate(TOKEN, name, **arguments)
    assert answer.status == 200, answer.json
    return answer.json


def plan(server):
    """Plan a replay of all deliveries; return the operation."""
    return done(server, "plan_operation", action="replay", event_filter={"handler": "demo:moody"}, rate=4)


def read(ledger, operation_id):
    """An operation as stored."""
    with ledger.connection() as connection:
        return bulk_operations.read_operation(connection, operation_id)


def until_finished_once(site, operation_id):
    """Wait until an operation has finished, and check that it acted on each delivery once."""
    site.until(lambda ledger: read(ledger, operation_id).state == "finished")
    with site.ledger() as ledger:
        operation = read(ledger, operation_id)
        assert (operation.planned, operation.released, operation.changed) == (DELIVERIES, DELIVERIES, 0)
        assert (operation.succeeded, operation.failed, operation.remaining) == (DELIVERIES, 0, 0)
        with ledger.connection() as connection:
            items = bulk_operations.operation_items(connection, operation_id, limit=100)
        assert [item.status for item in items] == [ItemStatus.RELEASED] * DELIVERIES
        assert {state for state, _ in states(ledger)} == {"succeeded"}
        for item in items:
            # An attempt that was lost with its process is retried, and the retry is not the operation's.
            asked = [attempt for attempt in ledger.attempts(item.delivery_id) if attempt.number == 2]
            assert len(asked) == 1
            assert all(attempt.outcome == "lost" for attempt in ledger.attempts(item.delivery_id)[1:-1])
        assert ledger.verify().problems == []


def test_the_table_has_every_point_of_an_operation():
    """Each failpoint of bulk operations kills a process here."""
    assert set(POINTS) == {name for name in FAILPOINTS if name.startswith("operation.")}


@pytest.mark.parametrize("point", POINTS)
def test_an_operation_survives_a_kill_of_its_process(place, point):
    """`kill -9` at each step: the same server after a restart, or another one at once, completes the operation."""
    settings = FAST_EXPIRY if not place.url.startswith("sqlite") else {}
    victim = place.start(config=place.config, failpoint=f"{point}:{POINTS[point]}", **settings)
    with_dead_deliveries(place, victim)
    if ".plan_" in point:
        with pytest.raises((OSError, http.client.HTTPException)):
            plan(victim)
        assert victim.wait() == -signal.SIGKILL
        heir = place.start(config=place.config, **settings)
        (broken,) = json.loads(heir.ask("GET", "/api/operations", admin=True, headers=bearer()).body)["operations"]
        assert (broken["state"], broken["planned"]) == ("planning", 0)
        assert heir.operate(TOKEN, "start_operation", operation_id=broken["id"]).status == 409
        with place.ledger() as ledger:
            assert states(ledger) == Counter({("dead", 1): DELIVERIES})
        operation_id = plan(heir)["id"]
        done(heir, "start_operation", operation_id=operation_id)
    else:
        operation_id = plan(victim)["id"]
        with suppress(OSError, http.client.HTTPException):  # a busy machine may kill it before it has answered
            done(victim, "start_operation", operation_id=operation_id)
        # The first release gives the victim the lease. No lease is needed to finish an operation: the heir of
        # such a victim is started after the kill.
        place.until(lambda ledger: read(ledger, operation_id).released)
        is_alone = place.url.startswith("sqlite") or ".finish_" in point
        heir = None if is_alone else place.start(config=place.config, **settings)
        assert victim.wait() == -signal.SIGKILL
        heir = heir or place.start(config=place.config, **settings)
    until_finished_once(place, operation_id)
    heir.stop()


def bearer():
    """The headers of the operator's requests."""
    return {"Authorization": f"Bearer {TOKEN}"}


def test_another_process_pauses_changes_and_resumes_an_operation(shared):
    """An operation that one server releases obeys what an operator asks another server for."""
    one = shared.start(config=shared.config)
    with_dead_deliveries(shared, one)
    operation_id = done(one, "plan_operation", action="replay", event_filter={}, rate=0.001)["id"]
    done(one, "start_operation", operation_id=operation_id)
    shared.until(lambda ledger: read(ledger, operation_id).released == 1)
    two = shared.start(config=shared.config)
    paused = done(two, "pause_operation", operation_id=operation_id)
    assert (paused["state"], paused["released"]) == ("paused", 1)
    assert one.operate(TOKEN, "pause_operation", operation_id=operation_id).status == 409
    assert done(two, "set_operation_rate", operation_id=operation_id)["rate"] is None
    with shared.ledger() as ledger:
        assert read(ledger, operation_id).released == 1
    done(two, "resume_operation", operation_id=operation_id)
    until_finished_once(shared, operation_id)
    assert two.operate(TOKEN, "cancel_operation", operation_id=operation_id).status == 409
    for server in (one, two):
        server.stop()
