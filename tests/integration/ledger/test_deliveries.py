"""Changes of state: the table's transitions succeed, all others are refused, and stale changes have no effect."""

from __future__ import annotations

import itertools

import pytest

from flowhooks.errors import InvalidTransition
from flowhooks.ledger.deliveries import StateChange, apply_changes, defer_probe
from flowhooks.model.delivery import TRANSITIONS, OutcomeKind, State

IN_TABLE = {(row.source, row.target) for row in TRANSITIONS}


def state_of(ledger_steps, delivery_id):
    return ledger_steps.sql(
        "SELECT state, attempt, due_at, comment, retry_base FROM deliveries WHERE id = ?", delivery_id
    )[0]


def put(ledger_steps, delivery_id, state, attempt=3):
    ledger_steps.sql("UPDATE deliveries SET state = ?, attempt = ? WHERE id = ?", state, attempt, delivery_id)


@pytest.fixture
def delivery_id(ledger_steps, harness):
    """A delivery whose state is set directly, so its counts need not balance."""
    harness.check_at_end = False
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    return queued.delivery_id


def test_only_transitions_of_the_table_succeed(ledger_steps, delivery_id):
    """A transition of the table succeeds; any other is refused and changes nothing."""
    for source, target in itertools.product(State, State):
        put(ledger_steps, delivery_id, source)
        before = state_of(ledger_steps, delivery_id)
        change = StateChange(delivery_id, source, target, 3, ledger_steps.clock.now())
        if (source, target) in IN_TABLE:
            assert ledger_steps.ledger.write(
                lambda transaction, change=change: apply_changes(transaction, [change])
            ) == {delivery_id}
            assert state_of(ledger_steps, delivery_id)[0] == target
        else:
            with pytest.raises(InvalidTransition, match=f"from {source} to {target}"):
                ledger_steps.ledger.write(lambda transaction, change=change: apply_changes(transaction, [change]))
            assert state_of(ledger_steps, delivery_id) == before


def test_one_illegal_transition_rejects_the_whole_batch(ledger_steps, delivery_id):
    """Transitions made together are checked before any is made."""
    _, (other,) = ledger_steps.accept("i2", "p:a")
    moves = [
        StateChange(other.delivery_id, State.WAITING, State.CLOSED, 0, ledger_steps.clock.now()),
        StateChange(delivery_id, State.WAITING, State.SUCCEEDED, 0, ledger_steps.clock.now()),
    ]
    with pytest.raises(InvalidTransition):
        ledger_steps.ledger.write(lambda transaction: apply_changes(transaction, moves))
    assert ledger_steps.delivery_status(other.delivery_id).state is State.WAITING


@pytest.mark.parametrize(("state", "attempt"), [(State.RUNNING, 2), (State.RUNNING, 4), (State.DEAD, 3)])
def test_a_stale_transition_changes_nothing(ledger_steps, delivery_id, state, attempt):
    """A transition that expects another attempt or state has no effect."""
    put(ledger_steps, delivery_id, state)
    before = state_of(ledger_steps, delivery_id)
    change = StateChange(delivery_id, State.RUNNING, State.SUCCEEDED, attempt, ledger_steps.clock.now(), comment="mine")
    assert ledger_steps.ledger.write(lambda transaction: apply_changes(transaction, [change])) == set()
    assert state_of(ledger_steps, delivery_id) == before


def test_an_empty_list_of_transitions_changes_nothing(ledger_steps):
    """An empty list of transitions changes nothing."""
    assert ledger_steps.ledger.write(lambda transaction: apply_changes(transaction, [])) == set()


def test_a_transition_changes_only_the_given_columns(ledger_steps, delivery_id):
    """Number of attempts, schedule's start and note stay unless the transition sets them."""
    ledger_steps.sql(
        "UPDATE deliveries SET comment = 'said', retry_base = 2, attempt = 3, state = 'dead' WHERE id = ?", delivery_id
    )
    change = StateChange(delivery_id, State.DEAD, State.WAITING, 3, ledger_steps.clock.now(), due_at=77)
    ledger_steps.ledger.write(lambda transaction: apply_changes(transaction, [change]))
    assert state_of(ledger_steps, delivery_id) == ("waiting", 3, 77, "said", 2)
    change = StateChange(
        delivery_id, State.WAITING, State.RUNNING, 3, 9, attempt_after=4, retry_base=3, comment='it\'s "new"\n'
    )
    ledger_steps.ledger.write(lambda transaction: apply_changes(transaction, [change]))
    assert state_of(ledger_steps, delivery_id) == ("running", 4, None, 'it\'s "new"\n', 3)
    assert ledger_steps.sql("SELECT changed_at FROM deliveries WHERE id = ?", delivery_id) == [(9,)]


