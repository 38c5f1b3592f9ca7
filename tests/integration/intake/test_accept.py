"""Accepting callbacks: stored once, answered once no delivery can still settle, safe to repeat."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress

import pytest

from flowhooks import Reject, Retry, RetryAfter, State
from flowhooks.clock import SECOND
from flowhooks.errors import IdentityConflict, InvalidCallback, Unavailable
from flowhooks.operations.resolve import Resolution, resolve
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.runners


LONG = 3600.0
"""A wait in seconds that no test outlasts: a test that waits for its end fails by timeout."""


class Gate:
    """A handler that blocks until it is released.

    Attributes:
        runs: the instances for which it ran.
    """

    def __init__(self):
        self.runs = []
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        self.error = None

    def __call__(self, event):
        """Block until released."""
        self.runs.append(event.flow_instance_id)
        self.entered.release()
        assert self.opened.wait(WAIT_TIMEOUT)
        if self.error:
            raise self.error


@pytest.fixture
def gate():
    """A blocking handler; released at the end."""
    gate = Gate()
    yield gate
    gate.opened.set()


class Later:
    """A call in a new thread."""

    def __init__(self, function):
        self._result = None
        self._thread = threading.Thread(target=self._run, args=(function,))
        self._thread.start()

    def _run(self, function):
        try:
            self._result = function()
        except Exception as error:  # noqa: BLE001 (handed to the test)
            self._result = error

    @property
    def waiting(self):
        """Whether the call has not returned."""
        return self._thread.is_alive()

    def result(self):
        """The result or error of the call."""
        self._thread.join(WAIT_TIMEOUT)
        assert not self.waiting
        return self._result


def failing(*errors):
    """A handler function that raises these exceptions in turn, then returns."""
    left = list(errors)

    def function(event):
        if left:
            raise left.pop(0)

    return function


def test_the_answer_is_done_when_all_handlers_succeed(harness, listens):
    """When every handler has succeeded within the wait, the answer is *done* and names the event."""
    flow = harness.open(listens(lambda event: 1, name="a"), listens(lambda event: 2, name="b"))
    answer = flow.take()
    assert answer.status == "done"
    assert [(delivery_status.handler, delivery_status.state) for delivery_status in answer.delivery_statuses] == [
        ("p:a", State.SUCCEEDED),
        ("p:b", State.SUCCEEDED),
    ]
    assert flow.events() == [answer.event_id]


@pytest.mark.parametrize(
    ("errors", "key", "status"),
    [
        ([None, None], "leave", "done"),
        ([None, RetryAfter(999)], "leave", "pending"),
        ([RetryAfter(999), ValueError("x")], "leave", "dead"),
        ([None, ValueError("x")], "nobody", "dead"),
        ([None, RetryAfter(999)], "nobody", "parked"),
        ([None, None], "nobody", "parked"),
    ],
    ids=["done", "pending", "dead before pending", "dead before parked", "parked before pending", "parked before done"],
)
def test_the_gravest_delivery_state_decides_the_answer(harness, listens, errors, key, status):
    """The answer is *dead* if any delivery is dead; otherwise parked, unfinished or done, in this order."""
    handlers = [
        listens(failing(*[error] * bool(error)), name=f"h{place}", every=key == "nobody")
        for place, error in enumerate(errors)
    ]
    flow = harness.open(*handlers)
    assert flow.take(key=key).status == status
    assert flow.take(key=key, wait=0).status == status


def test_an_event_whose_key_needs_no_handler_is_done(harness):
    """An event of an ignored process key is stored, dismissed and *done* without a wait."""
    flow = harness.open(routing={"ignore_process_keys": ("leave",)})
    answer = flow.take()
    assert (answer.status, answer.delivery_statuses) == ("done", ())
    assert flow.app.ledger.event(answer.event_id).state == "dismissed"
    assert flow.take().status == "done"


def test_without_a_wait_the_answer_is_pending_after_storage(harness, listens, gate):
    """Without a wait the answer is *pending*, and the event is stored and run."""
    flow = harness.open(listens(gate, name="gate"))
    answer = flow.take(wait=0)
    assert answer.status == "pending"
    assert gate.entered.acquire(timeout=WAIT_TIMEOUT)
    gate.opened.set()
    flow.settled(answer.event_id, State.SUCCEEDED)


def test_the_answer_distinguishes_running_from_waiting_deliveries(harness, listens, gate, eventually):
    """When the wait is over, an answer distinguishes running deliveries from waiting ones."""
    flow = harness.open(listens(gate, name="gate"), listens(failing(RetryAfter(999)), name="later"))
    later = Later(lambda: flow.take(wait=LONG))
    assert gate.entered.acquire(timeout=WAIT_TIMEOUT)
    failed = "SELECT 1 FROM deliveries WHERE handler = 'p:later' AND state = 'waiting' AND attempt = 1"
    eventually(lambda: flow.sql(failed))
    flow.app.waiters.cancel_all()  # a wait of a second may be over before both handlers have run
    answer = later.result()
    assert answer.status == "pending"
    assert {delivery_status.handler: delivery_status.state for delivery_status in answer.delivery_statuses} == {
        "p:gate": State.RUNNING,
        "p:later": State.WAITING,
    }


def test_the_answer_does_not_wait_for_a_retry_due_too_late(harness, listens):
    """The answer does not wait for a retry that is due after the wait."""
    flow = harness.open(listens(failing(ValueError("x")), retry=Retry(delays=(2 * LONG,)), name="h"))
    answer = flow.take(wait=LONG)
    assert (answer.status, answer.delivery_statuses[0].state) == ("pending", State.WAITING)
    assert answer.delivery_statuses[0].due_at == flow.clock.now() + 2 * LONG * SECOND


def test_the_answer_waits_for_a_retry_due_within_the_wait(harness, listens):
    """A retry that is due within the wait decides the answer."""
    flow = harness.open(listens(failing(ValueError("x")), retry=Retry(), name="h"))
    later = Later(lambda: flow.take(wait=20))
    event_id = first_event(flow)
    flow.settled(event_id, State.WAITING, attempt=1)
    assert later.waiting
    flow.advance(5)
    assert later.result().status == "done"


def first_event(flow):
    """Wait for the only event and return its id."""
    return until(flow.events)[0]


def test_the_answer_does_not_wait_for_a_missing_handler(harness, listens, gate, eventually):
    """A delivery whose handler no process has loaded cannot settle, so the answer does not wait."""
    harness.open(listens(gate, name="away"), start=False).close()
    flow = harness.open(listens(lambda event: 1, name="here"))
    later = Later(lambda: flow.take(wait=LONG))
    if harness.url:  # another process might have loaded the handler
        eventually(lambda: flow.sql("SELECT 1 FROM deliveries WHERE handler = 'p:here' AND state = 'succeeded'"))
        flow.app.waiters.cancel_all()
    answer = later.result()
    assert answer.status == "pending"
    assert {delivery_status.handler: delivery_status.state for delivery_status in answer.delivery_statuses} == {
        "p:here": State.SUCCEEDED,
        "p:away": State.WAITING,
    }


def test_half_of_the_server_threads_may_wait(harness, listens, gate, eventually):
    """On a server without spare threads, half of them wait; the next callback is stored and answered at once."""
    flow = harness.open(listens(gate, name="gate"), http={"threads": 4}, runner={"threads": 16})
    waiting = [Later(lambda n=n: flow.take(f"i{n}", wait=30)) for n in range(2)]
    for _ in waiting:
        assert gate.entered.acquire(timeout=WAIT_TIMEOUT)
    eventually(lambda: flow.app.waiters.unreplaced._value == 0)  # both wait, not only their deliveries run
    for number in range(2, 6):
        assert flow.take(f"i{number}", wait=30).status == "pending"
    assert all(call.waiting for call in waiting)
    gate.opened.set()
    assert [call.result().status for call in waiting] == ["done", "done"]
    assert flow.take("again", wait=30).status == "done"


def test_every_kind_of_answer_frees_its_waiting_slot(harness, listens):
    """Conflicts, refusals, repeats and timely answers free their place, so the last callback can wait."""
    flow = harness.open(listens(lambda event: 1, name="h"), http={"threads": 2})
    for number in range(5):
        flow.take(f"i{number}")
        flow.take(f"i{number}")
        with pytest.raises(IdentityConflict):
            flow.take(f"i{number}", other=number)
        flow.take(f"i{number}", key="nobody", callback_class="x")
    assert flow.take("last").status == "done"


def test_a_repeated_callback_needs_no_second_waiting_slot(harness, listens, gate, eventually):
    """If only one callback may wait, a repeated callback can be that one."""
    flow = harness.open(listens(gate, name="gate"), http={"threads": 2})
    flow.take(wait=0)
    assert gate.entered.acquire(timeout=WAIT_TIMEOUT)
    again = Later(lambda: flow.take(wait=30))
    eventually(flow.app.waiters.pending_event_ids)
    gate.opened.set()
    assert again.result().status == "done"
    assert gate.runs == ["i1"]


def test_concurrent_identical_callbacks_cause_one_run(harness, listens, together):
    """Sixteen identical callbacks at the same moment are one event and one run, and all get its outcome."""
    runs = []

    def slow(event):
        runs.append(event.id)
        time.sleep(0.05)

    flow = harness.open(listens(slow), http={"threads": 64})
    answers = together(*[lambda: flow.take(x=1)] * 16)
    assert {answer.status for answer in answers} == {"done"}
    assert {answer.event_id for answer in answers} == set(runs) == set(flow.events())
    assert len(runs) == 1
    assert flow.app.ledger.event(runs[0]).repeats == 15


def test_concurrent_callbacks_with_different_data_conflict(harness, listens, together):
    """Of different callbacks with one identity at the same moment, one is accepted and the others conflict."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.id), name="h"))
    answers = together(*[lambda n=n: flow.take(x=n) for n in range(8)])
    conflicts = [result for result in answers if isinstance(result, IdentityConflict)]
    (answer,) = [result for result in answers if not isinstance(result, IdentityConflict)]
    assert len(conflicts) == 7
    assert {conflict.event_id for conflict in conflicts} == {answer.event_id}
    assert runs == [answer.event_id]
    assert len(flow.app.ledger.conflicts(answer.event_id)) == 7


