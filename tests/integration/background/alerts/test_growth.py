"""When the growth of an alert is notified."""

from __future__ import annotations

import pytest

from flowhooks.background.alerts.growth import MIN_INTERVAL_SECONDS, QUIET_SECONDS
from flowhooks.clock import SECOND, to_datetime
from flowhooks.operations.acknowledge import acknowledge
from support.alert_listeners import fail

pytestmark = pytest.mark.either


def test_little_growth_is_not_notified(watch, listener):
    """A few more dead deliveries are not notified, but the alert has the new count, its start and the last error."""
    watched = watch(mail=listener)
    first = watched.dead("i1")
    watched.poll()
    watched.clock.advance(60)
    watched.dead("i2")
    watched.poll(3)
    assert len(listener.alerts) == 2
    assert listener.alerts[0].count == 1
    assert listener.alerts[0].message.startswith("1 delivery of handler p:h is dead")
    alert, _ = watched.open()
    assert (alert.count, alert.event_id, alert.last_error) == (2, first, "ValueError: no")
    assert (alert.started_at, alert.last_at) == (watched.clock.now() - 60 * SECOND, watched.clock.now())
    assert alert.message.startswith("2 deliveries of handler p:h are dead, the first since 2026-01-01T00:00:00.000Z")
    assert (alert.notifications, alert.notified_count) == (1, 1)


def test_growth_is_notified(watch, listener, logged):
    """One more notification of the same alert reports that the count has doubled, plus ten, and how many are new."""
    watched = watch(mail=listener)
    watched.dead("i0")
    watched.poll()
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    for number in range(1, 10):
        watched.dead(f"i{number}")
    watched.poll(3)
    assert len(listener.alerts) == 2
    watched.dead("i10")
    watched.poll(3)
    first, again = [alert for alert in listener.alerts if alert.subject == "p:h"]
    assert (first.id, first.count, first.new_count, first.notification) == (again.id, 1, 0, 1)
    assert (again.count, again.new_count, again.notification) == (11, 10, 2)
    assert (again.last_error, again.last_at) == ("ValueError: no", to_datetime(watched.clock.now()))
    assert again.message.startswith("11 deliveries of handler p:h are dead")
    assert again.message.endswith(" 10 of them are new since the last notification.")
    grown = [entry for entry in logged if entry["event"] == "alert_grown"]
    assert [(entry["subject"], entry["count"], entry["new"]) for entry in grown] == [("p:h", 11, 10), ("p:i", 11, 10)]
    assert [row[1:4] for row in watched.rows()] == [("p:h", 11, '["mail"]'), ("p:i", 11, '["mail"]')]


def test_continuous_growth_is_notified_a_limited_number_of_times(watch, listener, listens, harness):
    """Fast growth is notified after ten minutes at the earliest, and then only if the count has doubled."""
    harness.check_at_end = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(1)
    watched.poll()
    for number in range(60):
        watched.put_dead(1 + number * 5)
        watched.clock.advance(60)
        watched.poll()
    counts = [alert.count for alert in listener.alerts]
    assert counts == [1, 46, 96, 196]
    assert [alert.new_count for alert in listener.alerts] == [0, 45, 50, 100]


def test_new_dead_deliveries_after_a_quiet_hour_are_notified(watch, listener, listens, harness):
    """New dead deliveries are notified after an hour without any, but not soon after others."""
    harness.check_at_end = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(3)
    watched.poll()
    watched.clock.advance(QUIET_SECONDS)
    watched.put_dead(4)
    watched.poll(2)
    assert [(alert.count, alert.new_count) for alert in listener.alerts] == [(3, 0), (4, 1)]
    watched.clock.advance(QUIET_SECONDS - 1)
    watched.put_dead(5)
    watched.poll(2)
    assert len(listener.alerts) == 2


