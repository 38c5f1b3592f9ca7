"""The trends of a process: attempts, errors and responses are counted by minute, and stored from time to time."""

from __future__ import annotations

import threading

import pytest

from flowhooks import Reject, Retry, State
from flowhooks.background import trends as module
from flowhooks.background.trends import TrendRecorder
from flowhooks.clock import SECOND
from flowhooks.errors import Unavailable
from flowhooks.ledger.trend_queries import read_trend
from flowhooks.model.error_group import identify
from flowhooks.model.trend import NO_DURATION, OTHERS
from flowhooks.observability.metrics import NO_SOURCE
from support.waiting import WAIT_TIMEOUT

DAY = 86_400


def go(event):
    """Succeed."""


def fail(event):
    """Fail."""
    raise LookupError("no account 4711")


def refuse(event):
    """Refuse the event."""
    raise Reject("no")


def read(flow, kind, subject):
    """The counts of a subject in this day, whatever their bucket, by outcome."""
    now = flow.clock.now()
    with flow.app.ledger.connection() as connection:
        points = read_trend(connection, kind, subject, since=now - DAY * SECOND, until=now + DAY * SECOND, step=2 * DAY)
    return points[0].by_outcome() if points else {}


def subjects(flow, kind):
    """The stored subjects of a kind."""
    return [subject for (subject,) in flow.sql("SELECT DISTINCT subject FROM trends WHERE kind = ?", kind)]


def test_attempts_and_their_errors(harness, listens, eventually):
    """Each attempt is counted by its handler and outcome, and its error in its group, without a duration."""
    flow = harness.open(
        listens(go, name="go"),
        listens(fail, name="fail", process_key="fail", retry=Retry(delays=(60,))),
        listens(refuse, name="refuse", process_key="refuse"),
    )
    for number in range(3):
        flow.take(f"i{number}")
    failed = flow.take("f", key="fail", wait=0).event_id
    flow.settled(failed, State.WAITING, attempt=1)
    flow.take("r", key="refuse")
    eventually(lambda: flow.app.runner.running == 0)  # the thread of an attempt may count it after it is stored
    flow.app.trends.flush()
    assert read(flow, "handler", "p:go") == {"succeeded": 3}
    assert read(flow, "handler", "p:fail") == {"failed": 1}
    assert read(flow, "handler", "p:refuse") == {"rejected": 1}
    groups = dict(flow.sql("SELECT handler, fingerprint FROM error_groups"))
    assert read(flow, "error_group", groups["p:fail"]) == {"failed": 1}
    assert read(flow, "error_group", groups["p:refuse"]) == {"rejected": 1}
    assert set(subjects(flow, "error_group")) == set(groups.values())
    buckets = {bucket for (bucket,) in flow.sql("SELECT bucket FROM trends WHERE kind = 'error_group'")}
    assert buckets == {NO_DURATION}
    assert NO_DURATION not in {bucket for (bucket,) in flow.sql("SELECT bucket FROM trends WHERE kind = 'handler'")}