def test_at_most_one_of_many_claims_wins(ledger_steps, together):
    """Of sixteen concurrent claims of one delivery exactly one succeeds, in any batches."""
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    results = together(*[lambda: ledger_steps.ledger.claim(queued)] * 16)
    assert [result.attempt for result in results if result is not None] == [1]
    assert len(ledger_steps.ledger.attempts(queued.delivery_id)) == 1


def test_at_most_one_claim_of_a_batch_wins(ledger_steps):
    """Of several claims of one delivery in one batch, one succeeds."""
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    results = ledger_steps.run_in_one_batch(*[lambda: ledger_steps.ledger.claim(queued)] * 5)
    assert [result.attempt for result in results if result is not None] == [1]
    assert len(ledger_steps.ledger.attempts(queued.delivery_id)) == 1


def test_the_outcome_of_a_stale_attempt_is_not_recorded(ledger_steps):
    """A late outcome of a process recorded as lost changes neither the delivery nor an attempt."""
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    ledger_steps.ledger.claim(queued)
    assert ledger_steps.settle(queued, 1, OutcomeKind.LOST, State.WAITING, ledger_steps.clock.now())
    ledger_steps.ledger.claim(ledger_steps.queued(queued.delivery_id))
    before = (ledger_steps.delivery_status(queued.delivery_id), ledger_steps.ledger.attempts(queued.delivery_id))
    assert not ledger_steps.settle(queued, 1, error="late", result='"late"')
    assert (
        ledger_steps.delivery_status(queued.delivery_id),
        ledger_steps.ledger.attempts(queued.delivery_id),
    ) == before
    assert ledger_steps.settle(queued, 2)
    assert not ledger_steps.settle(queued, 2, OutcomeKind.FAILED, State.DEAD)
    assert ledger_steps.delivery_status(queued.delivery_id).state is State.SUCCEEDED


def test_a_stale_attempt_in_one_batch_with_the_current_one(ledger_steps):
    """When a stale and the current attempt are settled together, only the current one is recorded."""
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    ledger_steps.ledger.claim(queued)
    assert ledger_steps.settle(queued, 1, OutcomeKind.LOST, State.WAITING, ledger_steps.clock.now(), error="lost")
    ledger_steps.ledger.claim(ledger_steps.queued(queued.delivery_id))
    results = ledger_steps.run_in_one_batch(
        lambda: ledger_steps.settle(queued, 1, error="late"),
        lambda: ledger_steps.settle(queued, 2),
        lambda: ledger_steps.settle(queued, 1),
    )
    assert results == [False, True, False]
    assert ledger_steps.delivery_status(queued.delivery_id).state is State.SUCCEEDED
    assert [(attempt.outcome, attempt.error) for attempt in ledger_steps.ledger.attempts(queued.delivery_id)] == [
        (OutcomeKind.LOST, "lost"),
        (OutcomeKind.SUCCEEDED, ""),
    ]


def test_two_settlements_of_one_attempt_in_a_batch(ledger_steps):
    """If an attempt is settled twice in one batch, the delivery matches its recorded attempt."""
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    ledger_steps.ledger.claim(queued)
    results = ledger_steps.run_in_one_batch(
        lambda: ledger_steps.settle(queued, 1),
        lambda: ledger_steps.settle(queued, 1, OutcomeKind.FAILED, State.DEAD, error="no"),
    )
    assert results == [True, False]
    delivery_status = ledger_steps.delivery_status(queued.delivery_id)
    assert (delivery_status.state, delivery_status.outcome, delivery_status.error) == (
        State.SUCCEEDED,
        OutcomeKind.SUCCEEDED,
        "",
    )


def test_postponing_changes_no_state(ledger_steps, delivery_id):
    """Postponing affects only a due *unknown* delivery, once; any other is unchanged."""
    put(ledger_steps, delivery_id, State.UNKNOWN)
    now = state_of(ledger_steps, delivery_id)[2]

    def put_off(now, until):
        return ledger_steps.ledger.write(
            lambda transaction: defer_probe(transaction, delivery_id, now=now, until=until)
        )

    assert put_off(now, now + 99)
    assert state_of(ledger_steps, delivery_id)[:3] == ("unknown", 3, now + 99)
    assert not put_off(now, now + 100)
    put(ledger_steps, delivery_id, State.DEAD)
    assert not put_off(now + 99, now + 200)
    assert state_of(ledger_steps, delivery_id)[:3] == ("dead", 3, now + 99)
