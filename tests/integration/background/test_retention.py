"""Retention: data older than the settings allow is deleted automatically and logged once."""

from __future__ import annotations

import threading
from functools import partial
from types import SimpleNamespace

import pytest

from flowhooks import Reject, Retry
from flowhooks.background import clock_trust
from flowhooks.background import retention as module
from flowhooks.clock import id_lower_bound
from flowhooks.ledger.alert_queries import missing_handlers
from flowhooks.ledger.ledger import Ledger
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.operations.bulk import plan_operation
from support.waiting import until

DAY = 86_400


def fail(event):
    """Fail finally."""
    raise Reject("no")


def lose(event):
    """Fail, to be repeated."""
    raise OSError("no")


def go(event):
    """Succeed."""


def events(harness, listens, **retention):
    """A ledger with a succeeded, a dead, a parked and a dismissed event, by name, under these settings."""
    flow = harness.open(
        listens(go, name="go"),
        listens(fail, name="fail", process_key="fail"),
        routing={"ignore_process_keys": ("ignored",)},
        retention=retention,
    )
    keys = {"succeeded": "leave", "dead": "fail", "parked": "nobody", "dismissed": "ignored"}
    return flow, {name: flow.take(name, key=key).event_id for name, key in keys.items()}


def left(flow, ids):
    """The names of the events that still exist."""
    there = set(flow.events())
    return {name for name, event_id in ids.items() if event_id in there}


def test_finished_events_are_purged_after_400_days_by_default(harness, listens):
    """Finished events and their identities are purged after 400 days; dead and parked ones stay forever."""
    flow, ids = events(harness, listens)
    flow.clock.advance(399 * DAY)
    assert not any(flow.app.retention.run(flow.clock.now()).values())
    flow.clock.advance(2 * DAY)
    assert flow.app.retention.run(flow.clock.now())["events"] == 2
    assert left(flow, ids) == {"dead", "parked"}
    assert flow.sql("SELECT count(*) FROM purged_identities") == [(0,)]
    flow.clock.advance(10_000 * DAY)
    flow.app.retention.run(flow.clock.now())
    assert left(flow, ids) == {"dead", "parked"}


def test_each_state_has_its_own_retention(harness, listens):
    """Each state has its own retention, and 0 means forever."""
    flow, ids = events(harness, listens, succeeded=30, dismissed=0, dead=90, parked=60)
    for days, stay in ((31, {"dead", "parked", "dismissed"}), (30, {"dead", "dismissed"}), (30, {"dismissed"})):
        flow.clock.advance(days * DAY)
        flow.app.retention.run(flow.clock.now())
        assert left(flow, ids) == stay


def test_nothing_is_deleted_with_all_retention_off(harness, listens):
    """With all retention off nothing is deleted."""
    off = dict.fromkeys(("succeeded", "closed", "dismissed", "identities", "audit", "alerts", "trend_hours"), 0)
    flow, ids = events(harness, listens, **off)
    flow.clock.advance(10_000 * DAY)
    assert not any(flow.app.retention.run(flow.clock.now()).values())
    assert left(flow, ids) == set(ids)


def test_identities_are_deleted_after_their_retention(harness, listens):
    """Within the retention a repeated callback is recognised; afterwards it is a new event."""
    flow, ids = events(harness, listens, succeeded=30, identities=100)
    flow.clock.advance(31 * DAY)
    flow.app.retention.run(flow.clock.now())
    assert flow.take("succeeded").event_id == ids["succeeded"]
    flow.clock.advance(70 * DAY)
    assert flow.app.retention.run(flow.clock.now())["identities"] == 1
    again = flow.take("succeeded")
    assert again.status == "done"
    assert again.event_id != ids["succeeded"]


def test_ids_of_signed_callbacks_are_deleted_after_a_day(harness, listens):
    """Ids of signed callbacks are deleted a day later, when their signatures have long expired."""
    flow, _ = events(harness, listens, succeeded=0, closed=0, dismissed=0, identities=0, audit=0, alerts=0)
    flow.take("i1", message="m1")
    flow.clock.advance(DAY)
    assert not any(flow.app.retention.run(flow.clock.now()).values())
    flow.clock.advance(1)
    assert flow.app.retention.run(flow.clock.now())["signatures"] == 1
    assert flow.sql("SELECT count(*) FROM webhook_ids") == [(0,)]


