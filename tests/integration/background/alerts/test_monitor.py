"""Alerts are raised once for each cause, stored, notified until accepted, and closed when the cause is gone."""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from flowhooks import AlertCause, AlertSeverity, Retry, State
from flowhooks.background.alerts import notifier
from flowhooks.background.alerts.backoffs import RETRY_DELAYS
from flowhooks.background.alerts.growth import MIN_INTERVAL_SECONDS, QUIET_SECONDS
from flowhooks.clock import DAY, SECOND, to_datetime
from flowhooks.errors import NotFound, SettingsError, Unavailable
from flowhooks.ledger import alert_queries, circuit_state
from flowhooks.model.ready_delivery import ReadyDelivery
from flowhooks.operations.acknowledge import acknowledge
from flowhooks.operations.context import Actor
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.registry import run_operation
from flowhooks.operations.retire import retire
from flowhooks.settings import AlertRoute
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.either

HOUR = 3600


class Listener:
    """A plugin that records the alerts that it accepts.

    Attributes:
        alerts: its notifications in order, also those that it did not accept.
        error: the exception that it raises instead of accepting.
    """

    def __init__(self):
        self.alerts = []
        self.error = None

    def hook(self, alert):
        """The hook `alert_raised`."""
        self.alerts.append(alert)
        if self.error:
            raise self.error

    @property
    def told(self):
        """Cause and subject of each notification."""
        return [(alert.cause, alert.subject) for alert in self.alerts]


class EndListener(Listener):
    """A listener that also records the ends of alerts.

    Attributes:
        ended: its notifications that alerts are closed, also those that it did not accept.
        end_error: the exception that it raises instead of accepting one.
    """

    def __init__(self):
        super().__init__()
        self.ended = []
        self.end_error = None

    def end_hook(self, alert):
        """The hook `alert_resolved`."""
        self.ended.append(alert)
        if self.end_error:
            raise self.end_error


class Watched:
    """An app that runs nothing by itself: the test makes deliveries fail and triggers each check."""

    def __init__(self, flow, eventually):
        self.flow = flow
        self.eventually = eventually
        self.clock = flow.clock
        self.look = flow.app.alerts.poll

    def dead(self, instance, **named):
        """Store a callback whose delivery fails finally."""
        event_id = self.flow.take(instance, wait=0, **named).event_id
        self.run(event_id)
        self.eventually(lambda: {one.state for one in self.flow.delivery_statuses(event_id)} == {State.DEAD})
        return event_id

    def put_dead(self, until):
        """Make `count` deliveries of the only handler dead: the missing ones fail now."""
        for number in range(self.flow.sql("SELECT count(*) FROM deliveries")[0][0], until):
            self.flow.take(f"n{number}", wait=0)
        self.flow.sql(
            "UPDATE deliveries SET state = 'dead', due_at = NULL, changed_at = ? WHERE state = 'waiting'",
            self.clock.now(),
        )

    def run(self, event_id):
        """Make an attempt of each waiting delivery of an event."""
        for one in self.flow.delivery_statuses(event_id):
            self.flow.app.dispatcher.execute(ReadyDelivery(one.delivery_id, one.handler, one.attempt))

    def close_dead(self):
        """An operator closes every dead delivery."""
        self.flow.sql("UPDATE deliveries SET state = 'closed' WHERE state = 'dead'")

    def looks(self, times=2):
        """Check several times."""
        for _ in range(times):
            self.look()

    def open(self):
        """The open alerts as stored."""
        with self.flow.app.ledger.connection() as connection:
            return alert_queries.open_alerts(connection)

    def rows(self):
        """Every alert that was raised: cause, subject, count, notified, and whether its cause is gone."""
        return self.flow.sql(
            "SELECT cause, subject, count, notified, closed_at IS NOT NULL FROM alerts ORDER BY opened_at, id"
        )


def fail(event):
    """Fail finally."""
    raise ValueError("no")


@pytest.fixture
def listener():
    """A plugin's listener."""
    return Listener()


@pytest.fixture
def watch(harness, listens, make_plugin, eventually):
    """A function that opens an app with the plugin `p`, whose handlers `h` and `i` fail, and named listeners."""

    def opened(start=False, alerts=(), handlers=None, **listeners):
        handlers = [listens(fail, name=name) for name in "hi"] if handlers is None else handlers
        plugins = {"p": make_plugin(*handlers)} if handlers else {"none": make_plugin()}
        for name, one in listeners.items():
            hooks = {"alert_raised": lambda alert, one=one: one.hook(alert)}
            if isinstance(one, EndListener):
                hooks["alert_resolved"] = lambda alert, one=one: one.end_hook(alert)
            plugins[name] = make_plugin(**hooks)
        return Watched(harness.open(plugins=plugins, start=start, alerts=dict(alerts)), eventually)

    return opened


def names(entries, *events):
    """The logged events of these names with their subjects, in order."""
    return [(entry["event"], entry["subject"]) for entry in entries if entry["event"] in events]


def test_many_dead_deliveries_are_one_alert_for_each_handler(watch, listener):
    """Twenty dead deliveries of two handlers are two alerts, each notified once with the facts an operator needs."""
    watched = watch(mail=listener)
    first = watched.dead("i0")
    for number in range(1, 20):
        watched.clock.advance(1)
        watched.dead(f"i{number}")
    watched.looks(3)
    assert listener.told == [(AlertCause.DEAD, "p:h"), (AlertCause.DEAD, "p:i")]
    alert = listener.alerts[0]
    assert (alert.count, alert.event_id, alert.started_at.isoformat()) == (20, first, "2026-01-01T00:00:00+00:00")
    assert alert.message == (
        "20 deliveries of handler p:h are dead, the first since 2026-01-01T00:00:00.000Z. Fix the cause, "
        "then run `flowhooks events replay --handler p:h`."
    )
    assert watched.rows() == [("dead", "p:h", 20, '["mail"]', 0), ("dead", "p:i", 20, '["mail"]', 0)]


