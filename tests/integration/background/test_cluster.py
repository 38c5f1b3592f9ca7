"""Several apps on one PostgreSQL: waiters learn outcomes of other apps, and routes follow the ledger."""

from __future__ import annotations

import threading

import psycopg
import pytest

from flowhooks import Retry, State
from flowhooks.background import bulk_operations
from flowhooks.ledger import database, notifications
from flowhooks.ledger.database import dialect_statements
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.operations.bulk import plan_operation, start_operation
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.resolve import Resolution, resolve
from flowhooks.operations.retire import retire
from support.run_bulk import run_bulk
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.postgresql

SLOW = {"heartbeat_timeout": 6000.0}
"""Heartbeats a thousand seconds apart, so that only a notification can be the cause of any change."""
LONG = 1800.0
"""A wait in seconds that no test outlasts: an answer means that a notification came."""


def nothing(event):
    """Do nothing."""


def refuses(event):
    """Fail."""
    raise ValueError("no leave left")


@pytest.fixture
def without(harness):
    """A function that opens an app without plugins, which learns of others only from notifications."""
    return lambda **given: harness.open(ledger=SLOW, **given)


@pytest.fixture
def having(harness, listens):
    """A function that opens an app with the handler `h`."""
    return lambda function=nothing, **given: harness.open(
        listens(function, name="h", **given.pop("handler", {})), ledger=SLOW, **given
    )


@pytest.fixture
def answered(together):
    """A function that sends a callback with a long wait while it calls another function; returns the response."""

    def answer(flow, *given, meanwhile=lambda: None):
        found, done = together(lambda: flow.take(*given, wait=LONG), meanwhile)
        for result in (found, done):
            if isinstance(result, Exception):
                raise result
        return found

    return answer


def follows(flow, key, eventually):
    """Wait until an app routes a key."""
    eventually(lambda: flow.app.router.explain(process_key=key).route.handlers)


def test_routes_that_could_not_be_applied_are_applied_by_the_next_poll(having, without, monkeypatch):
    """An error while new routes are applied does not make a process keep its old ones."""
    taker = without(start=False)
    cluster = taker.app.cluster
    cluster.poll()
    having()
    apply, tries = cluster._on_routes_changed, []

    def fail_once(*given):
        tries.append(given)
        if len(tries) == 1:
            raise RuntimeError("no thread can be started")
        apply(*given)

    monkeypatch.setattr(cluster, "_on_routes_changed", fail_once)
    with pytest.raises(RuntimeError):
        cluster.poll()
    cluster.poll()
    assert taker.app.router.explain(process_key="leave").route.handlers
    cluster.poll()
    assert len(tries) == 2


@pytest.mark.parametrize(("function", "status"), [(nothing, "done"), (refuses, "dead")])
def test_a_waiter_receives_the_outcome_of_another_process(having, without, answered, function, status):
    """The first response of a process without the plugin has any outcome of the other process."""
    having(function)
    taker = without()
    answer = answered(taker)
    assert answer.status == status
    assert answer.delivery_statuses[0].attempt == 1
    assert ("no leave left" in answer.delivery_statuses[0].error) is (function is refuses)


def test_many_concurrent_waiters_receive_their_own_outcome(having, without, together):
    """Each of many waiters gets its own outcome."""
    having(runner={"threads": 4})
    taker = without(http={"threads": 64})
    answers = together(*[lambda number=number: taker.take(f"i{number}", wait=LONG) for number in range(24)])
    assert [answer.status for answer in answers] == ["done"] * 24
    assert len({answer.event_id for answer in answers}) == 24


def test_a_retry_that_is_too_late_ends_the_wait(having, without, answered, clock):
    """If the next attempt in another process is due after the wait, the waiter is answered at once."""
    having(refuses, handler={"retry": Retry(attempts=3, delays=[3600], jitter=0)})
    answer = answered(without())
    assert (answer.status, answer.delivery_statuses[0].state) == ("pending", State.WAITING)
    assert answer.delivery_statuses[0].due_at == clock.now() + 3600 * 1_000_000


def test_a_repeated_callback_waits_for_another_process(having, without, answered, eventually):
    """A repeated callback waits for the handler that runs in another process."""
    gate, entered = threading.Event(), threading.Event()

    def waits(event):
        entered.set()
        assert gate.wait(20)

    having(waits)
    taker = without()
    taker.take(wait=0)
    assert entered.wait(20)

    def opens():
        eventually(taker.app.waiters.pending_event_ids)
        gate.set()

    answer = answered(taker, meanwhile=opens)
    assert answer.status == "done"


