"""Processes that share a ledger: heartbeats, expiry of those without a heartbeat, and their return."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import DBAPIError

from flowhooks import Retry, State
from flowhooks.errors import FlowhooksError, ProcessExpired, Unavailable
from flowhooks.ledger import database, processes
from flowhooks.ledger.attempts import claim
from flowhooks.ledger.circuit_state import TrialDelivery
from flowhooks.ledger.deliveries import ClaimRequest
from flowhooks.ledger.recovery import recover_unstarted
from flowhooks.model.delivery import OutcomeKind
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.postgresql

HEARTBEAT_TIMEOUT = 30.0
"""Seconds; the default."""
HOUR = 3_600_000_000
"""Microseconds."""
WAITING_SESSIONS = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'
"""


def nothing(event):
    """Do nothing."""


@pytest.fixture
def two(harness, listens):
    """Two apps on one ledger without running runners."""
    listener = listens(nothing, name="h", retry=Retry(jitter=0))
    return harness.open(listener, start=False), harness.open(listener, start=False)


def backdate_connection(flow):
    """Make an app look connected to the database for longer than the expiry time."""
    flow.app.ledger._registration.heartbeats._in_touch_since -= 2 * HEARTBEAT_TIMEOUT


def expire_heartbeat(flow, process):
    """Make a process's last heartbeat older than the expiry time, while `flow` was connected."""
    backdate_connection(flow)
    age = int(2 * HEARTBEAT_TIMEOUT * 1_000_000)
    flow.sql("UPDATE processes SET heartbeat_at = heartbeat_at - ? WHERE id = ?", age, process)


def begin(flow, instance="i1"):
    """A delivery that `flow` has started."""
    event_id = flow.take(instance, wait=0).event_id
    (queued,) = [
        delivery
        for delivery in flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 10)
        if delivery.delivery_id == flow.only(event_id).delivery_id
    ]
    return event_id, queued, flow.app.ledger.claim(queued)


def test_a_start_does_not_affect_attempts_of_other_processes(two, harness, listens):
    """An attempt of a running process is not lost because another process starts."""
    event_id, _, _ = begin(two[0])
    harness.open(listens(nothing, name="h", retry=Retry(jitter=0)), start=False)
    assert two[1].only(event_id).state is State.RUNNING
    assert sum(two[1].app.ledger.recover().values()) == 0


def test_attempts_of_a_process_without_heartbeat_are_lost(two):
    """A process without a heartbeat expires: its attempts are retried by the process that notices it."""
    event_id, _, _ = begin(two[0])
    expire_heartbeat(two[1], two[0].app.ledger.process)
    assert two[1].app.ledger.recover() == {State.WAITING: 1, State.DEAD: 0, State.UNKNOWN: 0}
    assert two[1].only(event_id).state is State.WAITING


def test_a_locked_missed_promotion_delays_no_recovery_and_no_start(harness, listens, monkeypatch):
    """Lost attempts are recovered, and a process starts, while a delivery whose promotion was missed is locked."""
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT", 5.0)
    listener = listens(nothing, name="h", order_by="business_key", retry=Retry(jitter=0))
    two = [harness.open(listener, start=False) for _ in range(2)]
    event_id, _, _ = begin(two[0])
    blocked = two[1].only(two[1].take("i2", wait=0, businessKey="k").event_id).delivery_id
    two[1].sql("UPDATE deliveries SET order_position = 7 WHERE id = ?", blocked)
    expire_heartbeat(two[1], two[0].app.ledger.process)
    engine = database.open_engine(two[1].address, writing=True)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT id FROM deliveries WHERE id = %s FOR UPDATE", (blocked,))
        assert two[1].app.ledger.recover()[State.WAITING] == 1
        harness.open(listener, start=False)
    engine.dispose()
    assert two[1].only(event_id).state is State.WAITING


