"""The test kit on PostgreSQL: for handlers that write together with their outcome."""

from __future__ import annotations

import threading

import psycopg
import pytest
from sqlalchemy import text

from flowhooks import Retry, handler
from flowhooks.errors import SettingsError
from flowhooks.testing import AppHarness, exactly_once
from support.waiting import WAIT_TIMEOUT

BOOK = text("INSERT INTO booked_leave (flow) VALUES (:flow)")


@handler(process_key="leave", retry=Retry())
def grant(event, delivery):
    """Book the leave; nothing but the transaction keeps it from being booked twice."""
    with delivery.transaction() as connection:
        flow = {"flow": event.flow_instance_id}
        connection.execute(BOOK, flow)
    return flow


@pytest.fixture
def business(postgresql_url):
    """A connection to the database, with a table of the business's own."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE booked_leave (flow text)")
        yield connection
        connection.execute("DROP TABLE booked_leave")


def schemas(connection):
    """The schemas that the kit has made and not removed."""
    return connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'flowhooks_test_%'").fetchall()


def booked(connection, event):
    """How often the leave of an event was booked."""
    query = "SELECT count(*) FROM booked_leave WHERE flow = %s"
    return connection.execute(query, (event.flow_instance_id,)).fetchone()[0]


def test_each_app_has_a_ledger_of_its_own(business, postgresql_url):
    """The same callback is new to each, and nothing is left in the database but what the handler wrote."""
    for _ in range(2):
        with AppHarness(grant, database=postgresql_url) as app:
            answer = app.post("1", processDefinitionKey="leave")
            assert (answer.status, len(schemas(business))) == (200, 1)
            assert app.delivery(answer.event_id).result == {"flow": "1"}
    assert business.execute("SELECT count(*) FROM booked_leave").fetchone() == (2,)
    assert schemas(business) == []
    assert business.execute("SELECT count(*) FROM events").fetchone() == (0,)


def test_what_runs_when_it_crashes_writes_nothing(business, postgresql_url):
    """It goes on in its thread, as always, and does not commit."""
    entered, go_on = threading.Event(), threading.Event()

    @handler(process_key="leave", retry=Retry())
    def slow(event, delivery):
        grant.function(event, delivery)
        if delivery.attempt == 1:
            entered.set()
            go_on.wait(WAIT_TIMEOUT)

    with AppHarness(slow, database=postgresql_url) as app:
        answer = app.post("1", wait=0, processDefinitionKey="leave")
        assert entered.wait(WAIT_TIMEOUT)
        app.crash()
        go_on.set()
        app.restart()
        app.settle()
        assert app.wait_for(answer.event_id, "succeeded").attempt == 2
        assert booked(business, app.event(answer.event_id)) == 1


@pytest.mark.parametrize("lines", [4, pytest.param(20, marks=pytest.mark.long)])
def test_exactly_once_whatever_happens(business, postgresql_url, lines):
    """A handler with no more than the transaction passes all that the kit has."""
    report = exactly_once(
        grant,
        done=lambda event: booked(business, event),
        make={"processDefinitionKey": "leave"},
        database=postgresql_url,
        lines=lines,
    )
    assert report.exactly_once, str(report)
    assert schemas(business) == []


def test_it_must_be_a_database_on_postgresql():
    """Another URL is refused in one sentence, and one that cannot be reached leaves nothing behind."""
    for wrong in ("sqlite:///x.db", "postgresql:", "nonsense"):
        with pytest.raises(SettingsError, match="database= must be a PostgreSQL URL"):
            AppHarness(grant, database=wrong)


def test_on_sqlite_such_a_handler_fails(flowhooks_app):
    """And says what it needs."""
    app = flowhooks_app(grant)
    answer = app.post("1", processDefinitionKey="leave", wait=0)
    assert "needs a ledger on PostgreSQL" in app.wait_for(answer.event_id, "waiting", attempt=1).error