def test_a_few_more_of_the_same_are_no_news(watch, listener):
    """A few more dead deliveries are not notified, but the alert has the new count, its start and the last error."""
    watched = watch(mail=listener)
    first = watched.dead("i1")
    watched.look()
    watched.clock.advance(60)
    watched.dead("i2")
    watched.looks(3)
    assert len(listener.alerts) == 2
    assert listener.alerts[0].count == 1
    assert listener.alerts[0].message.startswith("1 delivery of handler p:h is dead")
    alert, _ = watched.open()
    assert (alert.count, alert.event_id, alert.last_error) == (2, first, "ValueError: no")
    assert (alert.started_at, alert.last_at) == (watched.clock.now() - 60 * SECOND, watched.clock.now())
    assert alert.message.startswith("2 deliveries of handler p:h are dead, the first since 2026-01-01T00:00:00.000Z")
    assert (alert.notifications, alert.notified_count) == (1, 1)


def test_growth_is_told_again(watch, listener, logged):
    """One more notification of the same alert reports that the count has doubled, plus ten, and how many are new."""
    watched = watch(mail=listener)
    watched.dead("i0")
    watched.look()
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    for number in range(1, 10):
        watched.dead(f"i{number}")
    watched.looks(3)
    assert len(listener.alerts) == 2
    watched.dead("i10")
    watched.looks(3)
    first, again = [alert for alert in listener.alerts if alert.subject == "p:h"]
    assert (first.id, first.count, first.new_count, first.notification) == (again.id, 1, 0, 1)
    assert (again.count, again.new_count, again.notification) == (11, 10, 2)
    assert (again.last_error, again.last_at) == ("ValueError: no", to_datetime(watched.clock.now()))
    assert again.message.startswith("11 deliveries of handler p:h are dead")
    assert again.message.endswith(" 10 of them are new since the last notification.")
    grown = [entry for entry in logged if entry["event"] == "alert_grown"]
    assert [(entry["subject"], entry["count"], entry["new"]) for entry in grown] == [("p:h", 11, 10), ("p:i", 11, 10)]
    assert [row[1:4] for row in watched.rows()] == [("p:h", 11, '["mail"]'), ("p:i", 11, '["mail"]')]


def test_growth_without_end_is_told_a_bounded_number_of_times(watch, listener, listens, harness):
    """Fast growth is notified after ten minutes at the earliest, and then only if the count has doubled."""
    harness.check_books = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(1)
    watched.look()
    for number in range(60):
        watched.put_dead(1 + number * 5)
        watched.clock.advance(60)
        watched.look()
    counts = [alert.count for alert in listener.alerts]
    assert counts == [1, 46, 96, 196]
    assert [alert.new_count for alert in listener.alerts] == [0, 45, 50, 100]


def test_new_ones_after_an_hour_of_silence_are_told(watch, listener, listens, harness):
    """New dead deliveries are notified after an hour without any, but not soon after others."""
    harness.check_books = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(3)
    watched.look()
    watched.clock.advance(QUIET_SECONDS)
    watched.put_dead(4)
    watched.looks()
    assert [(alert.count, alert.new_count) for alert in listener.alerts] == [(3, 0), (4, 1)]
    watched.clock.advance(QUIET_SECONDS - 1)
    watched.put_dead(5)
    watched.looks()
    assert len(listener.alerts) == 2


def test_an_acknowledged_alert_tells_growth_and_nothing_else(watch, listener, listens, harness):
    """A listener notified of 20 acknowledged deliveries is not notified of the 21st an hour later, but of the 40th."""
    harness.check_books = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(3)
    watched.look()
    watched.put_dead(20)
    watched.look()
    acknowledge(watched.flow.app.operation_context, [listener.alerts[0].id])
    watched.clock.advance(QUIET_SECONDS)
    watched.put_dead(21)
    watched.looks()
    watched.put_dead(39)
    watched.looks()
    assert len(listener.alerts) == 1
    watched.put_dead(40)
    watched.looks()
    assert [(alert.count, alert.new_count) for alert in listener.alerts[1:]] == [(40, 20)]


def test_growth_is_measured_from_what_was_left(watch, listener, listens, harness):
    """After a replay that succeeded for most of them, growth counts from those left, not from the highest count."""
    harness.check_books = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(100)
    watched.look()
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    (first,) = watched.flow.sql("SELECT min(id) FROM deliveries")
    watched.flow.sql("UPDATE deliveries SET state = 'closed' WHERE id <> ?", *first)
    watched.look()
    watched.put_dead(109)
    watched.look()
    assert len(listener.alerts) == 1
    watched.put_dead(110)
    watched.look()
    assert [(alert.count, alert.new_count) for alert in listener.alerts] == [(100, 0), (11, 10)]


def test_growth_that_ended_before_its_notification(watch, listener, listens, harness, monkeypatch):
    """If the count has fallen below the earlier one before a listener is notified, none of them is called new."""
    harness.check_books = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(10)
    watched.look()
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    watched.put_dead(20)
    with monkeypatch.context() as patched:
        patched.setattr(watched.flow.app.alerts, "_notify", lambda *_: None)
        watched.look()
    watched.flow.sql(
        "UPDATE deliveries SET state = 'closed' WHERE id NOT IN (SELECT id FROM deliveries ORDER BY id LIMIT 3)"
    )
    watched.looks()
    assert [(alert.notification, alert.count, alert.new_count) for alert in listener.alerts] == [(1, 10, 0), (2, 3, 0)]
    assert "new since" not in listener.alerts[-1].message


def test_growth_survives_a_crash(watch, listener, harness, monkeypatch):
    """Growth that was recorded and not notified is notified by the next process, once."""
    watched = watch(mail=listener)
    watched.dead("i0")
    watched.look()
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    for number in range(1, 11):
        watched.dead(f"i{number}")
    monkeypatch.setattr(watched.flow.app.alerts, "_notify", lambda *_: None)
    watched.look()
    harness.crash(watched.flow)
    watch(mail=listener).looks(3)
    assert [(alert.notification, alert.count, alert.new_count) for alert in listener.alerts] == [
        (1, 1, 0), (1, 1, 0), (2, 11, 10), (2, 11, 10),
    ]  # fmt: skip


