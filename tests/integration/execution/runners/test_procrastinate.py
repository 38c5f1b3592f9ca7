"""The runner on PostgreSQL jobs: a job says that a handler has work, and a lost, doubled or late job is harmless."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from types import SimpleNamespace

import psycopg
import pytest

from flowhooks import Retry, State
from flowhooks.app import App
from flowhooks.clock import SECOND, Clock
from flowhooks.errors import LedgerUnusable, SettingsError, Unavailable
from flowhooks.execution.runners import (
    handler_slots,
    job_connections,
    job_queue,
    job_sweeper,
    procrastinate,
    procrastinate_schema,
)
from flowhooks.ledger.database.engines import IDLE_SECONDS
from flowhooks.ledger.reader import Reader
from flowhooks.model.ready_delivery import ReadyDelivery
from flowhooks.operations.pause import pause, resume
from flowhooks.settings import RunnerSettings, Settings
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.postgresql

KIND = {"kind": "procrastinate"}
ONLY_JOBS = KIND | {"threads": 1}
"""With one thread, no delivery starts while its callback is stored: each one needs a job."""


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


@contextmanager
def writer_held(flow):
    """A context in which the writer waits, so that it then commits together what is queued meanwhile."""
    is_writing, may_commit = threading.Event(), threading.Event()

    def hold(_transaction):
        is_writing.set()
        assert may_commit.wait(WAIT_TIMEOUT)

    holder = threading.Thread(target=flow.app.ledger.write, args=(hold,))
    holder.start()
    assert is_writing.wait(WAIT_TIMEOUT)
    try:
        yield
    finally:
        may_commit.set()
        holder.join(WAIT_TIMEOUT)


def sweep(flow):
    """Sweep at once for all processes, whichever process does so otherwise."""
    with flow.app.ledger.connection() as connection:
        sweeper = flow.app.runner.sweeper
        sweeper._store(sweeper._overdue(connection))


def test_a_callback_is_answered_with_its_handlers_outcome(harness, listens, eventually):
    """A delivery that has no free thread is stored as waiting with a job, runs once, and the job is deleted."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"), runner=ONLY_JOBS)
    answers = [flow.take(f"i{number}") for number in range(5)]
    assert {answer.delivery_statuses[0].state for answer in answers} == {State.SUCCEEDED}
    assert sorted(runs) == [f"i{number}" for number in range(5)]
    eventually(lambda: count_jobs(flow) == 0)


def test_a_job_is_stored_in_the_transaction_of_its_delivery(harness, listens):
    """The accepting transaction stores the job with the event; a repeated callback gets none."""
    flow = harness.open(listens(lambda event: None, name="h"), start=False, runner=KIND)
    flow.take("i1", wait=0)
    flow.take("i1", wait=0)
    assert flow.sql("SELECT queue_name, status::text, args->>'handler' FROM procrastinate_jobs") == [
        ("p:h", "todo", "p:h")
    ]

    def comes_to_nothing(transaction):
        flow.app.ledger.runner.enqueue(transaction, [ReadyDelivery("d", "p:h", 0)], 0)
        raise LedgerUnusable("on purpose")

    with pytest.raises(LedgerUnusable):
        flow.app.ledger.write(comes_to_nothing)
    assert count_jobs(flow) == 1


def test_a_start_stores_missing_jobs(harness, listens):
    """A process stores jobs for the deliveries that wait for it when it starts."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"), start=False, runner=KIND)
    event_id = flow.take("i1", wait=0).event_id
    flow.sql("DELETE FROM procrastinate_jobs")
    flow.app.start()
    flow.settled(event_id, State.SUCCEEDED)
    assert runs == ["i1"]


def test_the_job_of_an_ended_worker_is_replaced(harness, listens):
    """The job of an ended worker is replaced, because it would stay taken forever."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"), start=False, runner=KIND)
    event_id = flow.take("i1", wait=0).event_id
    flow.sql("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour')")
    flow.sql("UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT max(id) FROM procrastinate_workers)")
    flow.app.start()
    flow.settled(event_id, State.SUCCEEDED)
    assert runs == ["i1"]


