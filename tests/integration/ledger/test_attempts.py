"""Attempts: stored before they start, recorded when they end, and found when their process was killed."""

from __future__ import annotations

import pytest

from flowhooks import OutcomeKind, Retry, State
from flowhooks.clock import SECOND
from flowhooks.ledger.attempt_starts import InFlightAttempts
from flowhooks.ledger.attempts import claim
from flowhooks.ledger.deliveries import ClaimRequest
from flowhooks.ledger.next_attempts import NextAttempt, next_attempts

RESULTS = ["1", "1.5", "null", "true", '"x"', '"\\u0000"', '"\\ud800"', "[]", '{"é": 1e400}']


def nothing(event):
    """Do nothing."""


def did(event, delivery):
    """Answer that the work was done."""
    return True


def begun(flow, *, attempts=1):
    """Start an attempt of a delivery for the key `leave`, as a process that is then killed would."""
    answer = flow.take(wait=0)
    for number in range(attempts):
        (queued,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 10)
        assert flow.app.ledger.claim(queued).attempt == number + 1
        if number + 1 < attempts:
            flow.sql("UPDATE processes SET stopped_at = 1")  # others recover only expired processes
            flow.app.ledger.recover()
            flow.clock.advance(3600)
    return answer.event_id


def test_a_claim_is_recorded_with_its_attempt(ledger_steps):
    """A claimed delivery is durably *running*, with an unfinished attempt of this process."""
    event_id, (queued,) = ledger_steps.accept("i1", "p:a", businessKey="B")
    ledger_steps.clock.advance(3)
    claimed = ledger_steps.ledger.claim(queued)
    assert (claimed.attempt, claimed.retry_base) == (1, 0)
    assert claimed.event == ledger_steps.ledger.event(event_id).event
    assert ledger_steps.sql("SELECT state, attempt, due_at FROM deliveries") == [("running", 1, None)]
    assert ledger_steps.sql("SELECT number, process, started_at, finished_at, outcome FROM attempts") == [
        (1, ledger_steps.ledger.process, ledger_steps.clock.now(), None, None)
    ]
    assert ledger_steps.ledger.claim(queued) is None


def test_each_claim_has_its_own_copy_of_the_event(ledger_steps):
    """Two claimed deliveries of one event have separate copies of its data."""
    _, (one, other) = ledger_steps.accept("i1", "p:a", "p:b", nested={"x": [1]})
    first, second = ledger_steps.run_in_one_batch(
        lambda: ledger_steps.ledger.claim(one), lambda: ledger_steps.ledger.claim(other)
    )
    first.event.data["nested"]["x"].append(2)
    assert second.event.data == {"nested": {"x": [1]}}


def test_only_a_waiting_delivery_can_be_claimed(ledger_steps, harness):
    """A delivery that is succeeded, dead, unknown, closed or already running cannot be claimed."""
    harness.check_at_end = False
    for number, state in enumerate(state for state in State if state is not State.WAITING):
        _, (queued,) = ledger_steps.accept(f"i{number}", "p:a")
        ledger_steps.bring(queued, state)
        assert ledger_steps.ledger.claim(ledger_steps.queued(queued.delivery_id)) is None
        assert ledger_steps.delivery_status(queued.delivery_id).state is state


def test_the_end_of_an_attempt_is_recorded_with_all_details(ledger_steps):
    """The end of an attempt is stored with outcome, error, traceback, result and time."""
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    ledger_steps.ledger.claim(queued)
    ledger_steps.clock.advance(2)
    assert ledger_steps.settle(
        queued,
        1,
        OutcomeKind.FAILED,
        State.WAITING,
        ledger_steps.clock.now() + 5,
        error="é\n'\"",
        traceback="T\nT",
        result='{"a": 1}',
    )
    (attempt,) = ledger_steps.ledger.attempts(queued.delivery_id)
    assert (attempt.outcome, attempt.error, attempt.traceback, attempt.result, attempt.finished_at) == (
        OutcomeKind.FAILED,
        "é\n'\"",
        "T\nT",
        '{"a": 1}',
        ledger_steps.clock.now(),
    )
    assert ledger_steps.delivery_status(queued.delivery_id).due_at == ledger_steps.clock.now() + 5


def test_a_result_is_stored_unchanged(ledger_steps):
    """A result is returned unchanged, although it is passed inside JSON."""
    for number, result in enumerate(RESULTS):
        _, (queued,) = ledger_steps.accept(f"i{number}", "p:a")
        ledger_steps.ledger.claim(queued)
        ledger_steps.settle(queued, 1, result=result)
        assert ledger_steps.ledger.attempts(queued.delivery_id)[0].result == result


def test_a_failed_claim_leaves_the_delivery_waiting(ledger_steps):
    """If the claim's transaction fails after its statements, the delivery still waits without an attempt."""
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    process = ledger_steps.ledger.process

    def cut(transaction):
        assert claim(transaction, [ClaimRequest(queued, 1)], InFlightAttempts(), process=process)[0].attempt == 1
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError):
        ledger_steps.ledger.write(cut)
    assert ledger_steps.delivery_status(queued.delivery_id).state is State.WAITING
    assert ledger_steps.ledger.attempts(queued.delivery_id) == ()
    assert ledger_steps.ledger.claim(queued).attempt == 1


def test_a_failed_settlement_leaves_the_attempt_running(ledger_steps):
    """If recording an outcome fails, the attempt is still running, and the outcome can be recorded again."""
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    ledger_steps.ledger.claim(queued)

    def cut(transaction):
        assert ledger_steps.ledger._result_recorder(transaction, [ledger_steps.attempt_result(queued, 1)]) == [True]
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError):
        ledger_steps.ledger.write(cut)
    assert ledger_steps.sql("SELECT state FROM deliveries") == [("running",)]
    assert ledger_steps.sql("SELECT outcome, finished_at FROM attempts") == [(None, None)]
    assert ledger_steps.settle(queued, 1)