def test_who_hangs_over_an_old_notification_is_told_of_growth(watch, hanging, eventually, listens, harness):
    """A listener that accepts the first notification after the alert has grown is notified of the growth, too."""
    harness.check_books = False
    watched = watch(hanging=hanging, handlers=[listens(fail, name="h")])
    watched.put_dead(1)
    watched.look()
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    watched.put_dead(11)
    watched.look()
    hanging.let_go.set()
    eventually(lambda: watched.look() or [row[3] for row in watched.rows()] == ['["hanging"]'])
    assert [(alert.notification, alert.count) for alert in hanging.alerts] == [(1, 1), (2, 11)]


def test_a_clock_that_is_set_back_silences_nothing(watch, listener, listens, harness):
    """Growth is notified although the last notification seems to come from the future."""
    harness.check_books = False
    watched = watch(mail=listener, handlers=[listens(fail, name="h")])
    watched.put_dead(1)
    watched.look()
    watched.flow.sql("UPDATE alerts SET notified_at = notified_at + 86400000000")
    watched.put_dead(11)
    watched.look()
    assert [alert.count for alert in listener.alerts] == [1, 11]


def test_an_alert_is_over_when_its_cause_has_gone(watch, listener, logged):
    """An alert is closed after two checks without its cause; later the cause raises a new alert with a new id."""
    watched = watch(mail=listener)
    watched.dead("i1")
    watched.looks()
    watched.close_dead()
    watched.look()
    assert [row[-1] for row in watched.rows()] == [0, 0]
    watched.look()
    assert [row[-1] for row in watched.rows()] == [1, 1]
    watched.dead("i2")
    watched.looks()
    assert names(logged, "alert_raised", "alert_closed") == [
        ("alert_raised", "p:h"), ("alert_raised", "p:i"),
        ("alert_closed", "p:h"), ("alert_closed", "p:i"),
        ("alert_raised", "p:h"), ("alert_raised", "p:i"),
    ]  # fmt: skip
    assert listener.told == [(AlertCause.DEAD, "p:h"), (AlertCause.DEAD, "p:i")] * 2
    assert len({alert.id for alert in listener.alerts}) == 4


def test_what_is_tried_again_is_not_over_for_a_moment(watch, listener):
    """A dead delivery that one check finds running and the next finds dead again is the same alert."""
    watched = watch(mail=listener)
    watched.dead("i1")
    watched.look()
    watched.flow.sql("UPDATE deliveries SET state = 'running'")
    watched.look()
    watched.flow.sql("UPDATE deliveries SET state = 'dead'")
    watched.looks(3)
    assert len(listener.alerts) == 2
    assert [row[-1] for row in watched.rows()] == [0, 0]


def test_a_restart_tells_nothing_twice(watch, listener, harness, logged):
    """Accepted notifications stay accepted after a stop and a crash; a new listener receives the open alerts."""
    watched = watch(mail=listener)
    watched.dead("i1")
    watched.look()
    harness.crash(watched.flow)
    new = Listener()
    again = watch(mail=listener, chat=new)
    again.looks()
    again.flow.close()
    watch(mail=listener, chat=new).looks()
    assert len(listener.alerts) == 2
    assert new.alerts == listener.alerts
    assert len(names(logged, "alert_raised")) == 2


def test_a_crash_before_it_was_told(watch, listener, harness, monkeypatch):
    """The next process notifies a recorded alert that was not notified, with the same id."""
    watched = watch(mail=listener)
    watched.dead("i1")
    monkeypatch.setattr(watched.flow.app.alerts, "_notify", lambda *_: None)
    watched.look()
    ids = watched.flow.sql("SELECT id FROM alerts ORDER BY id")
    harness.crash(watched.flow)
    watch(mail=listener).look()
    assert [(alert.id,) for alert in listener.alerts] == ids


def test_a_crash_after_it_was_told_and_before_that_was_written_down(watch, listener, harness, monkeypatch):
    """An alert notified before a crash is notified again with the same id, so that the listener can recognise it."""
    watched = watch(mail=listener)
    watched.dead("i1")
    alerts = watched.flow.app.alerts
    real = alerts._write
    monkeypatch.setattr(alerts, "_write", lambda new, *rest: real(new, *rest) if new or any(rest) else None)
    watched.look()
    harness.crash(watched.flow)
    watch(mail=listener).looks()
    assert len(listener.alerts) == 4
    assert len({alert.id for alert in listener.alerts}) == 2


def test_what_was_taken_is_not_told_again_while_the_database_is_locked(watch, listener, monkeypatch):
    """An accepted notification is remembered until it is stored, so that it is not repeated at each check."""
    watched = watch(mail=listener)
    watched.dead("i1")
    ledger = watched.flow.app.ledger
    real = ledger.write

    def write(function):
        if listener.alerts:
            raise Unavailable("ledger_down")
        return real(function)

    monkeypatch.setattr(ledger, "write", write)
    for _ in range(3):
        with pytest.raises(Unavailable):
            watched.look()
    assert len(listener.alerts) == 1
    monkeypatch.undo()
    watched.looks(3)
    assert len(listener.alerts) == 2
    assert [row[3] for row in watched.rows()] == ['["mail"]', '["mail"]']


def test_a_listener_that_raises_is_told_again_later(watch, listener, logged):
    """A listener that raises is notified again after growing delays, with the same id, until it accepts."""
    watched = watch(mail=listener)
    listener.error = OSError("the mail server is down")
    watched.dead("i1")
    made = []
    for seconds in (0, *RETRY_DELAYS, RETRY_DELAYS[-1]):
        if seconds:
            watched.clock.advance(seconds - 1)
            watched.looks()
            watched.clock.advance(1)
        before = len(listener.alerts)
        watched.looks()
        made.append(len(listener.alerts) - before)
    assert made == [2, *[1] * (len(made) - 1)]  # each new alert, then one of them at a time
    assert len({alert.id for alert in listener.alerts}) == 2
    assert sum(entry["event"] == "hook_failed" for entry in logged) == sum(made)
    listener.error = None
    watched.clock.advance(RETRY_DELAYS[-1])
    watched.looks()
    assert len(listener.alerts) == sum(made) + 2
    assert [row[3] for row in watched.rows()] == ['["mail"]', '["mail"]']