def test_rows_locked_by_an_unreachable_worker_are_skipped(harness, listens, monkeypatch):
    """Rows that an unreachable worker locks are skipped until PostgreSQL ends it; other jobs are made meanwhile."""
    handlers = [listens(lambda event: None, name=name, process_key=name) for name in ("taken", "lost")]
    monkeypatch.setattr(job_sweeper, "LOST_JOB_THRESHOLD_SECONDS", 0.0)
    monkeypatch.setattr(job_sweeper, "CLEANING_INTERVAL", 0.0)
    flow = harness.open(*handlers, start=False, runner=KIND)
    for name in ("taken", "lost"):
        flow.take(name, key=name, wait=0)
    flow.sql("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour')")
    flow.sql("DELETE FROM procrastinate_jobs WHERE queue_name = 'p:lost'")
    taken = "UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT max(id) FROM procrastinate_workers)"
    with psycopg.connect(flow.url) as silent:
        silent.execute(taken)
        sweep(flow)
        assert flow.sql("SELECT count(*) FROM procrastinate_workers") == [(1,)]
        assert count_jobs(flow) == 2
        silent.commit()
        with silent.transaction():
            silent.execute("SELECT FROM procrastinate_jobs WHERE status = 'doing' FOR UPDATE")
            sweep(flow)
    sweep(flow)
    assert flow.sql("SELECT count(*) FROM procrastinate_workers") == [(0,)]
    assert flow.sql("SELECT queue_name, status::text FROM procrastinate_jobs ORDER BY 1") == [
        ("p:lost", "todo"),
        ("p:taken", "todo"),
    ]


def test_postgresql_ends_idle_transactions(postgresql_url):
    """PostgreSQL ends idle transactions, because behind a proxy it does not notice that the client is gone."""
    options = job_connections.options(postgresql_url)
    with psycopg.connect(postgresql_url, options=options) as connection:
        shown = connection.execute("SHOW idle_in_transaction_session_timeout").fetchone()
        assert shown == (f"{IDLE_SECONDS}s",)


def test_a_probe_of_a_lost_attempt_is_called(harness, listens, eventually):
    """A lost attempt has no job of its own; the waiting job of its handler is enough for its probe."""
    asked = []
    listener = listens(lambda event: None, name="h", probe=lambda event, delivery: asked.append(delivery.attempt))
    lost = harness.open(listener, start=False, runner=KIND)
    lost.take("i1", wait=0)
    assert lost.app.ledger.claim(lost.app.ledger.due_deliveries(lost.clock.now(), lambda _handler: 1)[0])
    harness.crash(lost)
    flow = harness.open(listener, start=False, runner=KIND)
    assert count_jobs(flow) == 1
    flow.app.start()
    eventually(lambda: asked == [1])
    eventually(lambda: count_jobs(flow) == 0)


def test_a_delivery_that_its_probe_requeues_is_claimed_at_once(harness, listens):
    """Its probe is left out for some seconds, but not its next attempt."""
    listener = listens(lambda event: None, name="h", probe=lambda event, delivery: False)
    lost = harness.open(listener, start=False, runner=KIND)
    event_id = lost.take("i1", wait=0).event_id
    (queued,) = lost.app.ledger.due_deliveries(lost.clock.now(), lambda _handler: 1)
    assert lost.app.ledger.claim(queued)
    harness.crash(lost)
    flow = harness.open(listener, start=False, runner=KIND)
    (probed,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 1)
    assert probed.probe
    flow.app.runner._run_unclaimed(probed, flow.app.dispatcher.execute)
    assert flow.only(event_id).state is State.WAITING
    flow.app.runner._claim("p:h")
    until(lambda: flow.only(event_id).state is State.RUNNING)
    harness.crash(flow)


def test_a_delivery_whose_claim_failed_gets_another_job(harness, listens, monkeypatch):
    """A delivery whose job is gone gets another one, although it became due only just before."""
    monkeypatch.setattr(job_sweeper, "LOST_JOB_THRESHOLD_SECONDS", 1_000.0)
    runs = []
    flow = harness.open(listens(lambda event: runs.append(1), name="h"), runner=ONLY_JOBS)
    real, refused = flow.app.ledger.claim_next, []

    def claim_next(request):
        if not refused:
            refused.append(request)
            raise Unavailable("ledger_down")
        return real(request)

    monkeypatch.setattr(flow.app.ledger, "claim_next", claim_next)
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


