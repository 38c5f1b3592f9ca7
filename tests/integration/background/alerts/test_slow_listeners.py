"""Listeners that hang or are slow delay no others, no polls and no shutdown."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from flowhooks.background.alerts.backoffs import RETRY_DELAYS
from support.alert_listeners import Listener
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
