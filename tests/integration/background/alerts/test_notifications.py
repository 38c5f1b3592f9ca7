"""Listeners are notified of each alert until they accept it."""

from __future__ import annotations

import socket

import pytest

from flowhooks import AlertSeverity
from flowhooks.background.alerts.backoffs import RETRY_DELAYS
from flowhooks.clock import DAY
from flowhooks.errors import Unavailable
from support.alert_listeners import Listener, names

pytestmark = pytest.mark.either


def test_a_restart_repeats_no_notification(watch, listener, harness, logged):
    """Accepted notifications stay accepted after a stop and a crash; a new listener receives the open alerts."""
    watched = watch(mail=listener)
    watched.dead("i1")
    watched.poll()
    harness.crash(watched.flow)
    new = Listener()
    again = watch(mail=listener, chat=new)
    again.poll(2)
    again.flow.close()
    watch(mail=listener, chat=new).poll(2)
    assert len(listener.alerts) == 2
    assert new.alerts == listener.alerts
    assert len(names(logged, "alert_raised")) == 2


def test_a_crash_before_the_notification(watch, listener, harness, monkeypatch):
    """The next process notifies a recorded alert that was not notified, with the same id."""
    watched = watch(mail=listener)
    watched.dead("i1")
    monkeypatch.setattr(watched.flow.app.alerts, "_notify", lambda *_: None)
    watched.poll()
    ids = watched.flow.sql("SELECT id FROM alerts ORDER BY id")
    harness.crash(watched.flow)
    watch(mail=listener).poll()
    assert [(alert.id,) for alert in listener.alerts] == ids


def test_a_crash_before_the_notification_is_stored(watch, listener, harness, monkeypatch):
    """An alert notified before a crash is notified again with the same id, so that the listener can recognise it."""
    watched = watch(mail=listener)
    watched.dead("i1")
    alerts = watched.flow.app.alerts
    real = alerts._write
    monkeypatch.setattr(alerts, "_write", lambda new, *rest: real(new, *rest) if new or any(rest) else None)
    watched.poll()
    harness.crash(watched.flow)
    watch(mail=listener).poll(2)
    assert len(listener.alerts) == 4
    assert len({alert.id for alert in listener.alerts}) == 2


def refuse_writes_after_notification(watched, listener, monkeypatch):
    """Let the database refuse all writes as soon as the listener was notified."""
    ledger = watched.flow.app.ledger
    real = ledger.write

    def write(function):
        if listener.alerts:
            raise Unavailable("ledger_down")
        return real(function)

    monkeypatch.setattr(ledger, "write", write)


def test_results_that_another_leader_has_stored_are_kept(watch, listener, monkeypatch):
    """If a result could not be stored, and another process has notified others meanwhile, both results are stored."""
    watched = watch(mail=listener)
    watched.dead("i1")
    with monkeypatch.context() as patched:
        refuse_writes_after_notification(watched, listener, patched)
        with pytest.raises(Unavailable):
            watched.poll()
    watched.flow.sql("""UPDATE alerts SET notified = '["chat"]', accepted = '["chat"]'""")
    watched.poll(3)
    assert {(alert.notified_plugins, alert.accepted_plugins) for alert in watched.open()} == {(("chat", "mail"),) * 2}


def test_polls_before_another_process_led_do_not_count(watch, listener, monkeypatch):
    """An alert is closed after two polls in a row without its cause; a time without the lead starts them again."""
    watched = watch(mail=listener)
    watched.dead("i1")
    watched.poll()
    watched.close_dead()
    watched.poll()
    is_open = watched.open()
    with monkeypatch.context() as patched:
        patched.setattr(watched.flow.app.ledger, "is_leader", lambda: False)
        watched.poll()
    watched.poll()
    assert watched.open() == is_open
    watched.poll()
    assert watched.open() != is_open


def test_an_accepted_notification_is_not_repeated_while_the_database_is_locked(watch, listener, monkeypatch):
    """An accepted notification is remembered until it is stored, so that it is not repeated at each check."""
    watched = watch(mail=listener)
    watched.dead("i1")
    refuse_writes_after_notification(watched, listener, monkeypatch)
    for _ in range(3):
        with pytest.raises(Unavailable):
            watched.poll()
    assert len(listener.alerts) == 1
    monkeypatch.undo()
    watched.poll(3)
    assert len(listener.alerts) == 2
    assert [row[3] for row in watched.rows()] == ['["mail"]', '["mail"]']


