"""While the ledger cannot be read, every page and API path is 503 with a Retry-After.

A busy, slow, broken or missing database is no internal error, which a 500 would report.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, closing

import pytest

from flowhooks.ledger.database import engines
from flowhooks.operations.registry import OPERATIONS
from flowhooks.web.admin.api.resources import RESOURCES
from flowhooks.web.admin.console.actions import ACTIONS
from support.engine_fakes import FakeReconciler

READERS = 8
"""Connections that may read at once."""
PAGES = [
    "/",
    "/live",
    "/events",
    "/handlers",
    "/handlers/p:h",
    "/parked",
    "/sources",
    "/engines",
    "/rejected-requests",
    "/alerts",
    "/audit",
    "/storage",
    "/events/{id}",
]
ASKED = {
    "resolve": {"delivery_id": "x", "verdict": "close"},
    "reroute": {"event_filter": {"flow_instance_id": "i1"}},
    "dismiss": {"event_filter": {"flow_instance_id": "i1"}},
    "purge": {"event_filter": {"until": 1}},
    "acknowledge": {"alerts": ["x"]},
    "accept_correction": {"event_id": "x", "digest": "d"},
    "plan_operation": {"action": "close", "event_filter": {"flow_instance_id": "i1"}},
    **{f"{name}_operation": {"operation_id": "x"} for name in ("start", "pause", "resume", "cancel")},
    "set_operation_rate": {"operation_id": "x"},
    **{name: {"source": "oa"} for name in ("confirm_reconciliation", "decline_reconciliation", "close_gaps")},
    **{name: {"handlers": ["p:x"]} for name in ("retire", "pause", "resume")},
}
"""The required arguments of each operation; the others have none."""
OF_ENGINES = {"ask_engine", "read_definitions", "reconcile"}
"""Operations whose dry run, or which themselves, ask engines and not the ledger."""

ONLY_WRITES = {"record_backup", "record_change", "test_alerts"}
"""Operations that read nothing here, and need no connection of the readers."""


@pytest.fixture
def console(harness, serve, monkeypatch):
    """A console with one parked event, on a ledger with a short timeout for readers."""
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.05)
    harness.check_at_end = False  # some of these tests break the database
    flow = harness.open(start=False)
    FakeReconciler("oa").install(flow.app)
    console = serve(flow)
    console.event_id = flow.take(key="nobody", wait=0).event_id
    assert console.get("/").status == 200
    return console


def paths(console):
    """The pages and paths that read the ledger, as pairs of a path and whether it is a page."""
    found = [(f"/console{path.replace('{id}', console.event_id)}", True) for path in PAGES]
    found.append((f"/console/events/{console.event_id}/body", True))
    found += [
        (f"/console/do/{name}?flow=i1&state=parked&handler=p:x&plugin=p&delivery=x&alert=x", True) for name in ACTIONS
    ]
    for resource in RESOURCES:
        path = resource.path.replace("errors/{id}", f"errors/{'0' * 8}")
        found.append((path.replace("{id}", console.event_id), False))
    return found


def see_that_it_says_so(console, logged, *, but=()):
    """Check that every path is 503 as a page or JSON, has a Retry-After, and is logged without an error.

    An action with an invalid address is refused before anything is read. The operations `but` read other tables.
    """
    read = 0
    for path, page in paths(console):
        answer = console.get(path, root="")
        if path.startswith("/console/do/") and answer.status in {404, 422}:
            continue
        assert answer.status == 503, (path, answer.body)
        assert answer.headers["Retry-After"] == "5", path
        assert answer.headers["Content-Type"].startswith("text/html" if page else "application/json"), path
        assert not any(word in answer.body for word in (b"sqlite", b"psycopg", b"Pool", b"SELECT", b"Traceback")), path
        read += 1
    assert read > len(PAGES) + len(RESOURCES)
    for name in OPERATIONS.keys() - OF_ENGINES - ONLY_WRITES - {*but}:
        answer = operate(console, name, ASKED.get(name, {}))
        assert answer.status == 503, (name, answer.body)
        assert answer.headers["Retry-After"] == "5", name
        assert json.loads(answer.body)["status"] == 503
    assert console.get("/healthz", root="").status == 200
    assert b"flowhooks_ledger_up 0.0" in console.get("/metrics", root="").body
    told = {record["event"] for record in logged}
    assert {"page_failed", "api_request_failed"} <= told
    assert not {"request_failed", "application_failed"} & told


def operate(console, name, arguments):
    """Request the dry run of an operation."""
    body = json.dumps(arguments | ({"dry_run": True} if "dry_run" in OPERATIONS[name][1] else {}))
    return console.get(
        f"/api/operations/{name}", root="", method="POST", body=body, Authorization="Bearer t", Content_Type="x/y+json"
    )


def test_no_connection_is_free(console, logged):
    """All connections are in use for longer than the timeout; later one is free again."""
    with ExitStack() as taken:
        for _ in range(READERS):
            taken.enter_context(console.flow.app.ledger.connection())
        see_that_it_says_so(console, logged)
    why = {record["why"] for record in logged if record["event"] in {"page_failed", "api_request_failed"}}
    assert why == {"the database cannot be read: no connection to it was free within 0.05 seconds"}
    assert console.get("/").status == 200


@pytest.mark.sqlite
def test_a_statement_is_interrupted(console, logged, monkeypatch):
    """SQLite interrupts every statement, as without memory or on a full disk."""
    dialect = console.flow.app.ledger._engine.dialect
    begin, rollback = dialect.do_begin, dialect.do_rollback

    def interrupted(connection):
        begin(connection)
        connection.set_progress_handler(lambda: 1, 1)

    def left_alone(connection):
        connection.set_progress_handler(None, 0)
        rollback(connection)

    monkeypatch.setattr(dialect, "do_begin", interrupted)
    monkeypatch.setattr(dialect, "do_rollback", left_alone)
    see_that_it_says_so(console, logged)


@pytest.mark.sqlite
def test_a_broken_database_file(console, logged):
    """The database's file is no longer a database."""
    with closing(sqlite3.connect(console.flow.file, isolation_level=None)) as outside:
        outside.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = console.flow.file.stat().st_size
    with console.flow.file.open("r+b") as file:
        file.write(b"\xff" * size)
    console.flow.app.ledger._engine.dispose()
    see_that_it_says_so(console, logged)


@pytest.mark.postgresql
def test_a_locked_table(console, logged, postgresql_url, monkeypatch):
    """A manual change locks the tables; every request ends with a timeout."""
    import psycopg

    from flowhooks.ledger.database import postgresql_timeouts

    bounded = postgresql_timeouts._with_timeout
    # Only from here, because on a busy machine the database may respond slowly while the console is opened.
    monkeypatch.setattr(
        postgresql_timeouts,
        "_with_timeout",
        lambda steps, line, _seconds, *more: bounded(steps, line, lambda: 0.3, *more),
    )
    with psycopg.connect(postgresql_url) as outside:
        outside.execute(
            "LOCK TABLE events, deliveries, alerts, audit_log, rejected_requests, handlers, engine_positions, "
            "error_groups "
            "IN ACCESS EXCLUSIVE MODE"
        )
        see_that_it_says_so(console, logged, but={"close_gaps"})
