"""The overview: counts, rates and latencies of recent activity, with a clock moved by hand."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from flowhooks import Reject, Retry
from flowhooks.ledger import alert_queries, circuit_state, error_group_queries
from flowhooks.ledger.pauses import PausedHandlers
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.operations import failing_now
from flowhooks.operations import overview as looking
from flowhooks.operations.acknowledge import acknowledge
from flowhooks.operations.alert_test import send_test_alerts
from flowhooks.operations.context import Actor
from flowhooks.operations.overview import overview
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.retire import retire
from flowhooks.settings import Source
from support.run_bulk import replay, run_bulk
from support.waiting import until

MIB = 2**20


def look(flow):
    """Read the current overview."""
    return overview(flow.app.ledger, flow.clock.now())


def test_a_lost_attempt_has_no_run_time(harness, listens):
    """The time until a lost attempt is found is down time, and no run time of its handler."""
    flow = harness.open(listens(lambda event: None, name="h"), start=False)
    flow.take(wait=0)
    (queued,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 10)
    assert flow.app.ledger.claim(queued)
    harness.crash(flow)
    harness.clock.advance(3600)
    flow = harness.open(listens(lambda event: None, name="h"))
    (performance,) = look(flow).performance
    assert (performance.failed, performance.median, performance.p95) == (1, None, None)
    assert {point.slowest for point in performance.points} == {0}
    (attempt,) = flow.app.ledger.attempts(flow.only(flow.events()[0]).delivery_id)
    assert (attempt.finished_at - attempt.started_at, attempt.run_time) == (3_600_000_000, None)


def test_an_overview_without_events(harness):
    """Without events everything is zero, and there is no rate."""
    found = look(harness.open(start=False))
    assert set(found.counts.values()) == {0}
    assert (found.oldest, found.performance, found.sampled_deliveries, found.oldest_sampled_at) == ({}, (), 0, None)
    assert (found.arrivals.total, found.arrivals.period_seconds) == (0, 3600)


def test_handler_success_shares_and_latencies(harness, listens, clock):
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


def test_the_read_limit_shortens_the_arrivals_chart(harness, monkeypatch):
    """The chart of arrivals spans the longest time of which every event was read."""
    monkeypatch.setattr(looking, "MAX_ARRIVALS", 10)
    flow = harness.open(start=False)
    for number in range(12):
        flow.take(f"i{number}", wait=0)
        flow.clock.advance(20)
    arrivals = look(flow).arrivals
    assert (arrivals.period_seconds, arrivals.total) == (60, 2)
    assert arrivals.per_minute == 2


def test_waiting_deliveries_are_counted_by_reason(harness, listens, monkeypatch):
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
    harness.check_at_end = False
    found = look(flow)
    assert found.waiting == (2, 1, 2, 2)  # with the first of the ordered ones
    assert found.counts["waiting"] == 7
    (paused,) = found.failing.paused
    assert (paused.handler, paused.by, paused.note) == ("p:idle", "ann", "the ERP is down until noon")
    flow.clock.advance(1)
    resume(flow.app.operation_context, ["p:idle"])
    pause(replace(flow.app.operation_context, by=Actor("bob", "cli")), ["p:idle", "p:ordered"])
    monkeypatch.setattr(failing_now, "_MAX_AUDIT_ENTRIES", 1)
    send_test_alerts(replace(flow.app.operation_context, by=Actor("ann", "cli")))  # its target is empty as well
    assert {(paused.handler, paused.by, paused.note) for paused in look(flow).failing.paused} == {
        ("p:idle", "bob", ""),
        ("p:ordered", "bob", ""),
    }


def test_current_failures_are_named(harness, listens):
    """Open circuits, error groups of the last hour, and the three newest other alerts are named."""

    def function(event):
        raise ValueError("no")

    flow = harness.open(listens(function, name="h"))
    assert look(flow).failing.is_empty
    harness.check_at_end = False
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
    assert (group.error, group.last_hour) == ("ValueError: no", 1)
    assert len(failing.alerts) == 3
    flow.clock.advance(3601)
    assert look(flow).failing.error_groups == ()


def test_circuits_displace_no_other_alert(harness, listens):
    """Each open circuit has a line of its own, and its alert takes the place of no other alert."""

    def function(event):
        raise ValueError("no")

    flow = harness.open(*(listens(function, name=f"h{number}") for number in range(4)))
    harness.check_at_end = False
    assert flow.take("i1").status == "dead"
    flow.app.alerts.poll()
    flow.clock.advance(60)
    now, pauses = flow.clock.now(), flow.app.ledger.pauses
    for number in range(1, 4):
        circuit = circuit_state.OpenCircuit(f"p:h{number}", "OSError: away", "1.0", now)
        flow.app.ledger.write(
            lambda transaction, circuit=circuit: circuit_state.open_circuit(transaction, circuit, now, pauses)
        )
    flow.app.alerts.poll()
    failing = look(flow).failing
    assert len(failing.circuits) == 3
    assert {alert.cause for alert in failing.alerts} == {"dead"}


def test_open_conditions_are_named(harness, monkeypatch):
    """Silent sources and a full disk are named beside newer alerts and once acknowledged, up to a limit."""
    monkeypatch.setattr("flowhooks.composition.free_disk_bytes", lambda _url: 600 * MIB)
    silent = Source(token_sha256=("1" * 64,), silent_after=3600.0)
    # Not started, because the watch of the clock would find its jump, which is an alert, too.
    flow = harness.open(sources=dict.fromkeys(("oa", "crm"), silent), alerts={"disk_free_mib": 1000}, start=False)
    flow.app.alerts.poll()
    flow.advance(3700)
    flow.app.alerts.poll()
    for number in range(4):
        flow.take(f"n{number}", key=None, callback_class=f"Class{number}", source="hr", wait=0)
    flow.app.alerts.reconfigure(replace(flow.app.settings.alerts, parked_after=0.0))
    flow.app.alerts.poll()
    named = [("disk_nearly_full", "ledger"), ("source_silent", "crm"), ("source_silent", "oa")]
    failing = look(flow).failing
    assert [(alert.cause, alert.subject) for alert in failing.conditions] == named
    assert [alert.cause for alert in failing.alerts] == ["parked"] * 3
    with flow.app.ledger.connection() as connection:
        everything = [alert.id for alert in alert_queries.open_alerts(connection)]
    acknowledge(flow.app.operation_context, everything)
    failing = look(flow).failing
    assert [(alert.cause, alert.subject) for alert in failing.conditions] == named
    assert (failing.alerts, failing.left_out, failing.is_empty) == ((), 0, False)
    monkeypatch.setattr(failing_now, "MAX_SHOWN", 2)
    failing = look(flow).failing
    assert ([alert.subject for alert in failing.conditions], failing.left_out) == (["ledger", "crm"], 1)


def test_errors_are_ranked_by_failures_of_the_last_hour(harness, listens):
    """A small new error comes before a large old one with a single new failure; both have the number of the hour."""

    def function(event):
        raise ValueError("old" if event.business_key == "old" else "new")

    flow = harness.open(listens(function, name="h"))
    for number in range(5):
        assert flow.take(f"o{number}", businessKey="old").status == "dead"
    flow.advance(2 * 3600)
    assert flow.take("o5", businessKey="old").status == "dead"
    for number in range(3):
        assert flow.take(f"n{number}").status == "dead"
    expected = [("ValueError: new", 3), ("ValueError: old", 1)]
    assert failing_errors(flow) == expected  # before the counts of this minute are stored
    flow.app.trends.flush()
    assert failing_errors(flow) == expected
    assert flow.take("o6", businessKey="old").status == "dead"

    def counted():
        # On PostgreSQL, a notification may have answered the callback before the attempt was counted.
        flow.app.trends.flush()
        return failing_errors(flow) == [("ValueError: new", 3), ("ValueError: old", 2)]

    until(counted)


@pytest.fixture
def erp():
    """Whether the ERP works."""
    return SimpleNamespace(works=False)


@pytest.fixture
def calling_erp(listens, erp):
    """A function that makes a handler of the ERP."""

    def make(**given):
        def function(event):
            if not erp.works:
                raise ConnectionError("the ERP is down")

        return listens(function, name="h", **given)

    return make


def failing_errors(flow):
    """The errors that the overview names, with their numbers of failures of the last hour."""
    return [(group.error, group.last_hour) for group in look(flow).failing.error_groups]


def test_an_error_is_named_until_its_last_delivery_has_succeeded(harness, calling_erp, erp):
    """A retried, a dead and a replayed delivery keep their error on the overview; a succeeded one does not."""
    flow = harness.open(calling_erp(retry=Retry(attempts=2, delays=[60], jitter=0)))
    for number in range(2):
        flow.take(f"i{number}", wait=0)
    until(lambda: [status.attempt for status in waiting(flow)] == [1, 1])
    assert failing_errors(flow) == [("ConnectionError: the ERP is down", 2)]
    flow.advance(61)
    until(lambda: look(flow).counts["dead"] == 2)
    assert failing_errors(flow) == [("ConnectionError: the ERP is down", 4)]
    erp.works = True
    replay(flow.app.operation_context, EventFilter(flow_instance_id="i0"))
    flow.app.runner.wake()
    until(lambda: look(flow).counts["dead"] == 1 and not waiting(flow) and not look(flow).counts["running"])
    assert failing_errors(flow) == [("ConnectionError: the ERP is down", 4)]
    replay(flow.app.operation_context)
    flow.app.runner.wake()
    until(lambda: not any(look(flow).counts.values()))
    assert failing_errors(flow) == []


def waiting(flow):
    """The waiting deliveries."""
    events = [flow.app.ledger.event(event_id) for event_id in flow.events()]
    return [status for event in events for status in event.delivery_statuses if status.state == "waiting"]


@pytest.mark.parametrize("state", ["dead", "unknown", "waiting", "closed", "succeeded"])
def test_an_error_is_named_for_each_open_state(harness, calling_erp, state):
    """Dead, unknown and retried deliveries keep an error on the overview; closed and succeeded ones do not."""
    flow = harness.open(calling_erp())
    assert flow.take("i1").status == "dead"
    harness.check_at_end = False
    flow.sql(f"UPDATE deliveries SET state = '{state}'")
    assert bool(failing_errors(flow)) == (state in {"dead", "unknown", "waiting"})


def test_an_error_is_named_during_the_next_attempt(harness, listens):
    """The attempt after a failure is running: nobody knows yet whether it succeeds."""
    started, finish = threading.Event(), threading.Event()

    def function(event, delivery):
        if delivery.attempt == 1:
            raise ConnectionError("the ERP is down")
        started.set()
        assert finish.wait(60)

    flow = harness.open(listens(function, name="h"))
    assert flow.take("i1").status == "dead"
    replay(flow.app.operation_context)
    flow.app.runner.wake()
    assert started.wait(60)
    assert failing_errors(flow) == [("ConnectionError: the ERP is down", 1)]
    finish.set()
    until(lambda: not any(look(flow).counts.values()))
    assert failing_errors(flow) == []


def test_an_old_open_delivery_of_a_large_group_is_found(harness, calling_erp, erp, monkeypatch):
    """The newest failures have succeeded since; an older one has not, and keeps the error on the overview."""
    monkeypatch.setattr(error_group_queries.has_open_delivery, "__kwdefaults__", {"max_searched": 3})
    flow = harness.open(calling_erp())
    for number in range(6):
        assert flow.take(f"i{number}").status == "dead"
        flow.clock.advance(1)
    erp.works = True
    for number in range(1, 6):
        replay(flow.app.operation_context, EventFilter(flow_instance_id=f"i{number}"))
    flow.app.runner.wake()
    until(lambda: look(flow).counts["dead"] == 1 and not waiting(flow) and not look(flow).counts["running"])
    assert failing_errors(flow) == [("ConnectionError: the ERP is down", 6)]
    run_bulk(flow.app.operation_context, BulkAction.CLOSE, EventFilter(state="dead"))
    assert failing_errors(flow) == []
