"""One alert is raised for each cause, stored, and closed when the cause is gone."""

from __future__ import annotations

import threading

import pytest

from flowhooks import AlertCause
from flowhooks.errors import Unavailable
from support.alert_listeners import names
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either


def test_one_alert_for_each_handler_with_dead_deliveries(watch, listener):
    """Twenty dead deliveries of two handlers are two alerts, each notified once with the facts an operator needs."""
    watched = watch(mail=listener)
    first = watched.dead("i0")
    for number in range(1, 20):
        watched.clock.advance(1)
        watched.dead(f"i{number}")
    watched.poll(3)
    assert listener.notified == [(AlertCause.DEAD, "p:h"), (AlertCause.DEAD, "p:i")]
    alert = listener.alerts[0]
    assert (alert.count, alert.event_id, alert.started_at.isoformat()) == (20, first, "2026-01-01T00:00:00+00:00")
    assert alert.message == (
        "20 deliveries of handler p:h are dead, the first since 2026-01-01T00:00:00.000Z. Fix the cause, "
        "then run `flowhooks events replay --handler p:h`."
    )
    assert watched.rows() == [("dead", "p:h", 20, '["mail"]', 0), ("dead", "p:i", 20, '["mail"]', 0)]


def test_an_alert_is_closed_when_its_cause_ends(watch, listener, logged):
    """An alert is closed after two checks without its cause; later the cause raises a new alert with a new id."""
    watched = watch(mail=listener)
    watched.dead("i1")
    watched.poll(2)
    watched.close_dead()
    watched.poll()
    assert [row[-1] for row in watched.rows()] == [0, 0]
    watched.poll()
    assert [row[-1] for row in watched.rows()] == [1, 1]
    watched.dead("i2")
    watched.poll(2)
    assert names(logged, "alert_raised", "alert_closed") == [
        ("alert_raised", "p:h"), ("alert_raised", "p:i"),
        ("alert_closed", "p:h"), ("alert_closed", "p:i"),
        ("alert_raised", "p:h"), ("alert_raised", "p:i"),
    ]  # fmt: skip
    assert listener.notified == [(AlertCause.DEAD, "p:h"), (AlertCause.DEAD, "p:i")] * 2
    assert len({alert.id for alert in listener.alerts}) == 4


def test_a_running_retry_does_not_close_an_alert(watch, listener):
    """A dead delivery that one check finds running and the next finds dead again is the same alert."""
    watched = watch(mail=listener)
    watched.dead("i1")
    watched.poll()
    watched.flow.sql("UPDATE deliveries SET state = 'running'")
    watched.poll()
    watched.flow.sql("UPDATE deliveries SET state = 'dead'")
    watched.poll(3)
    assert len(listener.alerts) == 2
    assert [row[-1] for row in watched.rows()] == [0, 0]


def test_alerts_are_raised_without_listeners(watch, logged):
    """Alerts are stored and logged once as a warning, and as an info when they are closed."""
    watched = watch()
    event_id = watched.dead("i1")
    watched.poll(3)
    (entry, _) = [entry for entry in logged if entry["event"] == "alert_raised"]
    assert entry.pop("alert")
    assert entry.pop("why").startswith("1 delivery of handler p:h is dead")
    assert entry == {
        "event": "alert_raised", "log_level": "warning", "cause": "dead", "subject": "p:h",
        "count": 1, "event_id": event_id, "error": "ValueError: no",
    }  # fmt: skip
    watched.close_dead()
    watched.poll(2)
    (entry, _) = [entry for entry in logged if entry["event"] == "alert_closed"]
    assert entry.pop("alert")
    assert entry == {"event": "alert_closed", "log_level": "info", "cause": "dead", "subject": "p:h"}
    assert [row[3:] for row in watched.rows()] == [("[]", 1), ("[]", 1)]


