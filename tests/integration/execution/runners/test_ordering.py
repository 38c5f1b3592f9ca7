"""Ordered and limited handlers with either runner: at most one run of a key at a time, always in order."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

import pytest

from flowhooks import Retry, RetryAfter, State
from flowhooks.clock import Clock
from flowhooks.execution.runners import embedded, job_sweeper, procrastinate_schema
from support.waiting import WAIT_TIMEOUT


class Seen:
    """A handler that records concurrent runs and the order of each key."""

    def __init__(self, fails=0.0):
        self.fails = fails
        self.lock = threading.Lock()
        self.running = Counter()
        self.most = 0
        self.overlaps = []
        self.done = defaultdict(list)

    def __call__(self, event):
        """Record the run."""
        key = event.business_key
        with self.lock:
            self.running[key] += 1
            self.most = max(self.most, self.running.total())
            if self.running[key] > 1:
                self.overlaps.append(key)
        time.sleep(random.random() / 500)
        with self.lock:
            self.running[key] -= 1
            if random.random() < self.fails:
                raise RetryAfter(0)
            self.done[key].append(event.data["number"])

    @property
    def count(self):
        """The number of finished runs."""
        with self.lock:
            return sum(map(len, self.done.values()))


@pytest.fixture
def clock():
    """The real clock, because PostgreSQL uses its own to decide when a job is due."""
    return Clock()


@pytest.fixture(params=["embedded", "procrastinate"])
def runner(request, harness):
    """The settings of each runner, with empty job tables."""
    if request.param == "procrastinate":
        if not harness.url:
            pytest.skip("it does not run on SQLite")
        procrastinate_schema.upgrade(harness.url)
    return {"kind": request.param, "threads": 8}


def take_all(flows, keys, each):
    """Accept callbacks from one thread for each key, alternating between the flows."""

    def one(key):
        for number in range(each):
            flow = flows[number % len(flows)]
            flow.take(f"{key}-{number}", wait=0, businessKey=key, number=number)

    threads = [threading.Thread(target=one, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_TIMEOUT)


def test_deliveries_of_a_key_run_alone_and_in_order(harness, runner, listens, eventually):
    """Two processes where possible, several keys, and attempts that fail at random and are retried."""
    seen = Seen(fails=0.2)
    ordered = listens(seen, name="h", order_by="business_key", retry=Retry(attempts=100))
    flows = [harness.open(ordered, runner=runner) for _ in range(2 if harness.url else 1)]
    keys, each = [f"k{number}" for number in range(4)], 15
    take_all(flows, keys, each)
    eventually(lambda: seen.count == len(keys) * each)
    assert seen.overlaps == []
    assert dict(seen.done) == {key: list(range(each)) for key in keys}
    eventually(lambda: flows[0].app.ledger.count_by_state()["running"] == 0)


def test_a_retrying_delivery_blocks_only_its_own_key(harness, runner, listens, eventually):
    """A retrying delivery blocks only its own key; responses do not report blocked deliveries as done."""
    done, fail = [], threading.Event()

    def handle(event):
        if event.business_key == "bad" and not fail.is_set():
            raise RetryAfter(3600)
        done.append(event.flow_instance_id)

    flow = harness.open(listens(handle, name="h", order_by="business_key", retry=Retry()), runner=runner)
    first = flow.take("1", wait=0, businessKey="bad").event_id
    flow.settled(first, State.WAITING, attempt=1)
    held = flow.take("2", wait=0, businessKey="bad").event_id
    assert flow.take("3", businessKey="good").delivery_statuses[0].state is State.SUCCEEDED
    assert flow.only(held).blocked_by == first
    assert done == ["3"]
    fail.set()


@dataclass
class Busy(RetryAfter):
    """An exception that does not call `RetryAfter.__init__`."""

    code: int


def test_an_unreadable_exception_does_not_block_the_key(harness, runner, listens):
    """The attempt has failed as any other, so the next delivery of the key runs."""
    done = []

    def handle(event):
        if event.flow_instance_id == "1":
            raise Busy(3)
        done.append(event.flow_instance_id)

    flow = harness.open(listens(handle, name="h", order_by="business_key", concurrency=1), runner=runner)
    first = flow.take("1", wait=0, businessKey="k").event_id
    assert flow.take("2", businessKey="k").delivery_statuses[0].state is State.SUCCEEDED
    assert flow.only(first).state is State.DEAD
    assert done == ["2"]


def test_damaged_and_unknown_deliveries_delay_no_other_delivery(harness, runner, listens, eventually):
    """A limited handler runs its other deliveries behind a damaged one and one that nobody can tell of.

    The handler of the *unknown* one has no probe. Another version of it, which another process runs, may have one.
    """
    seen = []
    flow = harness.open(
        listens(lambda event: seen.append(event.flow_instance_id), name="h", concurrency=1), runner=runner, start=False
    )
    ids = [flow.only(flow.take(str(number), wait=0).event_id).delivery_id for number in range(4)]
    (first, *_) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 1)
    assert flow.app.ledger.claim(first).attempt == 1
    flow.sql("UPDATE attempts SET outcome = 'lost', finished_at = started_at")
    flow.sql("UPDATE deliveries SET state = 'unknown', due_at = changed_at WHERE id = ?", first.delivery_id)
    damaged, *others = (number for number in range(4) if ids[number] != first.delivery_id)
    flow.sql("UPDATE events SET body = '{' WHERE flow_instance_id = ?", str(damaged))
    flow.app.start()
    eventually(lambda: sorted(seen) == [str(number) for number in others])
    eventually(lambda: flow.app.ledger.delivery(first.delivery_id)[1].due_at > flow.clock.now())


@pytest.mark.parametrize("most", [1, 3])
def test_the_concurrency_limit_holds_over_all_processes(harness, runner, listens, eventually, most):
    """The limit holds over all processes."""
    seen = Seen()
    limited = listens(seen, name="h", concurrency=most)
    flows = [harness.open(limited, runner=runner) for _ in range(2 if harness.url else 1)]
    keys, each = [f"k{number}" for number in range(4)], 15
    take_all(flows, keys, each)
    eventually(lambda: seen.count == len(keys) * each)
    assert seen.most <= most
    eventually(lambda: flows[0].app.ledger.count_by_state()["running"] == 0)


def test_the_end_of_a_delivery_starts_the_next_delivery(harness, runner, listens, eventually, monkeypatch):
    """The end of a delivery starts the next one without a poll."""
    for looks in (embedded, "POLL_INTERVAL"), (job_sweeper, "SWEEP_INTERVAL"):
        monkeypatch.setattr(*looks, 3600.0)
    count = 60
    for given in ({"order_by": "business_key"}, {"concurrency": 1}):
        done = []
        name = next(iter(given))
        handler = listens(lambda event, done=done: done.append(event.id), name=name, **given)
        flow = harness.open(handler, start=False, runner=runner)
        for number in range(count):
            flow.take(f"{name}-{number}", wait=0, businessKey="k")
        flow.app.start()
        eventually(lambda done=done: len(done) == count)
        eventually(lambda flow=flow: flow.app.ledger.count_by_state()["running"] == 0)
        flow.close()