def test_old_audit_entries_and_alerts_are_deleted(harness, listens):
    """Old entries of the audit log and alerts closed long ago are deleted; open alerts stay."""
    flow, _ = events(harness, listens)
    start = flow.clock.now()
    for number, closed in enumerate((start, start + 300 * DAY * 1_000_000, None)):
        flow.sql(
            "INSERT INTO alerts "
            "(id, cause, subject, message, started_at, count, event_id, opened_at, notified, closed_at)"
            " VALUES (?, 'dead', ?, '', 1, 1, '', ?, '[]', ?)",
            f"{id_lower_bound(start)[:-1]}{number}",
            f"p:{number}",
            start,
            closed,
        )
    flow.sql(
        "INSERT INTO audit_log (id, at, actor, interface, action, target, detail) "
        "VALUES (?, 1, 'a', 'api', 'b', '', '{}')",
        id_lower_bound(start),
    )
    flow.clock.advance(401 * DAY)
    gone = flow.app.retention.run(flow.clock.now())
    assert (gone["audit"], gone["alerts"]) == (1, 1)
    assert flow.sql("SELECT count(*) FROM alerts WHERE event_id = ''") == [(2,)]


def processes(flow):
    """The ids of the processes that the ledger knows, in the order of their start."""
    return [process for (process,) in flow.sql("SELECT id FROM processes ORDER BY id")]


def test_processes_that_ended_long_ago_are_deleted(harness, listens):
    """A process is kept while an attempt or an operation refers to it; the counts of deleted ones stay."""
    opened = []

    def restart():
        flow = harness.open(listens(go, name="go"), listens(fail, name="fail", process_key="fail"))
        flow.clock.advance(60)
        opened.append(flow.app.ledger.process)
        return flow

    restart().close()  # the first one tells how old the ledger is
    for key in ("leave", "fail"):
        flow = restart()
        flow.take(f"of-{key}", key=key)
        flow.close()
    flow = restart()
    plan_operation(flow.app.operation_context, BulkAction.REPLAY, EventFilter(state="dead"))
    flow.close()
    restart().close()
    flow = restart()
    first, succeeded, dead, releasing, idle, present = opened
    # As after a kill: a process that stops gives up its operations.
    flow.sql("UPDATE operations SET state = 'paused', started_at = created_at, process = ?", releasing)
    assert processes(flow) == opened
    flow.clock.advance(399 * DAY)
    assert "processes" not in flow.app.retention.run(flow.clock.now())
    flow.clock.advance(2 * DAY)
    assert flow.app.retention.run(flow.clock.now())["processes"] == 2
    assert processes(flow) == [first, dead, releasing, present]
    assert not {succeeded, idle} & {process for (process,) in flow.sql("SELECT process FROM counters")}
    flow.take("present")  # alerts that are newer than all events look impossible
    checked = flow.app.ledger.verify()
    assert (checked.problems, checked.accepted, checked.purged) == ([], 3, 1)


def test_an_alert_names_the_same_start_after_processes_are_deleted(harness, listens):
    """The alert about a missing handler names the same time after older processes were deleted."""
    flow = harness.open(listens(go, name="gone"), start=False)
    flow.take(wait=0)
    flow.clock.advance(60)
    flow.close()
    for is_last in (False, False, False, True):
        flow = harness.open()
        flow.clock.advance(60)
        if not is_last:
            flow.close()
    first, missing, _second, _third, present = processes(flow)
    flow.clock.advance(401 * DAY)

    def since():
        with flow.app.ledger.connection() as connection:
            return [issue.since for issue in missing_handlers(connection, before=flow.clock.now(), deliberate=False)]

    flow.sql("UPDATE deliveries SET due_at = NULL")  # as processes that share a ledger do in a while
    before = since()
    assert before
    assert flow.app.retention.run(flow.clock.now())["processes"] == 2
    assert processes(flow) == [first, missing, present]
    assert since() == before