def test_a_listener_that_raised_while_the_clock_was_ahead_is_told_again(watch, listener):
    """A corrected clock does not make the delay a year long: a wrong date alone makes TLS certificates invalid."""
    watched = watch(mail=listener)
    watched.clock.advance(days=365)
    listener.error = OSError("certificate has expired")
    watched.dead("i1")
    watched.looks()
    assert len(listener.alerts) == 2
    listener.error = None
    watched.clock.time -= 365 * DAY
    watched.looks()
    assert len(listener.alerts) == 4
    assert [row[3] for row in watched.rows()] == ['["mail"]', '["mail"]']


def test_a_listener_that_raises_keeps_nobody_else_from_being_told(watch, listener, monkeypatch):
    """The other listeners come first, and each notification is recorded separately."""
    monkeypatch.setattr("flowhooks.background.alerts.monitor.NOTIFY_TIME_BUDGET", 0)
    bad = Listener()
    bad.error = KeyboardInterrupt()
    watched = watch(bad=bad, mail=listener)
    watched.dead("i1")
    watched.looks(3)
    assert len(listener.alerts) == 2
    assert len(bad.alerts) == 1
    assert [row[3] for row in watched.rows()] == ['["mail"]', '["mail"]']


def test_one_alert_that_cannot_be_taken_does_not_keep_the_others(watch, listener):
    """An alert that a listener did not accept delays no other alert, comes last the next time, and leaves nothing."""
    watched = watch(mail=listener)
    watched.dead("i1")

    def hook(alert):
        listener.alerts.append(alert)
        if alert.subject == "p:h":
            raise OSError

    listener.hook = hook
    watched.look()
    assert [alert.subject for alert in listener.alerts] == ["p:h", "p:i"]
    watched.clock.advance(RETRY_DELAYS[0])
    watched.flow.take("i2", key=None)
    watched.look()
    assert [alert.subject for alert in listener.alerts[2:]] == ["neither class nor key", "p:h"]
    watched.close_dead()
    watched.looks()
    assert watched.flow.app.alerts._backoffs._by_plugin == {}


def test_what_is_told_late_says_how_it_is_by_then(watch, listener):
    """A late notification has the current count and sentence; the start time stays."""
    watched = watch(mail=listener)
    listener.error = OSError()
    watched.dead("i1")
    watched.look()
    listener.error = None
    watched.clock.advance(RETRY_DELAYS[0])
    watched.dead("i2")
    watched.look()
    first, last = listener.alerts[0], next(one for one in listener.alerts[1:] if one.id == listener.alerts[0].id)
    assert (first.count, last.count, first.started_at) == (1, 2, last.started_at)
    assert last.message.startswith("2 deliveries")
    assert [row[2] for row in watched.rows()] == [2, 2]


def test_without_listeners_alerts_are_raised_all_the_same(watch, logged):
    """Alerts are stored and logged once as a warning, and as an info when they are closed."""
    watched = watch()
    event_id = watched.dead("i1")
    watched.looks(3)
    (entry, _) = [entry for entry in logged if entry["event"] == "alert_raised"]
    assert entry.pop("alert")
    assert entry.pop("why").startswith("1 delivery of handler p:h is dead")
    assert entry == {
        "event": "alert_raised", "log_level": "warning", "cause": "dead", "subject": "p:h",
        "count": 1, "event_id": event_id, "error": "ValueError: no",
    }  # fmt: skip
    watched.close_dead()
    watched.looks()
    (entry, _) = [entry for entry in logged if entry["event"] == "alert_closed"]
    assert entry.pop("alert")
    assert entry == {"event": "alert_closed", "log_level": "info", "cause": "dead", "subject": "p:h"}
    assert [row[3:] for row in watched.rows()] == [("[]", 1), ("[]", 1)]


def test_unknown_deliveries(watch, listener, harness, listens):
    """A delivery without `retry=` that a killed process left running raises an alert; one with `retry=` does not."""
    watched = watch(handlers=[listens(fail, name="h"), listens(fail, name="r", retry=Retry())])
    event_id = watched.flow.take("i1", wait=0).event_id
    for one in watched.flow.delivery_statuses(event_id):
        watched.flow.app.ledger.claim(ReadyDelivery(one.delivery_id, one.handler, 0))
    harness.crash(watched.flow)
    watch(handlers=[listens(fail, name="h"), listens(fail, name="r", retry=Retry())], mail=listener).looks()
    assert listener.told == [(AlertCause.UNKNOWN, "p:h")]
    assert "`flowhooks events resolve`" in listener.alerts[0].message


def test_parked_events_by_what_they_wait_for(watch, listener):
    """An event parked for an hour raises one alert for each class and key, whatever their names."""
    watched = watch(mail=listener)
    watched.flow.take("i1", key="travel")
    watched.flow.take("i2", key=None, callback_class="com.example.\r\n\x1b[31mA\u202e{since}")
    watched.flow.take("i3", key="travel", callback_class="B")
    watched.flow.take("i4", key=None)
    watched.clock.advance(HOUR - 1)
    for number in range(5, 9):
        watched.flow.take(f"i{number}", key="travel")
    watched.looks()
    assert [one[1] for one in listener.told] == ["neither class nor key"]  # an hour would change nothing for it
    watched.clock.advance(1)
    watched.looks(3)
    assert {one[1] for one in listener.told} == {
        "key travel", "class com.example. \N{REPLACEMENT CHARACTER}[31mA\N{REPLACEMENT CHARACTER}{since}",
        "class B and key travel", "neither class nor key",
    }  # fmt: skip
    assert {alert.count for alert in listener.alerts} == {1}
    assert all(alert.message.isprintable() for alert in listener.alerts)
    watched.clock.advance(HOUR)
    watched.looks()
    assert len(listener.alerts) == 4


