"""Claims of processes that share a ledger lock handlers before order groups, and wait for no delivery afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import event

from flowhooks.ledger import attempts, database
from flowhooks.ledger.circuit_state import TrialDelivery
from flowhooks.model.ready_delivery import ClaimedAttempt, LimitReached, ReadyDelivery
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.retire import retire
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.postgresql

LIMITED = {"concurrency": 1}
ORDERED = {"order_by": "business_key"}
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
IS_FREE = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))"
WAITING = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND NOT granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
WAITING_FOR_A_ROW = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'
"""
KEY_BEFORE_HANDLER = """
SELECT 'k' || n FROM generate_series(1, 1000) AS n
WHERE hashtextextended(? || ' k' || n, 0) < hashtextextended(?, 0) LIMIT 1
"""
"""An order key whose group has a lower number than another name, by which locks of one kind are sorted."""


def nothing(event):
    """Do nothing."""


class Slots:
    """The two free slots of a handler."""

    skipped = probing = ()
    with_probes = False

    def __init__(self, handler):
        self.handler = handler
        self.started = []

    def take(self, _transaction):
        """Take both slots."""
        return 2

    def passes(self, _event):
        """The handler has no conditions."""
        return True

    def on_claimed(self, _transaction, started, **_more):
        """Keep the deliveries that start."""
        self.started = [delivery.queued.delivery_id for delivery in started]


@pytest.fixture
def opened(harness, listens, long_timeouts, monkeypatch):
    """A function that opens a ledger without a runner, with handlers of these names and options."""
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT", WAIT_TIMEOUT)

    def open_ledger(**handlers):
        return harness.open(
            *[listens(nothing, name=name, process_key=name, **options) for name, options in handlers.items()],
            start=False,
        )

    return open_ledger


@pytest.fixture
def blocker(harness):
    """A session with an open transaction, whose locks others wait for; it ends before the ledgers are closed."""
    with psycopg.connect(harness.url) as connection:
        yield connection


@pytest.fixture
def pool(blocker):
    """Threads in which tests make calls that wait, until the session `blocker` has ended its transaction."""
    with ThreadPoolExecutor() as threads:
        yield threads
        blocker.rollback()


def take(flow, handler, key="k", instance="i1"):
    """Store a callback for a handler; return its delivery as a runner would read it."""
    event_id = flow.take(f"{handler}-{instance}", key=handler, wait=0, businessKey=key).event_id
    stored = flow.only(event_id)
    return ReadyDelivery(stored.delivery_id, stored.handler, stored.attempt, ordered=stored.ordered)


def is_waiting(flow):
    """Whether a transaction waits for an advisory lock."""
    return flow.sql(WAITING) != [(0,)]


def lock_name(handler, options):
    """The name that a claim of a delivery of this handler locks."""
    return handler if options is LIMITED else f"{handler} k"


def scalar(connection, statement, *values):
    """The only value that a statement returns."""
    return connection.execute(statement, values).fetchone()[0]


@pytest.fixture
def one_batch(ledger_steps_of):
    """A context in which two requests are submitted, which the writer takes together."""

    @contextmanager
    def submitting(flow):
        with ledger_steps_of(flow).writer_blocked():
            yield
            until(lambda: flow.app.ledger.queue_size == 2)

    return submitting


def test_two_processes_claim_a_limited_and_ordered_handler(opened, monkeypatch):
    """One process fills free slots while another one claims the delivery: one of them starts it, and none fails."""
    first, second = (opened(h=LIMITED | ORDERED) for _ in range(2))
    ((key,),) = first.sql(KEY_BEFORE_HANDLER, "p:h", "p:h")
    queued, slots = take(first, "h", key), Slots("p:h")
    is_locked, go_on, read = threading.Event(), threading.Event(), attempts.next_due

    def next_due(*given, **options):
        is_locked.set()
        assert go_on.wait(WAIT_TIMEOUT)
        return read(*given, **options)

    monkeypatch.setattr(attempts, "next_due", next_due)
    filled = first.app.ledger.claim_next(slots)
    assert is_locked.wait(WAIT_TIMEOUT)
    with ThreadPoolExecutor() as threads:
        try:
            claimed = threads.submit(second.app.ledger.claim, queued)
            until(lambda: is_waiting(second))
        finally:
            go_on.set()
        filled.result(WAIT_TIMEOUT)
        assert isinstance(claimed.result(WAIT_TIMEOUT), LimitReached)
    assert slots.started == [queued.delivery_id]


