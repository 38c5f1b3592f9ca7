"""The counts of trends after `kill -9` and after SIGTERM: each stored count is there once, and the loss is bounded."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from flowhooks.ledger.tables import attempts, trends
from support.waiting import until

PLUGIN = """
import os, time
from pathlib import Path
from flowhooks import handler, hookimpl

HERE = Path(os.environ["JOURNAL"]).parent

@handler(process_key="work")
def work(event):
    if event.flow_instance_id.startswith("stuck"):
        (HERE / event.flow_instance_id).touch()
        while not (HERE / "released").exists():
            time.sleep(0.01)

@hookimpl
def handlers():
    return [work]
"""
HANDLER = "demo:work"
SOURCE = "default"
ASYNC = {"Prefer": "respond-async"}
SETTINGS = {"ledger__heartbeat_timeout": 1.5}
STORED, LATER, LAST = 12, 7, 5
"""Number of callbacks whose counts are stored before the kill, and of those after them and after the restart."""


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, site):
    """A site on each database."""
    site.plugin("demo", PLUGIN)
    if request.param == "postgresql":
        site.database = site.url = request.getfixturevalue("postgresql_url")
    return site


def counts(site, kind, subject):
    """The stored counts of a subject by outcome."""
    statement = select(trends.c.outcome, func.sum(trends.c["count"])).where(
        trends.c.kind == kind, trends.c.subject == subject
    )
    with site.ledger() as ledger, ledger.connection() as connection:
        return {outcome: int(count) for outcome, count in connection.execute(statement.group_by(trends.c.outcome))}


def call(server, first, number):
    """Send callbacks one after another, and wait for their handler."""
    for instance in range(first, first + number):
        assert server.post(f"i{instance}", {"processDefinitionKey": "work"}).status == 200


def running(site, server, name):
    """Start an attempt that does not end."""
    assert server.post(name, {"processDefinitionKey": "work"}, **ASYNC).status == 202
    until((site.folder / name).exists)


def shown(server):
    """The counts of the handler that the API shows, by outcome."""
    path = f"/api/handlers/{HANDLER}/trend?from=1h"
    return server.ask("GET", path, admin=True).json["current"]["totals"]["outcomes"]


def test_a_kill_loses_only_counts_that_were_not_stored(place):
    """After `kill -9` and a restart each stored count is there once, and at most the later ones are missing."""
    server = place.start(**SETTINGS)
    call(server, 0, STORED)
    until(lambda: counts(place, "handler", HANDLER) == {"succeeded": STORED})
    until(lambda: counts(place, "source", SOURCE) == {"200": STORED})
    call(server, STORED, LATER)
    running(place, server, "stuck")
    server.kill()
    handler, source = counts(place, "handler", HANDLER), counts(place, "source", SOURCE)
    assert set(handler) == {"succeeded"}
    assert STORED <= handler["succeeded"] <= STORED + LATER
    assert STORED <= source.pop("200") <= STORED + LATER
    assert source in ({}, {"202": 1})

    server = place.start(**SETTINGS)
    # The attempt that was running is counted by the process that finds it.
    until(lambda: counts(place, "handler", HANDLER) == handler | {"lost": 1})
    assert shown(server) == handler | {"lost": 1}
    before = counts(place, "source", SOURCE)
    call(server, STORED + LATER, LAST)
    server.stop()
    assert counts(place, "handler", HANDLER) == {"succeeded": handler["succeeded"] + LAST, "lost": 1}
    assert counts(place, "source", SOURCE) == before | {"200": before["200"] + LAST}


def test_a_stop_loses_no_count(place):
    """SIGTERM stores the counts of all attempts and responses, also of attempts that end during the stop."""
    server = place.start(**SETTINGS)
    running(place, server, "stuck")
    call(server, 0, STORED)
    server.signal()
    server.until_logged("shutdown_started")
    (place.folder / "released").touch()
    assert server.wait() == 0
    assert counts(place, "handler", HANDLER) == {"succeeded": STORED + 1}
    assert counts(place, "source", SOURCE) == {"200": STORED, "202": 1}
    with place.ledger() as ledger, ledger.connection() as connection:
        assert connection.execute(select(func.count()).select_from(attempts)).scalar() == STORED + 1