def test_events_that_wait_for_an_operator(watch, listener):
    """An event whose end is undecided is not counted among those that wait for a handler; its alert says what to do."""
    watched = watch(mail=listener)
    watched.flow.take("i1", key="travel")
    watched.clock.advance(1)
    event_id = watched.flow.take_in("i2", key="travel", end_undecided=True).event_id
    assert not [told for told in listener.told if told[0] is AlertCause.PARKED]
    watched.clock.advance(HOUR)
    watched.looks()
    parked = {alert.subject: alert for alert in listener.alerts if alert.cause is AlertCause.PARKED}
    assert {subject: alert.count for subject, alert in parked.items()} == {"key travel": 1, "source oa": 1}
    assert "Install a plugin" in parked["key travel"].message
    for words in (
        "does not tell how the instance ended",
        f"`flowhooks events show {event_id}`",
        "reroute ID",
        "dismiss ID",
    ):
        assert words in parked["source oa"].message
    assert parked["source oa"].event_id == event_id


def test_parked_at_once(watch, listener):
    """With `parked_after = 0` the alert is raised at once."""
    watched = watch(mail=listener, alerts={"parked_after": 0.0})
    event_id = watched.flow.take("i1", key="travel").event_id
    watched.looks()
    assert listener.told == [(AlertCause.PARKED, "key travel")]
    assert listener.alerts[0].event_id == event_id


def test_made_up_classes_do_not_fill_the_mailbox(watch, listener, monkeypatch):
    """The number of open alerts of a cause is limited; one alert stands for the rest, until there is room."""
    monkeypatch.setattr("flowhooks.background.alerts.monitor.MAX_OPEN_PER_CAUSE", 3)
    monkeypatch.setattr("flowhooks.background.alerts.causes.MAX_PARKED_GROUPS", 8)
    watched = watch(mail=listener, alerts={"parked_after": 0.0})
    for number in range(9, 0, -1):
        watched.flow.take(f"i{number}", key=None, callback_class=f"c{number}")
        watched.looks()
    assert [one[1] for one in listener.told] == ["class c9", "class c8", "class c7", "(others)"]
    assert listener.alerts[-1].message.startswith("1 more alerts of the cause parked")
    # Above the limit of classes the state of the rest is not known: their alerts stay open.
    assert [row[-1] for row in watched.rows()] == [0, 0, 0, 0]
    watched.flow.sql("UPDATE events SET state = 'dismissed' WHERE callback_class IN ('c7', 'c8')")
    watched.looks(3)
    assert sorted(row[1] for row in watched.rows() if not row[-1]) == ["(others)", "class c1", "class c2", "class c9"]
    watched.flow.sql("UPDATE events SET state = 'dismissed' WHERE callback_class > 'c1'")
    watched.looks(3)
    assert [row[1] for row in watched.rows() if not row[-1]] == ["class c1"]


def test_deliveries_that_wait_too_long(watch, listener):
    """A delivery due for an hour raises an alert; a retry with a later due time does not."""
    watched = watch(mail=listener)
    late = watched.flow.take("i1", wait=0).event_id
    watched.flow.take("i2", wait=0)
    watched.flow.sql("UPDATE deliveries SET due_at = due_at + 7200000000 WHERE handler = 'p:i'")
    watched.clock.advance(HOUR - 1)
    watched.looks()
    assert listener.alerts == []
    watched.clock.advance(1)
    watched.looks()
    assert listener.told == [(AlertCause.WAITING, "p:h")]
    assert (listener.alerts[0].count, listener.alerts[0].event_id) == (2, late)


@pytest.mark.sqlite
def test_deliveries_whose_plugin_is_missing(watch, listener, harness, make_plugin):
    """An alert is raised an hour after the start without the plugin, and closed when it is back."""
    watch().flow.take("i1", wait=0)
    harness.opened[-1].close()
    harness.clock.advance(5 * HOUR)
    watched = watch(handlers=[], mail=listener)
    watched.clock.advance(HOUR - 1)
    watched.looks()
    assert listener.alerts == []
    watched.clock.advance(1)
    watched.looks()
    assert listener.told == [(AlertCause.WAITING, "p:h"), (AlertCause.WAITING, "p:i")]
    assert "its plugin, which is not loaded" in listener.alerts[0].message
    watched.flow.close()
    watched = watch(mail=listener)
    watched.looks(3)
    assert [row[-1] for row in watched.rows()] == [1, 1]


@pytest.mark.postgresql
def test_of_several_processes_one_raises_alerts(harness, make_plugin, listens, monkeypatch):
    """Of two processes on one ledger, one notifies each cause once; the other one takes over."""
    monkeypatch.setattr("flowhooks.background.alerts.monitor.FIRST_POLL_DELAY", 3600.0)  # so that only the test polls
    told = []

    def fails(event):
        raise ValueError("no")

    def opened(name):
        plugin = make_plugin(listens(fails, name="h"), alert_raised=lambda alert: told.append((name, alert.subject)))
        return harness.open(plugins={"p": plugin}, start=False, alerts={"poll_interval": 3600.0})

    first, second = opened("first"), opened("second")
    first.app.start()
    first.take("i1")
    second.app.alerts.poll()
    assert told == []
    first.app.alerts.poll()
    second.app.alerts.poll()
    assert told == [("first", "p:h")]
    first.close()
    second.app.alerts.poll()
    assert told == [("first", "p:h")]


def test_what_waits_for_a_retired_handler_is_no_news(watch, listener, harness):
    """Waiting deliveries of a retired handler are not notified, and its alerts are closed."""
    watch().flow.take("i1", wait=0)
    harness.opened[-1].close()
    watched = watch(handlers=[], mail=listener)
    watched.clock.advance(HOUR)
    watched.looks()
    assert listener.told == [(AlertCause.WAITING, "p:h"), (AlertCause.WAITING, "p:i")]
    retire(watched.flow.app.operation_context, ["p:h"])
    watched.looks()
    assert [row[1:5:3] for row in watched.rows()] == [("p:h", 1), ("p:i", 0)]
    watched.looks()
    assert len(listener.alerts) == 2