def test_the_processes_of_many_attempts_are_read_in_parts(harness, listens, monkeypatch):
    """Parts that end between two attempts of one delivery miss no process."""
    monkeypatch.setattr(module, "ATTEMPTS_PER_READ", 1)
    again = listens(lose, name="again", retry=Retry(attempts=3, delays=[60], jitter=0))
    harness.open(again).close()
    for attempt in (1, 2, 3):
        flow = harness.open(again)
        if attempt == 1:
            flow.take(wait=0)
        until(partial(is_made, flow, attempt))
        if attempt < 3:
            flow.close()  # before the next attempt is due
        flow.clock.advance(61)
    opened = processes(flow)
    assert len(opened) == 4
    flow.clock.advance(401 * DAY)
    flow.app.retention.run(flow.clock.now())
    assert processes(flow) == opened


def is_made(flow, attempt):
    """Tell whether an attempt of the only delivery has ended."""
    return flow.sql("SELECT count(*) FROM attempts WHERE finished_at IS NOT NULL") == [(attempt,)]


def trend_rows(flow):
    """The number of counts and their sum, by resolution."""
    rows = flow.sql("SELECT resolution, count(*), sum(count) FROM trends GROUP BY 1 ORDER BY 1")
    return {resolution: (number, int(total)) for resolution, number, total in rows}


def count_minutes(flow, *, days=0, minutes=120):
    """Store a count of a handler and of a source for each of these minutes, which end some days ago."""
    end = flow.clock.now() - days * DAY * 1_000_000
    end -= end % 3_600_000_000
    for number in range(1, minutes + 1):
        for kind, subject, outcome in (("handler", "p:go", "succeeded"), ("source", "oa", "200")):
            at = end - number * 60_000_000
            flow.sql("INSERT INTO trends VALUES (?, ?, 60, ?, ?, 5, 2)", kind, subject, at, outcome)


def test_old_minutes_of_trends_become_hours(harness, listens, logged, monkeypatch):
    """After 8 days, minutes are combined by the hour, none is lost, and hours are deleted after 400 days."""
    monkeypatch.setattr(module, "TREND_BATCH_SIZE", 50)
    flow = harness.open(listens(go, name="go"))
    count_minutes(flow, days=1)
    count_minutes(flow, days=9)
    assert not any(flow.app.retention.run(flow.clock.now()).values())
    assert trend_rows(flow) == {60: (240, 480), 3600: (4, 480)}
    assert not [record for record in logged if record["event"] == "purge_finished"]
    flow.clock.advance(8 * DAY)
    flow.app.retention.run(flow.clock.now())
    assert trend_rows(flow) == {3600: (8, 960)}
    flow.clock.advance(390.5 * DAY)
    flow.app.retention.run(flow.clock.now())
    assert trend_rows(flow) == {3600: (4, 480)}
    (line,) = [record for record in logged if record["event"] == "purge_finished"]
    assert line["trends"] == 4


def test_the_retention_of_trends_is_a_live_setting(harness, listens):
    """Counts are kept as the present settings say; 0 keeps minutes, and hours, forever."""
    flow = harness.open(listens(go, name="go"), retention={"trend_minutes": 0, "trend_hours": 0})
    count_minutes(flow, days=9, minutes=60)
    for days, settings, expected in (
        (1_000, {"trend_minutes": 0, "trend_hours": 0}, {60: (120, 240)}),
        (0, {"trend_minutes": 1, "trend_hours": 0}, {3600: (2, 240)}),
        (10_000, {"trend_minutes": 1, "trend_hours": 0}, {3600: (2, 240)}),
        (0, {"trend_minutes": 0, "trend_hours": 1}, {}),
    ):
        flow.clock.advance(days * DAY)
        flow.app.reload(harness.settings(allow=("p",), retention=settings))
        flow.app.retention.run(flow.clock.now())
        assert trend_rows(flow) == expected


def test_minutes_with_a_longer_retention_than_hours(harness, listens):
    """Counts that are older than the retention of trends are deleted, also if they are not combined yet."""
    flow = harness.open(listens(go, name="go"), retention={"trend_minutes": 8, "trend_hours": 2})
    count_minutes(flow, days=1)
    count_minutes(flow, days=3)
    assert flow.app.retention.run(flow.clock.now())["trends"] == 240
    assert trend_rows(flow) == {60: (240, 480)}


