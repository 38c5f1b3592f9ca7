"""The runner on PostgreSQL jobs: a job is stored with its delivery, and a lost, doubled or late job is harmless."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing

import psycopg
import pytest

from flowhooks import Retry, State
from flowhooks.app import App
from flowhooks.clock import SECOND, Clock
from flowhooks.errors import LedgerUnusable, SettingsError, Unavailable
from flowhooks.execution.runners import procrastinate, procrastinate_schema
from flowhooks.ledger.database.engines import IDLE_SECONDS
from flowhooks.ledger.reader import Reader
from flowhooks.settings import RunnerSettings, Settings

pytestmark = pytest.mark.postgresql

KIND = {"kind": "procrastinate"}


@pytest.fixture
def clock():
    """The real clock, because PostgreSQL uses its own to decide when a job is due."""
    return Clock()


@pytest.fixture(autouse=True)
def no_jobs(postgresql_url):
    """Empty job tables."""
    procrastinate_schema.upgrade(postgresql_url)
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("TRUNCATE procrastinate_jobs, procrastinate_workers CASCADE")


def count_jobs(flow):
    """The number of jobs."""
    return flow.sql("SELECT count(*) FROM procrastinate_jobs")[0][0]


def test_a_call_back_is_answered_with_its_handlers_outcome(harness, listens, eventually):
    """The delivery is stored as waiting with a job, runs once, and the job is deleted."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"), runner=KIND)
    answers = [flow.take(f"i{number}") for number in range(5)]
    assert {one.delivery_statuses[0].state for one in answers} == {State.SUCCEEDED}
    assert sorted(runs) == [f"i{number}" for number in range(5)]
    eventually(lambda: count_jobs(flow) == 0)


def test_a_job_is_stored_with_its_delivery_or_not_at_all(harness, listens):
    """The accepting transaction stores the job with the event; a repeated callback gets none."""
    flow = harness.open(listens(lambda event: None, name="h"), start=False, runner=KIND)
    flow.take("i1", wait=0)
    flow.take("i1", wait=0)
    assert flow.sql("SELECT queue_name, status::text, args->>'attempt' FROM procrastinate_jobs") == [
        ("p:h", "todo", "0")
    ]

    def comes_to_nothing(transaction):
        flow.app.runner.enqueue(transaction, [procrastinate.ReadyDelivery("d", "p:h", 0)], 0)
        raise LedgerUnusable("on purpose")

    with pytest.raises(LedgerUnusable):
        flow.app.ledger.write(comes_to_nothing)
    assert count_jobs(flow) == 1


def test_a_lost_job_is_made_again(harness, listens, eventually):
    """A waiting delivery without a job gets one."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"), start=False, runner=KIND)
    event_id = flow.take("i1", wait=0).event_id
    flow.sql("DELETE FROM procrastinate_jobs")
    flow.app.start()
    flow.settled(event_id, State.SUCCEEDED)
    assert runs == ["i1"]


def test_a_job_that_died_with_its_worker_is_made_again(harness, listens):
    """The job of an ended worker is replaced, because it would stay taken forever."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"), start=False, runner=KIND)
    event_id = flow.take("i1", wait=0).event_id
    flow.sql("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour')")
    flow.sql("UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT max(id) FROM procrastinate_workers)")
    flow.app.start()
    flow.settled(event_id, State.SUCCEEDED)
    assert runs == ["i1"]


def test_a_worker_that_fell_silent_in_a_transaction_holds_up_nobody(harness, listens):
    """Rows that an unreachable worker locks are skipped until PostgreSQL ends it; other jobs are made meanwhile."""
    flow = harness.open(listens(lambda event: None, name="h"), start=False, runner=KIND)
    for instance in ("taken", "lost"):
        flow.take(instance, wait=0)
    flow.sql("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour')")
    flow.sql("DELETE FROM procrastinate_jobs WHERE id = (SELECT max(id) FROM procrastinate_jobs)")
    taken = "UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT max(id) FROM procrastinate_workers)"
    with psycopg.connect(flow.url) as silent:
        silent.execute(taken)
        flow.app.runner._sweep(0.0)
        assert flow.sql("SELECT count(*) FROM procrastinate_workers") == [(1,)]
        assert count_jobs(flow) == 2
        silent.commit()
        with silent.transaction():
            silent.execute("SELECT FROM procrastinate_jobs WHERE status = 'doing' FOR UPDATE")
            flow.app.runner._sweep(0.0)
    flow.app.runner._sweep(0.0)
    assert flow.sql("SELECT count(*) FROM procrastinate_workers") == [(0,)]
    assert flow.sql("SELECT status::text FROM procrastinate_jobs") == [("todo",)] * 2