def test_resolving_in_another_process_ends_the_wait(having, without, answered, eventually):
    """A delivery resolved in one process ends the wait for it in another process."""
    gate, entered = threading.Event(), threading.Event()

    def fails(event):
        entered.set()
        assert gate.wait(20)
        raise ValueError("x")

    runs = having(fails, handler={"retry": Retry(attempts=9, delays=[15], jitter=0)})
    taker, desk = without(), without()

    def operates():
        assert entered.wait(20)
        gate.set()
        (event_id,) = eventually(taker.app.waiters.pending_event_ids)
        delivery_status = runs.settled(event_id, State.WAITING, attempt=1)
        resolve(desk.app.operation_context, delivery_status.delivery_id, Resolution.CLOSE, note="by hand")

    answer = answered(taker, meanwhile=operates)
    assert answer.delivery_statuses[0].state is State.CLOSED


LISTENING = (
    "FROM pg_stat_activity"
    " WHERE datname = current_database() AND query IN ('LISTEN flowhooks', 'SELECT 1') AND pid <> pg_backend_pid()"
)


def cut(flow):
    """Make the server end every listening connection; return their number."""
    (ended,) = flow.sql(f"SELECT count(pg_terminate_backend(pid, 60000)) {LISTENING}")
    return ended[0]


@pytest.fixture
def cut_listeners(monkeypatch, eventually, logged):
    """A function that ends listening connections and keeps them from reconnecting until `restore` is called."""
    may_listen = threading.Event()
    original_listen = notifications.database.listen

    def wait_then_listen(*args):
        assert may_listen.wait(20)
        return original_listen(*args)

    def cut_and_block(flow):
        # A process that has just started may not listen yet.
        eventually(lambda: flow.sql(f"SELECT count(*) {LISTENING}") == [(2,)])
        monkeypatch.setattr(notifications.database, "listen", wait_then_listen)
        assert cut(flow) == 2
        eventually(lambda: len([record for record in logged if record["event"] == "notifications_disconnected"]) == 2)

    cut_and_block.restore = may_listen.set
    yield cut_and_block
    may_listen.set()


def test_an_outcome_during_a_lost_connection_reaches_the_waiter(having, without, answered, eventually, cut_listeners):
    """An outcome recorded while the connection is cut reaches the waiter afterwards."""
    gate, entered = threading.Event(), threading.Event()

    def waits(event):
        entered.set()
        assert gate.wait(20)

    runs = having(waits)
    taker = without()

    def cuts():
        assert entered.wait(20)
        (event_id,) = eventually(taker.app.waiters.pending_event_ids)
        cut_listeners(runs)
        gate.set()
        runs.settled(event_id, State.SUCCEEDED)
        assert taker.app.waiters.pending_event_ids() == [event_id]
        cut_listeners.restore()

    answer = answered(taker, meanwhile=cuts)
    assert answer.status == "done"


def test_a_heartbeat_finds_an_outcome_without_a_notification(having, without, answered, eventually, monkeypatch):
    """A silent connection delays no process, because each heartbeat polls too."""
    monkeypatch.setattr(notifications.ChangeNotice, "notify", lambda *_: None)
    having()
    taker = without()

    def looks():
        (event_id,) = eventually(taker.app.waiters.pending_event_ids)
        taker.settled(event_id, State.SUCCEEDED)
        taker.app.cluster.poll()

    answer = answered(taker, meanwhile=looks)
    assert answer.status == "done"


def test_a_handler_of_another_process_is_routed_without_a_restart(having, without, eventually):
    """A handler that another process registers is routed here, and its parked events are delivered."""
    taker = without()
    parked = taker.take("early")
    assert parked.status == "parked"
    having()
    follows(taker, "leave", eventually)
    assert taker.take("late").status == "done"
    taker.settled(parked.event_id, State.SUCCEEDED)


def test_an_event_parked_by_old_routes_is_delivered_by_new_routes(having, without, eventually, monkeypatch):
    """An event parked after another process looked for parked events is delivered to its handler."""
    taker = without()
    taker.app.cluster._listener.stop(20)  # this app gets no notifications
    having()
    parked = taker.take("between")
    assert parked.status == "parked"
    taker.app.cluster.poll()
    taker.settled(parked.event_id, State.SUCCEEDED)


