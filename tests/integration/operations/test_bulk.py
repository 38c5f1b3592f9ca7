"""Bulk operations: planned with an exact count, started, paused, resumed and cancelled; audited once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks import State
from flowhooks.errors import InvalidTransition, NotFound, SettingsError
from flowhooks.ledger import audit, bulk_operations
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction, ItemStatus, OperationState
from flowhooks.operations import bulk
from flowhooks.operations.context import Actor

ALL = EventFilter()


@pytest.fixture
def works():
    """A handler that fails until `error` is None."""

    def work(event, delivery):
        work.runs.append((event.flow_instance_id, delivery.attempt))
        if work.error:
            raise work.error

    work.error, work.runs = ValueError("broken"), []
    return work


def by_ann(flow):
    """The context of an operator."""
    return replace(flow.app.operation_context, by=Actor("ann", "cli"))


def read(flow, operation_id):
    """An operation as stored."""
    with flow.app.ledger.connection() as connection:
        return bulk_operations.read_operation(connection, operation_id)


def items(flow, operation_id, **wanted):
    """The items of an operation."""
    with flow.app.ledger.connection() as connection:
        return bulk_operations.operation_items(connection, operation_id, limit=100, **wanted)


def test_a_plan_has_the_exact_count_and_changes_no_delivery(harness, listens, works):
    """A plan lists the dead deliveries, in their present state and attempt, and leaves them as they are."""
    flow = harness.open(listens(works, name="h"))
    dead = [flow.take(f"i{number}").event_id for number in range(3)]
    works.error = None
    flow.take("good")
    before = flow.sql("SELECT * FROM deliveries ORDER BY id")
    plan = bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, EventFilter(handler="p:h"), note="ERP is up", rate=5)
    assert (plan.state, plan.planned, plan.remaining, plan.released) == (OperationState.PLANNED, 3, 3, 0)
    assert (plan.actor, plan.interface, plan.note, plan.rate) == ("ann", "cli", "ERP is up", 5)
    assert plan.event_filter == {"handler": "p:h"}
    listed = items(flow, plan.id)
    assert [(one.event_id, one.handler, one.status, one.state) for one in listed] == [
        (event_id, "p:h", ItemStatus.PLANNED, State.DEAD) for event_id in dead
    ]
    assert flow.sql("SELECT * FROM deliveries ORDER BY id") == before
    with flow.app.ledger.connection() as connection:
        assert bulk_operations.list_operations(connection, limit=10) == (plan,)
        assert bulk_operations.list_operations(connection, limit=10, active_only=True) == ()
        assert bulk_operations.operations_of(connection, [one.delivery_id for one in listed]) == {
            one.delivery_id: (plan.id,) for one in listed
        }
        assert audit.entries(connection, limit=10) == []


def test_a_start_is_audited_once_and_another_start_is_refused(harness, listens, works):
    """The start writes the audit record; the plan's note and rate count unless others are given."""
    flow = harness.open(listens(works, name="h"), start=False)
    plan = bulk.plan_operation(by_ann(flow), BulkAction.CLOSE, ALL, note="planned", rate=3)
    started = bulk.start_operation(by_ann(flow), plan.id, note="started", rate=None)
    assert (started.state, started.note, started.rate) == (OperationState.RUNNING, "started", 3)
    with pytest.raises(InvalidTransition, match="is running: it cannot be started"):
        bulk.start_operation(by_ann(flow), plan.id)
    with flow.app.ledger.connection() as connection:
        (entry,) = audit.entries(connection, limit=10)
    assert (entry.action, entry.target, entry.actor) == ("operation", plan.id, "ann")
    assert entry.detail == {
        "change": "started",
        "operation": "close",
        "event_filter": {},
        "deliveries": 0,
        "rate": 3,
        "note": "started",
    }


def test_impossible_changes_are_refused_with_the_state(harness, listens, works):
    """Each refusal says the present state; an unknown id is not found."""
    flow = harness.open(listens(works, name="h"), start=False)
    plan = bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, ALL)
    for change, words in ((bulk.pause_operation, "paused"), (bulk.resume_operation, "resumed")):
        with pytest.raises(InvalidTransition, match=f"is planned: it cannot be {words}"):
            change(by_ann(flow), plan.id)
    assert bulk.cancel_operation(by_ann(flow), plan.id).state == OperationState.CANCELLED
    with pytest.raises(InvalidTransition, match="is cancelled: it cannot be started"):
        bulk.start_operation(by_ann(flow), plan.id)
    with pytest.raises(InvalidTransition, match="is cancelled: its rate cannot be changed"):
        bulk.set_operation_rate(by_ann(flow), plan.id, 5)
    with pytest.raises(NotFound, match="there is no operation"):
        bulk.start_operation(by_ann(flow), "nothing")
    with pytest.raises(SettingsError, match="rate must be from"):
        bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, ALL, rate=0.0001)
    with pytest.raises(InvalidTransition, match="replay acts on deliveries that are dead"):
        bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, EventFilter(state="succeeded"))
