"""Changes of state: the table's transitions succeed, all others are refused, and stale changes have no effect."""

from __future__ import annotations

import itertools

import pytest

from flowhooks.errors import InvalidTransition
from flowhooks.ledger.deliveries import StateChange, apply_changes, defer_probe
from flowhooks.model.delivery import TRANSITIONS, OutcomeKind, State

IN_TABLE = {(row.source, row.target) for row in TRANSITIONS}


def state_of(hands, delivery_id):
    return hands.sql("SELECT state, attempt, due_at, comment, retry_base FROM deliveries WHERE id = ?", delivery_id)[0]


def put(hands, delivery_id, state, attempt=3):
    hands.sql("UPDATE deliveries SET state = ?, attempt = ? WHERE id = ?", state, attempt, delivery_id)


@pytest.fixture
def one(hands, harness):
    """A delivery whose state is set directly, so its counts need not balance."""
    harness.check_books = False
    _, (queued,) = hands.accept("i1", "p:a")
    return queued.delivery_id


def test_only_transitions_of_the_table_succeed(hands, one):
    """A transition of the table succeeds; any other is refused and changes nothing."""
    for source, target in itertools.product(State, State):
        put(hands, one, source)
        before = state_of(hands, one)
        change = StateChange(one, source, target, 3, hands.clock.now())
        if (source, target) in IN_TABLE:
            assert hands.ledger.write(lambda transaction, change=change: apply_changes(transaction, [change])) == {one}
            assert state_of(hands, one)[0] == target
        else:
            with pytest.raises(InvalidTransition, match=f"from {source} to {target}"):
                hands.ledger.write(lambda transaction, change=change: apply_changes(transaction, [change]))
            assert state_of(hands, one) == before


def test_one_illegal_transition_rejects_the_whole_batch(hands, one):
    """Transitions made together are checked before any is made."""
    _, (other,) = hands.accept("i2", "p:a")
    moves = [
        StateChange(other.delivery_id, State.WAITING, State.CLOSED, 0, hands.clock.now()),
        StateChange(one, State.WAITING, State.SUCCEEDED, 0, hands.clock.now()),
    ]
    with pytest.raises(InvalidTransition):
        hands.ledger.write(lambda transaction: apply_changes(transaction, moves))
    assert hands.delivery_status(other.delivery_id).state is State.WAITING


@pytest.mark.parametrize(("state", "attempt"), [(State.RUNNING, 2), (State.RUNNING, 4), (State.DEAD, 3)])
def test_a_stale_transition_changes_nothing(hands, one, state, attempt):
    """A transition that expects another attempt or state has no effect."""
    put(hands, one, state)
    before = state_of(hands, one)
    change = StateChange(one, State.RUNNING, State.SUCCEEDED, attempt, hands.clock.now(), comment="mine")
    assert hands.ledger.write(lambda transaction: apply_changes(transaction, [change])) == set()
    assert state_of(hands, one) == before


def test_an_empty_list_of_transitions_changes_nothing(hands):
    """An empty list of transitions changes nothing."""
    assert hands.ledger.write(lambda transaction: apply_changes(transaction, [])) == set()


def test_a_transition_changes_only_the_given_columns(hands, one):
    """Number of attempts, schedule's start and note stay unless the transition sets them."""
    hands.sql("UPDATE deliveries SET comment = 'said', retry_base = 2, attempt = 3, state = 'dead' WHERE id = ?", one)
    change = StateChange(one, State.DEAD, State.WAITING, 3, hands.clock.now(), due_at=77)
    hands.ledger.write(lambda transaction: apply_changes(transaction, [change]))
    assert state_of(hands, one) == ("waiting", 3, 77, "said", 2)
    change = StateChange(
        one, State.WAITING, State.RUNNING, 3, 9, attempt_after=4, retry_base=3, comment='it\'s "new"\n'
    )
    hands.ledger.write(lambda transaction: apply_changes(transaction, [change]))
    assert state_of(hands, one) == ("running", 4, None, 'it\'s "new"\n', 3)
    assert hands.sql("SELECT changed_at FROM deliveries WHERE id = ?", one) == [(9,)]