def test_a_handler_retired_by_another_process_is_not_routed(having, without, eventually):
    """A handler retired by another process is no longer routed, except where it is loaded."""
    has, taker = having(), without()
    follows(taker, "leave", eventually)
    assert taker.take("i1").status == "done"
    retire(has.app.operation_context, ["p:h"])
    eventually(lambda: not taker.app.router.explain(process_key="leave").route.handlers)
    assert taker.take("i2").status == "parked"
    assert has.take("i3").status == "done"
    assert has.app.operation_context.missing_handlers == frozenset()


def test_unchanged_handlers_do_not_rebuild_the_routes(having, without):
    """Another process with the same handlers changes no routes."""
    having()
    taker = without()
    before = taker.app.router
    having()
    taker.app.cluster.poll()
    assert taker.app.router is before


def test_a_delivery_stored_by_another_process_wakes_a_process(having, without, monkeypatch):
    """A stored delivery wakes another process, whose next poll is a thousand seconds away."""
    monkeypatch.setattr("flowhooks.execution.runners.embedded.POLL_INTERVAL", 1000.0)
    ran = threading.Event()
    has = having(lambda event: ran.set())
    taker = without()
    event_id = taker.take(wait=0).event_id
    assert ran.wait(20)
    has.settled(event_id, State.SUCCEEDED)
    ran.clear()
    for flow in (has, taker):  # the third process releases the delivery
        flow.app.bulk_operations.stop(WAIT_TIMEOUT)
    run_bulk(having(start=False).app.operation_context, BulkAction.RERUN, EventFilter(ids=(event_id,)))
    assert ran.wait(20)


def test_callbacks_without_a_running_handler_are_answered_at_once(having, without, eventually):
    """Once the only process with a handler has ended, new and repeated callbacks are answered at once."""
    taker, has = without(), having()
    follows(taker, "leave", eventually)
    assert taker.take("i1", wait=LONG).status == "done"
    has.close()
    eventually(lambda: not taker.app.cluster.handlers_with_runner)
    answers = [taker.take("i2", wait=LONG), taker.take("i2", wait=LONG)]
    assert [(answer.status, answer.delivery_statuses[0].state) for answer in answers] == [
        ("pending", State.WAITING)
    ] * 2
    having()
    taker.settled(answers[0].event_id, State.SUCCEEDED)
    eventually(lambda: taker.app.cluster.handlers_with_runner)
    assert taker.take("i3", wait=LONG).status == "done"


def test_a_process_with_expired_heartbeats_is_found(having, without, eventually):
    """A killed process is found at the next check after its heartbeats have expired."""
    taker, has = without(), having()
    follows(taker, "leave", eventually)
    taker.sql("UPDATE processes SET heartbeat_at = 0 WHERE id = ?", has.app.ledger.process)
    taker.app.cluster.poll()
    assert taker.app.cluster.handlers_with_runner == frozenset()
    has.app.ledger.heartbeat()
    taker.app.cluster.poll()
    assert taker.app.cluster.handlers_with_runner == {"p:h"}


def test_a_pause_in_one_process_applies_to_another_process(having, without, answered, eventually):
    """The other process is notified at once: waiters are answered, and deliveries run after the resume."""
    runs, taker = having(), without()
    pause(taker.app.operation_context, ["p:h"])
    eventually(lambda: runs.app.ledger.pauses.get() == {"p:h"})
    answer = answered(taker)
    assert (answer.status, taker.only(answer.event_id).attempt) == ("pending", 0)
    assert runs.take("2", wait=LONG).status == "pending"
    resume(taker.app.operation_context, ["p:h"])
    taker.settled(answer.event_id, State.SUCCEEDED)
    # The process may have read the pause before the resume, and apply it for a moment after that.
    eventually(lambda: taker.take("3", wait=LONG).status == "done")


def test_a_pause_answers_waiters_in_another_process(having, without, answered, eventually):
    """A pause answers clients that wait in another process."""
    having(start=False)
    taker, operator = without(), without()

    def paused():
        eventually(taker.app.waiters.pending_event_ids)
        pause(operator.app.operation_context, ["p:h"])

    assert answered(taker, meanwhile=paused).status == "pending"


