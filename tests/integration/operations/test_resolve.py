"""Resolve: an operator's decisions about a delivery in each state, and their results."""

from __future__ import annotations

import itertools

import pytest

from flowhooks import OutcomeKind, Retry, State
from flowhooks.errors import InvalidTransition, NotFound
from flowhooks.ledger.attempts import AttemptResult
from flowhooks.operations.resolve import Resolution, resolve

MAY = {
    (Resolution.DID, State.UNKNOWN): State.SUCCEEDED,
    (Resolution.DID_NOT, State.UNKNOWN): State.WAITING,
    (Resolution.CLOSE, State.UNKNOWN): State.CLOSED,
    (Resolution.CLOSE, State.DEAD): State.CLOSED,
    (Resolution.CLOSE, State.WAITING): State.CLOSED,
}

pytestmark = pytest.mark.runners


@pytest.fixture
def put(harness, listens):
    """A function that returns a flow, not started, with one delivery in a state reached by normal operations."""
    flow = harness.open(listens(lambda event: 1, name="h"), start=False)

    def bring(state):
        answer = flow.take(state, wait=0)
        delivery_status = flow.only(answer.event_id)
        if state is State.CLOSED:
            resolve(flow.app.operation_context, delivery_status.delivery_id, Resolution.CLOSE)
        elif state is not State.WAITING:
            found = [
                delivery
                for delivery in flow.app.ledger.due_deliveries(flow.clock.now(), lambda _h: 99)
                if delivery.delivery_id == delivery_status.delivery_id
            ]
            flow.app.ledger.claim(found[0])
            if state is not State.RUNNING:
                outcome = {
                    State.SUCCEEDED: OutcomeKind.SUCCEEDED,
                    State.DEAD: OutcomeKind.FAILED,
                    State.UNKNOWN: OutcomeKind.LOST,
                }[state]
                result = AttemptResult(
                    delivery_status.delivery_id, "p:h", 1, outcome, "", "", None, state, None, flow.clock.now()
                )
                flow.app.ledger.wait_for(flow.app.ledger.record_result(result))
        return delivery_status.delivery_id

    bring.flow = flow
    return bring


def test_every_verdict_on_every_state(put):
    """A permitted decision changes the delivery; every other one is refused with its state, and changes nothing."""
    flow = put.flow
    for verdict, state in itertools.product(Resolution, State):
        delivery_id = put(state) if verdict is Resolution.DID else put_again(put, state, verdict)
        before = flow.app.ledger.delivery(delivery_id)[1]
        assert before.state is state
        flow.clock.advance(1)
        target = MAY.get((verdict, state))
        if target is None:
            with pytest.raises(InvalidTransition, match=state):
                resolve(flow.app.operation_context, delivery_id, verdict)
            assert flow.app.ledger.delivery(delivery_id)[1] == before
        else:
            said = resolve(flow.app.operation_context, delivery_id, verdict, note="seen by hand", dry_run=True)
            assert (said.before, said.after, said.dry_run) == (state, target, True)
            assert flow.app.ledger.delivery(delivery_id)[1] == before
            said = resolve(flow.app.operation_context, delivery_id, verdict, note="seen by hand")
            assert (said.delivery_id, said.handler, said.before, said.after) == (delivery_id, "p:h", state, target)
            after = flow.app.ledger.delivery(delivery_id)[1]
            assert (after.state, after.comment) == (target, "seen by hand")
            assert after.due_at == (flow.clock.now() if target is State.WAITING else None)


def put_again(put, state, verdict):
    """Another delivery in a state, for another decision."""
    flow = put.flow
    real = flow.take
    flow.take = lambda instance, **more: real(f"{instance}-{verdict}", **more)
    try:
        return put(state)
    finally:
        flow.take = real


def test_a_resolution_without_a_note_shows_the_operator(put):
    """Without a note the delivery shows that an operator decided."""
    delivery_id = put(State.DEAD)
    resolve(put.flow.app.operation_context, delivery_id, Resolution.CLOSE)
    assert put.flow.app.ledger.delivery(delivery_id)[1].comment == "resolved by an operator: close"


@pytest.mark.parametrize("verdict", Resolution)
def test_a_missing_delivery_cannot_be_resolved(harness, verdict):
    """A missing delivery cannot be resolved."""
    flow = harness.open()
    with pytest.raises(NotFound, match="no delivery none"):
        resolve(flow.app.operation_context, "none", verdict)


def test_a_delivery_resolved_as_did_not_runs_again(harness, listens):
    """After `did-not` it runs at once, with a fresh schedule, although its handler declared no `retry=`."""
    runs = []
    listener = listens(lambda event, delivery: runs.append(delivery.attempt), name="h")
    event_id = lost(harness, listener)
    flow = harness.open(listener)
    resolve(flow.app.operation_context, flow.only(event_id).delivery_id, Resolution.DID_NOT)
    flow.settled(event_id, State.SUCCEEDED, attempt=2)
    assert runs == [2]


def test_a_delivery_resolved_as_did_does_not_run_again(harness, listens):
    """After `did` the delivery has succeeded, and repeated callbacks are answered so."""
    runs = []
    listener = listens(lambda event: runs.append(1), name="h")
    event_id = lost(harness, listener)
    flow = harness.open(listener)
    resolve(flow.app.operation_context, flow.only(event_id).delivery_id, Resolution.DID)
    assert flow.take().status == "done"
    assert runs == []


def test_a_delivery_closed_before_its_due_time_does_not_run(harness, listens):
    """A delivery closed before its due time never runs."""
    runs = []

    def failing(event):
        runs.append(1)
        raise ValueError("x")

    flow = harness.open(listens(failing, retry=Retry()))
    event_id = flow.take(wait=0).event_id
    resolve(flow.app.operation_context, flow.settled(event_id, State.WAITING, attempt=1).delivery_id, Resolution.CLOSE)
    flow.advance(10)
    flow.settled(flow.take("i2", wait=0).event_id, State.WAITING, attempt=1)
    assert flow.only(event_id).state is State.CLOSED
    assert runs == [1, 1]


def test_a_delivery_closed_in_the_queue_does_not_run(harness, listens):
    """A delivery closed while it waits for a thread does not run."""
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"), start=False)
    first = flow.take("i1", wait=0).event_id
    resolve(flow.app.operation_context, flow.only(first).delivery_id, Resolution.CLOSE)
    flow.app.start()
    assert flow.take("i2").status == "done"
    assert runs == ["i2"]


def test_only_the_first_of_two_concurrent_verdicts_is_stored(harness, listens, together):
    """Of two different decisions at the same moment, one is refused because the delivery has changed."""
    listener = listens(lambda event: 1, name="h")
    event_id = lost(harness, listener)
    flow = harness.open(listener, start=False)
    delivery_id = flow.only(event_id).delivery_id
    results = together(*[lambda: resolve(flow.app.operation_context, delivery_id, Resolution.CLOSE)] * 4)
    assert sum(not isinstance(result, InvalidTransition) for result in results) == 1


def lost(harness, listener):
    """The event of a delivery whose process was killed while it ran."""
    flow = harness.open(listener, start=False)
    answer = flow.take(wait=0)
    (queued,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 10)
    assert flow.app.ledger.claim(queued)
    harness.crash(flow)
    return answer.event_id