def test_a_succeeded_delivery_is_not_run_again(harness, listens):
    """The same callback, even after a restart, gets the stored success."""
    runs = []
    listener = listens(lambda event: runs.append(1), name="h")
    flow = harness.open(listener)
    first = flow.take()
    assert flow.take() == first
    flow.close()
    assert harness.open(listener).take().event_id == first.event_id
    assert runs == [1]


def test_a_repeated_callback_waits_for_the_running_attempt(harness, listens, gate):
    """A callback repeated while its handler runs waits for that run and starts no other."""
    flow = harness.open(listens(gate, name="gate"))
    first = Later(lambda: flow.take(wait=30))
    assert gate.entered.acquire(timeout=WAIT_TIMEOUT)
    second = Later(lambda: flow.take(wait=30))
    assert flow.take(wait=0).status == "pending"
    gate.opened.set()
    assert first.result().status == second.result().status == "done"
    assert gate.runs == ["i1"]


def test_a_repeated_callback_does_not_start_a_retry_earlier(harness, listens):
    """A repeated callback does not start a waiting retry earlier."""
    runs = []

    def function(event):
        runs.append(1)
        raise ValueError("x")

    flow = harness.open(listens(function, retry=Retry(delays=(60,))))
    event_id = flow.take().event_id
    due = flow.settled(event_id, State.WAITING, attempt=1).due_at
    assert flow.take(wait=30).status == "pending"
    assert flow.only(event_id).due_at == due
    assert runs == [1]


