"""Metrics read at each scrape, on both databases: open deliveries, their age, and unaccounted events."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowhooks import Retry, State
from flowhooks.clock import SECOND
from flowhooks.errors import LedgerUnusable
from flowhooks.intake.callback import Callback
from flowhooks.ledger import reader
from flowhooks.ledger.database import free_disk_bytes
from flowhooks.ledger.ignored_requests import IgnoredRequestRecord
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.stats import totals
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.model.event import Origin
from flowhooks.observability.collectors import COUNT_COST, STATS_TTL_SECONDS, TOTALS_TTL_SECONDS
from flowhooks.operations.bulk import cancel_operation, pause_operation, plan_operation, start_operation
from flowhooks.operations.pause import pause, resume
from support import engine_ledger
from support.silent_engine import silent_source, with_silent_engine


def scrape(flow):
    """The metrics of an app: the value of each name and its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(flow.app.metrics.text().decode())
        for sample in family.samples
    }


def fine(event):
    """Do it."""


def fails(event):
    """Fail finally."""
    raise ValueError("no")


@pytest.fixture
def monotonic(monkeypatch):
    """Moves the clock past the time for which figures are cached."""
    moved = [0.0]
    monkeypatch.setattr("flowhooks.observability.collectors.time.monotonic", lambda: moved[0])

    def advance(seconds):
        moved[0] += seconds

    return advance


def test_bulk_operations_are_counted_by_state(harness, listens, monotonic):
    """A plan, an operation that runs, and one that is paused are counted; a cancelled one is not."""
    flow = harness.open(listens(fails), start=False)
    flow.take(wait=0)
    context = flow.app.operation_context

    def counted():
        monotonic(STATS_TTL_SECONDS + 1)
        found = scrape(flow)
        return [found["flowhooks_operations", state] for state in ("planned", "running", "paused")]

    assert counted() == [0, 0, 0]
    first, second = (plan_operation(context, BulkAction.CLOSE, EventFilter()).id for _ in range(2))
    assert counted() == [2, 0, 0]
    start_operation(context, first)
    assert counted() == [1, 1, 0]
    pause_operation(context, first)
    assert counted() == [1, 0, 1]
    cancel_operation(context, first)
    cancel_operation(context, second)
    assert counted() == [0, 0, 0]


def test_ignored_requests_are_counted_by_rule(harness, monotonic):
    """Ignored requests are counted by source and rule, for all processes."""
    flow = harness.open(start=False)
    assert not [name for name in scrape(flow) if name[0] == "flowhooks_ignored_requests_total"]
    records = [IgnoredRequestRecord("oa", rule, "{}", None, flow.clock.now()) for rule in ("/status = 1", 'a"b\n', "x")]
    flow.app.intake.accept_all([], records)
    flow.app.intake.accept_all([], records[:1])
    monotonic(STATS_TTL_SECONDS + 1)
    found = scrape(flow)
    assert found["flowhooks_ignored_requests_total", "/status = 1", "oa"] == 2
    assert found["flowhooks_ignored_requests_total", 'a"b\n', "oa"] == 1
    assert found["flowhooks_ignored_requests_total", "x", "oa"] == 1


def test_nothing_is_open_after_one_success(harness, listens):
    """After one success nothing is open or old, and nothing is unaccounted for."""
    flow = harness.open(listens(fine))
    flow.settled(flow.take().event_id, State.SUCCEEDED)
    found = scrape(flow)
    assert found["flowhooks_ledger_up",] == 1
    assert found["flowhooks_accepted_total",] == 1
    assert found["flowhooks_events",] == 1
    assert found["flowhooks_unaccounted_events",] == 0
    assert found["flowhooks_parked_events",] == 0
    assert found["flowhooks_oldest_parked_seconds",] == 0
    assert found["flowhooks_processes",] == 1
    assert found["flowhooks_plugin_info", "p", "loaded"] == 1
    assert not [name for name in found if name[0] in {"flowhooks_oldest_delivery_age_seconds", "flowhooks_deliveries"}]


def test_attempts_and_commits_are_counted(harness, listens, eventually):
    """One callback counts one attempt and one delivery with their times, and some commits."""
    flow = harness.open(listens(fine))
    flow.settled(flow.take().event_id, State.SUCCEEDED)
    # This metric of an attempt is counted last, after its outcome is durable.
    eventually(lambda: scrape(flow).get(("flowhooks_delivery_latency_seconds_count", "p:fine")))
    found = scrape(flow)
    assert found["flowhooks_attempts_total", "p:fine", "succeeded"] == 1
    assert found["flowhooks_attempt_duration_seconds_count", "p:fine"] == 1
    assert found["flowhooks_delivery_latency_seconds_count", "p:fine"] == 1
    assert found["flowhooks_commit_batch_size_count",] > 0
    assert found["flowhooks_commit_batch_size_sum",] >= found["flowhooks_commit_batch_size_count",]


