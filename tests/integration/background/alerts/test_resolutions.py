"""Listeners are notified of the end of an alert."""

from __future__ import annotations

import threading

import pytest

from flowhooks import AlertCause
from flowhooks.background.alerts.backoffs import RETRY_DELAYS
from flowhooks.background.alerts.growth import MIN_INTERVAL_SECONDS
from flowhooks.clock import to_datetime
from support.alert_listeners import EndListener, fail
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either


def test_the_end_of_an_alert_is_notified_once(watch, listener):
    """A listener that was notified of an alert is notified once that it is closed, with its last count."""
    ending = EndListener()
    watched = watch(mail=ending, deaf=listener)
    watched.dead("i1")
    watched.poll(2)
    watched.clock.advance(60)
    watched.close_dead()
    watched.poll(4)
    assert [(alert.id, alert.count) for alert in ending.ended] == [(alert.id, 1) for alert in ending.alerts]
    ended = ending.ended[0]
    assert ended.resolved_at == to_datetime(watched.clock.now())
    assert ended.message == (
        "Resolved: the cause dead of p:h has ended. It lasted from 2026-01-01T00:00:00.000Z to "
        "2026-01-01T00:01:00.000Z, and the last count was 1."
    )
    assert (ended.cause, ended.subject, ended.notification) == (AlertCause.DEAD, "p:h", 1)
    assert watched.flow.sql("SELECT resolution_due FROM alerts") == [("[]",)] * 2


def test_the_end_is_notified_to_listeners_that_were_called(watch, harness):
    """A listener that raised is notified of the end, because others may know; one that was not called is not."""
    failing, new = EndListener(), EndListener()
    failing.error = OSError("one of two mail servers is down")
    watched = watch(mail=failing)
    watched.dead("i1")
    watched.poll(2)
    watched.close_dead()
    harness.crash(watched.flow)
    watched = watch(mail=failing, new=new)
    watched.poll(3)
    assert [alert.id for alert in failing.ended] == [alert.id for alert in failing.alerts]
    assert len(failing.ended) == 2
    assert new.alerts == new.ended == []
    assert watched.open() == []


def test_the_end_of_an_alert_whose_growth_was_not_accepted(watch, listens):
    """The end is notified to a listener that accepted the first notification, although it missed a later one."""
    ending = EndListener()
    watched = watch(mail=ending, handlers=[listens(fail, name="h")])
    watched.dead("i0")
    watched.poll()
    ending.error = OSError("the mail server is down")
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    for number in range(1, 11):
        watched.dead(f"i{number}")
    watched.poll(2)
    (alert,) = watched.open()
    assert (alert.accepted_plugins, alert.notified_plugins) == (("mail",), ())
    watched.close_dead()
    watched.clock.advance(RETRY_DELAYS[0])
    watched.poll(3)
    assert [alert.id for alert in ending.ended] == [alert.id]


def test_the_end_is_notified_until_it_is_accepted(watch, harness, listens):
    """A listener that raises is notified of the end again after a delay, also by the next process; once is enough."""
    ending = EndListener()
    handlers = [listens(fail, name="h")]
    watched = watch(mail=ending, handlers=handlers)
    watched.dead("i1")
    watched.poll()
    ending.end_error = OSError("smtp.example.com: connection refused")
    watched.close_dead()
    watched.poll(4)
    assert len(ending.ended) == 1
    assert watched.flow.sql("SELECT resolution_due, notification_errors FROM alerts") == [
        ('["mail"]', '{"mail": "smtp.example.com: connection refused"}')
    ]
    harness.crash(watched.flow)
    ending.end_error = None
    watched = watch(mail=ending, handlers=handlers)
    watched.poll(3)
    assert len(ending.ended) == 2
    assert watched.flow.sql("SELECT resolution_due, notification_errors FROM alerts") == [("[]", "{}")]


def test_notifying_the_end_stops_after_a_day(watch, listens, logged):
    """A listener that does not accept an end for a day is no longer notified of it, which is logged."""
    ending = EndListener()
    watched = watch(mail=ending, handlers=[listens(fail, name="h")])
    watched.dead("i1")
    watched.poll()
    ending.end_error = OSError("the mail server is down")
    watched.close_dead()
    watched.poll(2)
    watched.clock.advance(24 * 3600 + 1)
    watched.poll(3)
    assert len(ending.ended) == 1
    (dropped,) = [entry for entry in logged if entry["event"] == "alert_resolution_dropped"]
    assert (dropped["plugins"], dropped["subject"]) == (["mail"], "p:h")
    assert watched.flow.sql("SELECT resolution_due, notification_errors FROM alerts") == [("[]", "{}")]


def test_a_listener_that_accepts_late_is_notified_of_the_end(watch, eventually, monkeypatch, listens):
    """A listener that returns only after the alert was closed is then notified of its end."""
    monkeypatch.setattr("flowhooks.background.alerts.notifier.NOTIFY_TIMEOUT", 1.0)

    class Late(EndListener):
        release = threading.Event()

        def hook(self, alert):
            self.alerts.append(alert)
            assert self.release.wait(WAIT_TIMEOUT)

    late = Late()
    watched = watch(mail=late, handlers=[listens(fail, name="h")])
    watched.dead("i1")
    watched.poll()
    watched.close_dead()
    watched.poll(2)
    assert watched.open() == []
    assert late.ended == []
    late.release.set()
    eventually(lambda: watched.poll() or late.ended)
    watched.poll(2)
    assert [alert.id for alert in late.ended] == [alert.id for alert in late.alerts]
