"""Listeners that hang or are slow delay no others, no polls and no shutdown."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from flowhooks.background.alerts.backoffs import RETRY_DELAYS
from flowhooks.ledger import alert_queries, alert_resolutions
from support.alert_listeners import EndListener, Listener
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either


def test_other_listeners_are_notified_although_one_hangs(watch, listener, hanging, logged):
    """Other listeners are notified and checks continue; the hanging one gets nothing more, which is logged once."""
    watched = watch(hanging=hanging, mail=listener)
    watched.dead("i1")
    watched.poll(3)
    assert [alert.subject for alert in listener.alerts] == ["p:h", "p:i"]
    assert [alert.subject for alert in hanging.alerts] == ["p:h"]
    watched.close_dead()
    watched.poll(2)
    assert [row[3:] for row in watched.rows()] == [('["mail"]', 1)] * 2
    (entry,) = [entry for entry in logged if entry["event"] == "hook_timeout"]
    assert (entry["plugin"], entry["hook"], entry["alert"]) == ("hanging", "alert_raised", hanging.alerts[0].id)


def test_a_listener_that_hangs_is_shown_until_it_returns(watch, listener, hanging, eventually):
    """The open alert has the error of a listener that hangs, until the listener has accepted the alert."""

    def errors():
        with watched.flow.app.ledger.connection() as connection:
            alerts = alert_queries.open_alerts(connection)
            failed = alert_resolutions.failed_notifications(connection, alerts)
        return {alert.subject: alert.notification_errors for alert in alerts}, [row.plugin for row in failed]

    watched = watch(hanging=hanging, mail=listener)
    watched.dead("i1")
    watched.poll(2)
    error = {"hanging": "it has not returned within 20 seconds, and gets no other alert until it returns"}
    assert errors() == ({"p:h": error, "p:i": {}}, ["hanging"])
    hanging.release.set()
    eventually(lambda: watched.poll() or errors() == ({"p:h": {}, "p:i": {}}, []))


def test_a_resolution_whose_listener_hangs_is_shown(watch, monkeypatch, eventually):
    """A closed alert has the error of a listener that hangs in `alert_resolved`, until the listener returns."""

    def failed():
        with watched.flow.app.ledger.connection() as connection:
            return [row.plugin for row in alert_resolutions.failed_notifications(connection, ())]

    entered, release = threading.Event(), threading.Event()
    ending = EndListener()
    watched = watch(ending=ending)
    watched.dead("i1")
    watched.poll()
    monkeypatch.setattr(ending, "end_hook", lambda _alert: entered.set() or (release.wait(WAIT_TIMEOUT) and None))
    monkeypatch.setattr("flowhooks.background.alerts.notifier.NOTIFY_TIMEOUT", 0.0)
    watched.close_dead()
    watched.poll(2)
    assert entered.wait(WAIT_TIMEOUT)
    assert failed() == ["ending"]
    release.set()
    eventually(lambda: watched.poll() or failed() == [])


def test_notifications_without_time_left_are_sent_at_the_next_poll(watch, listener, monkeypatch):
    """Notifications for which one check has no time are sent at the next check."""
    monkeypatch.setattr("flowhooks.background.alerts.monitor.NOTIFY_TIME_BUDGET", 0)
    watched = watch(mail=listener)
    watched.dead("i1")
    made = []
    for _ in range(3):
        watched.poll()
        made.append([alert.subject for alert in listener.alerts])
    assert made == [["p:h"], ["p:h", "p:i"], ["p:h", "p:i"]]


def test_a_listener_that_returns_late_has_accepted(watch, listener, hanging, eventually):
    """A late listener is notified only of newer alerts; no other listener is notified twice."""
    watched = watch(hanging=hanging, mail=listener)
    watched.dead("i1")
    watched.poll()
    hanging.release.set()
    eventually(lambda: watched.poll() or [row[3] for row in watched.rows()] == ['["mail", "hanging"]'] * 2)
    assert [alert.subject for alert in hanging.alerts] == ["p:h", "p:i"]
    assert len(listener.alerts) == 2


def test_a_listener_that_raises_late_is_notified_again(watch, listener, hanging, eventually):
    """A listener that raises late is notified again after the same delay as one that raises at once."""
    watched = watch(hanging=hanging)
    watched.dead("i1")
    watched.poll()
    hanging.error = OSError("the mail server is down")
    hanging.release.set()
    eventually(lambda: watched.poll() or not watched.flow.app.alerts._late_notifications)
    watched.poll(2)
    assert [alert.subject for alert in hanging.alerts] == ["p:h", "p:i"]
    hanging.error = None
    watched.clock.advance(RETRY_DELAYS[0])
    eventually(lambda: watched.poll() or [row[3] for row in watched.rows()] == ['["hanging"]'] * 2)
    assert [alert.subject for alert in hanging.alerts] == ["p:h", "p:i"] * 2


def test_the_server_stops_although_a_listener_hangs(watch, eventually, monkeypatch):
    """Shutdown waits only a moment for a hanging listener; the next process notifies it again."""
    monkeypatch.setattr("flowhooks.app.STOP_TIMEOUT", 0.05)
    entered, release = threading.Event(), threading.Event()
    hanging = SimpleNamespace(hook=lambda alert: entered.set() or (release.wait(WAIT_TIMEOUT) and None))
    watched = watch(mail=hanging)
    watched.dead("i1")
    watched.flow.app.alerts.start()
    assert entered.wait(WAIT_TIMEOUT)
    assert watched.flow.close()
    release.set()
    taking = Listener()
    watch(mail=taking).poll()
    assert len(taking.alerts) == 2
