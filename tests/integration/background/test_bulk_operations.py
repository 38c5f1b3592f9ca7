"""The thread that releases the deliveries of running operations, when one of them fails."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from flowhooks.background import bulk_operations
from flowhooks.background.bulk_operations import BulkOperations, OperationReleaser
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction, OperationState
from flowhooks.operations import bulk
from flowhooks.operations.context import Actor
from support.waiting import until


@pytest.mark.either
def test_a_failing_operation_does_not_block_other_operations(harness, listens, monkeypatch, logged):
    """Later ones finish, each failure is logged once, and an action that this version does not know is one of them."""

    def fail(event):
        raise ValueError("broken")

    flow = harness.open(listens(fail, name="h"))
    context = replace(flow.app.operation_context, by=Actor("ann", "cli"))
    release, refused = OperationReleaser.release, []
    plans = []
    for name in ("unknown", "failing", "good"):
        flow.take(name)
        plans.append(bulk.plan_operation(context, BulkAction.CLOSE, EventFilter(flow_instance_id=name)).id)
    unknown, failing, good = plans
    flow.sql("UPDATE operations SET action = 'newer' WHERE id = ?", unknown)

    def release_or_fail(releaser, operation_id):
        if operation_id == failing:
            refused.append(operation_id)
            raise RuntimeError("it cannot be released")
        return release(releaser, operation_id)

    def state(operation_id):
        ((found,),) = flow.sql("SELECT state FROM operations WHERE id = ?", operation_id)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(OperationReleaser, "release", release_or_fail)
        flow.sql("UPDATE operations SET state = 'running' WHERE id IN (?, ?)", unknown, failing)
        bulk.start_operation(context, good)
        until(lambda: state(good) == OperationState.FINISHED and len(refused) > 1)
    until(lambda: state(failing) == OperationState.FINISHED)
    faults = [record["operation"] for record in logged if record["event"] == "operation_fault"]
    assert faults == [unknown, failing]
    assert state(unknown) == OperationState.RUNNING


class SlowReleaser:
    """Has an operation whose check for results takes a minute, and one that releases ten deliveries a second."""

    def __init__(self, clock):
        self.clock = clock
        self.seconds = 0.0

    def open_operations(self):
        """Both operations."""
        return [SimpleNamespace(id="large", is_released=True), SimpleNamespace(id="small", is_released=False)]

    def finish(self, operation):
        """Check the large one."""
        self.seconds += 60.0
        return False

    def release(self, operation_id):
        """Release the small one."""
        self.seconds += 0.01
        return SimpleNamespace(is_last=False, next_at=self.clock.now() + 100_000)


def test_a_long_check_for_results_does_not_pause_other_operations(clock, monkeypatch):
    """The pause between releases is in proportion to the time of the releases only."""
    operations = BulkOperations(SimpleNamespace(process="p"), clock, missing_handlers=tuple)
    operations._releaser = releaser = SlowReleaser(clock)
    monkeypatch.setattr(bulk_operations, "time", SimpleNamespace(monotonic=lambda: releaser.seconds))
    assert [operations._work(), operations._work()] == [pytest.approx(0.1), pytest.approx(0.1)]
    assert releaser.seconds == pytest.approx(60.02)