def test_a_process_registered_during_an_expiry_check_is_not_expired(two):
    """An attempt becomes visible together with its process, even if the process that checks is slow."""
    begun = []

    def meanwhile(_connection, _cursor, statement, *_rest):
        if statement.startswith("SELECT") and "JOIN attempts" in statement and not begun:
            begun.append("")
            two[1].app.ledger.heartbeat()
            begun.append(begin(two[1])[0])

    expire_heartbeat(two[0], two[1].app.ledger.process)
    two[0].app.ledger.recover()
    event.listen(two[0].app.ledger._write_engine, "before_cursor_execute", meanwhile)
    assert sum(two[0].app.ledger.recover().values()) == 0
    assert two[0].only(begun[1]).state is State.RUNNING


def test_an_expired_process_stores_no_stale_outcome(two, ledger_steps_of):
    """A late outcome of an attempt that another process has recorded as lost changes nothing."""
    event_id, queued, claimed = begin(two[0])
    expire_heartbeat(two[1], two[0].app.ledger.process)
    two[1].app.ledger.recover()
    two[1].clock.advance(3600)
    (again,) = two[1].app.ledger.due_deliveries(two[1].clock.now(), lambda _handler: 10)
    assert two[1].app.ledger.claim(again).attempt == claimed.attempt + 1
    assert ledger_steps_of(two[0]).settle(queued, claimed.attempt) is False
    assert two[1].only(event_id).state is State.RUNNING
    assert ledger_steps_of(two[1]).settle(again, claimed.attempt + 1) is True


def test_an_expired_process_continues_under_a_new_id(two, logged):
    """Its next heartbeat gives it a new id, under which its later attempts are safe."""
    before = two[0].app.ledger.process
    expire_heartbeat(two[1], before)
    two[1].app.ledger.recover()
    two[0].app.ledger.heartbeat()
    assert two[0].app.ledger.process != before
    assert [entry["event"] for entry in logged if entry["log_level"] == "error"] == ["process_expired"]
    event_id, _, _ = begin(two[0])
    assert sum(two[1].app.ledger.recover().values()) == 0
    assert two[1].only(event_id).state is State.RUNNING


def test_a_process_that_slept_sends_a_heartbeat_before_a_claim(two):
    """Between waking and the next heartbeat a process neither accepts nor claims under its old id."""
    before = two[0].app.ledger.process
    two[0].app.ledger._registration.heartbeats._sent_at -= 2 * HEARTBEAT_TIMEOUT
    expire_heartbeat(two[1], before)
    two[1].app.ledger.recover()
    begin(two[0])
    assert two[0].app.ledger.process != before
    assert two[1].sql("SELECT process FROM attempts") == [(two[0].app.ledger.process,)]


def test_only_one_of_two_concurrent_trials_starts(two):
    """A process that has chosen a delivery starts no trial if another process starts one of another delivery."""
    first = two[0].only(two[0].take("i1", wait=0).event_id).delivery_id
    two[0].take("i2", wait=0)
    now, started = two[0].clock.now(), []
    two[0].sql("UPDATE handlers SET paused_at = ?, circuit_opened_at = ?, circuit_retry_at = ?", now, now, now)

    def meanwhile(_connection, _cursor, statement, *_rest):
        if "FROM handlers" in statement and "FOR NO KEY UPDATE" in statement:
            two[1].sql("UPDATE deliveries SET due_at = due_at + 1 WHERE id = ?", first)
            started.append(two[1].app.ledger.claim_trial_delivery(TrialDelivery("p:h", now + 60_000_000)))

    event.listen(two[0].app.ledger._write_engine, "before_cursor_execute", meanwhile)
    assert two[0].app.ledger.claim_trial_delivery(TrialDelivery("p:h", now + 60_000_000)) is None
    ((other, _),) = started
    assert other.delivery_id != first


def test_heartbeats_use_the_clock_of_the_database(two):
    """A machine whose clock is wrong by a day does not expire."""
    two[0].clock.advance(86_400)
    two[0].app.ledger.heartbeat()
    assert sum(two[1].app.ledger.recover().values()) == 0
    assert two[1].sql("SELECT count(*) FROM processes WHERE stopped_at IS NULL") == [(2,)]