def test_at_most_one_of_many_claims_wins(hands, together):
    """Of sixteen concurrent claims of one delivery exactly one succeeds, in any batches."""
    _, (queued,) = hands.accept("i1", "p:a")
    results = together(*[lambda: hands.ledger.claim(queued)] * 16)
    assert [one.attempt for one in results if one is not None] == [1]
    assert len(hands.ledger.attempts(queued.delivery_id)) == 1


def test_at_most_one_claim_of_a_batch_wins(hands):
    """Of several claims of one delivery in one batch, one succeeds."""
    _, (queued,) = hands.accept("i1", "p:a")
    results = hands.queue_up(*[lambda: hands.ledger.claim(queued)] * 5)
    assert [one.attempt for one in results if one is not None] == [1]
    assert len(hands.ledger.attempts(queued.delivery_id)) == 1


def test_the_outcome_of_a_stale_attempt_is_not_recorded(hands):
    """A late outcome of a process recorded as lost changes neither the delivery nor an attempt."""
    _, (queued,) = hands.accept("i1", "p:a")
    hands.ledger.claim(queued)
    assert hands.settle(queued, 1, OutcomeKind.LOST, State.WAITING, hands.clock.now())
    hands.ledger.claim(hands.queued(queued.delivery_id))
    before = (hands.delivery_status(queued.delivery_id), hands.ledger.attempts(queued.delivery_id))
    assert not hands.settle(queued, 1, error="late", result='"late"')
    assert (hands.delivery_status(queued.delivery_id), hands.ledger.attempts(queued.delivery_id)) == before
    assert hands.settle(queued, 2)
    assert not hands.settle(queued, 2, OutcomeKind.FAILED, State.DEAD)
    assert hands.delivery_status(queued.delivery_id).state is State.SUCCEEDED


def test_a_stale_attempt_in_one_batch_with_the_current_one(hands):
    """When a stale and the current attempt are settled together, only the current one is recorded."""
    _, (queued,) = hands.accept("i1", "p:a")
    hands.ledger.claim(queued)
    assert hands.settle(queued, 1, OutcomeKind.LOST, State.WAITING, hands.clock.now(), error="lost")
    hands.ledger.claim(hands.queued(queued.delivery_id))
    results = hands.queue_up(
        lambda: hands.settle(queued, 1, error="late"), lambda: hands.settle(queued, 2), lambda: hands.settle(queued, 1)
    )
    assert results == [False, True, False]
    assert hands.delivery_status(queued.delivery_id).state is State.SUCCEEDED
    assert [(one.outcome, one.error) for one in hands.ledger.attempts(queued.delivery_id)] == [
        (OutcomeKind.LOST, "lost"),
        (OutcomeKind.SUCCEEDED, ""),
    ]


def test_two_settlements_of_one_attempt_in_a_batch(hands):
    """If an attempt is settled twice in one batch, the delivery matches its recorded attempt."""
    _, (queued,) = hands.accept("i1", "p:a")
    hands.ledger.claim(queued)
    results = hands.queue_up(
        lambda: hands.settle(queued, 1), lambda: hands.settle(queued, 1, OutcomeKind.FAILED, State.DEAD, error="no")
    )
    assert results == [True, False]
    delivery_status = hands.delivery_status(queued.delivery_id)
    assert (delivery_status.state, delivery_status.outcome, delivery_status.error) == (
        State.SUCCEEDED,
        OutcomeKind.SUCCEEDED,
        "",
    )


def test_postponing_changes_no_state(hands, one):
    """Postponing affects only a due *unknown* delivery, once; any other is unchanged."""
    put(hands, one, State.UNKNOWN)
    now = state_of(hands, one)[2]

    def put_off(now, until):
        return hands.ledger.write(lambda transaction: defer_probe(transaction, one, now=now, until=until))

    assert put_off(now, now + 99)
    assert state_of(hands, one)[:3] == ("unknown", 3, now + 99)
    assert not put_off(now, now + 100)
    put(hands, one, State.DEAD)
    assert not put_off(now + 99, now + 200)
    assert state_of(hands, one)[:3] == ("dead", 3, now + 99)
