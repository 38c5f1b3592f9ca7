"""Notifications: plugins learn of durable changes, and can neither stop nor delay anything."""

from __future__ import annotations

import threading

import pytest

from flowhooks import OutcomeKind, Retry, State
from flowhooks.errors import IdentityConflict
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either


class Listener:
    """A plugin that records its notifications.

    Attributes:
        told: (hook, its subject) in the order of the notifications.
    """

    def __init__(self):
        self.told = []

    def hooks(self):
        """The hooks for a plugin."""

        def event_accepted(event, handlers):
            self.told.append(("accepted", event.flow_instance_id, tuple(handlers)))

        def delivery_settled(event, delivery, outcome, state):
            self.told.append(("settled", event.flow_instance_id, delivery.attempt, outcome.kind, state))

        return {"event_accepted": event_accepted, "delivery_settled": delivery_settled}


@pytest.fixture
def listener():
    """A plugin's listener."""
    return Listener()


@pytest.fixture
def long_stop_timeout(monkeypatch):
    """Shutdown waits long enough for the pending notifications also on a busy machine."""
    monkeypatch.setattr("flowhooks.app.STOP_TIMEOUT", WAIT_TIMEOUT)


def test_listeners_are_notified_of_events_and_attempts(harness, listens, make_plugin, listener, eventually):
    """Listeners are notified of a stored event, and in order of each attempt's outcome and resulting state."""
    errors = [ValueError("x")]

    def function(event):
        if errors:
            raise errors.pop()

    flow = harness.open(plugins={"p": make_plugin(listens(function, name="h", retry=Retry()), **listener.hooks())})
    event_id = flow.take(wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.advance(5)
    eventually(lambda: len(listener.told) == 3)
    # The first attempt may end before the event is notified.
    assert sorted(listener.told[:2]) + listener.told[2:] == [
        ("accepted", "i1", ("p:h",)),
        ("settled", "i1", 1, OutcomeKind.FAILED, State.WAITING),
        ("settled", "i1", 2, OutcomeKind.SUCCEEDED, State.SUCCEEDED),
    ]


def test_only_new_events_are_notified(harness, listens, make_plugin, listener, eventually):
    """Repeats and conflicts are not notified; a parked event is, without handlers."""
    flow = harness.open(plugins={"p": make_plugin(listens(lambda event: 1, name="h"), **listener.hooks())})
    flow.take()
    flow.take()
    with pytest.raises(IdentityConflict):
        flow.take(x=1)
    flow.take("i2", key="nobody")
    eventually(lambda: len(listener.told) == 3)
    flow.close()
    assert [notification for notification in listener.told if notification[0] == "accepted"] == [
        ("accepted", "i1", ("p:h",)),
        ("accepted", "i2", ()),
    ]


def test_notified_changes_are_durable(harness, listens, make_plugin, eventually):
    """When a listener is notified, another connection to the database sees the change."""
    seen = []

    def event_accepted(event):
        seen.append(("event", flow.sql("SELECT count(*) FROM events WHERE id = ?", event.id)))

    def delivery_settled(delivery, state):
        seen.append((state, flow.sql("SELECT state FROM deliveries WHERE id = ?", delivery.id)))

    flow = harness.open(
        plugins={
            "p": make_plugin(
                listens(lambda event: 1, name="h"), event_accepted=event_accepted, delivery_settled=delivery_settled
            )
        }
    )
    flow.take()
    eventually(lambda: len(seen) == 2)
    assert sorted(seen, key=str) == sorted([("event", [(1,)]), (State.SUCCEEDED, [("succeeded",)])], key=str)


@pytest.mark.usefixtures("long_stop_timeout")
@pytest.mark.parametrize("error", [ValueError, SystemExit, MemoryError])
def test_a_listener_that_raises_does_not_stop_other_listeners(harness, make_plugin, listener, logged, error):
    """If one listener raises, the other plugins are notified, now and later, and the answer stays the same."""

    def broken(event):
        raise error("no")

    flow = harness.open(
        plugins={
            "first": make_plugin(**listener.hooks()),
            "broken": make_plugin(event_accepted=broken),
            "last": make_plugin(**(last := Listener()).hooks()),
        }
    )
    for number in range(3):
        assert flow.take(f"i{number}").status == "parked"
    flow.close()
    assert len(listener.told) == len(last.told) == 3
    assert {entry.get("plugin") for entry in logged if entry["event"] == "hook_failed"} == {"broken"}


@pytest.mark.usefixtures("long_stop_timeout")
def test_a_keyboard_interrupt_of_a_listener_ends_no_thread(harness, make_plugin, listener, logged):
    """A listener that raises KeyboardInterrupt does not end the thread that notifies all listeners."""

    def broken(event):
        raise KeyboardInterrupt

    flow = harness.open(
        plugins={"first": make_plugin(**listener.hooks()), "broken": make_plugin(event_accepted=broken)}
    )
    for number in range(3):
        flow.take(f"i{number}")
    flow.close()
    assert [notification[1] for notification in listener.told] == ["i0", "i1", "i2"]


def test_a_slow_listener_delays_nothing(harness, listens, make_plugin, monkeypatch):
    """Answers and attempts do not wait for a listener, and shutdown waits only for a limited time."""
    monkeypatch.setattr("flowhooks.app.STOP_TIMEOUT", 0.3)
    release, ended = threading.Event(), []

    def event_accepted(event):
        release.wait(WAIT_TIMEOUT)
        ended.append(event.id)

    flow = harness.open(plugins={"p": make_plugin(listens(lambda event: 1, name="h"), event_accepted=event_accepted)})
    for number in range(5):
        assert flow.take(f"i{number}").status == "done"
    assert flow.close() is True
    assert ended == []
    release.set()


def test_notifications_over_the_queue_limit_are_dropped(harness, make_plugin, monkeypatch, logged):
    """The queue of notifications is limited; dropped ones are counted, logged once, and change nothing else."""
    monkeypatch.setattr("flowhooks.plugins.notifier.MAX_PENDING", 5)
    release, entered = threading.Event(), threading.Event()

    def event_accepted(event):
        entered.set()
        release.wait(WAIT_TIMEOUT)

    flow = harness.open(plugins={"p": make_plugin(event_accepted=event_accepted)})
    flow.take("first")
    assert entered.wait(WAIT_TIMEOUT)
    for number in range(20):
        assert flow.take(f"i{number}").status == "parked"
    assert flow.app.notifier.dropped == 15
    release.set()
    assert [entry["event"] for entry in logged].count("hook_notifications_dropped") == 1


@pytest.mark.usefixtures("long_stop_timeout")
def test_shutdown_sends_pending_notifications(harness, listens, make_plugin, listener):
    """Shutdown sends the pending notifications."""
    flow = harness.open(plugins={"p": make_plugin(listens(lambda event: 1, name="h"), **listener.hooks())})
    for number in range(20):
        flow.take(f"i{number}")
    flow.close()
    assert len(listener.told) == 40


def test_no_thread_and_no_queue_without_listeners(harness, listens):
    """Without listeners there is no thread and no queue for notices."""
    before = set(threading.enumerate())  # a notifier of an earlier test may be about to end
    flow = harness.open(listens(lambda event: 1, name="h"))
    flow.take()
    assert not flow.app.notifier.has_subscribers
    assert flow.app.notifier._queue.empty()
    assert "notifier" not in {thread.name for thread in set(threading.enumerate()) - before}
