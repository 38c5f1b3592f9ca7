"""Handlers with a rate, with either runner: over all processes, no more attempts start than the rate allows."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from flowhooks import Retry
from flowhooks.clock import SECOND, Clock
from flowhooks.execution.runners import procrastinate_schema
from flowhooks.ledger import attempts
from flowhooks.model.rate import Rate
from support.waiting import WAIT_TIMEOUT, until


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


@pytest.fixture
def starts(monkeypatch):
    """The time of the transaction that started each attempt: on a busy machine, the request has waited for it."""
    times, real = [], attempts._mark

    def mark(transaction, requests, statements, now):
        marked, *limited = real(transaction, requests, statements, now)
        times.extend([now] * len(marked))
        return marked, *limited

    monkeypatch.setattr(attempts, "_mark", mark)
    return times


def within(rate, starts):
    """Whether no window has more starts than a rate allows; a start is noted before its transaction is made."""
    rate, starts, slack = Rate.parse(rate), sorted(starts), 0.05 * SECOND
    return all(
        last - first + 1 <= (starts[last] - starts[first] + slack) / rate.interval + rate.burst
        for first in range(len(starts))
        for last in range(first, len(starts))
    )


@pytest.mark.parametrize("given", [{}, {"concurrency": 3}, {"order_by": "business_key"}], ids=["rate", "both", "order"])
def test_no_more_attempts_start_than_the_rate_allows(harness, runner, listens, starts, given):
    """Two processes where possible share the rate, with retries, and start everything in the end."""
    rate, seen, lock = "20/s", Counter(), threading.Lock()

    def handle(event):
        with lock:
            seen[event.flow_instance_id] += 1
            count = seen[event.flow_instance_id]
        if count == 1 and event.flow_instance_id.endswith("0"):
            raise ValueError("once")

    rated = listens(handle, name="h", rate=rate, retry=Retry(attempts=3, delays=[0], jitter=0), **given)
    flows = [harness.open(rated, runner=runner) for _ in range(2 if harness.url else 1)]
    for number in range(36):
        flows[number % len(flows)].take(str(number), wait=0, businessKey=f"k{number % 4}")
    until(lambda: sum(seen.values()) == 40)
    until(lambda: flows[0].app.ledger.count_by_state()["running"] == 0)
    assert seen == {str(number): 2 if number % 10 == 0 else 1 for number in range(36)}
    assert len(starts) == 40
    assert within(rate, starts)


def test_a_rate_limited_backlog_does_not_affect_other_handlers(harness, runner, listens, eventually, monkeypatch):
    """Deliveries that wait for the rate take no thread, are claimed hardly ever, and start when the rate is larger."""
    claimed, done = [], threading.Event()
    real = attempts._mark

    def mark(transaction, requests, *given, **named):
        claimed.extend(request.queued.handler for request in requests)
        return real(transaction, requests, *given, **named)

    monkeypatch.setattr(attempts, "_mark", mark)
    ran = []
    slow = listens(ran.append, name="h", rate="1/h")
    other = listens(lambda _event: done.set(), name="other", process_key="other")
    flow = harness.open(slow, other, runner=runner)
    for number in range(200):
        flow.take(str(number), wait=0)
    until(lambda: ran)
    # More than a poll, a sweep and the threads of the runner could claim if each of them tried each time.
    for number in range(20):
        done.clear()
        flow.take(f"other-{number}", key="other", wait=0)
        assert done.wait(WAIT_TIMEOUT)
    assert len(ran) == 1
    assert Counter(claimed)["p:h"] <= 40
    eventually(lambda: flow.app.runner.running == 0)
    flow.close()
    again = harness.open(listens(ran.append, name="h", rate="1000/s"), other, runner=runner)
    eventually(lambda: len(ran) == 200)
    eventually(lambda: again.app.ledger.count_by_state()["running"] == 0)


def test_the_next_attempt_starts_soon_after_the_interval(harness, runner, listens, eventually, starts):
    """A rate below one per second starts an attempt soon after each interval, not with the next poll or callback."""
    ran = []
    flow = harness.open(listens(ran.append, name="h", rate="150/m"), runner=runner)
    for number in range(4):
        flow.take(str(number), wait=0)
    eventually(lambda: len(ran) == 4)
    assert len(starts) == 4
    assert within("150/m", starts)