def test_the_job_of_a_retry_is_fetched_when_due(harness, listens):
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
def test_a_retry_is_on_time_with_a_wrong_local_clock(harness, listens, days):
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


def test_one_handler_gets_three_quarters_of_the_threads(harness, listens, gate, eventually):
    """With a backlog of one handler, another handler runs meanwhile, and then the rest of the backlog."""
    flow = harness.open(
        listens(gate, name="gate"),
        listens(lambda event: "done", name="other", process_key="other"),
        runner=KIND | {"threads": 4},
    )
    for number in range(12):
        flow.take(f"i{number}", wait=0)
    assert gate.enter(3)
    for number in range(6):
        assert flow.take(f"o{number}", key="other").delivery_statuses[0].state is State.SUCCEEDED
    assert len(gate.runs) == 3
    eventually(lambda: flow.app.runner.running == 3)
    gate.opened.set()
    eventually(flow.is_idle)
    assert sorted(gate.runs) == sorted(f"i{number}" for number in range(12))


def test_a_handler_with_a_long_name_has_a_queue(harness, listens):
    """A handler with a long name gets a queue, although PostgreSQL limits names of notifications."""
    name = "h" * 60
    flow = harness.open(listens(lambda event: None, name=name), runner=KIND)
    assert flow.take().delivery_statuses[0].state is State.SUCCEEDED
    assert job_queue.queue_of(f"p:{name}") != job_queue.queue_of(f"p:{name[1:]}")
    assert job_queue.queue_of("合同:归档") == "合同:归档"


def test_shutdown_waits_only_for_running_deliveries(harness, listens, gate, eventually):
    """Deliveries that have not started run in the next process."""
    flow = harness.open(listens(gate, name="gate"), runner=KIND | {"threads": 2})
    events = [flow.take(f"i{number}", wait=0).event_id for number in range(4)]
    assert gate.enter(1)
    flow.app.begin_shutdown()
    eventually(lambda: flow.app.runner._slots._stopping)  # until then, a free slot may take the next delivery
    ending = threading.Timer(0.1, gate.opened.set)
    ending.start()
    assert flow.close()
    states = Counter(delivery_status.state for event_id in events for delivery_status in _stored(harness, event_id))
    assert states == {State.SUCCEEDED: 1, State.WAITING: 3}
    again = harness.open(listens(gate, name="gate"), runner=KIND)
    for event_id in events:
        again.settled(event_id, State.SUCCEEDED)
    assert sorted(gate.runs) == [f"i{number}" for number in range(4)]


def _stored(harness, event_id):
    with closing(Reader(harness.address)) as reader:
        return reader.delivery_statuses(event_id)


def test_a_worker_continues_after_its_connections_are_cut(harness, listens, eventually):
    """A worker continues after all its connections, including the ledger's, were cut at once."""
    flow = harness.open(listens(lambda event: None, name="h"), runner=KIND)
    assert flow.take("before").delivery_statuses[0].state is State.SUCCEEDED
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    assert flow.sql(f"SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE {others}")[0][0] > 0

    def taken():
        try:
            return flow.take("after", wait=1).delivery_statuses[0].state is State.SUCCEEDED
        except Unavailable:
            return False

    eventually(taken)


def test_a_failed_worker_recovers(harness, listens, logged, eventually):
    """A failed worker reports that it cannot fetch jobs, and later fetches those that were stored."""
    flow = harness.open(listens(lambda event: None, name="h"), runner=ONLY_JOBS)
    assert flow.take("before").delivery_statuses[0].state is State.SUCCEEDED
    event_id = None
    flow.sql("ALTER FUNCTION procrastinate_fetch_job_v2 RENAME TO gone")
    try:
        eventually(flow.app.runner.health)
        event_id = flow.take("meanwhile", wait=0).event_id
        (failed, *_) = eventually(lambda: [record for record in logged if record["event"] == "fetch_jobs_failed"])
        assert "procrastinate_fetch_job_v2" in failed["why"]
    finally:
        flow.sql("ALTER FUNCTION gone RENAME TO procrastinate_fetch_job_v2")
    flow.settled(event_id, State.SUCCEEDED)
    eventually(lambda: flow.app.runner.health() is None)