def test_the_number_of_open_alerts_is_limited(watch, listener, monkeypatch):
    """The number of open alerts of a cause is limited; one alert stands for the rest, until there is room."""
    monkeypatch.setattr("flowhooks.background.alerts.monitor.MAX_OPEN_PER_CAUSE", 3)
    monkeypatch.setattr("flowhooks.background.alerts.causes.MAX_PARKED_GROUPS", 8)
    watched = watch(mail=listener, alerts={"parked_after": 0.0})
    for number in range(9, 0, -1):
        watched.flow.take(f"i{number}", key=None, callback_class=f"c{number}")
        watched.poll(2)
    assert [subject for _, subject in listener.notified] == ["class c9", "class c8", "class c7", "(others)"]
    assert listener.alerts[-1].message.startswith("1 more alerts of the cause parked")
    # Above the limit of classes the state of the rest is not known: their alerts stay open.
    assert [row[-1] for row in watched.rows()] == [0, 0, 0, 0]
    watched.flow.sql("UPDATE events SET state = 'dismissed' WHERE callback_class IN ('c7', 'c8')")
    watched.poll(3)
    assert sorted(row[1] for row in watched.rows() if not row[-1]) == ["(others)", "class c1", "class c2", "class c9"]
    watched.flow.sql("UPDATE events SET state = 'dismissed' WHERE callback_class > 'c1'")
    watched.poll(3)
    assert [row[1] for row in watched.rows() if not row[-1]] == ["class c1"]


@pytest.mark.postgresql
def test_one_of_several_processes_raises_alerts(harness, make_plugin, listens, monkeypatch):
    """Of two processes on one ledger, one notifies each cause once; the other one takes over."""
    monkeypatch.setattr("flowhooks.background.alerts.monitor.FIRST_POLL_DELAY", 3600.0)  # so that only the test polls
    notified = []

    def fails(event):
        raise ValueError("no")

    def opened(name):
        plugin = make_plugin(
            listens(fails, name="h"), alert_raised=lambda alert: notified.append((name, alert.subject))
        )
        return harness.open(plugins={"p": plugin}, start=False, alerts={"poll_interval": 3600.0})

    first, second = opened("first"), opened("second")
    first.app.start()
    first.take("i1")
    second.app.alerts.poll()
    assert notified == []
    first.app.alerts.poll()
    second.app.alerts.poll()
    assert notified == [("first", "p:h")]
    first.close()
    second.app.alerts.poll()
    assert notified == [("first", "p:h")]


def test_the_monitor_polls_repeatedly(watch, listener, eventually, monkeypatch):
    """The monitor checks repeatedly from the start, in a thread that ends with the server."""
    monkeypatch.setattr("flowhooks.app.STOP_TIMEOUT", WAIT_TIMEOUT)  # a check in progress may take long
    watched = watch(mail=listener, start=True, alerts={"poll_interval": 0.02})
    watched.flow.take("i1")
    eventually(lambda: len(listener.alerts) == 2)
    watched.close_dead()
    eventually(lambda: [row[-1] for row in watched.rows()] == [1, 1])
    thread = watched.flow.app.alerts._thread
    assert thread in threading.enumerate()
    assert watched.flow.close()
    assert thread not in threading.enumerate()


def test_polling_continues_after_an_error(watch, listener, eventually, logged, monkeypatch):
    """Each error of failing checks is logged once, also one that follows another, and later checks continue."""
    watched = watch(mail=listener, alerts={"poll_interval": 0.01})
    alerts = watched.flow.app.alerts
    down, defect = Unavailable("ledger_down"), RuntimeError("x")
    failures = [down, down, defect, defect, None, down, down]
    real = alerts._update_alerts

    def broken():
        if failures and (error := failures.pop(0)):
            raise error
        return real()

    monkeypatch.setattr(alerts, "_update_alerts", broken)
    watched.dead("i1")
    alerts.start()
    eventually(lambda: not failures and len(listener.alerts) == 2)
    failed = [entry for entry in logged if entry["event"] == "alert_poll_failed"]
    assert ["exc_info" in entry for entry in failed] == [False, True, False]
    assert failed[0]["why"] == "the database cannot be written now"  # not the message for a callback's sender