def test_a_connection_that_falls_silent_in_a_transaction_is_to_be_ended_by_the_server(postgresql_url):
    """PostgreSQL ends idle transactions, because behind a proxy it does not notice that the client is gone."""
    options = procrastinate._options(postgresql_url)
    with psycopg.connect(postgresql_url, options=options) as connection:
        shown = connection.execute("SHOW idle_in_transaction_session_timeout").fetchone()
        assert shown == (f"{IDLE_SECONDS}s",)


def test_a_job_of_an_attempt_that_is_over_hides_nothing(harness, listens):
    """A due delivery has a job of its own, although the job of a lost attempt is still there."""
    listener = listens(lambda event: None, name="h", probe=lambda event, delivery: None)
    lost = harness.open(listener, start=False, runner=KIND)
    lost.take("i1", wait=0)
    assert lost.app.ledger.claim(lost.app.ledger.due_deliveries(lost.clock.now(), lambda _handler: 1)[0])
    harness.crash(lost)
    flow = harness.open(listener, start=False, runner=KIND)
    for _ in range(2):
        flow.app.runner._sweep(0.0)
        jobs_of_it = "SELECT args->>'attempt', args->>'probe' FROM procrastinate_jobs ORDER BY id"
        assert flow.sql(jobs_of_it) == [("0", None), ("1", "true")]


def test_a_delivery_that_could_not_be_marked_is_run_soon_after(harness, listens, monkeypatch, eventually):
    """A delivery whose job is gone gets another one, although it became due only just before."""
    monkeypatch.setattr(procrastinate, "SWEEP_INTERVAL", 0.2)
    monkeypatch.setattr(procrastinate, "LOST_JOB_THRESHOLD_SECONDS", 1_000.0)
    runs = []
    flow = harness.open(listens(lambda event: runs.append(1), name="h"), runner=KIND)
    real, refused = flow.app.ledger.claim, []

    def claim(queued):
        if not refused:
            refused.append(queued)
            raise Unavailable("ledger_down")
        return real(queued)

    monkeypatch.setattr(flow.app.ledger, "claim", claim)
    flow.settled(flow.take("i1", wait=0).event_id, State.SUCCEEDED, attempt=1)
    assert runs == [1]
    assert len(refused) == 1


def test_a_doubled_job_runs_once(harness, listens, eventually):
    """Of several jobs of one delivery, one claims it."""
    runs = Counter()
    flow = harness.open(listens(lambda event: runs.update([event.id]), name="h"), start=False, runner=KIND)
    event_id = flow.take("i1", wait=0).event_id
    columns = "queue_name, task_name, args"
    for _ in range(5):
        flow.sql(f"INSERT INTO procrastinate_jobs ({columns}) SELECT {columns} FROM procrastinate_jobs LIMIT 1")
    flow.app.start()
    flow.settled(event_id, State.SUCCEEDED)
    eventually(lambda: count_jobs(flow) == 0)
    assert runs == {event_id: 1}


def test_a_retry_is_made_when_it_is_due(harness, listens):
    """A retry has its job at once, which is fetched when it is due."""
    runs = []

    def fails_at_first(event, delivery):
        runs.append(delivery.attempt)
        if delivery.attempt < 3:
            raise OSError("not yet")

    flow = harness.open(listens(fails_at_first, retry=Retry(attempts=3, delays=[0.05], jitter=0)), runner=KIND)
    flow.settled(flow.take("i1", wait=0).event_id, State.SUCCEEDED, attempt=3)
    assert runs == [1, 2, 3]


class Off(Clock):
    """A clock that is set wrongly."""

    def __init__(self, days):
        self.days = days

    def now(self):
        """The time of the wrong clock."""
        return super().now() + self.days * 86_400 * SECOND


@pytest.mark.parametrize("days", [-1, 1])
def test_a_retry_is_neither_early_nor_late_where_the_clock_is_wrong(harness, listens, days):
    """The job is due after the delay by PostgreSQL's clock, whatever this machine's clock shows."""

    def fails(event):
        raise OSError("not yet")

    harness.clock = Off(days)
    flow = harness.open(listens(fails, retry=Retry(delays=[60], jitter=0)), runner=KIND)
    flow.settled(flow.take("i1", wait=0).event_id, State.WAITING, attempt=1)
    assert flow.sql(
        "SELECT scheduled_at > now() + interval '30 s', scheduled_at < now() + interval '61 s'"
        " FROM procrastinate_jobs WHERE scheduled_at IS NOT NULL"
    ) == [(True, True)]


