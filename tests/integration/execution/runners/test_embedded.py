"""The embedded runner: fair, bounded, and never the cause of a lost or repeated run."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace

import pytest

from flowhooks import Retry, State
from flowhooks.clock import SECOND
from flowhooks.execution.runners import embedded, slots
from flowhooks.execution.runners.runner import FAULT_PAUSE_SECONDS, max_per_handler
from flowhooks.model.ready_delivery import ClaimedAttempt, ReadyDelivery
from flowhooks.settings import HandlerSettings
from support.waiting import WAIT_TIMEOUT, until

NO_TRANSACTION = SimpleNamespace(after_commit=lambda function: None, after_rollback=lambda function: None)
"""A transaction that is neither committed nor rolled back."""


class Anywhere:
    """A process that runs every handler without a limit."""

    def runs_here(self, handler):
        """Run it here."""
        return True

    def is_unconditional(self, handler):
        """Return whether the handler has no conditions."""
        return handler != "p:conditions"

    def limit(self, handler):
        """Have no limit."""

    def may_start(self, handler, now):
        """No handler is paused or has a rate."""
        return self.runs_here(handler)

    def next_start(self, now):
        """No handler has a rate."""

    def timeout(self, handler):
        """No attempt is overdue."""
        return math.inf


class NothingDue:
    """A ledger without due deliveries.

    Attributes:
        polled: is set when it has been polled.
    """

    def __init__(self):
        self.polled = threading.Event()

    def due_deliveries(self, now, limit_for):
        """Return none."""
        self.polled.set()
        return []


def test_one_handler_gets_three_quarters_of_the_pool(harness, listens, gate, new_gate):
    """With a backlog, one handler gets six of eight threads, and another handler gets the rest."""
    other = new_gate()
    flow = harness.open(
        listens(gate, name="gate"), listens(other, name="other", process_key="other"), runner={"threads": 8}
    )
    for number in range(10):
        flow.take(f"i{number}", wait=0)
    assert gate.enter(6)
    assert not gate.enter(1, within=0.3)
    assert flow.app.runner.running == 6
    for number in range(10):
        flow.take(f"o{number}", key="other", wait=0)
    assert other.enter(2)
    assert not other.enter(1, within=0.2)
    assert flow.app.runner.running == 8
    gate.opened.set()
    other.opened.set()


def test_a_waiting_delivery_of_another_handler_precedes_new_deliveries(clock):
    """A free thread runs the waiting delivery of another handler before a new delivery."""
    pool = slots.SlotPool(2, Anywhere(), clock)
    pool.add()
    pool.put([ReadyDelivery("waits", "p:a", 0)])
    assert pool.reserve(NO_TRANSACTION, [ReadyDelivery("new", "p:b", 0)]) == []
    pool.add()
    assert pool.reserve(NO_TRANSACTION, [ReadyDelivery("new", "p:b", 0)]) == [ReadyDelivery("new", "p:b", 0)]


def test_new_deliveries_leave_a_slot_for_each_queued_delivery(clock):
    """A new delivery starts with its commit beside a short queue of its handler, not beside a long one."""
    pool = slots.SlotPool(8, Anywhere(), clock)
    for _ in range(8):
        pool.add()
    pool.put([ReadyDelivery(name, "p:a", 0) for name in ("a1", "a2")])
    new = [ReadyDelivery(f"new{number}", "p:a", 0) for number in range(5)]
    assert pool.reserve(NO_TRANSACTION, new) == new[:4]
    assert pool.take().queued.delivery_id == "a1"
    assert pool.reserve(NO_TRANSACTION, new[4:]) == []
    assert pool.take().queued.delivery_id == "a2"
    assert pool.running == 6


def test_queued_deliveries_of_a_hanging_handler_are_read_once(clock):
    """While all slots of a handler are taken, a poll reads its queued deliveries once, and again when one has ended."""
    pool = slots.SlotPool(2, Anywhere(), clock)
    pool.add()
    pool.put([ReadyDelivery(name, "p:a", 0) for name in ("a1", "a2", "a3")])
    assert pool.max_rows("p:a") > 0
    running = pool.take()
    assert pool.max_rows("p:a") > 0
    assert pool.max_rows("p:a") == pool.max_rows("p:a") == 0
    assert pool.max_rows("p:b") > 0
    pool.give_back(running)
    assert pool.max_rows("p:a") > 0
    pool.take()
    assert pool.max_rows("p:a") > 0
    assert pool.max_rows("p:a") == 0


def test_a_stop_applies_to_queued_deliveries(clock):
    """A thread that becomes free after the stop takes no queued delivery, even if the pool is not closed yet."""
    runtime, taken = Anywhere(), []
    pool = slots.SlotPool(2, runtime, clock)
    pool.add()
    pool.put([ReadyDelivery(name, "p:a", 0) for name in ("a1", "a2")])
    running = pool.take()
    runtime.runs_here = lambda handler: False
    pool.give_back(running)
    thread = threading.Thread(target=lambda: taken.append(pool.take()))
    thread.start()
    until(lambda: taken or pool._changed._waiters)
    assert taken == []
    pool.close()
    thread.join(WAIT_TIMEOUT)
    assert taken == [None]


def test_skipped_rows_are_read_when_memory_is_empty(clock):
    """When the last queued delivery has started, a poll reads the rows that were skipped meanwhile."""
    pool = slots.SlotPool(2, Anywhere(), clock)
    for _ in range(2):
        pool.add()
    pool.put([ReadyDelivery(name, "p:a", 0) for name in ("a1", "a2", "a3")])
    running = pool.take()
    assert pool.max_rows("p:a") > 0
    assert pool.max_rows("p:a") == 0
    pool.give_back(running)
    running = pool.take()
    assert not pool.poll_now.is_set()
    pool.give_back(running)
    pool.take()
    assert pool.poll_now.is_set()


def test_a_free_thread_wakes_no_other_thread(clock, monkeypatch):
    """A thread takes the next delivery itself; only for what it leaves to others, it wakes one of them."""
    pool, woken = slots.SlotPool(2, Anywhere(), clock), []
    monkeypatch.setattr(pool._changed, "notify", lambda n=1: woken.append(n))
    for _ in range(3):
        pool.add()
    pool.put([ReadyDelivery(name, "p:a", 0) for name in ("a1", "a2")])
    first = pool.take()
    woken.clear()
    pool.give_back(first)
    assert pool.take().queued.delivery_id == "a2"
    assert woken == []
    pool.put([ReadyDelivery(name, f"p:{name}", 0) for name in ("b", "c")])
    assert pool.take().queued.delivery_id == "b"
    assert woken == [1, 1]


@pytest.fixture
def fast_pool(clock, monkeypatch):
    """A pool of eight slots that knows two handlers as fast: six slots for each handler."""
    monkeypatch.setattr(slots, "FAST_THRESHOLD_SECONDS", 60.0)  # on a busy machine, too
    pool = slots.SlotPool(8, Anywhere(), clock)
    pool._fast_handlers |= {"p:a", "p:conditions"}
    for _ in range(8):
        pool.add()
    return pool


def others_of(attempt):
    """The ids of the deliveries that are claimed together with an attempt's."""
    return [queued.delivery_id for queued in attempt.others]