def test_a_job_fetched_but_not_run_is_found_again(harness, listens):
    """A job that an outage left as taken by a running worker is found, because no worker would take it again."""
    flow = harness.open(listens(lambda event: None, name="h"), start=False, runner=KIND)
    event_id = flow.take("i1", wait=0).event_id
    flow.sql("INSERT INTO procrastinate_workers DEFAULT VALUES")
    flow.sql("UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT max(id) FROM procrastinate_workers)")
    flow.app.start()
    flow.settled(event_id, State.SUCCEEDED)


def test_the_runner_needs_postgresql(tmp_path, clock):
    """On SQLite the runner is refused with the reason."""
    settings = Settings(database=str(tmp_path / "x.db"), plugins_allow=("none",), runner=RunnerSettings(**KIND))
    with pytest.raises(SettingsError, match="needs PostgreSQL"):
        App(settings, clock=clock)


def test_one_job_for_each_handler_and_commit_until_eight_wait(harness, listens, backlog):
    """A transaction that stores many deliveries of a handler stores one job; no more than eight jobs wait."""
    flow = harness.open(listens(lambda event: None, name="h"), start=False, runner=KIND)
    for number in range(12):
        backlog(flow, 3, first=3 * number)
        assert count_jobs(flow) == min(number + 1, 8)


def test_one_job_for_the_retries_of_a_second(harness, listens):
    """Retries that are due in the same second share a job."""

    def fails(event):
        raise OSError("not yet")

    flow = harness.open(listens(fails, name="h", retry=Retry(delays=[3_000], jitter=0)), start=False, runner=KIND)
    now = flow.clock.now()
    due = now + 3_000 * SECOND
    deliveries = [ReadyDelivery("d", "p:h", 1)]
    for delay in (0, 1, 2):
        flow.app.ledger.write(lambda t, at=due + delay: flow.app.ledger.runner.enqueue(t, deliveries, at))
    assert count_jobs(flow) <= 2  # a second may have ended between them
    flow.app.ledger.write(lambda t: flow.app.ledger.runner.enqueue(t, deliveries, due + 10 * SECOND))
    assert flow.sql("SELECT count(DISTINCT scheduled_at) > 1 FROM procrastinate_jobs") == [(True,)]


def test_at_most_the_free_slots_are_marked(harness, listens, gate, backlog):
    """Of a backlog, a process marks as many deliveries as it can run; after a crash only these are unknown."""
    flow = harness.open(listens(gate, name="gate"), start=False, runner=KIND | {"threads": 8})
    backlog(flow, 300)
    flow.app.start()
    assert gate.enter(6)
    running = "SELECT count(*) FROM deliveries WHERE state = 'running'"
    assert flow.sql(running) == [(6,)]
    harness.crash(flow)
    gate.opened.set()
    again = harness.open(listens(gate, name="gate"), start=False, runner=KIND)
    assert again.sql("SELECT state, count(*) FROM deliveries GROUP BY 1 ORDER BY 1") == [
        ("unknown", 6),
        ("waiting", 294),
    ]


