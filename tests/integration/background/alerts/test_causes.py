"""The causes that raise an alert, and the messages about them."""

from __future__ import annotations

import re

import pytest

from flowhooks import AlertCause, Retry, State
from flowhooks.clock import SECOND, to_datetime
from flowhooks.ledger import circuit_state
from flowhooks.model.ready_delivery import ReadyDelivery
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.retire import retire
from support.alert_listeners import WatchedApp, fail

pytestmark = pytest.mark.either

HOUR = 3600


def test_unknown_deliveries(watch, listener, harness, listens):
    """A delivery without `retry=` that a killed process left running raises an alert; one with `retry=` does not."""
    watched = watch(handlers=[listens(fail, name="h"), listens(fail, name="r", retry=Retry())])
    event_id = watched.flow.take("i1", wait=0).event_id
    for delivery in watched.flow.delivery_statuses(event_id):
        watched.flow.app.ledger.claim(ReadyDelivery(delivery.delivery_id, delivery.handler, 0))
    harness.crash(watched.flow)
    watch(handlers=[listens(fail, name="h"), listens(fail, name="r", retry=Retry())], mail=listener).poll(2)
    assert listener.notified == [(AlertCause.UNKNOWN, "p:h")]
    assert "`flowhooks events resolve`" in listener.alerts[0].message


def test_parked_events_by_class_and_key(watch, listener):
    """An event parked for an hour raises one alert for each class and key, whatever their names."""
    watched = watch(mail=listener)
    watched.flow.take("i1", key="travel")
    watched.flow.take("i2", key=None, callback_class="com.example.\r\n\x1b[31mA\u202e{since}")
    watched.flow.take("i3", key="travel", callback_class="B")
    watched.flow.take("i4", key=None)
    watched.clock.advance(HOUR - 1)
    for number in range(5, 9):
        watched.flow.take(f"i{number}", key="travel")
    watched.poll(2)
    assert [subject for _, subject in listener.notified] == [
        "neither class nor key"
    ]  # an hour would change nothing for it
    watched.clock.advance(1)
    watched.poll(3)
    assert {subject for _, subject in listener.notified} == {
        "key travel", "class com.example. \N{REPLACEMENT CHARACTER}[31mA\N{REPLACEMENT CHARACTER}{since}",
        "class B and key travel", "neither class nor key",
    }  # fmt: skip
    assert {alert.count for alert in listener.alerts} == {1}
    assert all(alert.message.isprintable() for alert in listener.alerts)
    watched.clock.advance(HOUR)
    watched.poll(2)
    assert len(listener.alerts) == 4


def test_parked_events_that_need_an_operator(watch, listener):
    """An event whose end is undecided is not counted among those that wait for a handler; its alert says what to do."""
    watched = watch(mail=listener)
    watched.flow.take("i1", key="travel")
    watched.clock.advance(1)
    event_id = watched.flow.take_in("i2", key="travel", end_undecided=True).event_id
    assert not [cause for cause, _ in listener.notified if cause is AlertCause.PARKED]
    watched.clock.advance(HOUR)
    watched.poll(2)
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


def test_parked_events_without_a_delay(watch, listener):
    """With `parked_after = 0` the alert is raised at once."""
    watched = watch(mail=listener, alerts={"parked_after": 0.0})
    event_id = watched.flow.take("i1", key="travel").event_id
    watched.poll(2)
    assert listener.notified == [(AlertCause.PARKED, "key travel")]
    assert listener.alerts[0].event_id == event_id


def test_overdue_waiting_deliveries(watch, listener):
    """A delivery due for an hour raises an alert; a retry with a later due time does not."""
    watched = watch(mail=listener)
    late = watched.flow.take("i1", wait=0).event_id
    watched.flow.take("i2", wait=0)
    watched.flow.sql("UPDATE deliveries SET due_at = due_at + 7200000000 WHERE handler = 'p:i'")
    watched.clock.advance(HOUR - 1)
    watched.poll(2)
    assert listener.alerts == []
    watched.clock.advance(1)
    watched.poll(2)
    assert listener.notified == [(AlertCause.WAITING, "p:h")]
    assert "`flowhooks check` shows whether a running process has loaded the handler" in listener.alerts[0].message
    assert (listener.alerts[0].count, listener.alerts[0].event_id) == (2, late)


@pytest.mark.sqlite
def test_deliveries_whose_plugin_is_missing(watch, listener, harness, make_plugin):
    """An alert is raised an hour after the start without the plugin, and closed when it is back."""
    watch().flow.take("i1", wait=0)
    harness.opened[-1].close()
    harness.clock.advance(5 * HOUR)
    watched = watch(handlers=[], mail=listener)
    watched.clock.advance(HOUR - 1)
    watched.poll(2)
    assert listener.alerts == []
    watched.clock.advance(1)
    watched.poll(2)
    assert listener.notified == [(AlertCause.WAITING, "p:h"), (AlertCause.WAITING, "p:i")]
    assert "its plugin, which is not loaded" in listener.alerts[0].message
    watched.flow.close()
    watched = watch(mail=listener)
    watched.poll(3)
    assert [row[-1] for row in watched.rows()] == [1, 1]