def test_a_repeated_callback_retries_a_dead_delivery_once_a_minute(harness, listens):
    """With `retry=`, a repeated callback retries a dead delivery, at most once a minute."""
    runs = []

    def function(event, delivery):
        runs.append(delivery.attempt)
        if delivery.attempt < 4:
            raise ValueError(f"attempt {delivery.attempt}")

    flow = harness.open(listens(function, retry=Retry(attempts=1)))
    assert flow.take().status == "dead"
    flow.clock.advance(59.9)
    assert flow.take().status == "dead"
    assert runs == [1]
    flow.clock.advance(0.1)
    answer = flow.take()
    assert (answer.status, answer.delivery_statuses[0].error) == ("dead", "ValueError: attempt 2")
    assert flow.take().status == "dead"
    assert runs == [1, 2]
    flow.clock.advance(60)
    flow.take()
    flow.clock.advance(60)
    assert flow.take().status == "done"
    assert runs == [1, 2, 3, 4]


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "damage", ["UPDATE attempts SET finished_at = 'x'", "UPDATE deliveries SET state = 'waiting', due_at = 'x'"]
)
def test_a_repeat_of_a_delivery_with_a_damaged_time_is_rejected(harness, listens, damage):
    """A repeat that needs a time which is no number is answered 503, as for other damaged rows."""

    def fails(event):
        raise OSError("on purpose")

    flow = harness.open(listens(fails, name="h", retry=Retry(attempts=1)))
    harness.check_at_end = False
    assert flow.take("i1", wait=WAIT_TIMEOUT).status == "dead"
    flow.sql(damage)
    with pytest.raises(Unavailable) as refusal:
        flow.take("i1", wait=1)
    assert refusal.value.key == "event_damaged"