def test_one_run_deletes_a_bounded_number_of_trends(harness, listens, monkeypatch):
    """A clock that is wrong for a while deletes only a part."""
    monkeypatch.setattr(module, "TREND_BATCH_SIZE", 10)
    monkeypatch.setattr(module, "MAX_TREND_ROWS_PER_RUN", 100)
    flow = harness.open(listens(go, name="go"), retention={"trend_hours": 2})
    count_minutes(flow, days=3)
    assert flow.app.retention.run(flow.clock.now())["trends"] == 100
    assert flow.app.retention.run(flow.clock.now())["trends"] == 100
    assert flow.app.retention.run(flow.clock.now())["trends"] == 40


def test_a_run_is_logged_once_with_its_counts(harness, listens, logged, monkeypatch):
    """A run of any number of transactions is logged once; a run without deletions is not logged."""
    monkeypatch.setattr(module, "BATCH_SIZE", 2)
    flow = harness.open(listens(go, name="go"), retention={"succeeded": 1})
    for number in range(5):
        flow.take(f"i{number}")
    flow.clock.advance(2 * DAY)
    flow.app.retention.run(flow.clock.now())
    flow.app.retention.run(flow.clock.now())
    (line,) = [record for record in logged if record["event"] == "purge_finished"]
    assert (line["events"], line["deliveries"]) == (5, 5)


def test_retention_starts_automatically_and_only_in_the_leader(harness, listens, monkeypatch, eventually):
    """Only the leading process deletes, and losing the lead stops it at once."""
    monkeypatch.setattr(module, "FIRST_RUN_DELAY", 0.01)
    monkeypatch.setattr(module, "PURGE_INTERVAL", 0.01)
    monkeypatch.setattr(clock_trust, "DOUBT_SECONDS", 0.0)
    leads = threading.Event()
    asked = threading.Event()
    monkeypatch.setattr(Ledger, "is_leader", lambda _ledger: asked.set() or leads.is_set())
    flow = harness.open(listens(go, name="go"), retention={"succeeded": 1})
    flow.take("i1")
    flow.clock.advance(2 * DAY)
    asked.clear()
    assert asked.wait(20)
    assert len(flow.events()) == 1
    leads.set()
    eventually(lambda: not flow.events())


def test_a_database_failure_does_not_end_retention(harness, listens, monkeypatch, eventually, logged):
    """A database failure is logged once, and a later run deletes the data."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    monkeypatch.setattr(module, "FIRST_RUN_DELAY", 0.01)
    monkeypatch.setattr(module, "PURGE_INTERVAL", 0.01)
    monkeypatch.setattr(clock_trust, "DOUBT_SECONDS", 0.0)
    flow = harness.open(listens(go, name="go"), retention={"succeeded": 1})
    flow.take("i1")
    with flow.locked():  # a shorter timeout would be another failure, if the writer began too late
        flow.clock.advance(2 * DAY)
        eventually(lambda: [record for record in logged if record["event"] == "purge_failed"])
    eventually(lambda: not flow.events())
    assert len([record for record in logged if record["event"] == "purge_failed"]) == 1


@pytest.mark.sqlite
def test_retention_pauses_after_each_transaction(harness, listens, monkeypatch):
    """After each transaction it pauses nine times as long."""
    monkeypatch.setattr(module, "BATCH_SIZE", 1)
    flow = harness.open(listens(go, name="go"), retention={"succeeded": 1})
    for number in range(3):
        flow.take(f"i{number}")
    flow.clock.advance(2 * DAY)
    pauses = []
    # Not the one of the app, whose thread may only now begin to wait for its first run.
    retention = module.Retention(ledger=flow.app.ledger, settings=flow.app.settings.retention, trust=None)
    monkeypatch.setattr(retention._stopping, "wait", pauses.append)
    times = iter(range(100))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(times))))
    retention._purge_events(module.Counter(), module.MIN_ROWS_PER_RUN, flow.clock.now())
    assert pauses == pytest.approx([9.0] * 3)