def test_a_claim_is_in_one_transaction_with_the_job_and_the_outcome(harness, listens, backlog, eventually, monkeypatch):
    """A claim stores the next job in its transaction; the next claim is in the transaction that records the outcome."""
    entered, leave = threading.Semaphore(0), threading.Semaphore(0)

    def handle(event):
        entered.release()
        assert leave.acquire(timeout=WAIT_TIMEOUT)

    # However long this test takes, the handler need not let others take its slot.
    monkeypatch.setattr(handler_slots, "TURN_SECONDS", WAIT_TIMEOUT)
    flow = harness.open(listens(handle, name="h"), start=False, runner=ONLY_JOBS)
    backlog(flow, 3)
    claim_next, claims = flow.app.ledger.claim_next, []

    def count_claims(request):
        future = claim_next(request)
        claims.append(request)
        return future

    monkeypatch.setattr(flow.app.ledger, "claim_next", count_claims)
    flow.app.start()
    assert entered.acquire(timeout=WAIT_TIMEOUT)
    # The sweep at the start may have stored another job.
    assert flow.sql("SELECT xmin::text FROM deliveries WHERE state = 'running'")[0] in flow.sql(
        "SELECT xmin::text FROM procrastinate_jobs"
    )
    with writer_held(flow):
        leave.release()
        # The claim is queued behind the outcome, and does not wait until that is stored.
        eventually(lambda: len(claims) == 2)
    assert entered.acquire(timeout=WAIT_TIMEOUT)
    rows = flow.sql("SELECT state, xmin::text FROM deliveries WHERE state <> ? ORDER BY 1", "waiting")
    assert [state for state, _ in rows] == ["running", "succeeded"]
    assert rows[0][1] == rows[1][1]
    for _ in range(2):
        leave.release()
    eventually(flow.is_idle)


def test_a_slot_that_is_filled_at_once_gets_no_job(harness, listens, backlog, eventually, monkeypatch):
    """The transaction that records an outcome of a limited handler, and starts its next delivery, stores no job."""
    entered, leave = threading.Semaphore(0), threading.Semaphore(0)

    def handle(event):
        entered.release()
        assert leave.acquire(timeout=WAIT_TIMEOUT)

    flow = harness.open(listens(handle, name="h", concurrency=1), start=False, runner=KIND | {"threads": 4})
    backlog(flow, 3)
    ledger, claims = flow.app.ledger, []
    claim_next = ledger.claim_next
    flow.app.start()
    assert entered.acquire(timeout=WAIT_TIMEOUT)

    def count_claims(request):
        future = claim_next(request)
        claims.append(request)
        return future

    monkeypatch.setattr(ledger, "claim_next", count_claims)
    with writer_held(flow):
        leave.release()
        eventually(lambda: len(claims) == 1)
    assert entered.acquire(timeout=WAIT_TIMEOUT)
    (succeeded,) = flow.sql("SELECT xmin::text FROM deliveries WHERE state = 'succeeded'")
    assert succeeded not in flow.sql("SELECT xmin::text FROM procrastinate_jobs")
    for _ in range(2):
        leave.release()
    eventually(flow.is_idle)


def test_limited_deliveries_are_marked_within_their_limit(harness, listens, new_gate, backlog):
    """Of a backlog, one delivery for each order key is marked, and no more than `concurrency=` allows."""
    ordered, limited = new_gate(), new_gate()
    flow = harness.open(
        listens(ordered, name="ordered", order_by="business_key"),
        listens(limited, name="limited", process_key="limited", concurrency=3),
        start=False,
        runner=KIND | {"threads": 16},
    )
    for number in range(6):
        flow.take(f"i{number}", wait=0, businessKey=f"k{number % 2}")
    backlog(flow, 10, key="limited")
    flow.app.start()
    assert ordered.enter(2)
    assert limited.enter(3)
    marked = "SELECT handler, order_key IS NULL, count(*) FROM deliveries WHERE state = 'running'"
    assert flow.sql(f"{marked} GROUP BY handler, order_key ORDER BY handler") == [
        ("p:limited", True, 3),
        ("p:ordered", False, 1),
        ("p:ordered", False, 1),
    ]


@pytest.mark.parametrize("options", [{"order_by": "business_key"}, {"concurrency": 2}])
def test_a_delivery_that_others_change_leaves_no_slot_free(harness, listens, gate, monkeypatch, options):
    """The next due delivery starts, without a sweep, while another transaction has the first one locked."""
    monkeypatch.setattr(job_sweeper, "SWEEP_INTERVAL", 600.0)
    flow = harness.open(listens(gate, name="h", **options), start=False, runner=KIND | {"threads": 3})  # two slots
    first, *others = [flow.take(f"i{number}", wait=0, businessKey=f"k{number}").event_id for number in range(3)]
    with psycopg.connect(harness.url) as connection:
        connection.execute("SELECT FROM deliveries WHERE event_id = %s FOR UPDATE", (first,))
        flow.app.start()
        assert gate.enter(2)
        assert {flow.only(event_id).state for event_id in others} == {State.RUNNING}