def test_one_handler_gets_half_of_the_threads(harness, listens, gate, eventually):
    """With a backlog of one handler, another handler runs meanwhile, and then the rest of the backlog."""
    flow = harness.open(
        listens(gate, name="gate"),
        listens(lambda event: "done", name="other", process_key="other"),
        runner=KIND | {"threads": 4},
    )
    for number in range(12):
        flow.take(f"i{number}", wait=0)
    assert gate.enter(2)
    for number in range(6):
        assert flow.take(f"o{number}", key="other").delivery_statuses[0].state is State.SUCCEEDED
    assert len(gate.runs) == 2
    assert flow.app.runner.running == 2
    gate.opened.set()
    eventually(flow.at_rest)
    assert sorted(gate.runs) == sorted(f"i{number}" for number in range(12))


def test_a_handler_with_a_long_name_has_a_queue(harness, listens):
    """A handler with a long name gets a queue, although PostgreSQL limits names of notifications."""
    name = "h" * 60
    flow = harness.open(listens(lambda event: None, name=name), runner=KIND)
    assert flow.take().delivery_statuses[0].state is State.SUCCEEDED
    assert procrastinate.queue_of(f"p:{name}") != procrastinate.queue_of(f"p:{name[1:]}")
    assert procrastinate.queue_of("合同:归档") == "合同:归档"


def test_stopping_waits_for_what_runs_and_leaves_the_rest(harness, listens, gate):
    """Deliveries that have not started run in the next process."""
    flow = harness.open(listens(gate, name="gate"), runner=KIND | {"threads": 2})
    events = [flow.take(f"i{number}", wait=0).event_id for number in range(4)]
    assert gate.enter(1)
    flow.app.begin_shutdown()
    ending = threading.Timer(0.1, gate.opened.set)
    ending.start()
    assert flow.close()
    states = Counter(one.state for event_id in events for one in _stored(harness, event_id))
    assert states == {State.SUCCEEDED: 1, State.WAITING: 3}
    again = harness.open(listens(gate, name="gate"), runner=KIND)
    for event_id in events:
        again.settled(event_id, State.SUCCEEDED)
    assert sorted(gate.runs) == [f"i{number}" for number in range(4)]


def _stored(harness, event_id):
    with closing(Reader(harness.address)) as reader:
        return reader.delivery_statuses(event_id)


def test_a_worker_whose_connections_are_cut_goes_on(harness, listens, eventually):
    """A worker continues after all its connections, including the ledger's, were cut at once."""
    flow = harness.open(listens(lambda event: None, name="h"), runner=KIND)
    assert flow.take("before").delivery_statuses[0].state is State.SUCCEEDED
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    assert flow.sql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}")[0][0] > 0

    def taken():
        try:
            return flow.take("after", wait=1).delivery_statuses[0].state is State.SUCCEEDED
        except Unavailable:
            return False

    eventually(taken)


def test_a_worker_that_has_failed_begins_anew(harness, listens, logged, eventually):
    """A failed worker reports that it cannot fetch jobs, and later fetches those that were stored."""
    flow = harness.open(listens(lambda event: None, name="h"), runner=KIND)
    assert flow.take("before").delivery_statuses[0].state is State.SUCCEEDED
    event_id = None
    flow.sql("ALTER FUNCTION procrastinate_fetch_job_v2 RENAME TO gone")
    try:
        eventually(flow.app.runner.health)
        event_id = flow.take("meanwhile", wait=0).event_id
        assert "procrastinate_fetch_job_v2" in next(one for one in logged if one["event"] == "fetch_jobs_failed")["why"]
    finally:
        flow.sql("ALTER FUNCTION gone RENAME TO procrastinate_fetch_job_v2")
    flow.settled(event_id, State.SUCCEEDED)
    eventually(lambda: flow.app.runner.health() is None)


def test_what_was_taken_and_not_run_is_found_again(harness, listens, monkeypatch):
    """A job that an outage left as taken by a running worker is found, because no worker would take it again."""
    monkeypatch.setattr(procrastinate, "SWEEP_INTERVAL", 0.2)
    monkeypatch.setattr(procrastinate, "LOST_JOB_THRESHOLD_SECONDS", 0.0)
    flow = harness.open(listens(lambda event: None, name="h"), start=False, runner=KIND)
    event_id = flow.take("i1", wait=0).event_id
    flow.sql("INSERT INTO procrastinate_workers DEFAULT VALUES")
    flow.sql("UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT max(id) FROM procrastinate_workers)")
    flow.app.start()
    flow.settled(event_id, State.SUCCEEDED)


def test_it_needs_postgresql(tmp_path, clock):
    """On SQLite the runner is refused with the reason."""
    settings = Settings(database=str(tmp_path / "x.db"), plugins_allow=("none",), runner=RunnerSettings(**KIND))
    with pytest.raises(SettingsError, match="needs PostgreSQL"):
        App(settings, clock=clock)