def test_a_heartbeat_finds_a_pause_with_a_lost_notification(harness, listens, eventually, monkeypatch):
    """A heartbeat finds a pause whose notification was lost; until then no delivery starts either."""
    monkeypatch.setattr(notifications.ChangeNotice, "notify", lambda _news, _connection: None)
    runs = harness.open(listens(nothing, name="h"), ledger={"heartbeat_timeout": 3.0})
    other = harness.open(ledger=SLOW)
    pause(other.app.operation_context, ["p:h"])
    event_id = runs.take(wait=0).event_id
    eventually(lambda: runs.app.ledger.pauses.get() == {"p:h"})
    assert runs.only(event_id).attempt == 0
    resume(other.app.operation_context, ["p:h"])
    runs.settled(event_id, State.SUCCEEDED)


def test_a_delivery_that_was_about_to_start_runs_before_a_pause(having, eventually, monkeypatch):
    """If a process that read "not paused" commits first, the delivery runs and is shown as running."""
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT", WAIT_TIMEOUT)
    flow = having(start=False)
    event_id = flow.take(wait=0).event_id
    (due,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 1)
    with psycopg.connect(flow.url) as claiming, monkeypatch.context() as patched:
        patched.setattr(dialect_statements, "EXCLUDE_READERS_TIMEOUT_MS", int(WAIT_TIMEOUT * 1000))
        claiming.execute("SELECT paused_at FROM handlers")
        pausing = threading.Thread(target=pause, args=(flow.app.operation_context, ["p:h"]))
        pausing.start()
        eventually(lambda: flow.sql("SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"))
        eventually(lambda: flow.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'relation'"))
        claiming.commit()
        pausing.join(WAIT_TIMEOUT)
    assert flow.app.ledger.claim(due) is None
    assert flow.only(event_id).attempt == 0
    with psycopg.connect(flow.url) as dump:  # a process that stays does not block a pause
        dump.execute("SELECT paused_at FROM handlers")
        assert resume(flow.app.operation_context, ["p:h"]).handlers == ("p:h",)
        assert pause(flow.app.operation_context, ["p:h"]).handlers == ("p:h",)


def test_a_stop_waits_for_the_running_heartbeat(without, monkeypatch):
    """`Neighbours.stop` returns after the heartbeat thread has ended, so that the ledger can be closed."""
    flow = without(start=False)  # a thread of the app that only now begins to wait would send a heartbeat, too
    neighbours, ledger = flow.app.cluster, flow.app.ledger
    begun, ended = threading.Event(), threading.Event()
    stopped_before = []

    def beat():
        begun.set()
        assert neighbours._stopping.wait(20)
        stopping.join(0.5)  # `stop` without a join returns within this time
        stopped_before.append(not stopping.is_alive())
        ended.set()

    stopping = threading.Thread(target=neighbours.stop, args=(20,))
    monkeypatch.setattr(ledger, "heartbeat", beat)
    neighbours._heartbeat_thread = threading.Thread(target=neighbours._heartbeat_loop)
    monkeypatch.setattr(ledger, "heartbeat_interval", 0.01)
    neighbours._heartbeat_thread.start()
    assert begun.wait(20)
    stopping.start()
    assert ended.wait(20)
    stopping.join(20)
    assert stopped_before == [False]
    assert not neighbours._heartbeat_thread.is_alive()


def test_an_operation_that_another_process_starts_is_noticed(having, without, eventually, monkeypatch):
    """A process that polls hardly ever releases the deliveries of an operation as soon as it is started elsewhere."""
    monkeypatch.setattr(bulk_operations, "IDLE_POLL_INTERVAL", 3600.0)
    runs = []

    def fails_once(event, delivery):
        runs.append(delivery.attempt)
        if delivery.attempt == 1:
            raise ValueError("once")

    flow = having(fails_once)
    event_id = flow.take("i1").event_id
    flow.settled(event_id, State.DEAD, attempt=1)
    other = without(start=False)
    # After this change, the process has begun to receive notifications.
    pause(other.app.operation_context, ["p:h"])
    eventually(lambda: "p:h" in flow.app.ledger.pauses.handlers)
    resume(other.app.operation_context, ["p:h"])
    operation = plan_operation(other.app.operation_context, BulkAction.REPLAY, EventFilter())
    start_operation(other.app.operation_context, operation.id)
    flow.settled(event_id, State.SUCCEEDED, attempt=2)
    assert runs == [1, 2]