def test_a_claim_is_repeated_once(harness, listens, backlog):
    """A repeated claim leaves out the deliveries that were passed over, and is not repeated if others are locked."""
    listener = listens(lambda event: None, name="h", concurrency=2)
    flow = harness.open(listener, start=False, runner=KIND | {"threads": 3})
    backlog(flow, 5)
    runner, claims = flow.app.runner, []

    def is_idle():
        with runner._claiming_changed:
            return not runner._claiming

    with psycopg.connect(harness.url) as connection:
        connection.execute("SELECT FROM deliveries FOR UPDATE")
        for _ in range(2):
            claims.append(runner._to_claim_again.pop("p:h", ()))
            runner._claim("p:h", passed_over=claims[-1])
            until(is_idle)
    assert [len(passed_over) for passed_over in claims] == [0, 2]
    assert runner._to_claim_again == {}


def test_a_load_stores_one_job(harness, listens, backlog):
    """However many deliveries wait for a handler, a process that loads it stores one job, unless one waits."""
    flow = harness.open(listens(lambda event: None, name="h"), start=False, runner=KIND)
    backlog(flow, 100)
    flow.close()
    flow.sql("DELETE FROM procrastinate_jobs")
    again = harness.open(listens(lambda event: None, name="h"), start=False, runner=KIND)
    for _ in range(2):
        again.app.runner.sweeper.sweep_own()
        assert count_jobs(again) == 1


def test_idle_processes_share_the_work(harness, listens, gate, backlog, eventually):
    """Slow deliveries of one transaction are run by all processes that have free threads."""
    flows = [harness.open(listens(gate, name="gate"), runner=KIND | {"threads": 16}) for _ in range(2)]
    backlog(flows[0], 64)
    eventually(lambda: [flow.app.runner.running for flow in flows] == [12, 12])
    gate.opened.set()
    eventually(flows[0].is_idle)
    assert len(gate.runs) == 64


def test_other_threads_start_the_deliveries_of_a_hanging_thread(harness, listens, gate, monkeypatch):
    """A delivery that was to start after one that hangs is started by another thread, without a sweep."""
    for name in ("SWEEP_INTERVAL", "CHECK_INTERVAL", "MAX_CHECK_INTERVAL"):
        monkeypatch.setattr(job_sweeper, name, 3600.0)
    runs = []
    flow = harness.open(
        listens(gate, name="first"), listens(lambda event: runs.append(1), name="second"), runner=KIND | {"threads": 4}
    )
    runner = flow.app.runner
    # Not with `eventually`, which wakes the sweeper.
    until(lambda: len(runner._slots._changed._waiters) == 4 and runner.sweeper._wakeup._cond._waiters)
    runner._slots._fast_handlers |= {"p:first", "p:second"}
    flow.take("i1", wait=0)
    until(lambda: runs == [1])
    assert runner._slots._taken["p:first"] == 1
    gate.opened.set()


def test_a_claim_that_leaves_a_slot_wakes_the_thread_that_takes_jobs(harness, listens):
    """If no job was taken because a claim might need the last slot, the end of the claim is announced."""
    handlers = [listens(lambda event: None, name=name) for name in ("h", "other")]
    flow = harness.open(*handlers, start=False, runner=KIND | {"threads": 2})
    runner, woken = flow.app.runner, []
    runner._wake_fetching = lambda: woken.append(1)
    claim = SimpleNamespace(handler="p:h", is_committed=True, has_more=True, passed_over=())
    runner._claiming["p:h"] = False
    assert runner._open_queues() == ["p:other"]
    runner._on_claim_done(claim)
    assert woken == []
    runner._claiming["p:h"] = False
    runner._slots.take("p:other")
    assert runner._open_queues() == []
    runner._on_claim_done(claim)
    assert woken == [1]


def last_job(flow):
    """The number of jobs that have been stored so far."""
    ((last, is_used),) = flow.sql("SELECT last_value, is_called FROM procrastinate_jobs_id_seq")
    return last if is_used else 0


