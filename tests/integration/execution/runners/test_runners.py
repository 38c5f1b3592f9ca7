"""Requirements for every runner: each delivery runs once, handlers share fairly, and nothing is left at the end."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from flowhooks import Retry, State
from flowhooks.clock import to_datetime
from flowhooks.execution.runners import embedded
from flowhooks.ledger.new_event import NewEvent
from flowhooks.model.event import from_body
from flowhooks.operations.resolve import Resolution, resolve
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.runners


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_small_pool_runs_everything(harness, listens, threads):
    """Even one thread runs every handler."""
    runs = []
    handlers = [listens(lambda event, n=n: runs.append(n), name=f"h{n}", process_key=f"k{n}") for n in range(3)]
    flow = harness.open(*handlers, runner={"threads": threads})
    for number in range(12):
        assert flow.take(f"i{number}", key=f"k{number % 3}").status == "done"
    assert Counter(runs) == {0: 4, 1: 4, 2: 4}


def test_a_hanging_handler_does_not_block_other_handlers(harness, listens, gate):
    """While one handler hangs, every other handler runs at once."""
    flow = harness.open(
        listens(gate, name="gate"), listens(lambda event: 1, name="h", process_key="k"), runner={"threads": 2}
    )
    for number in range(20):
        flow.take(f"i{number}", wait=0)
    assert gate.enter(1)
    for number in range(20):
        assert flow.take(f"k{number}", key="k").status == "done"
    assert len(gate.runs) == 1  # which one is not defined: they are due at the same time


def test_a_hanging_probe_keeps_one_thread(open_hanging_probe, gate, eventually):
    """While a probe hangs, its delivery is due again each minute, but no other thread calls the probe."""
    flow, _ = open_hanging_probe(lambda event: None, runner={"threads": 4})
    for _ in range(3):
        flow.advance(60)
        assert not gate.enter(1, within=0.3)
    eventually(lambda: flow.app.runner.running == 1)


def test_an_operator_decides_while_the_probe_hangs(open_hanging_probe):
    """A delivery whose probe hangs runs when an operator says that it did not do its work."""
    flow, event_id = open_hanging_probe(lambda event: None)
    resolve(flow.app.operation_context, flow.only(event_id).delivery_id, Resolution.DID_NOT, note="by hand")
    flow.settled(event_id, State.SUCCEEDED, attempt=2)


@pytest.mark.parametrize("verdict", [True, False])
def test_a_late_verdict_of_a_probe_changes_nothing(open_hanging_probe, gate, eventually, verdict):
    """A probe that returns after an operator has decided changes neither the delivery nor those of its key behind it.

    The attempt that the operator asked for fails, so that each verdict would be seen.
    """

    def fails(event):
        raise OSError("on purpose")

    gate.verdict = verdict
    flow, event_id = open_hanging_probe(fails, order_by="process_key")
    behind = flow.take("behind", wait=0).event_id
    resolve(flow.app.operation_context, flow.only(event_id).delivery_id, Resolution.DID_NOT, note="by hand")
    flow.settled(event_id, State.DEAD, attempt=2)
    flow.settled(behind, State.DEAD, attempt=1)
    gate.opened.set()
    eventually(lambda: flow.app.runner.running == 0)
    assert (flow.only(event_id).state, flow.only(event_id).attempt) == (State.DEAD, 2)


def test_handlers_take_turns(harness, listens, eventually, backlog):
    """Of two handlers with a backlog each, neither finishes before the other has run several deliveries."""
    runs, both = [], threading.Barrier(2)

    def run(number):
        runs.append(number)
        if runs.count(number) <= 6:  # on a busy machine, one thread may stand still until the other has run all
            both.wait(WAIT_TIMEOUT)

    handlers = [listens(lambda event, n=n: run(n), name=f"h{n}", process_key=f"k{n}") for n in range(2)]
    flow = harness.open(*handlers, start=False, runner={"threads": 2})
    for number in range(2):
        backlog(flow, 60, key=f"k{number}")
    flow.app.start()
    eventually(flow.is_idle)
    assert {Counter(runs[:40])[n] > 4 for n in range(2)} == {True}
    assert Counter(runs) == {0: 60, 1: 60}


def test_no_delivery_runs_twice(harness, listens, together, eventually):
    """While threads send and repeat callbacks and the ledger is polled all the time, nothing runs twice."""
    runs = Counter()
    lock = threading.Lock()

    def function(event, delivery):
        with lock:
            runs[delivery.id, delivery.attempt] += 1

    flow = harness.open(listens(function, name="a"), listens(function, name="b", retry=Retry()), runner={"threads": 8})
    stop = threading.Event()

    def look():
        while not stop.is_set():
            flow.app.runner.wake()
            stop.wait(0.001)

    looking = threading.Thread(target=look)
    looking.start()
    together(*[lambda: [flow.take(f"i{number}", wait=0) for number in range(40)]] * 4)
    eventually(flow.is_idle)
    stop.set()
    looking.join()
    assert len(runs) == 80
    assert set(runs.values()) == {1}
    assert {attempt for _, attempt in runs} == {1}


def test_a_retry_without_delay_runs_at_once(harness, listens):
    """A schedule of zero seconds makes its attempts in sequence, each once."""
    runs = []

    def function(event, delivery):
        runs.append(delivery.attempt)
        raise ValueError("x")

    flow = harness.open(listens(function, retry=Retry(attempts=6, delays=(0,))))
    assert flow.take(wait=WAIT_TIMEOUT).status == "dead"
    assert runs == [1, 2, 3, 4, 5, 6]


def test_stop_waits_for_running_attempts(harness, listens, gate, eventually):
    """A stop waits for running attempts and records them; deliveries that have not started keep waiting."""
    flow = harness.open(listens(gate, name="gate"), runner={"threads": 2})
    for number in range(5):
        flow.take(f"i{number}", wait=0)
    assert gate.enter(1)
    ended = []
    closing = threading.Thread(target=lambda: ended.append(flow.close(30)))
    closing.start()
    eventually(lambda: flow.app.runner._slots._stopping)  # until then, a free slot may take the next delivery
    assert not gate.enter(1, within=0.3)
    assert closing.is_alive()
    gate.opened.set()
    closing.join(WAIT_TIMEOUT)
    assert ended == [True]
    assert len(gate.runs) == 1  # any of them: the handler is not ordered
    assert flow.sql("SELECT state, attempt, count(*) FROM deliveries GROUP BY 1, 2 ORDER BY 1") == [
        ("succeeded", 1, 1),
        ("waiting", 0, 4),
    ]
    assert flow.sql("SELECT count(*) FROM processes WHERE stopped_at IS NULL") == [(0,)]


def test_stop_abandons_attempts_after_the_timeout(harness, listens, gate):
    """An attempt that outlasts the timeout is abandoned and logged, and the next start finds it lost."""
    listener = listens(gate, name="gate")
    flow = harness.open(listener)
    event_id = flow.take(wait=0).event_id
    assert gate.enter(1)
    assert flow.close(0.2) is False
    second = harness.open(listener)
    assert second.only(event_id).state is State.UNKNOWN
    gate.opened.set()
    assert second.only(event_id).state is State.UNKNOWN


def test_a_failed_transaction_frees_its_reserved_threads(harness, listens, gate, new_gate):
    """Threads reserved for deliveries of a failed transaction become free again."""
    flow = harness.open(
        listens(gate, name="gate"), listens(new_gate(), name="other", process_key="o"), runner={"threads": 4}
    )

    def cut(number):
        def function(transaction):
            items = []
            original = flow.app.ledger._event_inserter
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


def test_a_stop_applies_to_the_next_callback(harness, listens, monkeypatch):
    """A delivery that is stored after the stop stays waiting, even if the runner has not noticed the stop yet."""
    monkeypatch.setattr(embedded, "POLL_INTERVAL", 3600.0)
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"))
    assert flow.take("before").status == "done"
    with monkeypatch.context() as until_noticed:
        until_noticed.setattr(flow.app.runner, "wake", lambda: None)
        flow.app.stop_starting()
        (delivery,) = flow.take("after", wait=WAIT_TIMEOUT).delivery_statuses
        assert (delivery.state, delivery.attempt) == (State.WAITING, 0)
    flow.close()
    assert runs == ["before"]