def test_a_listener_that_raises_is_notified_again(watch, listener, logged):
    """A listener that raises is notified again after growing delays, with the same id, until it accepts."""
    watched = watch(mail=listener)
    listener.error = OSError("the mail server is down")
    watched.dead("i1")
    made = []
    for seconds in (0, *RETRY_DELAYS, RETRY_DELAYS[-1]):
        if seconds:
            watched.clock.advance(seconds - 1)
            watched.poll(2)
            watched.clock.advance(1)
        before = len(listener.alerts)
        watched.poll(2)
        made.append(len(listener.alerts) - before)
    assert made == [2, *[1] * (len(made) - 1)]  # each new alert, then one of them at a time
    assert len({alert.id for alert in listener.alerts}) == 2
    assert sum(entry["event"] == "hook_failed" for entry in logged) == sum(made)
    listener.error = None
    watched.clock.advance(RETRY_DELAYS[-1])
    watched.poll(2)
    assert len(listener.alerts) == sum(made) + 2
    assert [row[3] for row in watched.rows()] == ['["mail"]', '["mail"]']


def test_a_listener_that_raised_while_the_clock_was_ahead_is_notified_again(watch, listener):
    """A corrected clock does not make the delay a year long: a wrong date alone makes TLS certificates invalid."""
    watched = watch(mail=listener)
    watched.clock.advance(days=365)
    listener.error = OSError("certificate has expired")
    watched.dead("i1")
    watched.poll(2)
    assert len(listener.alerts) == 2
    listener.error = None
    watched.clock.time -= 365 * DAY
    watched.poll(2)
    assert len(listener.alerts) == 4
    assert [row[3] for row in watched.rows()] == ['["mail"]', '["mail"]']


def test_other_listeners_are_notified_although_one_raises(watch, listener, monkeypatch):
    """The other listeners come first, and each notification is recorded separately."""
    monkeypatch.setattr("flowhooks.background.alerts.monitor.NOTIFY_TIME_BUDGET", 0)
    bad = Listener()
    bad.error = KeyboardInterrupt()
    watched = watch(bad=bad, mail=listener)
    watched.dead("i1")
    watched.poll(3)
    assert len(listener.alerts) == 2
    assert len(bad.alerts) == 1
    assert [row[3] for row in watched.rows()] == ['["mail"]', '["mail"]']


def test_other_alerts_are_notified_although_one_is_not_accepted(watch, listener):
    """An alert that a listener did not accept delays no other alert, comes last the next time, and leaves nothing."""
    watched = watch(mail=listener)
    watched.dead("i1")

    def hook(alert):
        listener.alerts.append(alert)
        if alert.subject == "p:h":
            raise OSError

    listener.hook = hook
    watched.poll()
    assert [alert.subject for alert in listener.alerts] == ["p:h", "p:i"]
    watched.clock.advance(RETRY_DELAYS[0])
    watched.flow.take("i2", key=None)
    watched.poll()
    assert [alert.subject for alert in listener.alerts[2:]] == ["neither class nor key", "p:h"]
    watched.close_dead()
    watched.poll(2)
    assert watched.flow.app.alerts._backoffs._by_plugin == {}


def test_a_late_notification_has_the_current_count(watch, listener):
    """A late notification has the current count and sentence; the start time stays."""
    watched = watch(mail=listener)
    listener.error = OSError()
    watched.dead("i1")
    watched.poll()
    listener.error = None
    watched.clock.advance(RETRY_DELAYS[0])
    watched.dead("i2")
    watched.poll()
    first, last = listener.alerts[0], next(alert for alert in listener.alerts[1:] if alert.id == listener.alerts[0].id)
    assert (first.count, last.count, first.started_at) == (1, 2, last.started_at)
    assert last.message.startswith("2 deliveries")
    assert [row[2] for row in watched.rows()] == [2, 2]


def test_the_error_of_a_failed_notification_is_stored(watch, listener):
    """Why a listener did not accept an alert is stored until it does, and counted."""
    watched = watch(mail=listener)
    listener.error = OSError("smtp.example.com:587:\nconnection refused")
    watched.dead("i1")
    watched.poll()
    errors = {"mail": "smtp.example.com:587: connection refused"}
    assert [alert.notification_errors for alert in watched.open()] == [errors] * 2
    counted = watched.flow.app.metrics.text().decode()
    assert 'flowhooks_alert_notifications_total{plugin="mail",result="failed"} 2.0' in counted
    listener.error = None
    watched.clock.advance(RETRY_DELAYS[0])
    watched.poll(2)
    assert [alert.notification_errors for alert in watched.open()] == [{}, {}]
    counted = watched.flow.app.metrics.text().decode()
    assert 'flowhooks_alert_notifications_total{plugin="mail",result="accepted"} 2.0' in counted


def test_a_notification_has_host_severity_and_page(watch, listener):
    """An alert names the machine, its severity and the page of its handler in the console."""
    watched = watch(mail=listener)
    watched.dead("i1")
    watched.poll()
    alert = listener.alerts[0]
    assert (alert.host, alert.severity) == (socket.gethostname(), AlertSeverity.ERROR)
    assert alert.console_url == "/console/handlers/p%3Ah"
    assert alert.resolved_at is None