def test_concurrent_repeated_callbacks_retry_a_dead_delivery_once(harness, listens, together):
    """Sixteen repeats at the same moment retry a dead delivery once."""
    runs = []

    def function(event):
        runs.append(1)
        raise ValueError("x")

    flow = harness.open(listens(function, retry=Retry(attempts=1)), http={"threads": 64})
    flow.take()
    flow.clock.advance(60)
    answers = together(*[flow.take] * 16)
    assert {answer.status for answer in answers} == {"dead"}
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("error", "declared"),
    [(ValueError("x"), {}), (Reject("never"), {"retry": Retry()}), (Reject("never"), {})],
    ids=["no retry", "reject", "both"],
)
def test_a_dead_delivery_without_retry_is_answered_with_its_failure(harness, listens, error, declared):
    """Without `retry=`, or after `Reject`, every repeated callback gets the stored failure."""
    runs = []

    def function(event):
        runs.append(1)
        raise error

    flow = harness.open(listens(function, **declared))
    first = flow.take()
    flow.clock.advance(86400)
    again = flow.take()
    assert (first.status, again.status) == ("dead", "dead")
    assert all(status.error_group for status in again.delivery_statuses)
    # The ledger assigns the error group; the first answer has it only if it was read from the ledger.
    stored, answered = (
        [status._replace(error_group=None) for status in answer.delivery_statuses] for answer in (again, first)
    )
    assert stored == answered
    assert runs == [1]


def test_a_repeated_callback_retries_only_the_dead_deliveries(harness, listens):
    """Of an event's two deliveries, the repeat retries the dead one and not the succeeded one."""
    runs = []
    flow = harness.open(
        listens(lambda event: runs.append("good"), name="good"),
        listens(failing(ValueError("x")), name="bad", retry=Retry(attempts=1)),
    )
    assert flow.take().status == "dead"
    flow.clock.advance(61)
    assert flow.take().status == "done"
    assert runs == ["good"]


def test_a_late_dead_notification_does_not_end_the_wait_for_the_retry(harness, listens, monkeypatch):
    """Another thread or process may notify of the first attempt when the repeat waits for the second."""
    flow = harness.open(listens(failing(ValueError("x")), name="h", retry=Retry(attempts=1)))
    (dead,) = flow.take().delivery_statuses
    waiters, open_waiter = flow.app.waiters, flow.app.waiters.open

    def open_and_notify(event_id, *args, **kwargs):
        waiter = open_waiter(event_id, *args, **kwargs)
        waiters.notify(event_id, dead)
        waiters.notify_snapshot(event_id, [dead])
        return waiter

    monkeypatch.setattr(waiters, "open", open_and_notify)
    flow.clock.advance(61)
    assert flow.take().status == "done"


def test_a_dead_delivery_of_a_missing_handler_stays_dead(harness, listens):
    """A delivery that cannot run at present is not retried; the stored failure is the answer."""
    harness.open(listens(failing(ValueError("x")), name="h", retry=Retry(attempts=1))).take()
    flow = reopened(harness)
    flow.clock.advance(61)
    assert flow.take().status == "dead"


def reopened(harness):
    """The fixture's database, reopened without handlers."""
    harness.opened[-1].close()
    return harness.open()