def test_a_thread_claims_as_many_deliveries_as_a_fast_handler_has_slots(fast_pool):
    """They are claimed together, started after the thread's own one, and their slots are taken meanwhile."""
    fast_pool.put([ReadyDelivery(f"a{number}", "p:a", 0) for number in range(8)])
    attempt = fast_pool.take()
    assert others_of(attempt) == ["a1", "a2", "a3", "a4", "a5"]
    assert fast_pool.running == 6
    claims = [ClaimedAttempt(event=None, attempt=number, retry_base=0) for number in (1, 2)]
    fast_pool.start_others(attempt, [claims[0], None, claims[1], None, None])
    assert fast_pool.running == 3
    fast_pool.give_back(attempt)
    for name, claimed in (("a1", claims[0]), ("a3", claims[1])):
        attempt = fast_pool.take()
        assert (attempt.queued.delivery_id, attempt.claimed, attempt.others) == (name, claimed, None)
        fast_pool.give_back(attempt)
    assert others_of(fast_pool.take()) == ["a7"]


@pytest.mark.parametrize(
    "queued",
    [
        ReadyDelivery("second", "p:a", 0, probe=True),
        ReadyDelivery("second", "p:a", 0, ordered=True),
        ReadyDelivery("second", "p:conditions", 0),
        ReadyDelivery("second", "p:slow", 0),
    ],
    ids=["a probe", "ordered", "with conditions", "slow"],
)
def test_ordered_conditional_and_slow_deliveries_are_claimed_alone(fast_pool, queued):
    """A delivery with an order key, of a handler with conditions, or of a slow handler, joins no other one."""
    fast_pool.put([ReadyDelivery("first", queued.handler, 0), queued])
    assert not fast_pool.take().others


