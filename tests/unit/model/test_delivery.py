"""The table of states, compared with its documented guarantees."""

from __future__ import annotations

import dataclasses

import pytest

from flowhooks import Delivery, Outcome, OutcomeKind, State
from flowhooks.model.delivery import ALLOWED_TRANSITIONS, COMPLETED_STATES, TRANSITIONS


def targets(source):
    """The states that the table permits after a state."""
    return {row.target for row in TRANSITIONS if row.source == source}


def test_table_of_states():
    """The whole table, so that no change goes unnoticed."""
    table = {source: targets(source) for source in (None, *State)}
    assert table == {
        None: {State.WAITING},
        State.WAITING: {State.RUNNING, State.CLOSED},
        State.RUNNING: {State.SUCCEEDED, State.WAITING, State.DEAD, State.UNKNOWN, State.CLOSED},
        State.UNKNOWN: {State.SUCCEEDED, State.WAITING, State.CLOSED},
        State.DEAD: {State.WAITING, State.CLOSED},
        State.SUCCEEDED: {State.WAITING},
        State.CLOSED: set(),
    }


def test_each_transition_has_one_row_with_its_cause():
    """Each transition has one row with its cause."""
    assert len(ALLOWED_TRANSITIONS) == len(TRANSITIONS)
    assert all(row.by for row in TRANSITIONS)


def test_every_state_can_be_reached():
    """From nothing, along the table."""
    reached: set[State] = set()
    ahead = targets(None)
    while ahead:
        reached |= ahead
        ahead = set().union(*map(targets, ahead)) - reached
    assert reached == set(State)


@pytest.mark.parametrize("state", sorted(set(State) - COMPLETED_STATES))
def test_every_unfinished_state_leads_to_a_finished_state(state):
    """From each unfinished state a finished one can be reached."""
    seen, ahead = {state}, {state}
    while ahead:
        ahead = set().union(*map(targets, ahead)) - seen
        seen |= ahead
    assert seen & COMPLETED_STATES


def test_finished_states():
    """A finished state needs no more work; only an explicit replay leaves it."""
    assert {State.SUCCEEDED, State.CLOSED} == COMPLETED_STATES
    assert [row.by for row in TRANSITIONS if row.source in COMPLETED_STATES] == ["replay --again"]


def test_only_a_claim_runs_a_delivery():
    """A delivery runs only from the state waiting."""
    assert [row.source for row in TRANSITIONS if row.target is State.RUNNING] == [State.WAITING]


def test_an_operator_can_settle_every_delivery_that_does_not_run():
    """Each state that operators handle has a transition by an operator."""
    operators = {row.source for row in TRANSITIONS if "operator" in row.by or "replay" in row.by}
    assert operators == set(State) - {State.RUNNING, State.CLOSED}


def test_only_one_kind_of_outcome_is_a_success():
    """Only one kind of outcome is a success."""
    assert [kind for kind in OutcomeKind if Outcome(kind=kind).succeeded] == [OutcomeKind.SUCCEEDED]


def test_a_delivery_is_immutable_and_has_only_documented_fields():
    """Handlers get an immutable delivery, which has no other fields than its documented ones."""
    delivery = Delivery(id="d", event_id="e", handler="p:h", attempt=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delivery.attempt = 2
    assert [field.name for field in dataclasses.fields(Delivery)] == ["id", "event_id", "handler", "attempt"]
    assert dataclasses.asdict(delivery) == {"id": "d", "event_id": "e", "handler": "p:h", "attempt": 1}


@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        ({"kind": "done"}, ValueError, "'done' is not a valid OutcomeKind"),
        ({"error": None}, TypeError, "^an outcome's error and traceback are strings$"),
        ({"traceback": 3}, TypeError, "^an outcome's error and traceback are strings$"),
        ({"retry_after": -1}, ValueError, "^retry_after is 0 to 2592000 seconds, not -1$"),
        ({"retry_after": 30 * 86400 + 1}, ValueError, "^retry_after is 0 to 2592000 seconds, not 2592001$"),
    ],
)
def test_an_invalid_outcome_is_rejected(given, error, why):
    """An invalid outcome is refused at its creation, so that its creator can be named."""
    with pytest.raises(error, match=why):
        Outcome(**{"kind": OutcomeKind.FAILED} | given)


@pytest.mark.parametrize("seconds", [None, 0, 0.5, 30 * 86400])
def test_an_outcome_can_request_a_retry(seconds):
    """An outcome can request a retry at once or within thirty days; its kind can be given as text."""
    outcome = Outcome(kind="failed", error="e", traceback="t", retry_after=seconds)
    assert (outcome.kind, outcome.retry_after) == (OutcomeKind.FAILED, seconds)
    assert type(outcome.kind) is OutcomeKind