def test_a_repeated_callback_does_not_run_an_unknown_delivery(harness, listens):
    """A repeated callback does not run an *unknown* delivery again and does not wait for it."""
    runs = []
    listener = listens(lambda event: runs.append(1), name="h")
    first = harness.open(listener, start=False)
    first.take(wait=0)
    first.app.ledger.claim(first.app.ledger.due_deliveries(first.clock.now(), lambda _handler: 1)[0])
    harness.crash(first)
    flow = harness.open(listener)
    answer = flow.take(wait=30)
    assert (answer.status, answer.delivery_statuses[0].state) == ("pending", State.UNKNOWN)
    resolve(flow.app.operation_context, answer.delivery_statuses[0].delivery_id, Resolution.DID)
    assert flow.take().status == "done"
    assert runs == []


def test_a_closed_delivery_is_answered_done(harness, listens):
    """A delivery that an operator closed needs no more work, so a repeat is answered *done*."""
    flow = harness.open(listens(failing(ValueError("x")), name="h"))
    answer = flow.take()
    resolve(flow.app.operation_context, answer.delivery_statuses[0].delivery_id, Resolution.CLOSE)
    assert flow.take().status == "done"


def test_other_data_with_the_same_identity_is_a_conflict(harness, listens):
    """Other data with the same identity is refused with the id of the first event, which does not change."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.data["x"]), name="h"))
    first = flow.take(x=1)
    with pytest.raises(IdentityConflict) as refusal:
        flow.take(x=2)
    assert refusal.value.event_id == first.event_id
    assert flow.take(x=1).event_id == first.event_id
    assert runs == [1]


def test_ignored_data_causes_no_conflict(harness, listens):
    """With `identity.ignore_pointers`, a callback with another time stamp is a repeat."""
    flow = harness.open(listens(lambda event: 1, name="h"), identity={"ignore_pointers": ("/meta/sentAt",)})
    first = flow.take(meta={"sentAt": "09:00", "by": "x"})
    assert flow.take(meta={"sentAt": "09:05", "by": "x"}).event_id == first.event_id
    with pytest.raises(IdentityConflict):
        flow.take(meta={"sentAt": "09:00", "by": "y"})


def test_waiting_callbacks_are_answered_pending_when_the_server_drains(harness, listens, gate):
    """Draining answers waiters *pending* at once and accepts nothing more; running attempts are recorded."""
    flow = harness.open(listens(gate, name="gate"))
    waiting = Later(lambda: flow.take(wait=30))
    assert gate.entered.acquire(timeout=WAIT_TIMEOUT)
    again = Later(lambda: flow.take(wait=30))
    flow.app.begin_shutdown()
    assert waiting.result().status == "pending"
    answer = again.result()
    assert getattr(answer, "key", None) == "draining" or answer.status == "pending"
    with pytest.raises(Unavailable) as refusal:
        flow.take("i2")
    assert refusal.value.key == "draining"
    event_id = flow.events()[0]
    gate.opened.set()
    flow.settled(event_id, State.SUCCEEDED)


def test_an_unrouted_event_is_parked(harness, listens):
    """By default an event that matches no handler is stored and answered *parked*, also when repeated."""
    flow = harness.open(listens(lambda event: 1, name="h"))
    answer = flow.take(key="nobody")
    assert (answer.status, answer.delivery_statuses) == ("parked", ())
    assert flow.take(key="nobody") == answer
    assert flow.app.ledger.event(answer.event_id).state == "parked"


def test_an_unrouted_event_is_rejected_by_the_no_handler_setting(harness, listens):
    """With `routing.no_handler = "reject"` an event that matches no handler is not stored; other events are."""
    flow = harness.open(listens(lambda event: 1, name="h"), routing={"no_handler": "reject"})
    with pytest.raises(InvalidCallback) as refusal:
        flow.take(key="nobody")
    assert refusal.value.key == "no_handler"
    assert flow.events() == []
    assert flow.take().status == "done"


def test_a_repeat_of_a_stored_event_is_not_rejected_as_unrouted(harness, listens):
    """Also with `routing.no_handler = "reject"`, a repeated callback is answered as before."""
    done = harness.open(listens(lambda event: 1, name="h"))
    answer, parked = done.take(), done.take("i2", key="nobody")
    done.close()
    # As after an uninstall: the ledger no longer has the handler, and no handler matches its events.
    done.sql("DELETE FROM handlers")
    flow = harness.open(listens(lambda event: 1, name="other", process_key="other"), routing={"no_handler": "reject"})
    assert flow.take() == answer
    assert flow.take("i2", key="nobody") == parked
    with pytest.raises(IdentityConflict) as conflict:
        flow.take(amount=3)
    assert conflict.value.event_id == answer.event_id
    with pytest.raises(InvalidCallback):
        flow.take("i3")
    assert flow.events() == [answer.event_id, parked.event_id]
    assert flow.app.ledger.conflicts(answer.event_id) != []


def test_concurrent_repeats_of_an_unrouted_event_are_only_counted(harness, listens, together):
    """With `routing.no_handler = "reject"`, many repeats at one moment change only the count of repeats."""
    before = harness.open(listens(lambda event: 1, name="h"))
    answer = before.take()
    before.close()
    before.sql("DELETE FROM handlers")
    flow = harness.open(routing={"no_handler": "reject"})
    assert together(*[flow.take] * 4) == [answer] * 4
    assert flow.sql("SELECT repeats FROM events") == [(4,)]


def test_a_callback_that_cannot_be_stored_is_not_acknowledged(harness, listens, monkeypatch):
    """While the database is locked the answer is Unavailable and no handler runs; afterwards work continues."""
    # Not less: without the lock of the test, too, a transaction may wait for that of a delayed session of the runner.
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.5)
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"))
    flow.take("before")
    with flow.locked():
        for wait in (0, 5):
            with pytest.raises(Unavailable):
                flow.take(f"during-{wait}", wait=wait)
        assert runs == ["before"]
    assert flow.take("after").status == "done"
    assert flow.take("during-0").status == "done"
    assert sorted(runs) == ["after", "before", "during-0"]


def test_a_callback_not_stored_in_time_is_not_acknowledged(harness, listens, eventually):
    """A callback that is not stored in time is not acknowledged; its caller can repeat it safely."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"))
    with flow.locked(timeout=0.2):
        for wait in (0, LONG):
            with pytest.raises(Unavailable):
                flow.take(f"i{wait:g}", wait=wait)

    def called_again(name):
        try:
            return flow.take(name).status == "done"
        except Unavailable:  # a busy machine may take more than 0.2 s again
            return False

    eventually(lambda: called_again("i0"))
    eventually(lambda: called_again("i3600"))
    assert sorted(runs) == ["i0", "i3600"]