def test_a_thread_leaves_a_slot_for_each_other_handler(fast_pool):
    """Handlers that wait for a thread get one before a fast handler gets a second one."""
    hanging = [ReadyDelivery(f"b{number}", "p:b", 0) for number in range(4)]
    assert fast_pool.reserve(NO_TRANSACTION, hanging) == hanging
    fast_pool.put([ReadyDelivery(f"a{number}", "p:a", 0) for number in range(4)])
    fast_pool.put([ReadyDelivery("c", "p:c", 0), ReadyDelivery("d", "p:d", 0)])
    assert others_of(fast_pool.take()) == ["a1"]
    assert {fast_pool.take().queued.handler for _ in range(2)} == {"p:c", "p:d"}


def test_deliveries_that_cannot_be_claimed_together_are_claimed_alone(fast_pool):
    """An error frees all slots, and each of the deliveries is then taken without others."""
    deliveries = [ReadyDelivery(f"a{number}", "p:a", 0) for number in range(3)]
    fast_pool.put(deliveries)
    attempt = fast_pool.take()
    fast_pool.split(attempt)
    fast_pool.give_back(attempt)
    assert fast_pool.running == 0
    fast_pool.put(deliveries)
    assert [fast_pool.take().others for _ in deliveries] == [None] * 3


@pytest.mark.parametrize("end", [lambda pool, it: pool.start_others(it, [None] * 5), slots.SlotPool.split])
def test_slots_that_a_claim_frees_wake_a_thread(fast_pool, monkeypatch, end):
    """If a claim frees slots, a thread is woken for a handler that waits for one."""
    fast_pool.put([ReadyDelivery(f"a{number}", "p:a", 0) for number in range(6)])
    attempt = fast_pool.take()
    fast_pool.put([ReadyDelivery(name, f"p:{name}", 0) for name in ("b", "c")])
    assert {fast_pool.take().queued.handler for _ in range(2)} == {"p:b", "p:c"}
    fast_pool.put([ReadyDelivery("d", "p:d", 0)])
    woken = []
    monkeypatch.setattr(fast_pool._changed, "notify", lambda n=1: woken.append(n))
    end(fast_pool, attempt)
    assert woken == [1]


def test_one_thread_at_a_time_claims_for_a_fast_handler(fast_pool):
    """Slots that become free while a thread claims are filled by the next claim, together."""
    fast_pool.put([ReadyDelivery("a0", "p:a", 0)])
    attempt = fast_pool.take()
    fast_pool.put([ReadyDelivery(f"a{number}", "p:a", 0) for number in range(1, 7)])
    fast_pool.put([ReadyDelivery("b", "p:b", 0)])
    assert fast_pool.take().queued.delivery_id == "b"
    assert not fast_pool._ready_handlers
    fast_pool.start_others(attempt, [])
    assert others_of(fast_pool.take()) == ["a2", "a3", "a4", "a5"]