def test_what_waits_for_a_paused_handler_is_no_news(watch, listener):
    """Waiting deliveries of a paused handler are not notified; after the resume they do not count as late."""
    watched = watch(mail=listener)
    desk = watched.flow.app.operation_context
    pause(desk, ["p:h", "p:i"])
    watched.flow.take("w1", wait=0)
    watched.clock.advance(HOUR)
    watched.looks()
    assert listener.told == []
    resume(desk, ["p:h"])
    watched.clock.advance(HOUR - 1)
    watched.looks()
    assert listener.told == []
    watched.clock.advance(1)
    watched.looks()
    assert listener.told == [(AlertCause.WAITING, "p:h")]
    assert listener.alerts[0].started_at == to_datetime(watched.clock.now() - HOUR * SECOND)
    pause(desk, ["p:h"])
    watched.looks()
    assert [row[-1] for row in watched.rows()] == [1]


def test_a_handler_whose_circuit_is_open(watch, listener):
    """An open circuit raises an alert with its last error and the number of waiting deliveries, until it is resumed."""
    watched = watch(mail=listener)
    app = watched.flow.app
    wish = circuit_state.OpenCircuit("p:h", "ValueError: the archive is away", "1", watched.clock.now())
    app.ledger.write(
        lambda transaction: circuit_state.open_circuit(transaction, wish, watched.clock.now(), app.ledger.pauses)
    )
    watched.flow.take("w1", wait=0)
    watched.looks()
    assert listener.told == [(AlertCause.CIRCUIT_OPEN, "p:h")]
    assert "ValueError: the archive is away" in listener.alerts[0].message
    assert "1 delivery has to wait" in listener.alerts[0].message
    resume(app.operation_context, ["p:h"])
    watched.looks()
    assert watched.rows() == [("circuit_open", "p:h", 1, '["mail"]', 1)]


def test_an_attempt_that_is_overdue(watch, listener):
    """Overdue attempts raise an alert with their number, which is closed when they have ended."""
    watched = watch(mail=listener)
    event_id = watched.flow.take("w1", wait=0).event_id
    claimed = [
        (one, watched.flow.app.ledger.claim(ReadyDelivery(one.delivery_id, one.handler, 0)))
        for one in watched.flow.delivery_statuses(event_id)
        if one.handler == "p:h"
    ]
    watched.clock.advance(300)
    watched.looks()
    assert listener.told == []
    watched.clock.advance(1)
    watched.looks()
    assert listener.told == [(AlertCause.OVERDUE, "p:h")]
    assert listener.alerts[0].message.startswith("1 delivery of handler p:h has been running for longer than the")
    for standing, made in claimed:
        watched.flow.app.dispatcher.execute(ReadyDelivery(standing.delivery_id, "p:h", 0), made)
    watched.eventually(lambda: all(one.state is not State.RUNNING for one in watched.flow.delivery_statuses(event_id)))
    watched.looks()
    assert ("overdue", "p:h", 1, '["mail"]', 1) in watched.rows()


def test_a_plugin_that_is_quarantined(harness, make_plugin, listener, eventually):
    """An alert is raised at the first check with the printable reason, and closed after a correct start."""

    def broken():
        raise ValueError("no \x1b[31m{config}\udc80")

    def opened(**plugins):
        mail = make_plugin(alert_raised=lambda alert: listener.hook(alert))  # noqa: PLW0108 (a method cannot be marked)
        return Watched(harness.open(plugins={"mail": mail} | plugins, start=False), eventually)

    for _ in range(2):
        watched = opened(bad=make_plugin(configure=broken))
        watched.looks()
        watched.flow.close()
    assert listener.told == [(AlertCause.QUARANTINED, "bad")]
    (alert,) = listener.alerts
    assert (alert.count, alert.event_id) == (1, "")
    assert re.match(r"Plugin bad cannot be used since 2026-01-01T00:00:00.000Z, .*ValueError: no", alert.message)
    assert "{config}" in alert.message
    assert alert.message.isprintable()
    watched = opened(bad=make_plugin())
    watched.looks()
    assert [row[-1] for row in watched.rows()] == [1]


def test_it_looks_by_itself(watch, listener, eventually, monkeypatch):
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


def test_a_look_that_fails_is_not_the_last_one(watch, listener, eventually, logged, monkeypatch):
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


class Hanging(Listener):
    """A listener that hangs until the test releases it.

    Attributes:
        let_go: the event that it waits for.
    """

    def __init__(self):
        super().__init__()
        self.let_go = threading.Event()

    def hook(self, alert):
        """The hook `alert_raised`."""
        self.alerts.append(alert)
        assert self.let_go.wait(WAIT_TIMEOUT)
        if self.error:
            raise self.error


@pytest.fixture
def hanging(monkeypatch):
    """A listener whose timeout is over as soon as it hangs; released at the end.

    The other listeners have the whole timeout: on a busy machine, a thread may stand still for more than a second.
    """
    hanging, wait = Hanging(), notifier.AlertNotification.wait

    def wait_until_it_hangs(notification):
        if notification._name == "hanging" and not hanging.let_go.is_set():
            until(lambda: hanging.alerts)
            notification._deadline = 0.0
        return wait(notification)

    monkeypatch.setattr(notifier.AlertNotification, "wait", wait_until_it_hangs)
    yield hanging
    hanging.let_go.set()


def test_a_listener_that_hangs_holds_up_nobody_else(watch, listener, hanging, logged):
    """Other listeners are notified and checks continue; the hanging one gets nothing more, which is logged once."""
    watched = watch(hanging=hanging, mail=listener)
    watched.dead("i1")
    watched.looks(3)
    assert [alert.subject for alert in listener.alerts] == ["p:h", "p:i"]
    assert [alert.subject for alert in hanging.alerts] == ["p:h"]
    watched.close_dead()
    watched.looks()
    assert [row[3:] for row in watched.rows()] == [('["mail"]', 1)] * 2
    (entry,) = [entry for entry in logged if entry["event"] == "hook_timeout"]
    assert (entry["plugin"], entry["hook"], entry["alert"]) == ("hanging", "alert_raised", hanging.alerts[0].id)