@pytest.mark.embedded  # the other runner writes by itself, and would fill this short queue
def test_callbacks_are_rejected_at_once_when_the_queue_is_full(harness, listens, eventually):
    """Above the limit of callbacks that wait to be stored, further ones are refused at once."""
    flow = harness.open(listens(lambda event: 1, name="h"), ledger={"max_queued_writes": 2})
    begun, free = threading.Event(), threading.Event()
    busy = Later(lambda: flow.app.ledger.write(lambda _transaction: begun.set() or free.wait(WAIT_TIMEOUT)))
    assert begun.wait(WAIT_TIMEOUT)

    def take_once_there_is_room(instance):
        while True:
            # A heartbeat may use one of the two places.
            with suppress(Unavailable):
                return flow.take(instance, wait=0)
            time.sleep(0.01)

    others = [Later(lambda n=n: take_once_there_is_room(f"i{n}")) for n in range(2)]
    eventually(lambda: flow.app.ledger._writer._queue.qsize() == 2)
    with pytest.raises(Unavailable) as refusal:
        flow.take("one more", wait=30)
    assert refusal.value.key == "ledger_full"
    free.set()
    busy.result()
    assert [call.result().status for call in others] == ["pending", "pending"]
    eventually(lambda: flow.app.ledger.count_by_state()["waiting"] + flow.app.ledger.count_by_state()["running"] == 0)
    assert flow.take("one more").status == "done"


def test_a_repeat_is_answered_while_all_read_connections_are_in_use(harness, listens, monkeypatch):
    """If all read connections are in use, a repeat is answered from the known data."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    flow = harness.open(listens(failing(ValueError("x")), name="h", retry=Retry(delays=(60,))), start=False)
    flow.take(wait=0)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(flow.app.ledger.connection()).exec_driver_sql("SELECT 1")
        assert flow.take(wait=0.2).status == "pending"