def test_a_due_delivery_is_counted_with_its_age(harness, listens):
    """A due delivery is counted, and its age is the time since it was due."""
    go, entered = threading.Event(), threading.Event()

    def slow(event):
        entered.set()
        go.wait(20)

    flow = harness.open(listens(slow), runner={"threads": 1})
    flow.take("i1", wait=0)
    assert entered.wait(20)
    flow.take("i2", wait=0)
    flow.clock.advance(90)
    found = scrape(flow)
    go.set()
    assert found["flowhooks_deliveries", "p:slow", "running"] == 1
    assert found["flowhooks_deliveries", "p:slow", "waiting"] == 1
    assert found["flowhooks_oldest_delivery_age_seconds", "p:slow", "waiting"] == pytest.approx(90, abs=1)
    assert found["flowhooks_running_deliveries",] == 1


def test_a_delivery_that_is_not_due_has_no_age(harness, listens):
    """A delivery that is not due counts as waiting, but has no age."""

    def fails_once(event):
        raise ValueError("not now")

    flow = harness.open(listens(fails_once, retry=Retry()))
    flow.settled(flow.take(wait=0).event_id, State.WAITING, attempt=1)
    found = scrape(flow)
    assert found["flowhooks_deliveries", "p:fails_once", "waiting"] == 1
    assert ("flowhooks_oldest_delivery_age_seconds", "p:fails_once", "waiting") not in found


def test_dead_deliveries_and_parked_events_are_counted(harness, listens):
    """Deliveries that need an operator are counted, with the age of the oldest."""
    flow = harness.open(listens(fails))
    flow.take("i1")
    flow.take("i2", key="nobody")
    flow.clock.advance(3600)
    found = scrape(flow)
    assert found["flowhooks_deliveries", "p:fails", "dead"] == 1
    assert found["flowhooks_oldest_delivery_age_seconds", "p:fails", "dead"] == pytest.approx(3600, abs=1)
    assert found["flowhooks_parked_events",] == 1
    assert found["flowhooks_oldest_parked_seconds",] == pytest.approx(3600, abs=1)


def test_open_alerts_are_counted_with_their_deliveries(harness, listens, monotonic):
    """The metric has the number of open alerts and of their deliveries, also without notifications."""
    flow = harness.open(listens(fails))
    flow.app.alerts.stop(20)
    flow.take("i1")
    flow.app.alerts.poll()
    assert scrape(flow)["flowhooks_alert_items", "dead"] == 1
    flow.take("i2")
    flow.app.alerts.poll()
    monotonic(3600)
    found = scrape(flow)
    assert (found["flowhooks_alerts", "dead"], found["flowhooks_alert_items", "dead"]) == (1, 2)


def test_a_row_deleted_by_hand_is_an_unaccounted_event(harness, listens, monotonic):
    """A row is deleted outside flowhooks: the metric reports a difference of one."""
    harness.check_at_end = False
    flow = harness.open(listens(fine))
    flow.take("i1", key="nobody")
    flow.take("i2", key="nobody")
    assert scrape(flow)["flowhooks_unaccounted_events",] == 0
    flow.sql("DELETE FROM events WHERE flow_instance_id = 'i1'")
    monotonic(3600)
    assert scrape(flow)["flowhooks_unaccounted_events",] == 1


def test_figures_are_cached_for_some_seconds(harness, listens, monotonic):
    """The same figures are returned for some seconds, then they are read again."""
    flow = harness.open(listens(fine))
    assert scrape(flow)["flowhooks_parked_events",] == 0
    flow.take(key="nobody")
    assert scrape(flow)["flowhooks_parked_events",] == 0
    monotonic(STATS_TTL_SECONDS)
    assert scrape(flow)["flowhooks_parked_events",] == 1


def test_process_counters_are_exported_while_the_ledger_is_down(harness, listens, logged, eventually):
    """The process's counters are exported even if the ledger is down, which is exported too."""
    harness.check_at_end = False
    flow = harness.open(listens(fine))
    flow.take()
    attempts = "flowhooks_attempts_total", "p:fine", "succeeded"
    eventually(
        lambda: flow.app.metrics.registry.get_sample_value(
            attempts[0], {"handler": attempts[1], "outcome": attempts[2]}
        )
    )
    if flow.url:
        flow.sql("ALTER TABLE counters RENAME TO elsewhere")
    else:
        flow.sql("DROP TABLE counters")
    try:
        found = scrape(flow)
    finally:
        if flow.url:
            flow.sql("ALTER TABLE elsewhere RENAME TO counters")
    assert found["flowhooks_ledger_up",] == 0
    assert found[attempts] == 1
    assert ("flowhooks_unaccounted_events",) not in found
    assert [record for record in logged if record["event"] == "ledger_metrics_failed"]