def test_threads_wait_for_deliveries_that_are_claimed_during_a_stop(fast_pool):
    """A delivery marked as running during the stop gets a thread, even if the claiming thread's own delivery hangs."""
    fast_pool.put([ReadyDelivery(f"a{number}", "p:a", 0) for number in range(2)])
    attempt, taken = fast_pool.take(), []
    other = threading.Thread(target=lambda: taken.append(fast_pool.take()), daemon=True)
    other.start()
    fast_pool.close()
    fast_pool.start_others(attempt, [ClaimedAttempt(event=None, attempt=1, retry_base=0)])
    other.join(WAIT_TIMEOUT)
    assert [attempt.queued.delivery_id for attempt in taken] == ["a1"]


def test_a_backlog_of_a_fast_handler_is_claimed_in_batches(harness, listens, eventually, monkeypatch, backlog):
    """Each delivery runs once, and a claim has at most as many as the handler has slots."""
    monkeypatch.setattr(slots, "FAST_THRESHOLD_SECONDS", 60.0)  # on a busy machine, too
    runs, claimed = Counter(), []
    flow = harness.open(listens(lambda event: runs.update([event.flow_instance_id])), start=False)
    claim_all = flow.app.ledger.claim_all

    def counted(deliveries):
        claimed.append(len(deliveries))
        return claim_all(deliveries)

    flow.app.ledger.claim_all = counted
    flow.app.runner._slots._fast_handlers.update(flow.app.runs)
    backlog(flow, 400)
    flow.app.start()
    eventually(flow.is_idle)
    assert set(runs.values()) == {1}
    assert len(runs) == 400
    assert 1 < max(claimed) <= max_per_handler(flow.app.runner._slots.size)


def test_one_delivery_that_cannot_be_claimed_delays_no_other(harness, listens, eventually, backlog, logged):
    """If the claim of several fails because of one of them, each is claimed alone, and the others run."""
    runs = Counter()
    flow = harness.open(listens(lambda event: runs.update([event.flow_instance_id])), start=False)
    flow.app.runner._slots._fast_handlers.update(flow.app.runs)
    backlog(flow, 60)
    flow.sql("UPDATE events SET body = '{' WHERE flow_instance_id = 'leave-00030'")
    flow.app.start()
    eventually(lambda: len(runs) == 59)
    eventually(lambda: "delivery_damaged" in {entry["event"] for entry in logged})
    assert set(runs.values()) == {1}
    assert "leave-00030" not in runs


def test_a_backlog_of_one_handler_does_not_delay_another(harness, listens, gate, backlog, eventually):
    """With three thousand waiting deliveries of one handler, a callback of another runs at once."""
    flow = harness.open(
        listens(gate, name="gate"),
        listens(lambda event: 1, name="h", process_key="k"),
        start=False,
        runner={"threads": 4},
    )
    backlog(flow, 3000)
    flow.app.start()
    assert gate.enter(3)
    for number in range(20):
        assert flow.take(f"k{number}", key="k").status == "done"
    assert len(gate.runs) == 3
    eventually(lambda: flow.app.runner.running == 3)  # the thread of the last callback is free after its answer
    assert len(flow.app.runner._slots._in_memory) <= slots.MAX_QUEUED_PER_HANDLER


def test_deliveries_above_the_memory_limit_run_once(harness, listens, eventually, monkeypatch, backlog):
    """Deliveries above the memory limit of a handler all run once, oldest first."""
    monkeypatch.setattr(slots, "MAX_QUEUED_PER_HANDLER", 40)
    runs = []
    most = []

    def function(event):
        runs.append(event.flow_instance_id)
        most.append(len(flow.app.runner._slots._in_memory))

    flow = harness.open(listens(function), start=False, runner={"threads": 2})
    backlog(flow, 150)
    flow.app.start()
    backlog(flow, 150, first=150)
    eventually(flow.is_idle)
    assert Counter(runs) == {f"leave-{number:05}": 1 for number in range(300)}
    assert runs[:40] == [f"leave-{number:05}" for number in range(40)]
    assert max(most) <= 40