def test_a_claim_that_waits_for_a_handler_holds_no_group(opened, blocker, pool):
    """The group is locked after the handler of another delivery, also if it has a lower number."""
    flow = opened(limited=LIMITED, ordered=ORDERED)
    ((key,),) = flow.sql(KEY_BEFORE_HANDLER, "p:ordered", "p:limited")
    several = [take(flow, "ordered", key), take(flow, "limited")]
    blocker.execute(LOCK, ("p:limited",))
    claimed = pool.submit(flow.app.ledger.claim_all, several)
    until(lambda: is_waiting(flow))
    assert scalar(blocker, IS_FREE, f"p:ordered {key}")
    blocker.rollback()
    assert [isinstance(result, ClaimedAttempt) for result in claimed.result(WAIT_TIMEOUT)] == [True, True]


@pytest.mark.parametrize("options", [LIMITED, ORDERED])
def test_free_slots_wait_while_no_group_is_held(opened, blocker, pool, one_batch, options):
    """A claim of the same batch holds no group while the claim for free slots waits for a handler, or for a group."""
    flow = opened(given=ORDERED, slots=options)
    queued, other, slots = take(flow, "given"), take(flow, "slots"), Slots("p:slots")
    blocker.execute(LOCK, (lock_name("p:slots", options),))
    with one_batch(flow):
        filled = flow.app.ledger.claim_next(slots)
        claimed = pool.submit(flow.app.ledger.claim, queued)
    until(lambda: is_waiting(flow))
    assert scalar(blocker, IS_FREE, "p:given k")
    blocker.rollback()
    filled.result(WAIT_TIMEOUT)
    assert isinstance(claimed.result(WAIT_TIMEOUT), ClaimedAttempt)
    assert slots.started == [other.delivery_id]


def open_circuit(flow, handler):
    """Open the circuit of a handler; return a trial, which is due."""
    now = flow.clock.now()
    values = "paused_at = ?, circuit_opened_at = ?, circuit_retry_at = ?"
    flow.sql(f"UPDATE handlers SET {values} WHERE id = ?", now, now, now, handler)
    return TrialDelivery(handler, now + 60_000_000)


@pytest.mark.parametrize("options", [LIMITED, ORDERED])
def test_a_claim_waits_while_no_trial_is_started(opened, blocker, pool, one_batch, options):
    """A trial of the same batch holds neither its handler nor its group while a claim waits for a handler."""
    flow = opened(tried=options, limited=LIMITED)
    _, queued = take(flow, "tried"), take(flow, "limited")
    trial = open_circuit(flow, "p:tried")
    blocker.execute(LOCK, ("p:limited",))
    with one_batch(flow):
        started = pool.submit(flow.app.ledger.claim_trial_delivery, trial)
        claimed = pool.submit(flow.app.ledger.claim, queued)
    until(lambda: is_waiting(flow))
    assert scalar(blocker, IS_FREE, lock_name("p:tried", options))
    blocker.rollback()
    assert started.result(WAIT_TIMEOUT) is not None
    assert isinstance(claimed.result(WAIT_TIMEOUT), ClaimedAttempt)


def test_a_trial_locks_its_limited_handler_first(opened, blocker, pool):
    """A claim of the handler may change the row of the handler while the trial waits for the claim."""
    flow = opened(h=LIMITED)
    take(flow, "h")
    trial = open_circuit(flow, "p:h")
    blocker.execute(LOCK, ("p:h",))
    started = pool.submit(flow.app.ledger.claim_trial_delivery, trial)
    until(lambda: is_waiting(flow))
    blocker.execute("SELECT FROM handlers WHERE id = 'p:h' FOR NO KEY UPDATE NOWAIT")
    blocker.rollback()
    assert started.result(WAIT_TIMEOUT) is not None


@pytest.mark.parametrize(
    "case",
    [
        (False, lambda flow: pause(flow.app.operation_context, ["p:h"])),
        (False, lambda flow: retire(flow.app.operation_context, ["p:h"])),
        (False, lambda flow: flow.app.circuit_breaker._open("p:h", "it fails")),
        (True, lambda flow: resume(flow.app.operation_context, ["p:h"])),
        (True, lambda flow: flow.app.circuit_breaker._close(["p:h"])),
    ],
    ids=["pause", "retire", "open", "resume", "close"],
)
def test_a_handler_is_not_changed_while_a_claim_waits(opened, blocker, pool, one_batch, case):
    """A claim of the same batch waits for another process, which then changes the handler's row, without a deadlock."""
    flow, (is_paused, change) = opened(h=LIMITED), case
    queued = take(flow, "h")
    if is_paused:
        open_circuit(flow, "p:h")
    blocker.execute("SET LOCAL deadlock_timeout = '10ms'")  # so that this session gets the error
    blocker.execute(LOCK, ("p:h",))
    with one_batch(flow):
        changed = pool.submit(change, flow)
        claimed = pool.submit(flow.app.ledger.claim, queued)
    until(lambda: is_waiting(flow))
    blocker.execute("UPDATE handlers SET rate_next_at = 1 WHERE id = 'p:h'")
    blocker.rollback()
    assert changed.result(WAIT_TIMEOUT) is not False
    assert isinstance(claimed.result(WAIT_TIMEOUT), ClaimedAttempt) is not is_paused