def test_a_listener_that_is_slow_does_not_hold_up_looks(watch, listener, monkeypatch):
    """Notifications for which one check has no time are sent at the next check."""
    monkeypatch.setattr("flowhooks.background.alerts.monitor.NOTIFY_TIME_BUDGET", 0)
    watched = watch(mail=listener)
    watched.dead("i1")
    made = []
    for _ in range(3):
        watched.look()
        made.append([alert.subject for alert in listener.alerts])
    assert made == [["p:h"], ["p:h", "p:i"], ["p:h", "p:i"]]


def test_a_listener_that_comes_back_late_has_taken_it(watch, listener, hanging, eventually):
    """A late listener is notified only of newer alerts; no other listener is notified twice."""
    watched = watch(hanging=hanging, mail=listener)
    watched.dead("i1")
    watched.look()
    hanging.let_go.set()
    eventually(lambda: watched.look() or [row[3] for row in watched.rows()] == ['["mail", "hanging"]'] * 2)
    assert [alert.subject for alert in hanging.alerts] == ["p:h", "p:i"]
    assert len(listener.alerts) == 2


def test_a_listener_that_raises_late_is_told_again(watch, listener, hanging, eventually):
    """A listener that raises late is notified again after the same delay as one that raises at once."""
    watched = watch(hanging=hanging)
    watched.dead("i1")
    watched.look()
    hanging.error = OSError("the mail server is down")
    hanging.let_go.set()
    eventually(lambda: watched.look() or not watched.flow.app.alerts._late_notifications)
    watched.looks()
    assert [alert.subject for alert in hanging.alerts] == ["p:h", "p:i"]
    hanging.error = None
    watched.clock.advance(RETRY_DELAYS[0])
    eventually(lambda: watched.look() or [row[3] for row in watched.rows()] == ['["hanging"]'] * 2)
    assert [alert.subject for alert in hanging.alerts] == ["p:h", "p:i"] * 2


def test_a_listener_that_hangs_does_not_keep_the_server_from_ending(watch, eventually, monkeypatch):
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
    watch(mail=taking).look()
    assert len(taking.alerts) == 2


def test_the_end_of_an_alert_is_told_once(watch, listener):
    """A listener that was notified of an alert is notified once that it is closed, with its last count."""
    ending = EndListener()
    watched = watch(mail=ending, deaf=listener)
    watched.dead("i1")
    watched.looks()
    watched.clock.advance(60)
    watched.close_dead()
    watched.looks(4)
    assert [(alert.id, alert.count) for alert in ending.ended] == [(alert.id, 1) for alert in ending.alerts]
    ended = ending.ended[0]
    assert ended.resolved_at == to_datetime(watched.clock.now())
    assert ended.message == (
        "Resolved: the cause dead of p:h has ended. It lasted from 2026-01-01T00:00:00.000Z to "
        "2026-01-01T00:01:00.000Z, and the last count was 1."
    )
    assert (ended.cause, ended.subject, ended.notification) == (AlertCause.DEAD, "p:h", 1)
    assert watched.flow.sql("SELECT resolution_due FROM alerts") == [("[]",)] * 2


def test_no_end_without_a_beginning(watch, harness):
    """A listener that raised is notified of the end, because others may know; one that was not called is not."""
    failing, new = EndListener(), EndListener()
    failing.error = OSError("one of two mail servers is down")
    watched = watch(mail=failing)
    watched.dead("i1")
    watched.looks()
    watched.close_dead()
    harness.crash(watched.flow)
    watched = watch(mail=failing, new=new)
    watched.looks(3)
    assert [alert.id for alert in failing.ended] == [alert.id for alert in failing.alerts]
    assert len(failing.ended) == 2
    assert new.alerts == new.ended == []
    assert watched.open() == []


def test_the_end_of_an_alert_whose_growth_was_not_told(watch, listens):
    """The end is notified to a listener that accepted the first notification, although it missed a later one."""
    ending = EndListener()
    watched = watch(mail=ending, handlers=[listens(fail, name="h")])
    watched.dead("i0")
    watched.look()
    ending.error = OSError("the mail server is down")
    watched.clock.advance(MIN_INTERVAL_SECONDS)
    for number in range(1, 11):
        watched.dead(f"i{number}")
    watched.looks()
    (alert,) = watched.open()
    assert (alert.accepted_plugins, alert.notified_plugins) == (("mail",), ())
    watched.close_dead()
    watched.clock.advance(RETRY_DELAYS[0])
    watched.looks(3)
    assert [alert.id for alert in ending.ended] == [alert.id]


def test_the_end_is_told_again_until_it_is_taken(watch, harness, listens):
    """A listener that raises is notified of the end again after a delay, also by the next process; once is enough."""
    ending = EndListener()
    handlers = [listens(fail, name="h")]
    watched = watch(mail=ending, handlers=handlers)
    watched.dead("i1")
    watched.look()
    ending.end_error = OSError("smtp.example.com: connection refused")
    watched.close_dead()
    watched.looks(4)
    assert len(ending.ended) == 1
    assert watched.flow.sql("SELECT resolution_due, notification_errors FROM alerts") == [
        ('["mail"]', '{"mail": "smtp.example.com: connection refused"}')
    ]
    harness.crash(watched.flow)
    ending.end_error = None
    watched = watch(mail=ending, handlers=handlers)
    watched.looks(3)
    assert len(ending.ended) == 2
    assert watched.flow.sql("SELECT resolution_due, notification_errors FROM alerts") == [("[]", "{}")]