def test_the_database_clock_counts_microseconds_since_1970(two):
    """The database's clock counts microseconds since 1970."""
    with two[0].app.ledger.connection() as connection:
        told = connection.execute(select(database.Now())).scalar_one()
    ((seconds,),) = two[0].sql("SELECT extract(epoch FROM now())")
    assert abs(told / 1_000_000 - float(seconds)) < 600


def test_the_oldest_process_is_the_leader(two, harness, listens):
    """The oldest process does the shared background work, except a command; when it ends, the next one does."""
    first, second = two
    assert (first.app.ledger.is_leader(), second.app.ledger.is_leader()) == (True, False)
    first.sql("UPDATE processes SET kind = 'command' WHERE id = ?", first.app.ledger.process)
    assert (first.app.ledger.is_leader(), second.app.ledger.is_leader()) == (False, True)
    first.sql("UPDATE processes SET kind = 'worker' WHERE id = ?", first.app.ledger.process)
    assert (first.app.ledger.is_leader(), second.app.ledger.is_leader()) == (True, False)
    first.close()
    assert second.app.ledger.is_leader()
    expire_heartbeat(second, second.app.ledger.process)
    third = harness.open(listens(nothing, name="h"), start=False)
    backdate_connection(third)
    third.app.ledger.recover()
    assert third.app.ledger.is_leader()


def test_a_reconnecting_process_gives_other_processes_the_expiry_time(two):
    """After an outage the first process that reconnects gives all others the expiry time."""
    event_id, _, _ = begin(two[0])
    expire_heartbeat(two[1], two[0].app.ledger.process)
    two[1].app.ledger._registration.heartbeats._sent_at -= HEARTBEAT_TIMEOUT
    two[1].app.ledger.heartbeat()
    assert sum(two[1].app.ledger.recover().values()) == 0
    assert two[1].only(event_id).state is State.RUNNING
    backdate_connection(two[1])
    assert two[1].app.ledger.recover()[State.WAITING] == 1


def test_a_process_that_slept_expires_no_other_before_its_heartbeat(two):
    """A process that slept expires no others before its heartbeat, because it may have missed theirs."""
    expire_heartbeat(two[1], two[0].app.ledger.process)
    two[1].app.ledger._registration.heartbeats._sent_at -= HEARTBEAT_TIMEOUT
    two[1].app.ledger.recover()
    assert two[1].sql("SELECT count(*) FROM processes WHERE stopped_at IS NULL") == [(2,)]


def test_a_new_process_expires_no_other_process_at_once(two, harness, listens):
    """A new process expires no others at once, because the database may have been down."""
    event_id, _, _ = begin(two[0])
    expire_heartbeat(two[1], two[0].app.ledger.process)
    harness.open(listens(nothing, name="h", retry=Retry(jitter=0)), start=False)
    assert two[1].only(event_id).state is State.RUNNING


def test_a_delivery_marked_as_running_without_an_attempt_waits_again(two):
    """A running mark whose COMMIT got no reply belongs to no attempt: its delivery waits again."""
    event_id, queued, _ = begin(two[0])
    assert sum(two[0].app.ledger.recover().values()) == 0
    two[0].app.ledger._in_flight.discard([(queued.delivery_id, 1)])
    assert two[0].app.ledger.recover()[State.WAITING] == 1
    delivery_status = two[0].only(event_id)
    assert (delivery_status.state, delivery_status.attempt, delivery_status.due_at) == (
        State.WAITING,
        1,
        two[0].clock.now(),
    )
    assert "was not entered" in delivery_status.error
    assert sum(two[0].app.ledger.recover().values()) == 0


