"""The runner in this process: fair, bounded, and never the cause of a lost or a second run."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from flowhooks import Retry, State
from flowhooks.clock import SECOND, to_datetime
from flowhooks.delivery import Queued
from flowhooks.event import digest, from_body
from flowhooks.ledger import NewEvent
from flowhooks.runners import embedded


class Gate:
    """A handler that waits to be let go on."""

    def __init__(self):
        self.runs = []
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, event):
        """Handle."""
        self.runs.append(event.flow_instance_id)
        self.entered.release()
        assert self.opened.wait(30)

    def enter(self, times, within=20.0):
        """Whether it has been entered so many times more."""
        return all(self.entered.acquire(timeout=within) for _ in range(times))


@pytest.fixture
def gate():
    """A handler that waits to be let go on; let go on at the end."""
    gate = Gate()
    yield gate
    gate.opened.set()


def backlog(flow, count, *, key="leave", first=0):
    """Store many events for a key in one transaction, the first one first."""
    now = flow.clock.now()
    body = {"processDefinitionKey": key}
    items = []
    for number in range(first, first + count):
        event = from_body(
            body,
            id=flow.clock.new_id(),
            source="default",
            kind="complete",
            flow_instance_id=f"{key}-{number:05}",
            received_at=to_datetime(now),
        )
        route = flow.app.router.route(event)
        items.append(
            NewEvent(
                event=event,
                body=f'{{"processDefinitionKey": "{key}"}}',
                digest=digest(body),
                state="routed",
                route=route.handlers,
                deliveries=[(flow.clock.new_id(), handler) for handler in route.handlers],
                now=now,
            )
        )
    flow.app.ledger.write(lambda transaction: flow.app.ledger._accepting(transaction, items), timeout=60)


def at_rest(flow):
    """Whether nothing waits or runs any more."""
    tally = flow.app.ledger.tally()
    return tally["waiting"] + tally["running"] == 0


def test_one_handler_gets_half_of_the_pool(house, listens, gate):
    """Of six threads one handler gets three, however much it has to do, and another one gets the rest."""
    other = Gate()
    flow = house.open(
        listens(gate, name="gate"), listens(other, name="other", process_key="other"), runner={"threads": 6}
    )
    for number in range(10):
        flow.take(f"i{number}", wait=0)
    assert gate.enter(3)
    assert not gate.enter(1, within=0.3)
    assert flow.app.runner.running == 3
    for number in range(10):
        flow.take(f"o{number}", key="other", wait=0)
    assert other.enter(3)
    assert not other.enter(1, within=0.2)
    assert flow.app.runner.running == 6
    gate.opened.set()
    other.opened.set()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_small_pool_runs_everything(house, listens, threads):
    """Even one thread runs every handler."""
    runs = []
    handlers = [listens(lambda event, n=n: runs.append(n), name=f"h{n}", process_key=f"k{n}") for n in range(3)]
    flow = house.open(*handlers, runner={"threads": threads})
    for number in range(12):
        assert flow.take(f"i{number}", key=f"k{number % 3}").status == "done"
    assert Counter(runs) == {0: 4, 1: 4, 2: 4}


def test_whose_turn_it_is_comes_before_what_is_new(clock):
    """A free thread is not given to a new delivery while one of another handler waits for its turn."""
    runner = embedded.Embedded(threads=2, due=lambda now, most: [], clock=clock)
    runner._free = 1
    runner._offer([Queued("waits", "p:a", 0)])
    assert runner._reserve([Queued("new", "p:b", 0)]) == []
    runner._free = 2
    assert runner._reserve([Queued("new", "p:b", 0)]) == [Queued("new", "p:b", 0)]


def test_a_handler_that_hangs_does_not_stop_the_others(house, listens, gate):
    """While one handler never comes back, every other one is run at once."""
    flow = house.open(
        listens(gate, name="gate"), listens(lambda event: 1, name="h", process_key="k"), runner={"threads": 2}
    )
    for number in range(20):
        flow.take(f"i{number}", wait=0)
    assert gate.enter(1)
    for number in range(20):
        assert flow.take(f"k{number}", key="k").status == "done"
    assert gate.runs == ["i0"]


def test_a_backlog_of_one_handler_does_not_delay_another(house, listens, gate):
    """With three thousand deliveries waiting for one handler, a call-back for another is done at once."""
    flow = house.open(
        listens(gate, name="gate"),
        listens(lambda event: 1, name="h", process_key="k"),
        start=False,
        runner={"threads": 4},
    )
    backlog(flow, 3000)
    flow.app.start()
    assert gate.enter(2)
    started = time.monotonic()
    for number in range(20):
        assert flow.take(f"k{number}", key="k").status == "done"
    assert time.monotonic() - started < 10
    assert len(gate.runs) == 2
    assert len(flow.app.runner._here) <= embedded.MOST_OF_ONE


def test_what_does_not_fit_into_memory_is_run_all_the_same(house, listens, eventually, monkeypatch):
    """Of a handler with more deliveries than are kept in memory every one is run, once, the oldest first."""
    monkeypatch.setattr(embedded, "MOST_OF_ONE", 40)
    runs = []
    most = []

    def function(event):
        runs.append(event.flow_instance_id)
        most.append(len(flow.app.runner._here))

    flow = house.open(listens(function), start=False, runner={"threads": 2})
    backlog(flow, 150)
    flow.app.start()
    backlog(flow, 150, first=150)
    eventually(lambda: at_rest(flow))
    assert Counter(runs) == {f"leave-{number:05}": 1 for number in range(300)}
    assert runs[:40] == [f"leave-{number:05}" for number in range(40)]
    assert max(most) <= 40


def test_handlers_take_turns(house, listens, eventually):
    """Of two handlers with a backlog each, neither is done before the other has begun in earnest."""
    runs = []
    handlers = [listens(lambda event, n=n: runs.append(n), name=f"h{n}", process_key=f"k{n}") for n in range(2)]
    flow = house.open(*handlers, start=False, runner={"threads": 2})
    for number in range(2):
        backlog(flow, 60, key=f"k{number}")
    flow.app.start()
    eventually(lambda: at_rest(flow))
    assert {Counter(runs[:40])[n] > 4 for n in range(2)} == {True}
    assert Counter(runs) == {0: 60, 1: 60}


def test_nothing_runs_twice(house, listens, together, eventually):
    """While call-backs come in from many threads, come again, and the ledger is looked through all the time."""
    runs = Counter()
    lock = threading.Lock()

    def function(event, delivery):
        with lock:
            runs[delivery.id, delivery.attempt] += 1

    flow = house.open(listens(function, name="a"), listens(function, name="b", retry=Retry()), runner={"threads": 8})
    stop = threading.Event()

    def look():
        while not stop.is_set():
            flow.app.runner.wake()
            stop.wait(0.001)

    looking = threading.Thread(target=look)
    looking.start()
    together(*[lambda: [flow.take(f"i{number}", wait=0) for number in range(40)]] * 4)
    eventually(lambda: at_rest(flow))
    stop.set()
    looking.join()
    assert len(runs) == 80
    assert set(runs.values()) == {1}
    assert {attempt for _, attempt in runs} == {1}


def test_a_retry_that_has_become_due_is_found(house, listens, eventually):
    """Without being told, the runner finds what has become due by the clock."""
    errors = [ValueError("x")]

    def function(event):
        if errors:
            raise errors.pop()

    flow = house.open(listens(function, retry=Retry()))
    event_id = flow.take(wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.clock.advance(5)
    flow.settled(event_id, State.SUCCEEDED, attempt=2)


def test_a_retry_without_delay_is_made_at_once(house, listens):
    """A schedule of no seconds at all makes its attempts one after the other, each once."""
    runs = []

    def function(event, delivery):
        runs.append(delivery.attempt)
        raise ValueError("x")

    flow = house.open(listens(function, retry=Retry(attempts=6, delays=(0,))))
    assert flow.take(wait=20).status == "dead"
    assert runs == [1, 2, 3, 4, 5, 6]


def test_stopping_waits_for_what_runs(house, listens, gate):
    """At the end what runs is waited for and recorded; what had not begun keeps waiting, without an attempt."""
    flow = house.open(listens(gate, name="gate"), runner={"threads": 2})
    for number in range(5):
        flow.take(f"i{number}", wait=0)
    assert gate.enter(1)
    ended = []
    closing = threading.Thread(target=lambda: ended.append(flow.close(30)))
    closing.start()
    assert not gate.enter(1, within=0.3)
    assert closing.is_alive()
    gate.opened.set()
    closing.join(30)
    assert ended == [True]
    assert gate.runs == ["i0"]
    assert flow.sql("SELECT state, attempt, count(*) FROM deliveries GROUP BY 1, 2 ORDER BY 1") == [
        ("succeeded", 1, 1),
        ("waiting", 0, 4),
    ]
    assert flow.sql("SELECT count(*) FROM processes WHERE stopped_at IS NULL") == [(0,)]


def test_stopping_does_not_wait_for_ever(house, listens, gate):
    """What does not end in time is left behind, says so, and is found lost at the next start."""
    listener = listens(gate, name="gate")
    flow = house.open(listener)
    event_id = flow.take(wait=0).event_id
    assert gate.enter(1)
    started = time.monotonic()
    assert flow.close(0.2) is False
    assert time.monotonic() - started < 15
    second = house.open(listener)
    assert second.only(event_id).state is State.UNKNOWN
    gate.opened.set()
    assert second.only(event_id).state is State.UNKNOWN


def test_a_transaction_that_comes_to_nothing_keeps_no_thread(house, listens, gate):
    """Threads that were reserved for deliveries of a transaction that failed are free again."""
    flow = house.open(listens(gate, name="gate"), listens(Gate(), name="other", process_key="o"), runner={"threads": 4})

    def cut(number):
        def function(transaction):
            items = []
            original = flow.app.ledger._accepting
            event = from_body(
                {"processDefinitionKey": "leave"},
                id=flow.clock.new_id(),
                source="default",
                kind="complete",
                flow_instance_id=f"cut-{number}",
                received_at=to_datetime(flow.clock.now()),
            )
            items.append(
                NewEvent(
                    event=event,
                    body='{"processDefinitionKey": "leave"}',
                    digest="x",
                    state="routed",
                    route={"p:gate": "key leave"},
                    deliveries=[(flow.clock.new_id(), "p:gate")],
                    now=flow.clock.now(),
                )
            )
            original(transaction, items)
            raise RuntimeError("cut")

        return function

    for number in range(10):
        with pytest.raises(RuntimeError, match="cut"):
            flow.app.ledger.write(cut(number))
    assert flow.app.runner.running == 0
    assert gate.runs == []
    for number in range(4):
        flow.take(f"i{number}", wait=0)
    assert gate.enter(2)


def test_it_says_when_it_cannot_look(house, listens, eventually, monkeypatch):
    """While the ledger cannot be read the runner says so, and goes on by itself afterwards."""
    monkeypatch.setattr("flowhooks.ledger.dialects.engines.BUSY_SECONDS", 0.02)
    flow = house.open(listens(lambda event: 1, name="h"))
    with ExitStack() as stack:
        deadline = time.monotonic() + 20
        held = 0
        while held < 8 and time.monotonic() < deadline:
            try:
                stack.enter_context(flow.app.ledger.connection()).exec_driver_sql("SELECT 1")
                held += 1
            except Exception:  # noqa: BLE001 (the runner has the last one just now)
                continue
        eventually(flow.app.runner.health)
        assert flow.app.trouble()
    eventually(lambda: flow.app.runner.health() is None)
    assert flow.take().status == "done"


def test_a_fault_while_looking_does_not_end_the_looking(house, listens, eventually, logged):
    """Whatever looking for work raises is logged, shown as trouble, and looking goes on."""
    flow = house.open(listens(lambda event: 1, name="h"), start=False)
    real, faults = flow.app.runner._due, []

    def broken(now, most):
        if len(faults) < 2:
            faults.append(1)
            raise KeyError("fault")
        return real(now, most)

    flow.app.runner._due = broken
    event_id = flow.take(wait=0).event_id
    flow.app.start()
    flow.settled(event_id, State.SUCCEEDED)
    eventually(lambda: flow.app.runner.health() is None)
    assert "cannot_look_for_work" in {entry["event"] for entry in logged}


@pytest.mark.sqlite
def test_a_full_disk_makes_no_flood(house, listens, eventually, logged):
    """While nothing can be marked, the runner neither spins nor fills the log; with room again all is run, once."""
    runs = Counter()
    flow = house.open(listens(lambda event: runs.update([event.id]), name="h"), start=False, runner={"threads": 4})
    backlog(flow, 300)
    ((pages,),) = flow.sql("PRAGMA page_count")
    flow.app.ledger.write(lambda t: t.connection.exec_driver_sql(f"PRAGMA max_page_count={pages}").all())
    flow.sql("CREATE TABLE filler AS SELECT zeroblob(4000) AS x")
    flow.sql(
        "CREATE TRIGGER full BEFORE INSERT ON attempts BEGIN INSERT INTO filler SELECT zeroblob(1000000); END",
    )
    flow.app.start()
    eventually(lambda: flow.app.ledger.failing)
    time.sleep(0.5)
    assert runs == {}
    assert sum(entry["event"] == "not_run" for entry in logged) <= 12
    flow.sql("DROP TRIGGER full")
    flow.app.ledger.write(lambda t: t.connection.exec_driver_sql("PRAGMA max_page_count=1000000").all())
    eventually(lambda: at_rest(flow), seconds=40)
    assert set(runs.values()) == {1}
    assert len(runs) == 300


def test_what_is_for_later_is_not_begun(house, listens):
    """A delivery whose time has not come is not handed to a thread."""
    runs = []
    listener = listens(lambda event: runs.append(1), name="h")
    first = house.open(listener, start=False)
    event_id = first.take(wait=0).event_id
    first.sql("UPDATE deliveries SET due_at = due_at + ?", 10 * SECOND)
    first.close()
    flow = house.open(listener)
    assert flow.take("i2").status == "done"
    assert flow.only(event_id).attempt == 0
    flow.advance(10)
    flow.settled(event_id, State.SUCCEEDED)
    assert len(runs) == 2