def test_only_event_counts_are_omitted_after_a_timeout(harness, listens, monkeypatch, monotonic, logged):
    """If all events cannot be counted in time, only their counts are left out, and they are not counted soon again."""
    flow = harness.open(listens(fine))
    counts = []

    def count(connection):
        counts.append(connection)
        if len(counts) == 1:
            monotonic(10)
            raise LedgerUnusable("the server has not answered for 10 seconds")
        return totals(connection)

    monkeypatch.setattr(reader, "totals", count)
    for _ in range(2):
        found = scrape(flow)
        assert (found["flowhooks_ledger_up",], found["flowhooks_accepted_total",]) == (1, 0)
        assert not {("flowhooks_events",), ("flowhooks_unaccounted_events",)} & set(found)
        monotonic(TOTALS_TTL_SECONDS)
    assert [entry["event"] for entry in logged if entry["log_level"] == "warning"] == ["ledger_metrics_failed"]
    monotonic(10 * COUNT_COST)
    assert scrape(flow)["flowhooks_unaccounted_events",] == 0
    assert len(counts) == 2


@pytest.mark.sqlite
def test_database_file_and_wal_are_measured(harness, listens):
    """The database's file and its write-ahead log are measured."""
    flow = harness.open(listens(fine))
    flow.take()
    found = scrape(flow)
    assert found["flowhooks_database_bytes",] == harness.file.stat().st_size
    assert found["flowhooks_wal_bytes",] > 0
    assert 0 < found["flowhooks_disk_available_bytes",] < found["flowhooks_disk_size_bytes",]


@pytest.mark.sqlite
def test_file_sizes_follow_a_symbolic_link(harness, listens, monkeypatch):
    """If the database is a symbolic link, the write-ahead log and the disk are those of the file that it leads to."""
    disk = harness.file.parent / "disk"
    disk.mkdir()
    harness.file.symlink_to(harness.file.rename(disk / "real.db"))
    usage, measured = shutil.disk_usage, []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: measured.append(folder) or usage(folder))
    flow = harness.open(listens(fine))
    flow.take()
    assert scrape(flow)["flowhooks_wal_bytes",] > 0
    assert free_disk_bytes(f"sqlite:///{harness.file}") is not None
    assert set(measured) == {disk}


@pytest.mark.sqlite
def test_killed_processes_are_not_counted(harness, listens):
    """On SQLite, the owner of the lock is the only process, however many were killed before."""
    for _ in range(2):
        killed = harness.open(listens(fine))
        harness.crash(killed)
        # A killed process is never signed off.
        killed.sql("UPDATE processes SET stopped_at = NULL")
    assert scrape(harness.open(listens(fine)))["flowhooks_processes",] == 1


@pytest.mark.postgresql
def test_postgresql_exports_no_file_size(harness, listens):
    """On PostgreSQL no size of a file is exported, rather than 0."""
    found = scrape(harness.open(listens(fine)))
    assert not [name for name in found if name[0].endswith("_bytes") and not name[0].startswith("process_")]


def test_paused_handlers_and_their_deliveries(harness, listens, monotonic):
    """A paused handler has the value 1; its waiting deliveries are counted, but not as late."""
    flow = harness.open(listens(fine, name="h"), listens(fine, name="other", process_key="order"))
    pause(flow.app.operation_context, ["p:h"])
    flow.take(wait=0)
    flow.clock.advance(60)
    found = scrape(flow)
    assert [name for name in found if name[0] == "flowhooks_handler_paused"] == [("flowhooks_handler_paused", "p:h")]
    assert found["flowhooks_handler_paused", "p:h"] == 1
    assert found["flowhooks_deliveries", "p:h", "waiting"] == 1
    assert ("flowhooks_oldest_delivery_age_seconds", "p:h", "waiting") not in found
    resume(flow.app.operation_context, ["p:h"])
    monotonic(STATS_TTL_SECONDS)
    assert not [name for name in scrape(flow) if name[0] == "flowhooks_handler_paused"]


def test_handlers_with_an_open_circuit(harness, listens, monotonic, eventually):
    """A handler with an open circuit has the value 1, and counts as paused too."""
    flow = harness.open(listens(fails, name="h"), circuit_breaker={"failures": 2})
    for number in range(2):
        flow.settled(flow.take(str(number), wait=0).event_id, State.DEAD)
    eventually(flow.app.ledger.open_circuits)
    found = scrape(flow)
    assert (found["flowhooks_handler_circuit_open", "p:h"], found["flowhooks_handler_paused", "p:h"]) == (1, 1)