def test_only_growth_of_an_acknowledged_alert_is_notified(watch, listener, listens, harness):
    """A listener notified of 20 acknowledged deliveries is not notified of the 21st an hour later, but of the 40th."""
    harness.check_at_end = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(3)
    watched.poll()
    watched.put_dead(20)
    watched.poll()
    acknowledge(watched.flow.app.operation_context, [listener.alerts[0].id])
    watched.clock.advance(QUIET_SECONDS)
    watched.put_dead(21)
    watched.poll(2)
    watched.put_dead(39)
    watched.poll(2)
    assert len(listener.alerts) == 1
    watched.put_dead(40)
    watched.poll(2)
    assert [(alert.count, alert.new_count) for alert in listener.alerts[1:]] == [(40, 20)]


def test_growth_is_measured_from_the_remaining_count(watch, listener, listens, harness):
    """After a replay that succeeded for most of them, growth counts from those left, not from the highest count."""
    harness.check_at_end = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(100)
    watched.poll()
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    (first,) = watched.flow.sql("SELECT min(id) FROM deliveries")
    watched.flow.sql("UPDATE deliveries SET state = 'closed' WHERE id <> ?", *first)
    watched.poll()
    watched.put_dead(109)
    watched.poll()
    assert len(listener.alerts) == 1
    watched.put_dead(110)
    watched.poll()
    assert [(alert.count, alert.new_count) for alert in listener.alerts] == [(100, 0), (11, 10)]


def test_growth_that_ended_before_its_notification(watch, listener, listens, harness, monkeypatch):
    """If the count has fallen below the earlier one before a listener is notified, none of them is called new."""
    harness.check_at_end = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(10)
    watched.poll()
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    watched.put_dead(20)
    with monkeypatch.context() as patched:
        patched.setattr(watched.flow.app.alerts, "_notify", lambda *_: None)
        watched.poll()
    watched.flow.sql(
        "UPDATE deliveries SET state = 'closed' WHERE id NOT IN (SELECT id FROM deliveries ORDER BY id LIMIT 3)"
    )
    watched.poll(2)
    assert [(alert.notification, alert.count, alert.new_count) for alert in listener.alerts] == [(1, 10, 0), (2, 3, 0)]
    assert "new since" not in listener.alerts[-1].message


def test_growth_survives_a_crash(watch, listener, harness, monkeypatch):
    """Growth that was recorded and not notified is notified by the next process, once."""
    watched = watch(mail=listener)
    watched.dead("i0")
    watched.poll()
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    for number in range(1, 11):
        watched.dead(f"i{number}")
    monkeypatch.setattr(watched.flow.app.alerts, "_notify", lambda *_: None)
    watched.poll()
    harness.crash(watched.flow)
    watch(mail=listener).poll(3)
    assert [(alert.notification, alert.count, alert.new_count) for alert in listener.alerts] == [
        (1, 1, 0), (1, 1, 0), (2, 11, 10), (2, 11, 10),
    ]  # fmt: skip


def test_growth_while_a_listener_hangs_is_notified_to_it(watch, hanging, eventually, listens, harness):
    """A listener that accepts the first notification after the alert has grown is notified of the growth, too."""
    harness.check_at_end = False
    watched = watch(hanging=hanging, handlers=[listens(fail, name="h")])
    watched.put_dead(1)
    watched.poll()
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    watched.put_dead(11)
    watched.poll()
    hanging.release.set()
    eventually(lambda: watched.poll() or [row[3] for row in watched.rows()] == ['["hanging"]'])
    assert [(alert.notification, alert.count) for alert in hanging.alerts] == [(1, 1), (2, 11)]


def test_growth_is_notified_after_the_clock_was_set_back(watch, listener, listens, harness):
    """Growth is notified although the last notification seems to come from the future."""
    harness.check_at_end = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(1)
    watched.poll()
    watched.flow.sql("UPDATE alerts SET notified_at = notified_at + 86400000000")
    watched.put_dead(11)
    watched.poll()
    assert [alert.count for alert in listener.alerts] == [1, 11]
