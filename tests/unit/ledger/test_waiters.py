"""Waiting for deliveries: until no delivery can settle in time, in a limited number of places."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future

import pytest

from flowhooks import State
from flowhooks.clock import SECOND
from flowhooks.ledger.accept_results import AcceptResult
from flowhooks.ledger.pauses import PausedHandlers
from flowhooks.ledger.queries import DeliveryStatus
from flowhooks.ledger.waiters import WaiterRegistry
from support.waiting import WAIT_TIMEOUT


def delivery_status(delivery_id, state, due_at=None):
    """The state of a delivery."""
    return DeliveryStatus(delivery_id=delivery_id, handler="p:h", state=state, attempt=1, due_at=due_at)


def over(watch):
    """Whether a watch has nothing more to wait for."""
    return watch.wait(0)


@pytest.fixture
def watches(clock):
    """Two places to wait."""
    return WaiterRegistry(clock=clock, max_waiters=2, max_unreplaced=2, pauses=PausedHandlers())


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.DEAD, State.UNKNOWN, State.CLOSED])
def test_a_wait_ends_when_no_delivery_can_change_by_itself(watches, state):
    """A watch is over when its last delivery cannot change by itself in time."""
    watch = watches.open("e", ["a", "b"], 10)
    watches.notify("e", delivery_status("a", state))
    assert not over(watch)
    watches.notify("e", delivery_status("b", State.SUCCEEDED))
    assert over(watch)
    assert {status.state for status in watch.delivery_statuses.values()} == {state, State.SUCCEEDED}


def test_a_retry_counts_if_due_within_the_wait(watches, clock):
    """A delivery due within the wait may still settle; one due later, or without a due time, may not."""
    for due_at, may_settle in ((clock.now() + 9 * SECOND, True), (clock.now() + 10 * SECOND, False), (None, False)):
        watch = watches.open("e", ["a"], 10)
        watches.notify("e", delivery_status("a", State.RUNNING))
        watches.notify("e", delivery_status("a", State.WAITING, due_at))
        assert over(watch) is not may_settle
        watch.close()


def test_notifications_of_other_events_do_not_matter(watches):
    """Only notifications of the watched event reach a watch; of that event, they reach every watch."""
    one, two = watches.open("e", ["a"], 10), watches.open("e", ["a"], 10)
    watches.notify("other", delivery_status("a", State.SUCCEEDED))
    watches.notify("e", delivery_status("unasked", State.SUCCEEDED))
    assert not over(one)
    watches.notify("e", delivery_status("a", State.SUCCEEDED))
    assert over(one)
    assert over(two)


def test_an_older_read_state_does_not_replace_a_notification(watches):
    """An older state that was read does not replace a newer notification."""
    watch = watches.open("e", ["a", "b"], 10)
    watches.notify("e", delivery_status("a", State.SUCCEEDED))
    watch.apply_snapshot([delivery_status("a", State.RUNNING), delivery_status("b", State.DEAD)])
    assert over(watch)
    assert {name: status.state for name, status in watch.delivery_statuses.items()} == {
        "a": State.SUCCEEDED,
        "b": State.DEAD,
    }


def test_a_notification_of_an_earlier_attempt_does_not_end_the_wait(watches):
    """A notification of the attempt before the retry is ignored, however it arrives; the retry's own is not."""
    watch = watches.open("e", ["a"], 10, retried={"a": 1})
    watches.notify("e", delivery_status("a", State.DEAD))
    watches.notify_snapshot("e", [delivery_status("a", State.DEAD)])
    assert not over(watch)
    watches.notify("e", delivery_status("a", State.DEAD)._replace(attempt=2))
    assert over(watch)


def test_waiter_places_are_limited_and_released(watches):
    """The number of waiters is limited by the places; a released watch frees its place."""
    two = watches.open("f", ["a"], 10)
    with watches.open("e", ["a"], 10):
        assert watches.open("g", ["a"], 10) is None
    three = watches.open("g", ["a"], 10)
    assert three is not None
    two.close()
    three.close()
    assert watches._waiters == {}


def test_no_waiter_is_registered_without_places(clock):
    """Without places every answer is given at once."""
    watches = WaiterRegistry(clock=clock, max_waiters=0, max_unreplaced=9, pauses=PausedHandlers())
    assert watches.open("e", ["a"], 10) is None


