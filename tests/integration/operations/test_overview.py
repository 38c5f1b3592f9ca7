"""The overview: counts, rates and latencies of recent activity, with a clock moved by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks import Reject
from flowhooks.ledger import circuit_state
from flowhooks.ledger.pauses import PausedHandlers
from flowhooks.operations import overview as looking
from flowhooks.operations.context import Actor
from flowhooks.operations.overview import overview
from flowhooks.operations.pause import pause
from flowhooks.operations.retire import retire


def look(flow):
    """Read the current overview."""
    return overview(flow.app.ledger, flow.clock.now())


def test_of_nothing(harness):
    """Without events everything is zero, and there is no rate."""
    found = look(harness.open(start=False))
    assert set(found.counts.values()) == {0}
    assert (found.oldest, found.performance, found.sampled_deliveries, found.oldest_sampled_at) == ({}, (), 0, None)
    assert (found.arrivals.total, found.arrivals.period_seconds) == (0, 3600)


def test_how_handlers_have_done(harness, listens, clock):
    """Shares and latencies are those of the last attempts; failed handlers come first."""

    def slow(event):
        clock.advance(0.5)
        if event.business_key == "bad":
            raise Reject("no")

    flow = harness.open(listens(slow), listens(lambda event: None, name="quick", process_key="other"))
    for number in range(4):
        flow.take(f"s{number}", businessKey="bad" if number == 3 else "good")
        flow.take(f"q{number}", key="other")
    flow.take("parked", key="nobody")
    flow.clock.advance(10)
    found = look(flow)
    slow_one, quick = found.performance
    assert (slow_one.handler, slow_one.deliveries, slow_one.succeeded, slow_one.failed) == ("p:slow", 4, 3, 1)
    assert (slow_one.success_rate, slow_one.median, slow_one.p95) == (0.75, 500_000, 500_000)
    assert (quick.handler, quick.success_rate, quick.median) == ("p:quick", 1.0, 0)
    assert sum(point.succeeded for point in slow_one.points) == 3
    assert max(point.slowest for point in slow_one.points) == 500_000
    assert (found.counts["dead"], found.counts["parked"]) == (1, 1)
    assert found.oldest["dead"].handler == "p:slow"
    assert flow.events(state="parked") == [found.oldest["parked"].event_id]
    assert found.arrivals.total == sum(found.arrivals.buckets) == 9
    assert found.sampled_deliveries == 8


@pytest.mark.sqlite
def test_deliveries_of_a_retired_handler_are_counted_with_their_age(harness, listens):
    """Deliveries that wait for a retired or paused handler are counted, so the oldest one is shown too."""
    first = harness.open(listens(lambda event: None, name="h"), start=False)
    event_id = first.take(wait=0).event_id
    first.close()
    flow = harness.open()
    for change in (lambda: None, lambda: pause(flow.app.operation_context, ["p:h"])):
        change()
        found = overview(flow.app.ledger, flow.clock.now())
        assert found.counts["handler_missing"] == 1
        assert found.oldest["handler_missing"].event_id == event_id
    retire(flow.app.operation_context, ["p:h"])
    assert overview(flow.app.ledger, flow.clock.now()).oldest["handler_missing"].handler == "p:h"


def test_more_than_are_read_shorten_the_span(harness, monkeypatch):
    """The chart of arrivals spans the longest time of which every event was read."""
    monkeypatch.setattr(looking, "MAX_ARRIVALS", 10)
    flow = harness.open(start=False)
    for number in range(12):
        flow.take(f"i{number}", wait=0)
        flow.clock.advance(20)
    arrivals = look(flow).arrivals
    assert (arrivals.period_seconds, arrivals.total) == (60, 2)
    assert arrivals.per_minute == 2


def test_why_deliveries_wait(harness, listens):
    """Waiting deliveries are counted by their reason: due, retrying, blocked by their order, or paused."""
    flow = harness.open(
        listens(lambda event: None, name="due"),
        listens(lambda event: None, name="retry", process_key="retry"),
        listens(lambda event: None, name="ordered", process_key="ordered", order_by="business_key"),
        listens(lambda event: None, name="idle", process_key="idle"),
        start=False,
    )
    flow.take("d1", wait=0)
    flow.take("r1", key="retry", wait=0)
    for number in range(3):
        flow.take(f"o{number}", key="ordered", businessKey="k", wait=0)
    for number in range(2):
        flow.take(f"p{number}", key="idle", wait=0)
    flow.sql("UPDATE deliveries SET due_at = due_at + 60000000 WHERE handler = 'p:retry'")
    pause(replace(flow.app.operation_context, by=Actor("ann", "cli")), ["p:idle"], note="the ERP is down until noon")
    harness.check_books = False
    found = look(flow)
    assert found.waiting == (2, 1, 2, 2)  # with the first of the ordered ones
    assert found.counts["waiting"] == 7
    (paused,) = found.failing.paused
    assert (paused.handler, paused.by, paused.note) == ("p:idle", "ann", "the ERP is down until noon")


def test_what_fails_now(harness, listens):
    """Open circuits, error groups of the last hour, and the three newest alerts are named."""

    def function(event):
        raise ValueError("no")

    flow = harness.open(listens(function, name="h"))
    assert look(flow).failing.is_empty
    harness.check_books = False
    now = flow.clock.now()
    assert flow.take("i1").status == "dead"
    flow.app.ledger.write(
        lambda transaction: circuit_state.open_circuit(
            transaction,
            circuit_state.OpenCircuit("p:h", "OSError: the ERP\nis down", "1.0", now),
            now,
            PausedHandlers(),
        )
    )
    for number in range(4):
        flow.take(f"n{number}", key=None, callback_class=f"Class{number}", wait=0)
    flow.app.alerts.reconfigure(replace(flow.app.settings.alerts, parked_after=0.0))
    flow.app.alerts.poll()
    failing = look(flow).failing
    ((handler, since, reason),) = failing.circuits
    assert (handler, since) == ("p:h", now)
    assert reason.startswith("OSError: the ERP")
    (group,) = failing.error_groups
    assert (group.error, group.attempts) == ("ValueError: no", 1)
    assert len(failing.alerts) == 3
    flow.clock.advance(3601)
    assert look(flow).failing.error_groups == ()