@pytest.mark.parametrize(
    ("declared", "attempts", "ends"),
    [
        ({}, 1, (State.UNKNOWN, None)),
        ({"probe": did}, 1, (State.UNKNOWN, 0)),
        ({"retry": Retry()}, 1, (State.WAITING, 5)),
        ({"retry": Retry(attempts=3, delays=(7, 90))}, 2, (State.WAITING, 90)),
        ({"retry": Retry(attempts=2)}, 2, (State.DEAD, None)),
        ({"retry": Retry(attempts=1)}, 1, (State.DEAD, None)),
        ({"retry": Retry(attempts=1), "probe": did}, 1, (State.DEAD, None)),
    ],
    ids=["no retry", "probe", "retry", "second retry", "none left", "one attempt", "probe but retry"],
)
def test_recovery_of_attempts_of_a_killed_process(harness, listens, declared, attempts, ends):
    """A lost attempt leaves *waiting* or, with no attempt left, *dead*; *unknown* without `retry=`."""
    state, after = ends
    listener = listens(nothing, **declared)
    event_id = begun(first := harness.open(listener, start=False), attempts=attempts)
    harness.crash(first)
    harness.clock.advance(10)
    second = harness.open(listener, start=False)
    delivery_status = second.only(event_id)
    assert (delivery_status.state, delivery_status.attempt, delivery_status.outcome) == (
        state,
        attempts,
        OutcomeKind.LOST,
    )
    assert delivery_status.due_at == (None if after is None else harness.clock.now() + after * SECOND)
    last = second.app.ledger.attempts(delivery_status.delivery_id)[-1]
    assert last.finished_at == harness.clock.now()
    assert "killed" in last.error


@pytest.mark.sqlite
@pytest.mark.parametrize("stored", ['{"attempts": 3, "new_member": 1}', "[" * 100_000], ids=["newer", "damaged"])
def test_a_missing_handler_with_an_unreadable_retry_schedule(harness, listens, stored):
    """A start does not fail. The lost attempt may have done its work, so it leaves *unknown*."""
    event_id = begun(first := harness.open(listens(nothing, retry=Retry()), start=False))
    first.sql("UPDATE handlers SET retry = ?", stored)
    harness.crash(first)
    second = harness.open(start=False)
    assert second.only(event_id).state is State.UNKNOWN
    second.sql("UPDATE handlers SET retry = NULL")  # the ledger is checked at the end


@pytest.mark.sqlite
@pytest.mark.parametrize("stored", ["x", 7], ids=["text", "bit"])
def test_a_lost_attempt_in_a_retry_schedule_with_a_damaged_start(harness, listens, stored):
    """A start does not fail, and all attempts count; the next one can be shown."""
    listener = listens(nothing, retry=Retry(jitter=0))
    event_id = begun(first := harness.open(listener, start=False))
    first.sql("UPDATE deliveries SET retry_base = ?", stored)
    harness.crash(first)
    second = harness.open(listener, start=False)
    delivery_status, now = second.only(event_id), harness.clock.now()
    assert (delivery_status.state, delivery_status.due_at) == (State.WAITING, now + 5 * SECOND)
    with second.app.ledger.connection() as connection:
        following = next_attempts(connection, [delivery_status], now)
    assert following == {delivery_status.delivery_id: NextAttempt(number=2, total=8, left=5 * SECOND)}


def test_recovery_changes_only_running_deliveries(harness, listens):
    """Recovery changes neither finished, waiting or *unknown* deliveries nor earlier attempts."""
    listener = listens(nothing, retry=Retry(jitter=0))
    first = harness.open(listener, start=False)
    event_id = begun(first, attempts=2)
    waiting = first.take("waiting", wait=0).event_id
    harness.crash(first)
    harness.clock.advance(1)
    second = harness.open(listener, start=False)
    assert second.only(waiting).state is State.WAITING
    before, last = second.app.ledger.attempts(second.only(event_id).delivery_id)
    assert before.finished_at < last.finished_at == harness.clock.now()


def test_a_waiting_delivery_of_a_killed_process_runs_normally(harness, listens, eventually):
    """A delivery that had not started when its process was killed is not lost: its first attempt is made."""
    runs = []
    listener = listens(lambda event: runs.append(event.flow_instance_id))
    first = harness.open(listener, start=False)
    answer = first.take(wait=0)
    harness.crash(first)
    second = harness.open(listener)
    delivery_status = second.settled(answer.event_id, State.SUCCEEDED)
    assert (delivery_status.attempt, runs) == (1, ["i1"])


def test_lost_deliveries_are_retried_with_separate_jitter(harness, listens):
    """The jitter is computed for each lost delivery."""
    listener = listens(nothing, retry=Retry(delays=(100,), attempts=2, jitter=1))
    first = harness.open(listener, start=False)
    for number in range(5):
        first.take(f"i{number}", wait=0)
    for queued in first.app.ledger.due_deliveries(first.clock.now(), lambda _handler: 10):
        first.app.ledger.claim(queued)
    harness.crash(first)
    drawn = iter([0.1, 0.2, 0.3, 0.4, 0.5, *[0.6] * 10])
    harness.clock.random = lambda: next(drawn)
    second = harness.open(listener, start=False)
    due = [due_at for (due_at,) in second.sql("SELECT due_at FROM deliveries")]
    assert len(set(due)) == 5