def test_waiting_deliveries_of_a_retired_handler(watch, listener, harness):
    """Waiting deliveries of a retired handler are not notified, and its alerts are closed."""
    watch().flow.take("i1", wait=0)
    harness.opened[-1].close()
    watched = watch(handlers=[], mail=listener)
    watched.clock.advance(HOUR)
    watched.poll(2)
    assert listener.notified == [(AlertCause.WAITING, "p:h"), (AlertCause.WAITING, "p:i")]
    retire(watched.flow.app.operation_context, ["p:h"])
    watched.poll(2)
    assert [row[1:5:3] for row in watched.rows()] == [("p:h", 1), ("p:i", 0)]
    watched.poll(2)
    assert len(listener.alerts) == 2


def test_waiting_deliveries_of_a_paused_handler(watch, listener):
    """Waiting deliveries of a paused handler are not notified; after the resume they do not count as late."""
    watched = watch(mail=listener)
    desk = watched.flow.app.operation_context
    pause(desk, ["p:h", "p:i"])
    watched.flow.take("w1", wait=0)
    watched.clock.advance(HOUR)
    watched.poll(2)
    assert listener.notified == []
    resume(desk, ["p:h"])
    watched.clock.advance(HOUR - 1)
    watched.poll(2)
    assert listener.notified == []
    watched.clock.advance(1)
    watched.poll(2)
    assert listener.notified == [(AlertCause.WAITING, "p:h")]
    assert listener.alerts[0].started_at == to_datetime(watched.clock.now() - HOUR * SECOND)
    pause(desk, ["p:h"])
    watched.poll(2)
    assert [row[-1] for row in watched.rows()] == [1]


def test_an_open_circuit(watch, listener, listens):
    """An open circuit raises an alert with its last error and the number of waiting deliveries, until it is resumed.

    Deliveries that others of their order key block are counted, too.
    """
    watched = watch(handlers=[listens(fail, name="h", order_by="business_key")], mail=listener)
    app = watched.flow.app
    wish = circuit_state.OpenCircuit("p:h", "ValueError: the archive is away", "1", watched.clock.now())
    app.ledger.write(
        lambda transaction: circuit_state.open_circuit(transaction, wish, watched.clock.now(), app.ledger.pauses)
    )
    for number in range(3):
        watched.flow.take(f"w{number}", businessKey="k", wait=0)
    watched.poll(2)
    assert listener.notified == [(AlertCause.CIRCUIT_OPEN, "p:h")]
    assert "ValueError: the archive is away" in listener.alerts[0].message
    assert "3 deliveries have to wait" in listener.alerts[0].message
    resume(app.operation_context, ["p:h"])
    watched.poll(2)
    assert watched.rows() == [("circuit_open", "p:h", 3, '["mail"]', 1)]


def test_an_overdue_attempt(watch, listener):
    """Overdue attempts raise an alert with their number, which is closed when they have ended."""
    watched = watch(mail=listener)
    event_id = watched.flow.take("w1", wait=0).event_id
    claimed = [
        (delivery, watched.flow.app.ledger.claim(ReadyDelivery(delivery.delivery_id, delivery.handler, 0)))
        for delivery in watched.flow.delivery_statuses(event_id)
        if delivery.handler == "p:h"
    ]
    watched.clock.advance(300)
    watched.poll(2)
    assert listener.notified == []
    watched.clock.advance(1)
    watched.poll(2)
    assert listener.notified == [(AlertCause.OVERDUE, "p:h")]
    assert listener.alerts[0].message.startswith("1 delivery of handler p:h has been running for longer than the")
    for delivery, attempt in claimed:
        watched.flow.app.dispatcher.execute(ReadyDelivery(delivery.delivery_id, "p:h", 0), attempt)
    watched.eventually(
        lambda: State.RUNNING not in {delivery.state for delivery in watched.flow.delivery_statuses(event_id)}
    )
    watched.poll(2)
    assert ("overdue", "p:h", 1, '["mail"]', 1) in watched.rows()


def test_a_quarantined_plugin(harness, make_plugin, listener, eventually):
    """An alert is raised at the first check with the printable reason, and closed after a correct start."""

    def broken():
        raise ValueError("no \x1b[31m{config}\udc80")

    def opened(*, safe_mode=False, **plugins):
        mail = make_plugin(alert_raised=lambda alert: listener.hook(alert))  # noqa: PLW0108 (a method cannot be marked)
        app = harness.open(plugins={"mail": mail} | plugins, start=False, safe_mode=safe_mode)
        return WatchedApp(app, eventually)

    for safe_mode in (False, True, False):  # safe mode loads no plugin, which solves nothing
        watched = opened(bad=make_plugin(configure=broken), safe_mode=safe_mode)
        watched.poll(2)
        watched.flow.close()
    assert listener.notified == [(AlertCause.QUARANTINED, "bad")]
    (alert,) = listener.alerts
    assert (alert.count, alert.event_id) == (1, "")
    assert re.match(r"Plugin bad cannot be used since 2026-01-01T00:00:00.000Z, .*ValueError: no", alert.message)
    assert "{config}" in alert.message
    assert alert.message.isprintable()
    watched = opened(bad=make_plugin())
    watched.poll(2)
    assert [row[-1] for row in watched.rows()] == [1]
