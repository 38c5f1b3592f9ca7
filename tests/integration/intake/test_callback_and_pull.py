"""The engine calls while reconciliation takes the same instance in: one event, one run, also in two processes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowhooks.clock import SECOND
from flowhooks.ledger import database, late_callbacks
from support.silent_engine import with_silent_engine
from support.waiting import WAIT_TIMEOUT, until

AT_ONCE = 64


@pytest.fixture
def long_timeouts(monkeypatch):
    """On a busy machine, a transaction waits for the lock of a test until that is released."""
    monkeypatch.setattr(database.engines, "BUSY_SECONDS", WAIT_TIMEOUT)


@pytest.mark.usefixtures("long_timeouts")
@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_concurrent_callbacks_and_pulls_store_one_event(harness, listens, rounds):
    """32 callbacks and 32 pulls; every second round, the engine's callbacks have a class that the history lacks."""
    runs, lock = [], threading.Lock()

    def ran(event):
        with lock:
            runs.append(event.flow_instance_id)

    flows = [harness.open(**with_silent_engine(listens(ran, name="ran"))) for _ in range(2 if harness.url else 1)]
    started_at = flows[0].clock.now() - SECOND
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number in range(rounds):
            instance, barrier = f"i{number}", threading.Barrier(AT_ONCE)
            callback_class = "com.example.C" if number % 2 else None

            def act(place, instance=instance, barrier=barrier, callback_class=callback_class):
                flow = flows[place // 2 % len(flows)]
                barrier.wait(WAIT_TIMEOUT)
                if place % 2:
                    return flow.take_in(instance, started_at=started_at).event_id
                return flow.take(instance, source="oa", callback_class=callback_class, wait=0).event_id

            event_ids = set(pool.map(act, range(AT_ONCE)))
            assert len(event_ids) == 1
            assert flows[0].events(flow_instance_id=instance) == list(event_ids)
    until(flows[0].is_idle)
    assert sorted(runs) == sorted(f"i{number}" for number in range(rounds))
    late = flows[0].sql("SELECT coalesce(max(repeats), 0) FROM late_callbacks")[0][0]
    assert late < AT_ONCE // 2
    assert flows[0].app.ledger.verify().problems == []


@pytest.mark.usefixtures("long_timeouts")
def test_callback_and_pull_in_one_transaction(harness, listens):
    """The callback comes first, whatever their order: the pull finds its event."""
    flow = harness.open(**with_silent_engine(listens(lambda event: None, name="ran")))
    results = []
    with flow.locked():
        threads = [
            threading.Thread(target=lambda: results.append(flow.take_in().new)),
            threading.Thread(target=lambda: results.append(flow.take(source="oa", wait=0).event_id)),
        ]
        for thread in threads:
            thread.start()
        until(lambda: flow.app.ledger._writer.queue_size + (flow.app.ledger._writer.blocked_seconds > 0) > 0)
    for thread in threads:
        thread.join(WAIT_TIMEOUT)
    assert len(flow.events()) == 1
    assert len(results) == 2


@pytest.mark.usefixtures("long_timeouts")
def test_late_callbacks_of_a_batch_lock_their_events_by_id(harness, listens, monkeypatch):
    """A reroute locks events in the order of their ids; late callbacks that came in another order do, too."""
    flow = harness.open(**with_silent_engine(listens(lambda event: None, name="ran")), start=False)
    event_ids = [flow.take_in(instance).event_id for instance in ("i1", "i2")]
    locked, lock_event = [], late_callbacks.lock_event

    def recorded(connection, event_id):
        locked.append(event_id)
        return lock_event(connection, event_id)

    monkeypatch.setattr(late_callbacks, "lock_event", recorded)
    writer, threads = flow.app.ledger._writer, []
    with flow.locked():
        # The first callback occupies the writer, and the others are one batch.
        for waiting, instance in enumerate(("i3", "i2", "i1")):
            threads.append(threading.Thread(target=flow.take, args=(instance,), kwargs={"source": "oa", "wait": 0}))
            threads[-1].start()
            until(lambda waiting=waiting: writer.queue_size == waiting and writer.blocked_seconds > 0)
    for thread in threads:
        thread.join(WAIT_TIMEOUT)
    assert locked == sorted(event_ids)