def test_shutdown_releases_all_waiters(watches):
    """When the server stops, all waiters continue at once, and no other may wait."""
    watch = watches.open("e", ["a"], 10)
    waiting = threading.Thread(target=watch.wait, args=(30,))
    waiting.start()
    watches.cancel_all()
    waiting.join(20)
    assert not waiting.is_alive()
    watch.close()
    assert watches.open("f", ["a"], 10) is None


def test_a_state_settled_by_another_process_ends_a_wait(watches):
    """A state read after another process settled it ends the wait, unless a notification here is newer."""
    watch = watches.open("e", ["a", "b"], 10)
    watches.notify("e", delivery_status("a", State.SUCCEEDED))
    watches.notify("e", delivery_status("b", State.WAITING, 0))
    watches.notify_snapshot("other", [delivery_status("b", State.DEAD)])
    watches.notify_snapshot("e", [delivery_status("a", State.RUNNING), delivery_status("b", State.RUNNING)])
    assert not over(watch)
    watches.notify_snapshot("e", [delivery_status("a", State.DEAD), delivery_status("b", State.CLOSED)])
    assert over(watch)
    assert {name: status.state for name, status in watch.delivery_statuses.items()} == {
        "a": State.SUCCEEDED,
        "b": State.CLOSED,
    }


def test_list_of_events_with_unfinished_watches(watches):
    """The list has events with unfinished watches, selected from some or all."""
    told = watches.open("e", ["a"], 10)
    waits = watches.open("f", ["a"], 10)
    assert watches.pending_event_ids() == ["e", "f"]
    watches.notify("e", delivery_status("a", State.DEAD))
    assert not told.is_pending
    assert waits.is_pending
    assert watches.pending_event_ids() == ["f"]
    assert watches.pending_event_ids(["e", "f", "unknown"]) == ["f"]
    waits.close()
    assert watches.pending_event_ids() == []


def test_release_between_any_two_lines_of_wait(watches):
    """A release while `wait` returns, as at a shutdown, changes nothing: the watch is over, and stays over."""
    watch = watches.open("e", ["a"], 10)
    watches.notify("e", delivery_status("a", State.SUCCEEDED))
    released = []

    def trace(frame, event, _):
        if frame.f_code not in (type(watch).wait.__code__, type(watch)._sleep.__code__):
            return None
        if event == "line":
            released.append(frame.f_lineno)
            watches.cancel_all()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        over_before = watch.wait(20)
    finally:
        sys.settrace(before)
    assert released
    assert over_before
    assert over(watch)


def test_concurrent_releases_at_the_end_of_a_wait(watches):
    """Two threads release a watch while a third one waits for it: `wait` returns true each time, and never raises."""
    rounds = 3_000
    opened = [threading.Barrier(3), threading.Barrier(3)]
    current, answers = [], []

    def release():
        for _ in range(rounds):
            opened[0].wait(20)
            current[-1].cancel()
            opened[1].wait(20)

    def wait():
        for _ in range(rounds):
            watch = watches.open("e", ["a"], 10)
            current[:] = [watch]
            opened[0].wait(20)
            answers.append((watch.wait(20), over(watch)))
            watch.close()
            opened[1].wait(20)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=run, daemon=True) for run in (release, release, wait)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert answers == [(True, True)] * rounds


class Spares:
    """Spare threads of a server that has none, or any number."""

    def __init__(self, *, any_number):
        self._any_number = any_number
        self.added = 0

    def add_thread(self):
        """One more, if there are any."""
        self.added += self._any_number
        return self._any_number

    def remove_thread(self):
        """One less."""
        self.added -= 1


def test_replaced_threads_need_no_waiter_place(clock):
    """Only threads that nothing replaces need one of the few places; a spare thread is given back after the wait."""
    watches = WaiterRegistry(clock=clock, max_waiters=3, max_unreplaced=0, pauses=PausedHandlers())
    none, some = Spares(any_number=False), Spares(any_number=True)
    with watches.open("e", ["a"], 10) as watch, watches.open("f", ["a"], 10) as over_already:
        assert not watch.wait(3600)
        assert not watch.wait(3600, none)
        waiting = threading.Thread(target=watch.wait, args=(3600, some))
        waiting.start()
        while not some.added:
            pass
        watches.notify("e", delivery_status("a", State.SUCCEEDED))
        waiting.join()
        assert some.added == 0
        over_already.cancel()
        assert over_already.wait(0, none)