@pytest.mark.parametrize(
    ("is_paused", "change"),
    [
        (False, lambda context, _handlers: pause(context, ["p:*"])),
        (False, retire),
        (True, lambda context, _handlers: resume(context, ["p:*"])),
    ],
    ids=["pause", "retire", "resume"],
)
def test_several_handlers_are_changed_in_the_order_of_their_ids(opened, blocker, pool, is_paused, change):
    """A claim changes the rows of rated handlers in this order, too."""
    flow = opened(**{name: {} for name in "abcdefgh"})
    ids = [f"p:{name}" for name in "hgfedcba"]
    flow.sql("UPDATE handlers SET paused_at = ?", 1 if is_paused else None)
    blocker.execute("SELECT FROM handlers WHERE id = 'p:a' FOR NO KEY UPDATE")
    changed = pool.submit(change, flow.app.operation_context, ids)
    until(lambda: flow.sql(WAITING_FOR_A_ROW) != [(0,)])
    blocker.execute("SELECT FROM handlers WHERE id <> 'p:a' FOR NO KEY UPDATE NOWAIT")
    blocker.rollback()
    assert set(changed.result(WAIT_TIMEOUT).handlers) == set(ids)


def test_a_start_that_wakes_deliveries_holds_no_handler(opened, blocker, pool):
    """It may take minutes, and a claim of another process changes the rows of rated handlers."""
    first = opened(h={}, other={})
    queued = take(first, "h")
    first.sql("UPDATE deliveries SET due_at = NULL")
    blocker.execute("SELECT FROM deliveries FOR UPDATE")
    started = pool.submit(opened, h={}, other={})
    until(lambda: first.sql(WAITING_FOR_A_ROW) != [(0,)])
    blocker.execute("SELECT FROM handlers FOR NO KEY UPDATE NOWAIT")
    blocker.rollback()
    started.result(WAIT_TIMEOUT)
    assert first.sql("SELECT id FROM deliveries WHERE due_at IS NOT NULL") == [(queued.delivery_id,)]


def test_a_promotion_that_waits_holds_no_handler(opened, blocker, pool, one_batch, ledger_steps_of):
    """The next delivery of a group is promoted before a claim of the same batch locks its handler."""
    flow = opened(h=LIMITED | ORDERED, other=LIMITED)
    first, second = take(flow, "h"), take(flow, "h", instance="i2")
    other, slots = take(flow, "other"), Slots("p:other")
    attempt = flow.app.ledger.claim(first).attempt
    blocker.execute("UPDATE deliveries SET state = 'closed', due_at = NULL WHERE id = %s", (second.delivery_id,))
    with one_batch(flow):
        recorded = pool.submit(ledger_steps_of(flow).settle, first, attempt)
        filled = flow.app.ledger.claim_next(slots)
    until(lambda: flow.sql(WAITING_FOR_A_ROW) != [(0,)])
    assert scalar(blocker, IS_FREE, "p:other")
    blocker.rollback()
    assert recorded.result(WAIT_TIMEOUT)
    filled.result(WAIT_TIMEOUT)
    assert slots.started == [other.delivery_id]


@pytest.mark.parametrize("options", [LIMITED, ORDERED])
def test_a_claim_waits_for_no_changed_delivery(opened, blocker, options):
    """A delivery that another transaction changes is not started; other claims wait for the same locks."""
    flow = opened(h=options)
    queued = take(flow, "h")
    blocker.execute("UPDATE deliveries SET changed_at = changed_at")
    assert flow.app.ledger.claim(queued) is None
    blocker.rollback()
    assert flow.app.ledger.claim(queued).attempt == 1


@pytest.mark.parametrize(
    ("options", "of_claim", "of_slots"), [({}, 0, 0), (LIMITED, 1, 2), (ORDERED, 1, 1), (LIMITED | ORDERED, 1, 2)]
)
def test_a_claim_sends_few_lock_statements(opened, options, of_claim, of_slots):
    """A claim locks all with one statement, and free slots their handlers before; other handlers need no lock."""
    flow = opened(given=options, slots=options)
    queued, other, slots = take(flow, "given"), take(flow, "slots"), Slots("p:slots")
    assert count_locks(flow, lambda: flow.app.ledger.claim(queued)) == of_claim
    assert count_locks(flow, lambda: flow.app.ledger.claim_next(slots).result(WAIT_TIMEOUT)) == of_slots
    assert slots.started == [other.delivery_id]


def count_locks(flow, claim):
    """Return the number of statements with advisory locks that a claim sends."""
    sent = []

    def record(_connection, _cursor, statement, *_rest):
        sent.append(statement)

    engine = flow.app.ledger._write_engine
    event.listen(engine, "before_cursor_execute", record)
    claim()
    event.remove(engine, "before_cursor_execute", record)
    return sum("pg_advisory_xact_lock" in statement for statement in sent)
