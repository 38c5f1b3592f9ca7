"""A transaction is committed to a file that was moved away before any caller was answered."""

from __future__ import annotations

import pytest

from flowhooks import State
from flowhooks.errors import LedgerUnusable, Unavailable

pytestmark = pytest.mark.sqlite


@pytest.fixture
def away(harness):
    """The path to which the file is moved."""
    return harness.file.with_name("away.db")


def test_what_was_committed_to_a_moved_file_is_not_acknowledged(hands, harness, away):
    """The work raises Unavailable and is not repeated; readers do not read."""
    done = []

    def moved(_transaction):
        done.append(harness.file.rename(away))

    with pytest.raises(Unavailable):
        hands.ledger.write(moved)
    with pytest.raises(Unavailable):
        hands.store(hands.new("meanwhile"))
    with pytest.raises(LedgerUnusable, match="cannot be found"):
        hands.ledger.count_by_state()
    assert len(done) == 1
    away.rename(harness.file)
    hands.store(hands.new("afterwards"))


def test_attempts_that_nobody_runs_are_taken_back(harness, listens, hands_of, away, eventually):
    """A delivery that such a transaction marked as running runs once the file is back."""
    entered = []
    flow = harness.open(listens(lambda event: entered.append(event.flow_instance_id)))
    hands = hands_of(flow)
    hands.flow_until = eventually
    eventually(lambda: flow.app.runner._slots._free)  # a delivery is marked when it is stored only if a thread is free
    results = hands.queue_up(
        lambda: flow.take("i1"), lambda: hands.ledger.write(lambda _transaction: harness.file.rename(away))
    )
    assert [type(one) for one in results] == [Unavailable] * 2
    assert entered == []
    away.rename(harness.file)
    eventually(lambda: flow.sql("SELECT state FROM deliveries") == [("succeeded",)])
    assert entered == ["i1"]
    # The engine got 503 and repeats the callback.
    answer = flow.take("i1")
    assert answer.status == "done"
    standing = flow.only(answer.event_id)
    # The first attempt was marked, and did not run.
    assert (standing.state, standing.attempt) == (State.SUCCEEDED, 2)
    assert entered == ["i1"]


def test_work_in_one_batch_is_refused_together(hands, harness, away):
    """No work of the batch is acknowledged."""
    results = hands.queue_up(
        lambda: hands.accept("i1", "p:a"),
        lambda: hands.ledger.write(lambda _transaction: harness.file.rename(away)),
        lambda: hands.accept("i2", "p:a"),
    )
    assert [type(one) for one in results] == [Unavailable] * 3
    away.rename(harness.file)
    hands.accept("i1", "p:a")