def test_a_running_mark_committed_during_the_check_is_preserved(two):
    """A running mark committed together with the check for unstarted attempts is kept."""
    ledger, event_id = two[0].app.ledger, two[0].take("i1", wait=0).event_id
    (queued,) = ledger.due_deliveries(two[0].clock.now(), lambda _handler: 10)
    ledger_steps, settling = ledger._in_flight, ledger._result_recorder

    def both(transaction):
        claim(transaction, [ClaimRequest(queued, two[0].clock.now())], ledger_steps, process=ledger.process)
        return recover_unstarted(transaction, settling, ledger_steps, two[0].clock.now(), process=ledger.process)

    assert ledger.write(both) == 0
    assert two[0].only(event_id).state is State.RUNNING


def test_a_lost_connection_is_replaced_before_a_callback_is_rejected(two):
    """After a restart of the database the first callback is stored over a new connection."""
    assert two[0].take("before", wait=0)
    # It waits until each session has ended. Otherwise a free session could be taken that is about to end.
    two[1].sql(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert two[0].take("after", wait=0)
    assert two[0].app.ledger.write_error is None


def test_an_outcome_may_be_recorded_twice(two, ledger_steps_of):
    """A process without a reply repeats the outcome; a different outcome comes too late."""
    _, queued, claimed = begin(two[0])
    ledger_steps = ledger_steps_of(two[0])
    assert ledger_steps.settle(queued, claimed.attempt) is True
    assert ledger_steps.settle(queued, claimed.attempt) is True
    assert ledger_steps.settle(queued, claimed.attempt, outcome=OutcomeKind.FAILED, target=State.DEAD) is False


def lately(flow):
    """Kind and handlers of the running processes, the oldest first."""
    with flow.app.ledger.connection() as connection:
        return [
            (process.kind, set(process.handlers))
            for process in processes.live_processes(connection, heartbeat_timeout=HEARTBEAT_TIMEOUT)
        ]


def test_each_live_process_stores_its_kind_and_handlers(two, harness):
    """Each process stores its kind and handlers; an ended or expired process runs nothing."""
    harness.open(start=False)
    assert lately(two[0]) == [("server", {"p:h"}), ("server", {"p:h"}), ("server", set())]
    two[0].close()
    assert lately(two[1]) == [("server", {"p:h"}), ("server", set())]
    expire_heartbeat(two[1], two[1].app.ledger.process)
    assert lately(two[1]) == [("server", set())]


def test_an_expired_process_has_its_handlers_under_its_new_id(two):
    """An expired process repeats the outcome under its new id."""
    expire_heartbeat(two[1], two[0].app.ledger.process)
    two[1].app.ledger.recover()
    assert lately(two[1]) == [("server", {"p:h"})]
    two[0].app.ledger.heartbeat()
    assert lately(two[1]) == [("server", {"p:h"})] * 2


def expired(two, ledger_steps_of, eventually):
    """The ledger of a process that others have expired, and an event with a waiting delivery."""
    event_id = two[0].take("i1", wait=0).event_id
    (queued,) = two[0].app.ledger.due_deliveries(two[0].clock.now(), lambda _handler: 10)
    expire_heartbeat(two[1], two[0].app.ledger.process)
    two[1].app.ledger.recover()
    ledger_steps = ledger_steps_of(two[0])
    ledger_steps.eventually = eventually
    return ledger_steps, event_id, queued


def assert_runs_under_a_live_id(two, event_id):
    """The attempt belongs to a process that is registered, so that no other process ends it as lost."""
    assert two[0].sql("SELECT process FROM attempts") == [(two[0].app.ledger.process,)]
    assert sum(two[1].app.ledger.recover().values()) == 0
    assert two[1].only(event_id).state is State.RUNNING


def test_a_claim_in_the_batch_of_a_reregistration_has_the_new_id(two, ledger_steps_of, eventually):
    """The attempt gets the id that is valid when its transaction runs."""
    ledger_steps, event_id, queued = expired(two, ledger_steps_of, eventually)
    _, claimed = ledger_steps.run_in_one_batch(ledger_steps.ledger.heartbeat, lambda: ledger_steps.ledger.claim(queued))
    assert claimed.attempt == 1
    assert_runs_under_a_live_id(two, event_id)


def test_a_trial_before_the_heartbeat_in_its_batch_belongs_to_the_new_id(two, ledger_steps_of, eventually):
    """A heartbeat comes first in its transaction, because other work of the batch may start attempts."""
    ledger_steps, event_id, _ = expired(two, ledger_steps_of, eventually)
    now = two[0].clock.now()
    two[0].sql("UPDATE handlers SET paused_at = ?, circuit_opened_at = ?, circuit_retry_at = ?", now, now, now)
    trial = TrialDelivery("p:h", now + 60_000_000)
    started, _ = ledger_steps.run_in_one_batch(
        lambda: ledger_steps.ledger.claim_trial_delivery(trial), ledger_steps.ledger.heartbeat
    )
    assert started is not None
    assert_runs_under_a_live_id(two, event_id)


def test_a_claim_belongs_to_a_stored_id_if_its_batch_was_rolled_back(two, ledger_steps_of, eventually, logged):
    """A batch that registers a process again and has a bad item is executed one by one, the claim first."""
    ledger_steps, event_id, queued = expired(two, ledger_steps_of, eventually)
    before = ledger_steps.ledger.process

    def refused(_transaction):
        raise FlowhooksError("refused")

    claimed, *_ = ledger_steps.run_in_one_batch(
        lambda: ledger_steps.ledger.claim(queued),
        ledger_steps.ledger.heartbeat,
        lambda: ledger_steps.ledger.write(refused),
    )
    assert claimed.attempt == 1
    assert_runs_under_a_live_id(two, event_id)
    assert [entry["process"] for entry in logged if entry["event"] == "process_expired"] == [before]


def test_a_claim_after_a_failed_heartbeat_belongs_to_a_stored_id(two, ledger_steps_of, eventually, monkeypatch):
    """The COMMIT that registers a process again fails, so its next transaction starts with another heartbeat."""
    ledger_steps, event_id, queued = expired(two, ledger_steps_of, eventually)

    def fail(_connection):
        raise DBAPIError("COMMIT", {}, OSError("the connection was lost"))

    with monkeypatch.context() as patch:
        patch.setattr(two[0].app.ledger._write_engine.dialect, "do_commit", fail)
        with pytest.raises(Unavailable):
            ledger_steps.ledger.heartbeat()
    assert ledger_steps.ledger.claim(queued).attempt == 1
    assert_runs_under_a_live_id(two, event_id)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has a clock that counts while it sleeps")
def test_a_heartbeat_precedes_a_claim_after_the_machine_slept(two, ledger_steps_of, eventually, monkeypatch):
    """The monotonic clock stands still meanwhile, so it does not show that others have expired this process."""
    _, event_id, queued = expired(two, ledger_steps_of, eventually)
    read = time.clock_gettime
    asleep = {time.CLOCK_BOOTTIME: 2 * HEARTBEAT_TIMEOUT}
    monkeypatch.setattr(time, "clock_gettime", lambda clock: read(clock) + asleep.get(clock, 0))
    two[0].app.ledger.claim(queued)
    assert_runs_under_a_live_id(two, event_id)


def claim_next(flow, queued):
    """Claim the next deliveries of the handler for two free slots."""
    request = SimpleNamespace(
        handler=queued.handler,
        skipped=(),
        probing=(),
        with_probes=False,
        take=lambda _transaction: 2,
        passes=lambda _event: True,
        on_claimed=lambda _transaction, _started, **_more: None,
    )
    flow.app.ledger.claim_next(request).result(WAIT_TIMEOUT)


@pytest.mark.parametrize("start", [lambda flow, queued: flow.app.ledger.claim(queued), claim_next])
def test_an_expired_process_claims_under_a_new_id(two, ledger_steps_of, eventually, start):
    """Its machine was paused, and so was its clock: nothing tells it that a heartbeat is due."""
    _, event_id, queued = expired(two, ledger_steps_of, eventually)
    start(two[0], queued)
    assert_runs_under_a_live_id(two, event_id)


def test_an_expired_process_accepts_under_a_new_id(two, ledger_steps_of, eventually, monkeypatch):
    """An attempt that starts with the acceptance of its event belongs to the new id, like the others of its batch."""
    ledger_steps, _, queued = expired(two, ledger_steps_of, eventually)
    monkeypatch.setattr(ledger_steps.ledger.runner, "reserve", lambda _transaction, deliveries: deliveries)
    accepted, claimed = ledger_steps.run_in_one_batch(
        lambda: two[0].take("i2", wait=0), lambda: ledger_steps.ledger.claim(queued)
    )
    assert claimed.attempt == 1
    assert two[0].sql("SELECT process FROM attempts") == [(ledger_steps.ledger.process,)] * 2
    assert sum(two[1].app.ledger.recover().values()) == 0
    assert two[1].only(accepted.event_id).state is State.RUNNING


def test_a_process_is_not_expired_while_it_starts_an_attempt(two):
    """Its machine was paused before the COMMIT: others do not wait for it, and expire it after the COMMIT."""
    ledger, event_id = two[0].app.ledger, two[0].take("i1", wait=0).event_id
    (queued,) = ledger.due_deliveries(two[0].clock.now(), lambda _handler: 10)

    def start(transaction):
        claim(transaction, [ClaimRequest(queued, two[0].clock.now())], ledger._in_flight, process=ledger.process)
        expire_heartbeat(two[1], ledger.process)
        two[1].app.ledger.recover()
        return two[1].sql("SELECT count(*) FROM processes WHERE stopped_at IS NULL")

    assert ledger.write(start) == [(2,)]
    assert two[1].only(event_id).state is State.RUNNING
    assert two[1].app.ledger.recover()[State.WAITING] == 1


def test_a_process_that_has_stopped_starts_no_attempt(two):
    """A claim after the deregistration of its process fails, because the process gets no new id."""
    ledger, event_id = two[0].app.ledger, two[0].take("i1", wait=0).event_id
    (queued,) = ledger.due_deliveries(two[0].clock.now(), lambda _handler: 10)
    ledger._closing = True
    ledger.write(lambda transaction: processes.deregister(transaction, ledger.process, two[0].clock.now()))
    with pytest.raises(ProcessExpired):
        ledger.claim(queued)
    assert two[1].only(event_id).state is State.WAITING


def test_a_claim_waits_for_the_expiry_of_its_process(long_timeouts, two):
    """While another process expires this one, it starts no attempt, and it holds no delivery meanwhile."""
    first, second = (flow.app.ledger for flow in two)
    event_id = two[0].take("i1", wait=0).event_id
    (queued,) = first.due_deliveries(two[0].clock.now(), lambda _handler: 10)
    expire_heartbeat(two[1], first.process)

    def expire(transaction):
        limits = second._registration.heartbeats.expiry_limits()
        assert processes.expire_stale(transaction, two[1].clock.now(), limits) == [first.process]
        claimed = threads.submit(first.claim, queued)
        until(lambda: two[1].sql(WAITING_SESSIONS))
        lock = "SELECT FROM deliveries FOR UPDATE NOWAIT"
        assert transaction.connection.exec_driver_sql(lock).rowcount == 1
        return claimed

    with ThreadPoolExecutor() as threads:
        assert second.write(expire).result(WAIT_TIMEOUT).attempt == 1
    assert_runs_under_a_live_id(two, event_id)


def test_a_step_of_the_database_clock_expires_no_process(two, monkeypatch):
    """The heartbeats of others look old then, before the next own one and after it."""
    event_id, _, _ = begin(two[0])
    backdate_connection(two[1])
    now = database.Now
    monkeypatch.setattr(database, "Now", lambda: now() + 3_600_000_000)
    assert sum(two[1].app.ledger.recover().values()) == 0
    two[1].app.ledger.heartbeat()
    assert sum(two[1].app.ledger.recover().values()) == 0
    assert two[1].only(event_id).state is State.RUNNING
    ((first, second),) = two[1].sql("SELECT min(heartbeat_at), max(heartbeat_at) FROM processes")
    assert second - first > 3_600_000_000 - 600_000_000


def step_database_clock(monkeypatch, microseconds):
    """Set the database's clock ahead, or back if negative."""
    now = database.Now
    monkeypatch.setattr(database, "Now", lambda: now() + microseconds)


def live_rows(flow):
    """The number of processes that are not marked as stopped."""
    ((number,),) = flow.sql("SELECT count(*) FROM processes WHERE stopped_at IS NULL")
    return number


def die_while_the_database_clock_is_ahead(two, monkeypatch):
    """Let the first app begin a delivery and send its last heartbeat; then the database's clock is right again."""
    event_id, _, _ = begin(two[0])
    with monkeypatch.context() as patch:
        step_database_clock(patch, HOUR)
        for flow in two:
            flow.app.ledger.heartbeat()
    two[1].app.ledger.heartbeat()
    return event_id


def test_a_process_that_died_while_the_database_clock_was_ahead_expires(two, monkeypatch):
    """Its last heartbeat stays in the future, so it is expired when live processes have replaced theirs."""
    event_id = die_while_the_database_clock_is_ahead(two, monkeypatch)
    assert sum(two[1].app.ledger.recover().values()) == 0
    backdate_connection(two[1])
    two[1].app.ledger.heartbeat()
    assert two[1].app.ledger.recover()[State.WAITING] == 1
    assert two[1].only(event_id).state is State.WAITING
    assert two[1].app.ledger.is_leader()


def test_a_heartbeat_from_the_future_is_of_no_live_process(two, monkeypatch):
    """Handlers of such a process have no runner, and the process is not listed, before it has expired."""
    die_while_the_database_clock_is_ahead(two, monkeypatch)
    assert live_rows(two[1]) == 2
    assert lately(two[1]) == [("server", {"p:h"})]


def test_a_step_of_the_database_clock_to_the_past_expires_no_process(two, monkeypatch):
    """The heartbeats of others are from the future then: they have the expiry time for another one."""
    event_id, _, _ = begin(two[0])
    backdate_connection(two[1])
    step_database_clock(monkeypatch, -HOUR)
    two[1].app.ledger.heartbeat()
    assert sum(two[1].app.ledger.recover().values()) == 0
    two[0].app.ledger.heartbeat()
    backdate_connection(two[1])
    assert sum(two[1].app.ledger.recover().values()) == 0
    assert two[1].only(event_id).state is State.RUNNING
    assert live_rows(two[1]) == 2


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_process_that_has_not_noticed_a_step_expires_no_other(two, monkeypatch, step):
    """Its own last heartbeat is from before the step, and that of the other process from after it."""
    event_id, _, _ = begin(two[0])
    backdate_connection(two[1])
    step_database_clock(monkeypatch, step)
    two[0].app.ledger.heartbeat()
    assert sum(two[1].app.ledger.recover().values()) == 0
    assert two[1].only(event_id).state is State.RUNNING
    assert live_rows(two[1]) == 2


def test_a_heartbeat_after_the_deregistration_registers_nothing(two, monkeypatch, logged):
    """A heartbeat submitted while the ledger closes adds no process row, which would never be removed."""
    ledger = two[0].app.ledger
    close = ledger._writer.close

    def beat_and_close():
        ledger.heartbeat()
        close()

    monkeypatch.setattr(ledger._writer, "close", beat_and_close)
    assert two[0].close()
    assert two[1].sql("SELECT count(*) FROM processes") == [(2,)]
    assert len(lately(two[1])) == 1
    assert not [entry for entry in logged if entry["event"] == "process_expired"]