def test_a_claim_after_a_stop_starts_nothing(harness, listens, monkeypatch):
    """A claim may be requested before the stop and made after it. Its job is left to other processes."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"), runner=KIND)
    runner = flow.app.runner
    monkeypatch.setattr(runner, "wake", lambda: None)  # so that the runner does not notice the stop at once
    flow.app.stop_starting()
    event_id = flow.take("i1", wait=0).event_id
    runner._claim("p:h", 0)
    until(lambda: not runner._claiming)
    assert flow.only(event_id).state is State.WAITING
    assert runs == []
    assert count_jobs(flow) == 1
    monkeypatch.undo()


def test_a_paused_handler_has_no_jobs(harness, listens, eventually):
    """No job is stored for a paused handler, and its waiting ones are taken without effect; a resume stores one."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(1), name="h"), start=False, runner=KIND)
    flow.take("i1", wait=0)
    pause(flow.app.operation_context, ["p:h"])
    flow.take("i2", wait=0)
    assert count_jobs(flow) == 1
    flow.app.start()
    eventually(lambda: count_jobs(flow) == 0)
    flow.take("i3", wait=0)
    sweep(flow)
    assert count_jobs(flow) == 0
    resume(flow.app.operation_context, ["p:h"])
    eventually(flow.is_idle)
    assert runs == [1] * 3


def test_a_resume_stores_a_job_for_all_deliveries(harness, listens, eventually):
    """When a pause ends, at most two jobs are stored: by the process itself, and by the one that sweeps for all."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(1), name="h"), runner=KIND)
    pause(flow.app.operation_context, ["p:h"])
    for number in range(6):
        flow.take(f"i{number}", wait=0)
    before = last_job(flow)
    resume(flow.app.operation_context, ["p:h"])
    eventually(flow.is_idle)
    assert runs == [1] * 6
    assert 1 <= last_job(flow) - before <= 2


def test_a_handler_that_no_process_runs_has_no_jobs(harness, listens, monkeypatch):
    """A server that runs no deliveries, and knows no worker for the handler, stores no job."""
    flow = harness.open(listens(lambda event: None, name="h"), start=False, runner=KIND)
    monkeypatch.setattr(flow.app.ledger.runner._runtime, "runs_somewhere", lambda _handler: False)
    flow.sql("UPDATE processes SET handlers = '[]'")
    flow.take("i1", wait=0)
    assert count_jobs(flow) == 0
    sweep(flow)
    assert count_jobs(flow) == 0


def test_a_retry_runs_although_its_worker_rarely_polls(harness, listens, monkeypatch):
    """The sweep stores another job for an overdue retry, which notifies idle processes."""
    monkeypatch.setattr(procrastinate, "POLL_INTERVAL", 3600.0)
    monkeypatch.setattr(procrastinate, "IDLE_POLL_INTERVAL", 3600.0)
    runs = []

    def fails_at_first(event, delivery):
        runs.append(delivery.attempt)
        if delivery.attempt == 1:
            raise OSError("not yet")

    flow = harness.open(listens(fails_at_first, retry=Retry(delays=[0.5], jitter=0)), runner=KIND)
    flow.settled(flow.take("i1", wait=0).event_id, State.SUCCEEDED, attempt=2)
    assert runs == [1, 2]


def test_a_job_lost_while_workers_run_is_stored_again(harness, listens, gate, eventually):
    """A sweep finds a due delivery whose handler has no job, within two seconds."""
    assert job_sweeper.SWEEP_INTERVAL + job_sweeper.LOST_JOB_THRESHOLD_SECONDS < 2
    assert job_sweeper.CHECK_INTERVAL < 2  # another process starts the sweep, and still has to run the delivery
    flow = harness.open(listens(gate, name="gate"), runner=ONLY_JOBS)
    flow.take("running", wait=0)
    assert gate.enter(1)
    event_id = flow.take("lost", wait=0).event_id
    flow.sql("DELETE FROM procrastinate_jobs")
    eventually(lambda: count_jobs(flow) == 1)
    gate.opened.set()
    flow.settled(event_id, State.SUCCEEDED)


def test_one_process_sweeps_for_all(harness, listens, eventually, monkeypatch):
    """Of the processes that share a ledger one sweeps, and another one when the first has stopped."""
    monkeypatch.setattr(job_sweeper, "SWEEP_INTERVAL", 0.02)
    monkeypatch.setattr(job_sweeper, "CHECK_INTERVAL", 0.02)
    sweeps = []

    def take_down(sweeper):
        sweeps.append(sweeper)

    monkeypatch.setattr(job_sweeper.JobSweeper, "_sweep_as_leader", take_down)
    opened = [harness.open(listens(lambda event: None, name="h"), runner=KIND) for _ in range(2)]
    flows = {flow.app.runner.sweeper: flow for flow in opened}
    eventually(lambda: len(sweeps) > 20)
    assert len(set(sweeps)) == 1
    flows.pop(sweeps[0]).close()
    eventually(lambda: sweeps[-1] in flows)


def test_a_damaged_delivery_delays_no_other_delivery(harness, listens, backlog, eventually):
    """Deliveries whose events cannot be read are left out, and those behind them run."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(1), name="h"), start=False, runner=KIND | {"threads": 2})
    backlog(flow, 12)
    flow.sql("UPDATE events SET body = '{' WHERE id IN (SELECT id FROM events ORDER BY id LIMIT 10)")
    flow.app.start()
    eventually(lambda: len(runs) == 2)