def test_a_retry_that_has_become_due_is_found(harness, listens, eventually):
    """Polling finds deliveries that became due, without a notification."""
    errors = [ValueError("x")]

    def function(event):
        if errors:
            raise errors.pop()

    flow = harness.open(listens(function, retry=Retry()))
    event_id = flow.take(wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.clock.advance(5)
    flow.settled(event_id, State.SUCCEEDED, attempt=2)


def test_the_runner_reports_an_unreadable_ledger(harness, listens, eventually, monkeypatch):
    """While the ledger cannot be read the runner reports it, and recovers by itself."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.02)
    flow = harness.open(listens(lambda event: 1, name="h"))
    with ExitStack() as stack:
        held = []

        def hold():
            with suppress(Exception):  # the runner uses the last connection now
                held.append(stack.enter_context(flow.app.ledger.connection()).exec_driver_sql("SELECT 1"))
            return len(held) == 8

        eventually(hold)
        eventually(flow.app.runner.health)
        assert flow.app.readiness_problems()
    eventually(lambda: flow.app.runner.health() is None)
    assert flow.take().status == "done"


def test_an_exception_in_the_loop_does_not_end_polling(harness, listens, eventually, logged):
    """An exception in the runner's loop is logged and shown as a problem, and polling continues."""
    flow = harness.open(listens(lambda event: 1, name="h"), start=False)
    pool, faults = flow.app.runner._slots, []

    def broken_at_first(function):
        def broken(*given):
            if faults.count(function.__name__) < 2:
                faults.append(function.__name__)
                raise KeyError("fault")
            return function(*given)

        return broken

    flow.app.ledger.due_deliveries = broken_at_first(flow.app.ledger.due_deliveries)
    pool.abandon_overdue = broken_at_first(pool.abandon_overdue)
    event_id = flow.take(wait=0).event_id
    flow.app.start()
    flow.settled(event_id, State.SUCCEEDED)
    eventually(lambda: len(faults) == 4)
    eventually(lambda: flow.app.runner.health() is None)
    assert [entry["event"] for entry in logged].count("poll_failed") == 4


@pytest.mark.sqlite
def test_a_full_disk_does_not_fill_the_log(harness, listens, eventually, logged, backlog):
    """On a full disk the runner neither spins nor fills the log; with space all deliveries run once."""
    runs = Counter()
    flow = harness.open(listens(lambda event: runs.update([event.id]), name="h"), start=False, runner={"threads": 4})
    backlog(flow, 300)
    ((pages,),) = flow.sql("PRAGMA page_count")
    flow.app.ledger.write(lambda t: t.connection.exec_driver_sql(f"PRAGMA max_page_count={pages}").all())
    flow.sql("CREATE TABLE filler AS SELECT zeroblob(4000) AS x")
    flow.sql(
        "CREATE TRIGGER full BEFORE INSERT ON attempts BEGIN INSERT INTO filler SELECT zeroblob(1000000); END",
    )
    began = time.monotonic()
    flow.app.start()
    eventually(lambda: flow.app.ledger.write_error)
    time.sleep(0.5)
    assert runs == {}
    not_run = sum(entry["event"] == "delivery_not_run" for entry in logged)
    # Each of the threads pauses after each.
    assert not_run <= 4 * (1 + (time.monotonic() - began) / FAULT_PAUSE_SECONDS)
    flow.sql("DROP TRIGGER full")
    flow.app.ledger.write(lambda t: t.connection.exec_driver_sql("PRAGMA max_page_count=1000000").all())
    eventually(flow.is_idle)
    assert set(runs.values()) == {1}
    assert len(runs) == 300


def test_a_delivery_that_is_not_due_is_not_started(harness, listens):
    """A delivery that is not due gets no thread."""
    runs = []
    listener = listens(lambda event: runs.append(1), name="h")
    first = harness.open(listener, start=False)
    event_id = first.take(wait=0).event_id
    first.sql("UPDATE deliveries SET due_at = due_at + ?", 10 * SECOND)
    first.close()
    flow = harness.open(listener)
    assert flow.take("i2").status == "done"
    assert flow.only(event_id).attempt == 0
    flow.advance(10)
    flow.settled(event_id, State.SUCCEEDED)
    assert len(runs) == 2


def test_a_thread_whose_attempt_takes_too_long_is_replaced(harness, listens, gate, eventually, logged):
    """The pool replaces a thread with an overdue attempt, whose later outcome counts."""
    other = listens(lambda event: None, name="other", process_key="other", timeout=60.0)
    flow = harness.open(listens(gate, name="hangs"), other, runner={"threads": 2, "timeout": 0.2})
    hanging = [flow.take(f"i{number}", wait=0).event_id for number in range(4)]
    # A handler gets one of two threads. The first is abandoned, so another starts; the abandoned one keeps its place.
    assert gate.enter(2)
    assert not gate.enter(1, within=0.8)
    overdue = eventually(
        lambda: len(found := [record for record in logged if record["event"] == "attempt_overdue"]) > 1 and found
    )
    assert [record["handler"] for record in overdue] == ["p:hangs", "p:hangs"]
    assert flow.take("o", key="other").status == "done"
    eventually(lambda: flow.app.runner.running == 2)
    gate.opened.set()
    for event_id in hanging:
        assert flow.settled(event_id, State.SUCCEEDED).attempt == 1
    eventually(lambda: len([thread for thread in threading.enumerate() if thread.name.startswith("runner-")]) == 2)
    assert flow.app.runner._slots._abandoned == 0


def test_the_number_of_threads_is_bounded_while_handlers_hang(harness, listens, gate, eventually):
    """With several hanging handlers there are at most twice as many threads as the pool's size."""
    before = set(threading.enumerate())  # threads of an earlier test may be about to end
    handlers = [listens(gate, name=f"h{number}", process_key=f"k{number}") for number in range(6)]
    flow = harness.open(*handlers, runner={"threads": 2, "timeout": 0.1})
    for number in range(6):
        flow.take(f"i{number}", key=f"k{number}", wait=0)
    assert gate.enter(4)
    assert not gate.enter(1, within=0.6)
    assert len([thread for thread in set(threading.enumerate()) - before if thread.name.startswith("runner-")]) == 4
    gate.opened.set()
    eventually(flow.is_idle)


def test_a_thread_that_cannot_be_started_is_started_later(harness, listens, gate, eventually, logged):
    """If the system cannot start a thread, the others continue, and the thread is started later."""
    quick = listens(lambda event: None, name="other", process_key="other", timeout=60.0)
    more = threading.Event()
    busy = listens(lambda event: more.wait(WAIT_TIMEOUT), name="busy", process_key="busy", timeout=60.0)
    flow = harness.open(listens(gate, name="hangs"), quick, busy, runner={"threads": 2, "timeout": 0.2})
    start, room = threading.Thread.start, threading.Event()

    def starts(thread):
        if thread.name.startswith("runner-") and not room.is_set():
            raise RuntimeError("can't start new thread")
        start(thread)

    def runners():
        return sum(thread.name.startswith("runner-") for thread in threading.enumerate())

    eventually(lambda: runners() == 2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threading.Thread, "start", starts)
        hanging = flow.take("h", wait=0).event_id
        assert gate.enter(1)
        eventually(lambda: [record for record in logged if record["event"] == "thread_start_failed"])
        assert flow.take("o", key="other").status == "done"
        assert runners() == 2
        busy = flow.take("b", key="busy", wait=0).event_id
        eventually(lambda: flow.only(busy).state is State.RUNNING)
        left = flow.take("l", key="other", wait=0).event_id
        assert flow.only(left).state is State.WAITING, "it is marked as running, and no thread runs it"
        room.set()
        eventually(lambda: runners() == 3)
    flow.settled(left, State.SUCCEEDED)
    more.set()
    gate.opened.set()
    flow.settled(hanging, State.SUCCEEDED)
    assert len([record for record in logged if record["event"] == "thread_start_failed"]) == 1


def test_each_handler_has_its_own_timeout(harness, listens, gate, eventually, logged):
    """The operator's setting for a handler overrides its declaration, which overrides the general setting."""
    handlers = [listens(gate, name="slow", timeout=60), listens(gate, name="quick", process_key="q", timeout=60)]
    flow = harness.open(
        *handlers, runner={"threads": 4, "timeout": 60.0}, handlers={"p:quick": HandlerSettings(timeout=0.1)}
    )
    flow.take("s", wait=0)
    flow.take("q", key="q", wait=0)
    assert gate.enter(2)
    eventually(lambda: [record["handler"] for record in logged if record["event"] == "attempt_overdue"] == ["p:quick"])
    gate.opened.set()


@contextmanager
def begins(execute, clock):
    """A function that starts deliveries of one handler together in a runner of eight threads, executed by `execute`."""
    pool, stop = slots.SlotPool(8, Anywhere(), clock), threading.Event()
    ledger = NothingDue()
    runner = embedded.EmbeddedRunner(pool, ledger, clock)
    thread = threading.Thread(target=runner.run, args=(execute, stop))
    thread.start()
    event = object()

    def begin(*names):
        # A thread that has just finished a delivery would take one of these without being notified.
        until(lambda: len(pool._changed._waiters) == pool.size)
        queued = [ReadyDelivery(name, "p:h", 0, load_event=lambda: event) for name in names]
        reserved = pool.reserve(NO_TRANSACTION, queued)
        assert reserved == queued
        pool._start_reserved(reserved)

    assert ledger.polled.wait(WAIT_TIMEOUT)  # a poll wakes further threads
    try:
        yield begin
    finally:
        stop.set()
        runner.wake()
        thread.join(WAIT_TIMEOUT)
        assert not thread.is_alive()


def test_deliveries_of_a_quick_handler_share_one_thread(clock, monkeypatch, eventually):
    """Deliveries of a quick handler share one thread, which is cheaper; those of a new handler get one each."""
    monkeypatch.setattr(embedded, "POLL_INTERVAL", 60)
    monkeypatch.setattr(slots, "FAST_THRESHOLD_SECONDS", 60)
    ran, together = [], threading.Barrier(3)

    def execute(queued, claimed):
        if queued.delivery_id.startswith("unknown"):
            together.wait(WAIT_TIMEOUT)  # the handler is not known as quick yet, so each delivery gets a thread
        ran.append((queued.delivery_id, threading.get_ident()))

    with begins(execute, clock) as begin:
        begin("unknown-1", "unknown-2", "unknown-3")
        eventually(lambda: len(ran) == 3)
        begin("a", "b", "c")
        eventually(lambda: len(ran) == 6)
    assert [name for name, _ in ran[3:]] == ["a", "b", "c"]
    assert len({thread for _, thread in ran[3:]}) == 1


def test_other_threads_start_the_deliveries_of_a_hanging_thread(clock, monkeypatch, eventually):
    """Deliveries that were assigned to a hanging thread are started by other threads at the next poll."""
    monkeypatch.setattr(slots, "FAST_THRESHOLD_SECONDS", 60)
    ran, opened = [], threading.Event()

    def execute(queued, claimed):
        if queued.delivery_id == "hangs":
            opened.wait(WAIT_TIMEOUT)
        ran.append(queued.delivery_id)

    with begins(execute, clock) as begin:
        begin("quick")
        eventually(lambda: ran == ["quick"])
        begin("hangs", "a", "b")
        eventually(lambda: sorted(ran[1:]) == ["a", "b"])
        opened.set()
        eventually(lambda: ran[3:] == ["hangs"])
