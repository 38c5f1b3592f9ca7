"""A handler is slower than yesterday: the console, the commands and the API say so, of a real server."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from flowhooks.clock import Clock
from flowhooks.ledger.upgrade import upgrade
from support import trend_rows
from support.waiting import until

PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="payment")
def book_payment(event):
    return {"booked": event.business_key}

@hookimpl
def handlers():
    return [book_payment]
"""
HANDLER = "payments:book_payment"
COMMAND = ("--database", "flowhooks.db", "--plugins-dir", "plugins")


@pytest.fixture
def slow(site):
    """A site whose ledger has a handler and a source with durations of 0.4 s yesterday, and of 3.2 s for an hour."""
    upgrade(site.url)
    now = Clock().now()
    found = trend_rows.slow_today("handler", HANDLER, now)
    found += trend_rows.slow_today("source", "default", now, good="200", bad="503")
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.executemany(
            "INSERT INTO trends VALUES (:kind, :subject, :resolution, :started_at, :outcome, :bucket, :count)", found
        )
    site.plugin("payments", PLUGIN)
    return site


def page(server, path):
    """A page of the console as text."""
    answer = server.ask("GET", f"/console{path}", headers={"Accept-Language": "en"}, admin=True)
    assert answer.status == 200
    return answer.body.decode()


def test_the_slowdown_against_yesterday_is_shown(slow):
    """The page, the commands and the API show the slowdown against yesterday; new attempts count as well."""
    server = slow.start()
    for path in (f"/handlers/{HANDLER.replace(':', '%3A')}", "/sources/default"):
        shown = page(server, path)
        assert "yesterday at this time 485 ms." in shown, path
        assert 'id="slowdown"' in shown
    for path in (f"/api/handlers/{HANDLER}/trend", "/api/sources/default/trend"):
        found = server.ask("GET", path, admin=True).json
        assert (found["slowdown"]["earlier"], found["slowdown"]["is_slower"]) == ("yesterday", True)
        assert found["slowdown"]["p95_ms"] > 2_000
        assert found["slowdown"]["earlier_ms"] == pytest.approx(485, abs=1)
    for words in (("handlers", "show", HANDLER), ("sources", "show", "default")):
        ran = slow.run(*words, *COMMAND)
        assert ran.returncode == 0, ran.stderr
        assert "yesterday at this time 485 ms: " in ran.stdout
        assert "times as long." in ran.stdout
        found = json.loads(slow.run(*words, *COMMAND, "--json").stdout)["trend"]
        assert found["slowdown"]["is_slower"]


def test_new_attempts_are_counted(slow):
    """Attempts and requests of a running server are part of the trend after a few seconds, and a restart is a mark."""
    server = slow.start()
    paths = [f"/api/handlers/{HANDLER}/trend?from=12h", "/api/sources/default/trend?from=12h"]

    def counts():
        return [server.ask("GET", path, admin=True).json["current"]["totals"]["count"] for path in paths]

    before = counts()
    for number in range(5):
        assert server.post(f"p{number}", {"processDefinitionKey": "payment"}).status == 200
    until(lambda: counts() == [count + 5 for count in before])
    marks = server.ask("GET", f"/api/handlers/{HANDLER}/trend?from=1m", admin=True).json["marks"]
    assert "server" in {mark["text"] for mark in marks}