def test_the_end_is_given_up_after_a_day(watch, listens, logged):
    """A listener that does not accept an end for a day is no longer notified of it, which is logged."""
    ending = EndListener()
    watched = watch(mail=ending, handlers=[listens(fail, name="h")])
    watched.dead("i1")
    watched.look()
    ending.end_error = OSError("the mail server is down")
    watched.close_dead()
    watched.looks()
    watched.clock.advance(24 * 3600 + 1)
    watched.looks(3)
    assert len(ending.ended) == 1
    (dropped,) = [entry for entry in logged if entry["event"] == "alert_resolution_dropped"]
    assert (dropped["plugins"], dropped["subject"]) == (["mail"], "p:h")
    assert watched.flow.sql("SELECT resolution_due, notification_errors FROM alerts") == [("[]", "{}")]


def test_who_takes_an_alert_after_its_end_is_told_of_both(watch, eventually, monkeypatch, listens):
    """A listener that returns only after the alert was closed is then notified of its end."""
    monkeypatch.setattr("flowhooks.background.alerts.notifier.NOTIFY_TIMEOUT", 1.0)

    class Late(EndListener):
        let_go = threading.Event()

        def hook(self, alert):
            self.alerts.append(alert)
            assert self.let_go.wait(WAIT_TIMEOUT)

    late = Late()
    watched = watch(mail=late, handlers=[listens(fail, name="h")])
    watched.dead("i1")
    watched.look()
    watched.close_dead()
    watched.looks()
    assert watched.open() == []
    assert late.ended == []
    late.let_go.set()
    eventually(lambda: watched.look() or late.ended)
    watched.looks()
    assert [alert.id for alert in late.ended] == [alert.id for alert in late.alerts]


def test_a_notification_that_failed_is_stored_with_its_error(watch, listener):
    """Why a listener did not accept an alert is stored until it does, and counted."""
    watched = watch(mail=listener)
    listener.error = OSError("smtp.example.com:587:\nconnection refused")
    watched.dead("i1")
    watched.look()
    errors = {"mail": "smtp.example.com:587: connection refused"}
    assert [alert.notification_errors for alert in watched.open()] == [errors] * 2
    counted = watched.flow.app.metrics.text().decode()
    assert 'flowhooks_alert_notifications_total{plugin="mail",result="failed"} 2.0' in counted
    listener.error = None
    watched.clock.advance(RETRY_DELAYS[0])
    watched.looks()
    assert [alert.notification_errors for alert in watched.open()] == [{}, {}]
    counted = watched.flow.app.metrics.text().decode()
    assert 'flowhooks_alert_notifications_total{plugin="mail",result="accepted"} 2.0' in counted


def test_a_notification_names_host_severity_and_page(watch, listener):
    """An alert names the machine, its severity and the page of its handler in the console."""
    watched = watch(mail=listener)
    watched.dead("i1")
    watched.look()
    alert = listener.alerts[0]
    assert (alert.host, alert.severity) == (socket.gethostname(), AlertSeverity.ERROR)
    assert alert.console_url == "/console/handlers/p%3Ah"
    assert alert.resolved_at is None


def test_a_route_decides_who_is_told(watch, listener):
    """An alert that a route matches is sent to its notifiers only, and is then complete; others go to everybody."""
    pager = Listener()
    routes = {"h": AlertRoute(handlers=("p:h",), severity="error", notifiers=("pager",))}
    watched = watch(mail=listener, pager=pager, alerts={"routes": routes})
    watched.dead("i1")
    watched.looks()
    assert [alert.subject for alert in listener.alerts] == ["p:i"]
    assert [alert.subject for alert in pager.alerts] == ["p:h", "p:i"]
    assert [row[3] for row in watched.rows()] == ['["pager"]', '["mail", "pager"]']


def test_a_route_to_an_unknown_plugin_is_refused(watch, listener):
    """A server does not start if a route names a plugin that receives no alerts."""
    route = AlertRoute(notifiers=("mial",), location="flowhooks.toml:3: alerts.routes.a")
    with pytest.raises(SettingsError, match=r"toml:3: alerts.routes.a.notifiers names 'mial', .* did you mean mail\?"):
        watch(mail=listener, alerts={"routes": {"a": route}})


def test_a_test_message(watch, listener, logged):
    """The test calls each plugin that receives alerts, or those of a route, and returns their errors."""
    pager = Listener()
    routes = {"a": AlertRoute(handlers=("p:*",), notifiers=("pager",))}
    watched = watch(mail=listener, pager=pager, alerts={"routes": routes})
    listener.error = OSError("smtp.example.com:587: connection refused")
    context = replace(watched.flow.app.operation_context, by=Actor("ann", "cli"))
    done = run_operation(context, "test_alerts", {})
    assert done == {"route": "", "errors": {"mail": "smtp.example.com:587: connection refused", "pager": ""}}
    assert run_operation(context, "test_alerts", {"route": "a"}) == {"route": "a", "errors": {"pager": ""}}
    assert (len(listener.alerts), len(pager.alerts)) == (1, 2)
    alert = pager.alerts[0]
    assert (alert.cause, alert.subject) == (AlertCause.TEST, "all plugins")
    assert alert.message.endswith("sent by ann with `flowhooks alerts test`. Nothing is wrong.")
    with pytest.raises(NotFound, match="there is no route 'b'; the routes are a"):
        run_operation(context, "test_alerts", {"route": "b"})
    assert watched.rows() == []
    assert watched.flow.sql("SELECT action, target FROM audit_log ORDER BY id") == [
        ("test_alerts", ""),
        ("test_alerts", "a"),
    ]


def test_a_test_message_waits_for_all_plugins_together(watch, listener, monkeypatch):
    """Plugins that hang have the same timeout, so that the answer comes before the command gives up."""
    elapsed = [0.0]

    class Never(threading.Event):
        def wait(self, timeout):
            elapsed[0] += timeout
            return False

    watched = watch(mail=listener, pager=Listener())
    monkeypatch.setattr(notifier, "threading", SimpleNamespace(Event=Never, Thread=threading.Thread))
    monkeypatch.setattr(notifier, "time", SimpleNamespace(monotonic=lambda: elapsed[0]))
    done = run_operation(watched.flow.app.operation_context, "test_alerts", {})
    assert set(done["errors"].values()) == {"the plugin did not return within 20 seconds"}
    assert elapsed == [notifier.NOTIFY_TIMEOUT]