@pytest.fixture
def storing(clock):
    """A thread that waits for the deliveries `a` and `b` of an event that is being stored, and how to end it."""
    paused = PausedHandlers()
    watches = WaiterRegistry(clock=clock, max_waiters=1, max_unreplaced=1, pauses=paused)
    watch, stored = watches.open("e", ["a", "b"], 10), Future()
    its_deliveries = [("a", "p:one"), ("b", "p:two")]
    waiting = threading.Thread(target=watch.wait_from_storing, args=(stored, its_deliveries, 3600), daemon=True)
    waiting.start()
    yield watches, stored, paused, waiting
    watches.cancel_all()
    waiting.join(WAIT_TIMEOUT)
    assert not waiting.is_alive()


def result(*, new):
    """The result of the event's transaction."""
    return AcceptResult(event_id="e", new=new, state="routed")


def waits_for_the_last(watches, waiting):
    """Whether the thread waits until the delivery `b` has settled."""
    waiting.join(0.1)
    waited = waiting.is_alive()
    watches.notify("e", delivery_status("b", State.SUCCEEDED))
    waiting.join(WAIT_TIMEOUT)
    return waited and not waiting.is_alive()


def test_a_new_event_ends_no_wait(storing):
    """A thread that waits from the storing sleeps until the last delivery has settled, whichever comes first."""
    watches, stored, _, waiting = storing
    watches.notify("e", delivery_status("a", State.SUCCEEDED))
    stored.set_result(result(new=True))
    assert waits_for_the_last(watches, waiting)


@pytest.mark.parametrize(
    "end",
    [
        lambda stored: stored.set_result(result(new=False)),
        lambda stored: stored.set_exception(OSError("disk full")),
        lambda stored: stored.cancel(),
    ],
    ids=["stored before", "not stored", "withdrawn"],
)
def test_an_event_that_is_not_new_ends_the_wait(storing, end):
    """A thread does not wait for deliveries that its transaction has not stored."""
    _, stored, _, waiting = storing
    end(stored)
    waiting.join(WAIT_TIMEOUT)
    assert not waiting.is_alive()


def test_a_pause_before_the_storing_wakes_the_thread(storing):
    """If a handler was paused before its delivery was stored, the thread returns to read whether it has started."""
    watches, stored, paused, waiting = storing
    paused.add({"p:one"})
    stored.set_result(result(new=True))
    waiting.join(WAIT_TIMEOUT)
    assert not waiting.is_alive()
    assert watches.pending_event_ids() == ["e"]


def test_a_pause_of_settled_deliveries_wakes_nothing(storing):
    """A paused handler whose delivery is not awaited does not wake the thread."""
    watches, stored, paused, waiting = storing
    watches.notify("e", delivery_status("a", State.SUCCEEDED))
    paused.add({"p:one"})
    stored.set_result(result(new=True))
    assert waits_for_the_last(watches, waiting)


def test_a_wake_up_does_not_end_a_wait(watches):
    """A thread that was woken too late, after its wait for the storing, waits for the deliveries all the same."""
    watch, answers = watches.open("e", ["a"], 10), []
    watch._wake()
    waiting = threading.Thread(target=lambda: answers.append(watch.wait(WAIT_TIMEOUT)))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    watches.notify("e", delivery_status("a", State.SUCCEEDED))
    waiting.join(WAIT_TIMEOUT)
    assert answers == [True]


def test_a_thread_that_wakes_finds_the_registry_unlocked(watches, monkeypatch):
    """The lock that each thread needs to close its waiter is free when a notification wakes the thread."""
    watch, locked = watches.open("e", ["a"], 10), []
    monkeypatch.setattr(type(watch), "cancel", lambda _watch: locked.append(watches._lock.locked()))
    watches.notify("e", delivery_status("a", State.SUCCEEDED))
    assert locked == [False]
