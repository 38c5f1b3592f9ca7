"""The test kit on PostgreSQL, for handlers whose rows are committed together with their outcome."""

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
    """Book the leave; only the transaction prevents a second booking."""
    with delivery.transaction() as connection:
        flow = {"flow": event.flow_instance_id}
        connection.execute(BOOK, flow)
    return flow


@pytest.fixture
def business(postgresql_url):
    """A connection to the database, with a business table."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE booked_leave (flow text)")
        yield connection
        connection.execute("DROP TABLE booked_leave")


def schemas(connection):
    """The schemas that the kit created and did not remove."""
    return connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'flowhooks_test_%'").fetchall()


def booked(connection, event):
    """The number of bookings of an event's leave."""
    query = "SELECT count(*) FROM booked_leave WHERE flow = %s"
    return connection.execute(query, (event.flow_instance_id,)).fetchone()[0]


def test_each_app_has_a_ledger_of_its_own(business, postgresql_url):
    """The same callback is new to each app, and only the handler's rows stay in the database."""
    for _ in range(2):
        with AppHarness(grant, database=postgresql_url) as app:
            answer = app.post("1", processDefinitionKey="leave")
            assert (answer.status, len(schemas(business))) == (200, 1)
            assert app.delivery(answer.event_id).result == {"flow": "1"}
    assert business.execute("SELECT count(*) FROM booked_leave").fetchone() == (2,)
    assert schemas(business) == []
    assert business.execute("SELECT count(*) FROM events").fetchone() == (0,)


def test_a_running_handler_commits_nothing_after_a_crash(business, postgresql_url):
    """After a simulated crash a running handler continues in its thread, and does not commit."""
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
def test_a_transactional_handler_passes_all_scenarios(business, postgresql_url, lines):
    """A handler with only the transaction passes all scenarios of the kit."""
    report = exactly_once(
        grant,
        done=lambda event: booked(business, event),
        make={"processDefinitionKey": "leave"},
        database=postgresql_url,
        lines=lines,
    )
    assert report.exactly_once, str(report)
    assert schemas(business) == []


def test_a_url_of_another_database_is_rejected():
    """Another URL is refused in one sentence, and an unreachable one leaves nothing behind."""
    for wrong in ("sqlite:///x.db", "postgresql:", "nonsense"):
        with pytest.raises(SettingsError, match="database= must be a PostgreSQL URL"):
            AppHarness(grant, database=wrong)


def test_a_transactional_handler_fails_on_sqlite(flowhooks_app):
    """On SQLite the handler fails with the requirement."""
    app = flowhooks_app(grant)
    answer = app.post("1", processDefinitionKey="leave", wait=0)
    assert "needs a ledger on PostgreSQL" in app.wait_for(answer.event_id, "waiting", attempt=1).error