def test_deliveries_behind_a_false_condition_run(harness, listens):
    """A delivery whose condition no longer holds is closed without an attempt, and the others run."""
    flow = harness.open(listens(lambda event: None, name="h"), start=False, runner=KIND)
    event_id = flow.take("i1", wait=0, conclusion="rejected").event_id
    other = flow.take("i2", wait=0, conclusion="approved").event_id
    flow.close()
    runs = []
    again = harness.open(
        listens(lambda event: runs.append(event.conclusion), name="h", conclusion="approved"), runner=KIND
    )
    again.settled(event_id, State.CLOSED, attempt=0)
    again.settled(other, State.SUCCEEDED, attempt=1)
    assert runs == ["approved"]


def test_no_more_jobs_are_fetched_than_slots_are_free(harness, listens, new_gate, eventually):
    """The jobs of handlers for which no slot is free stay for other processes."""
    gates = [new_gate() for _ in range(6)]
    handlers = [listens(gate, name=f"h{n}", process_key=f"k{n}") for n, gate in enumerate(gates)]
    flow = harness.open(*handlers, start=False, runner=KIND | {"threads": 2})
    for number in range(6):
        flow.take(f"i{number}", key=f"k{number}", wait=0)
    flow.app.start()
    assert gates[0].enter(1)
    assert gates[1].enter(1)
    # The sweep at the start may have added others behind them.
    waiting = flow.sql("SELECT queue_name FROM procrastinate_jobs WHERE status = 'todo' ORDER BY id")
    assert waiting[:4] == [(f"p:h{number}",) for number in range(2, 6)]
    for gate in gates:
        gate.opened.set()
    eventually(flow.is_idle)


def test_idle_processes_hardly_use_the_database(harness, listens, eventually, monkeypatch):
    """Two processes with many handlers make at most five transactions a second while nothing arrives."""
    monkeypatch.setattr(procrastinate, "ACTIVE_SECONDS", 0.0)
    count = 2 * procrastinate.MAX_CHANNELS
    handlers = [listens(lambda event: None, name=f"h{n}", process_key=f"k{n}") for n in range(count)]
    for _ in range(2):
        harness.open(*handlers, runner=KIND)
    transactions = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    window, rates, totals = 4.0, [], []
    with closing(psycopg.connect(harness.url, autocommit=True)) as connection:

        def is_idle():
            # PostgreSQL may count a transaction up to ten seconds late, so some windows have those of the start.
            totals.append((time.monotonic(), connection.execute(transactions).fetchone()[0]))
            if len(totals) > 1:
                (began, before), (now, total) = totals[-2:]
                rates.append((total - before - 1) / (now - began))
            return rates and rates[-1] <= 5

        eventually(is_idle, poll=window, why=lambda: rates)