def test_metrics_of_each_engine(harness, monotonic):
    """Each engine has its position, last success, skew, gaps and instances by disposition and rule."""
    harness.check_at_end = False
    engines = with_silent_engine()
    flow = harness.open(plugins=engines["plugins"], sources={"oa": silent_source(), "hr": silent_source()}, start=False)
    now = flow.clock.now()
    engine_ledger.position(flow, "oa", succeeded_at=now - 300 * SECOND, read_until=now - 60 * SECOND, skew=-1_500_000)
    engine_ledger.position(
        flow, "hr", succeeded_at=None, failed_since=now, failures=1, to_confirm=7, since=now - SECOND
    )
    engine_ledger.gap(flow, "oa", now - 2, now - 1, "refused")
    engine_ledger.instance(flow, "oa", "1")
    engine_ledger.instance(flow, "oa", "2", disposition="skipped", rule="child")
    found = scrape(flow)
    assert [found["flowhooks_engine_up", source] for source in ("oa", "hr")] == [1, 0]
    assert found["flowhooks_engine_position_age_seconds", "oa"] == 60
    assert [found["flowhooks_engine_last_success_age_seconds", source] for source in ("oa", "hr")] == [300, 1]
    assert found["flowhooks_engine_clock_skew_seconds", "oa"] == -1.5
    assert ("flowhooks_engine_clock_skew_seconds", "hr") not in found
    assert [found["flowhooks_engine_to_confirm", source] for source in ("oa", "hr")] == [0, 7]
    assert [found["flowhooks_engine_history_gaps", source] for source in ("oa", "hr")] == [1, 0]
    assert found["flowhooks_engine_instances", "has_event", "", "oa"] == 1
    assert found["flowhooks_engine_instances", "skipped", "child", "oa"] == 1


def test_a_removed_engine_has_no_metrics(harness, monotonic):
    """A position stays in the ledger, but its age grows in no metric while the settings have no engine of its source.

    A position may be under a former name until the first round of a renamed source.
    """
    harness.check_at_end = False
    engines = with_silent_engine()
    flow = harness.open(plugins=engines["plugins"], start=False)
    engine_ledger.position(flow, "oa", skew=0)

    def sources():
        monotonic(STATS_TTL_SECONDS + 1)
        shown = {"up", "position_age_seconds", "last_success_age_seconds", "clock_skew_seconds", "to_confirm"}
        names = {f"flowhooks_engine_{name}" for name in shown | {"history_gaps", "reconcile_every_seconds"}}
        found = [name for name in scrape(flow) if name[0] in names]
        assert len(found) in {0, len(names)}
        return {source for _, source in found}

    assert sources() == set()
    for name, source in (("oa", silent_source()), ("new", silent_source(former_names=("oa",)))):
        flow.app.reload(replace(flow.app.settings, sources={name: source}))
        assert sources() == {"oa"}
    flow.app.reload(replace(flow.app.settings, sources={"oa": silent_source(engine=None)}))
    assert sources() == set()


def test_counts_of_rare_events_begin_with_zero(harness):
    """Prometheus sees no increase in the first value of a series, and these are 0 for years."""
    flow = harness.open(**with_silent_engine(), start=False)
    flow.app.metrics.expect_notifications(["mail"])
    found = scrape(flow)
    assert found["flowhooks_engine_reconciled_total", "oa"] == found["flowhooks_engine_missed_total", "oa"] == 0
    assert 'flowhooks_alert_notifications_total{plugin="mail",result="failed"} 0.0' in flow.app.metrics.text().decode()


def test_events_from_reconciliation_are_counted(harness):
    """Events that were taken in are counted, and those of a source that can call as missed."""
    flow = harness.open(**with_silent_engine(), start=False)
    flow.app.metrics.taken_in("pulled", missed=False)
    callback = Callback(
        source="oa",
        kind="complete",
        flow_instance_id="4711",
        body={"processDefinitionKey": "leave"},
        text='{"processDefinitionKey": "leave"}',
        origin=Origin.RECONCILED,
        started_at=flow.clock.now() - SECOND,
    )
    for _ in range(2):
        flow.app.reconciliation._take_in_and_count(callback, expects_callbacks=True)
    found = scrape(flow)
    assert found["flowhooks_engine_reconciled_total", "pulled"] == 1
    assert ("flowhooks_engine_missed_total", "pulled") not in found
    assert found["flowhooks_engine_reconciled_total", "oa"] == found["flowhooks_engine_missed_total", "oa"] == 1