def test_counts_belong_to_the_minute_in_which_the_attempt_ended(harness, listens, eventually):
    """Attempts of two minutes are in two rows, also if they are stored together."""
    flow = harness.open(listens(go, name="go"))
    minute = flow.clock.now() // (60 * SECOND)
    for number in range(3):
        flow.take(f"i{number}")
        flow.clock.advance(60)
    eventually(lambda: flow.app.runner.running == 0)  # the thread of an attempt may count it after it is stored
    flow.app.trends.flush()
    rows = flow.sql("SELECT started_at, sum(count) FROM trends WHERE kind = 'handler' GROUP BY 1 ORDER BY 1")
    assert [(started_at // (60 * SECOND), int(count)) for started_at, count in rows] == [
        (minute + number, 1) for number in range(3)
    ]


def test_the_counts_are_stored_when_the_process_ends(harness, listens, monkeypatch):
    """A process that stops stores its last counts, also those of attempts whose results it has just stored."""
    monkeypatch.setattr("flowhooks.app.STOP_TIMEOUT", WAIT_TIMEOUT)  # a busy machine needs time to store them
    flow = harness.open(listens(go, name="go"))
    for number in range(20):
        flow.take(f"i{number}", wait=0)
    flow.close()
    succeeded = flow.sql("SELECT count(*) FROM attempts WHERE outcome = 'succeeded'")
    assert flow.sql("SELECT sum(count) FROM trends WHERE kind = 'handler'") == succeeded


def test_the_counts_are_stored_from_time_to_time(harness, listens, monkeypatch, eventually):
    """A running process stores its counts without being asked."""
    monkeypatch.setattr(module, "FLUSH_INTERVAL", 0.01)
    flow = harness.open(listens(go, name="go"))
    flow.take("i1")
    eventually(lambda: read(flow, "handler", "p:go") == {"succeeded": 1})
    flow.take("i2")
    eventually(lambda: read(flow, "handler", "p:go") == {"succeeded": 2})


def test_counts_wait_while_the_database_is_down(harness, listens, monkeypatch, eventually):
    """Counts that could not be stored are stored later, once."""
    # With the five seconds of a server, its own flush could come before the end of the test.
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    flow = harness.open(listens(go, name="go"))
    flow.take("i1")
    eventually(lambda: flow.app.runner.running == 0)  # the thread of an attempt may count it after it is stored
    flow.app.trends.answered("oa", 200, 0.1)
    with flow.locked(timeout=0.05):
        if flow.url:
            flow.app.ledger.write = _unavailable
        flow.app.trends.flush()
        if flow.url:
            del flow.app.ledger.write
    assert read(flow, "handler", "p:go") == {}
    flow.app.trends.answered("oa", 200, 0.1)
    flow.app.trends.flush()
    flow.app.trends.flush()
    assert read(flow, "handler", "p:go") == {"succeeded": 1}
    assert read(flow, "source", "oa") == {"200": 2}


def _unavailable(*_arguments, **_options):
    raise Unavailable("ledger_down")


def test_a_retried_transaction_counts_once(harness):
    """If the transaction of a flush is executed again, each count is stored once."""
    flow = harness.open(start=False)
    flow.app.trends.answered("oa", 200, 0.1)
    write = flow.app.ledger.write

    def twice(function, **options):
        def fail_once(transaction):
            function(transaction)
            flow.app.trends.answered("oa", 200, 0.1)
            raise Unavailable("ledger_down")

        with pytest.raises(Unavailable):
            write(fail_once, **options)
        return write(function, **options)

    flow.app.ledger.write = twice
    flow.app.trends.flush()
    del flow.app.ledger.write
    flow.app.trends.flush()
    assert read(flow, "source", "oa") == {"200": 2}


def test_the_number_of_subjects_is_bounded(harness, monkeypatch):
    """Subjects beyond the maximum are counted together; those that are known go on, and the limit is of one flush."""
    monkeypatch.setattr(module, "MAX_SUBJECTS", {"handler": 1, "source": 3, "error_group": 1})
    flow = harness.open(start=False)
    for turn in range(2):
        for number in range(5):
            flow.app.trends.answered(f"s{number}", 200, 0.1)
        flow.app.trends.answered("s0", 500, 0.1)
        if turn:
            flow.app.trends.answered(NO_SOURCE, 401, 0.1)
    flow.app.trends.flush()
    assert read(flow, "source", "s0") == {"200": 2, "500": 2}
    assert read(flow, "source", OTHERS) == {"200": 4}
    flow.app.trends.answered("s4", 200, 0.1)
    flow.app.trends.flush()
    assert sorted(subjects(flow, "source")) == [OTHERS, "s0", "s1", "s2", "s4"]


def test_the_number_of_waiting_counts_is_bounded(harness, monkeypatch):
    """While nothing can be stored, further counts are dropped, and known ones go on."""
    monkeypatch.setattr(module, "MAX_PENDING", 2)
    flow = harness.open(start=False)
    for status in (200, 404, 500, 200):
        flow.app.trends.answered("oa", status, 0.1)
    flow.app.trends.flush()
    assert read(flow, "source", "oa") == {"200": 2, "404": 1}


def test_errors_beyond_the_groups_of_a_handler(harness):
    """An error that has no group of its own is counted in the group that its attempts are in."""
    flow = harness.open(start=False)
    pending = flow.app.trends._pending
    pending.add(("error_group", identify("p:h", "E", "m"), 29_000_000, "failed", NO_DURATION))
    flow.app.trends.flush()
    assert subjects(flow, "error_group") == [identify("p:h", "other", "").fingerprint]


def test_counting_in_many_threads_loses_nothing(harness, together):
    """No count of several threads is lost, also while the counts are stored."""
    flow = harness.open(start=False)
    stop = threading.Event()

    def flush():
        while not stop.is_set():
            flow.app.trends.flush()

    def count():
        for number in range(500):
            flow.app.trends.answered(f"s{number % 3}", 200, 0.1)

    flushing = threading.Thread(target=flush)
    flushing.start()
    together(count, count, count)
    stop.set()
    flushing.join(WAIT_TIMEOUT)
    flow.app.trends.flush()
    assert flow.sql("SELECT sum(count) FROM trends") == [(1_500,)]


@pytest.mark.postgresql
def test_processes_share_rows(harness, listens, eventually):
    """The counts of two processes of one handler are added up."""
    flows = [harness.open(listens(go, name="go")) for _ in range(2)]
    for number, flow in enumerate(flows):
        flow.take(f"i{number}")
        flow.app.trends.answered("oa", 200, 0.1)
    # The thread of an attempt may count it after it is stored.
    eventually(lambda: [flow.app.runner.running for flow in flows] == [0, 0])
    for flow in flows:
        flow.app.trends.flush()
    assert read(flows[0], "handler", "p:go") == {"succeeded": 2}
    assert flows[0].sql("SELECT count, bucket FROM trends WHERE kind = 'source'") == [(2, 100)]


def test_a_fault_does_not_end_the_thread(harness, monkeypatch, logged, eventually):
    """A defect is logged and loses the counts of one flush; later counts are stored."""
    monkeypatch.setattr(module, "FLUSH_INTERVAL", 0.01)
    to_rows = module._to_rows

    def broken(*given):
        # A transaction that fails together with others is executed again, alone.
        if not [record for record in logged if record["event"] == "trend_fault"]:
            raise LookupError("a defect")
        return to_rows(*given)

    monkeypatch.setattr(module, "_to_rows", broken)
    flow = harness.open()
    flow.app.trends.answered("oa", 200, 0.1)
    eventually(lambda: [record for record in logged if record["event"] == "trend_fault"])
    flow.app.trends.answered("oa", 200, 0.1)
    eventually(lambda: read(flow, "source", "oa"))


def test_a_recorder_that_was_not_started_stores_its_counts(harness):
    """A process that starts no threads stores its counts when it stops."""
    flow = harness.open(start=False)
    recorder = TrendRecorder(flow.app.ledger, flow.clock)
    recorder.answered("oa", 200, 0.1)
    recorder.stop(WAIT_TIMEOUT)
    assert read(flow, "source", "oa") == {"200": 1}
