"""The counters of a process with bounded labels, in the Prometheus format."""

from __future__ import annotations

import os

from prometheus_client import values
from prometheus_client.parser import text_string_to_metric_families

from flowhooks import Delivery, Outcome, OutcomeKind, State
from flowhooks.clock import SECOND
from flowhooks.ledger.delivery_settled import DeliverySettled
from flowhooks.ledger.queries import DeliveryStatus
from flowhooks.observability.metrics import MAX_HANDLERS, MAX_SOURCES, NO_SOURCE, OTHERS, Metrics
from flowhooks.observability.shared_counts import SHARED_DIR_VARIABLE, continue_counts, read_pids
from flowhooks.testing import make_event


def read(metrics):
    """The exported figures: the value of each name and its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_responses_are_counted_by_kind_source_and_status():
    """Each kind, source and status is a line, and the seconds are summed by kind and source."""
    metrics = Metrics()
    for kind, source, status, seconds in (
        ("complete", "oa", 200, 0.5),
        ("complete", "oa", 200, 0.25),
        ("complete", "oa", 422, 0),
        ("complete", "erp", 200, 1),
        ("complete", NO_SOURCE, 401, 0),
        ("x", "oa", 200, 0),
    ):
        metrics.answered(kind, source, status, seconds)
    found = read(metrics)
    assert found["flowhooks_http_requests_total", "complete", "oa"] == 3
    assert found["flowhooks_http_responses_total", "complete", "oa", "200"] == 2
    assert found["flowhooks_http_responses_total", "complete", "oa", "422"] == 1
    assert found["flowhooks_http_responses_total", "complete", "erp", "200"] == 1
    assert found["flowhooks_http_responses_total", "complete", "(none)", "401"] == 1
    assert found["flowhooks_http_responses_total", "x", "oa", "200"] == 1
    assert found["flowhooks_http_request_duration_seconds_sum", "complete", "oa"] == 0.75


def test_sources_beyond_the_limit_share_one_label():
    """However often the settings are reloaded with other sources, the number of labels is bounded."""
    metrics = Metrics()
    for number in range(MAX_SOURCES + 50):
        metrics.answered("complete", f"s{number}", 200, 0.1)
    found = read(metrics)
    assert found["flowhooks_http_responses_total", "complete", OTHERS, "200"] == 50
    assert sum(name == "flowhooks_http_requests_total" for name, *_ in found) == MAX_SOURCES + 1


def test_error_counters_are_exported_before_the_first_error():
    """The first value of a series is no increase for Prometheus, so a burst of errors needs a 0 before it."""
    metrics = Metrics()
    metrics.expect(["complete", "cancel"])
    metrics.answered("complete", "oa", 200, 0.5)
    found = read(metrics)
    for kind in ("complete", "cancel"):
        assert found["flowhooks_http_responses_total", kind, "(none)", "401"] == 0
    for status in ("409", "422", "503"):
        assert found["flowhooks_http_responses_total", "complete", "oa", status] == 0
    assert metrics.answers() == {200: 1}


def test_no_created_series_is_exported():
    """prometheus-client would add a series `_created` to each counter and histogram, and double the output."""
    metrics = Metrics()
    metrics.answered("complete", "oa", 200, 0.5)
    metrics.committed(8, 0.002)
    assert not [name for name, *_ in read(metrics) if name.endswith("_created")]


def settled(handler, kind, state, seconds, *, total=0):
    """The signal of an attempt that ended `total` seconds after its event was received."""
    event = make_event()
    finished_at = int((event.received_at.timestamp() + total) * SECOND)
    status = DeliveryStatus(
        delivery_id="d", handler=handler, state=state, attempt=1, due_at=None, outcome=kind, finished_at=finished_at
    )
    delivery = Delivery(id="d", event_id=event.id, handler=handler, attempt=1)
    return DeliverySettled(event, delivery, status, Outcome(kind=kind), seconds)


def test_a_delivery_without_a_call_is_not_counted():
    """A delivery that settled because of its condition or its probe had no attempt of its function."""
    metrics = Metrics()
    metrics.on_settled(settled("p:h", OutcomeKind.FAILED, State.CLOSED, 0)._replace(outcome=None))
    assert ("flowhooks_attempts_total", "p:h", "failed") not in read(metrics)


def test_a_delivery_is_timed_at_its_last_attempt():
    """A retried attempt counts as an attempt; the total time is measured at the last one."""
    metrics = Metrics()
    metrics.on_settled(settled("p:h", OutcomeKind.FAILED, State.WAITING, 0.1, total=3))
    metrics.on_settled(settled("p:h", OutcomeKind.SUCCEEDED, State.SUCCEEDED, 0.2, total=5.5))
    found = read(metrics)
    assert found["flowhooks_attempts_total", "p:h", "failed"] == 1
    assert found["flowhooks_attempts_total", "p:h", "succeeded"] == 1
    assert found["flowhooks_attempt_duration_seconds_count", "p:h"] == 2
    assert found["flowhooks_delivery_latency_seconds_count", "p:h"] == 1
    assert found["flowhooks_delivery_latency_seconds_sum", "p:h"] == 5.5


def test_a_clock_set_back_causes_no_negative_time():
    """A negative figure is counted as 0."""
    metrics = Metrics()
    metrics.on_settled(settled("p:h", OutcomeKind.SUCCEEDED, State.SUCCEEDED, 0.2, total=-5.5))
    assert read(metrics)["flowhooks_delivery_latency_seconds_sum", "p:h"] == 0


def test_handlers_beyond_the_limit_share_one_label():
    """The number of labels is bounded for any number of handlers, and existing lines stay."""
    metrics = Metrics()
    for number in range(MAX_HANDLERS + 50):
        metrics.on_settled(settled(f"p:h{number}", OutcomeKind.SUCCEEDED, State.SUCCEEDED, 0.1))
    metrics.on_settled(settled("p:h0", OutcomeKind.SUCCEEDED, State.SUCCEEDED, 0.1))
    found = read(metrics)
    assert found["flowhooks_attempts_total", OTHERS, "succeeded"] == 50
    assert found["flowhooks_attempts_total", "p:h0", "succeeded"] == 2
    assert sum(name == "flowhooks_attempts_total" for name, *_ in found) == MAX_HANDLERS + 1


def test_metrics_of_two_processes_are_independent():
    """Counters are not global: two `Metrics` objects are independent."""
    one, other = Metrics(), Metrics()
    one.committed(8, 0.002)
    assert read(one)["flowhooks_commit_batch_size_sum",] == 8
    assert read(other)["flowhooks_commit_batch_size_sum",] == 0


def test_a_process_continues_the_counts_of_an_exited_process(tmp_path, monkeypatch):
    """The sum includes exited processes, and the number of files does not grow with them."""
    monkeypatch.setenv(SHARED_DIR_VARIABLE, str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    for number, pid in ((0, 101), (1, 102), (0, 103), (0, 104)):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        continue_counts(number)
        metrics = Metrics()
        metrics.answered("complete", "oa", 200, 0.5)
    found = read(metrics)
    assert found["flowhooks_http_responses_total", "complete", "oa", "200"] == 4
    assert found["flowhooks_http_request_duration_seconds_sum", "complete", "oa"] == 2
    assert metrics.answers() == {200: 1}
    assert {file.name for file in tmp_path.glob("counter_*")} == {"counter_n0.db", "counter_n1.db"}
    assert sorted(read_pids(tmp_path)) == [102, 104]
    monkeypatch.setattr(os, "getpid", lambda: 105)  # a process that this one has forked
    metrics.answered("complete", "oa", 200, 0.5)
    assert read(metrics)["flowhooks_http_responses_total", "complete", "oa", "200"] == 5
    assert (tmp_path / "counter_105.db").exists()
