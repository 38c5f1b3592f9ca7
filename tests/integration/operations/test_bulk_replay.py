"""Bulk replay: dead deliveries run again on a fresh schedule, others stay, and no event is routed again."""

from __future__ import annotations

import pytest

from flowhooks import Reject, Retry, State
from flowhooks.clock import SECOND
from flowhooks.errors import Unavailable
from flowhooks.ledger import bulk_plans, bulk_release
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.operations.bulk import plan_operation, release_all, start_operation
from support.run_bulk import replay, run_bulk

pytestmark = pytest.mark.runners


class Works:
    """A handler that fails until it is fixed."""

    def __init__(self, error=None):
        self.error = error or ValueError("broken")
        self.runs = []

    def __call__(self, event, delivery):
        """Fail until fixed."""
        self.runs.append((event.flow_instance_id, delivery.attempt))
        if self.error:
            raise self.error


@pytest.fixture
def works():
    """A handler that fails until it is fixed."""
    return Works()


def test_a_dead_delivery_runs_again(harness, listens, works):
    """A dead delivery waits again, and succeeds once its handler is fixed; its history is kept."""
    flow = harness.open(listens(works, name="h"))
    event_id = flow.take().event_id
    works.error = None
    done = replay(flow.app.operation_context)
    assert (done.planned, done.released, done.changed) == (1, 1, 0)
    delivery_status = flow.settled(event_id, State.SUCCEEDED)
    assert delivery_status.attempt == 2
    assert [attempt.error for attempt in flow.app.ledger.attempts(delivery_status.delivery_id)] == [
        "ValueError: broken",
        "",
    ]
    assert works.runs == [("i1", 1), ("i1", 2)]


def test_a_replay_restarts_the_retry_schedule(harness, listens, works):
    """After a replay the handler gets all declared attempts again, with the delays from the first."""
    flow = harness.open(listens(works, name="h", retry=Retry(attempts=2, delays=(7,))))
    event_id = flow.take(wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.advance(7)
    flow.settled(event_id, State.DEAD, attempt=2)
    replay(flow.app.operation_context)
    assert flow.settled(event_id, State.WAITING, attempt=3).due_at == flow.clock.now() + 7 * SECOND
    flow.advance(7)
    flow.settled(event_id, State.DEAD, attempt=4)


def test_a_rejected_event_can_be_replayed(harness, listens):
    """A rejected event can be replayed, because an operator may have changed its circumstances."""
    works = Works(Reject("no such contract"))
    flow = harness.open(listens(works, name="h"))
    event_id = flow.take().event_id
    works.error = None
    assert replay(flow.app.operation_context).released == 1
    flow.settled(event_id, State.SUCCEEDED)


def test_a_succeeded_delivery_runs_again_only_with_rerun(harness, listens, works):
    """A replay has no succeeded delivery in its plan; a rerun runs it a second time."""
    works.error = None
    flow = harness.open(listens(works, name="h"))
    event_id = flow.take().event_id
    assert replay(flow.app.operation_context).planned == 0
    assert run_bulk(flow.app.operation_context, BulkAction.RERUN).released == 1
    flow.settled(event_id, State.SUCCEEDED, attempt=2)
    assert works.runs == [("i1", 1), ("i1", 2)]


def test_rerun_skips_deliveries_neither_dead_nor_succeeded(harness, listens, works):
    """A rerun has no delivery in its plan that is neither dead nor succeeded."""
    harness.check_at_end = False
    flow = harness.open(listens(works, name="h"), start=False)
    for number, state in enumerate(("waiting", "running", "unknown", "closed")):
        flow.take(f"i{number}", wait=0)
        flow.sql("UPDATE deliveries SET state = ? WHERE id = (SELECT max(id) FROM deliveries)", state)
    before = flow.sql("SELECT * FROM deliveries")
    assert run_bulk(flow.app.operation_context, BulkAction.RERUN).planned == 0
    assert flow.sql("SELECT * FROM deliveries") == before


def test_a_handler_filter_selects_only_its_deliveries(harness, listens, works):
    """Of an event with two dead deliveries only the named handler's runs again."""
    other = Works()
    flow = harness.open(listens(works, name="h"), listens(other, name="other"))
    answer = flow.take()
    works.error = other.error = None
    assert replay(flow.app.operation_context, EventFilter(handler="p:h")).released == 1
    (repaired,) = [delivery_status for delivery_status in answer.delivery_statuses if delivery_status.handler == "p:h"]
    flow.settled(answer.event_id, State.SUCCEEDED)
    assert flow.app.ledger.delivery(repaired.delivery_id)[1].attempt == 2
    assert len(other.runs) == 1


def test_a_state_filter_selects_only_deliveries_in_the_state(harness, listens, works):
    """Succeeded deliveries of events with a dead one do not run again, even in a rerun."""
    good = Works()
    good.error = None
    flow = harness.open(listens(works, name="h"), listens(good, name="good"))
    event_id = flow.take().event_id
    works.error = None
    assert run_bulk(flow.app.operation_context, BulkAction.RERUN, EventFilter(state="dead")).released == 1
    flow.settled(event_id, State.SUCCEEDED, attempt=2)
    assert len(good.runs) == 1


def test_events_outside_the_filter_do_not_change(harness, listens, works):
    """Events outside the filter do not change."""
    flow = harness.open(listens(works, name="h"))
    first, second = flow.take("i1").event_id, flow.take("i2").event_id
    works.error = None
    assert replay(flow.app.operation_context, EventFilter(flow_instance_id="i1")).planned == 1
    flow.settled(first, State.SUCCEEDED)
    assert flow.only(second).state is State.DEAD


@pytest.mark.parametrize("number", [20, 25])
def test_a_plan_of_several_pages_has_each_delivery_once(harness, listens, works, monkeypatch, number):
    """A plan of several pages, released in several transactions, has each delivery once."""
    monkeypatch.setattr(bulk_plans, "READ_SIZE", 10)
    monkeypatch.setattr(bulk_plans, "PAGE_SIZE", 4)
    monkeypatch.setattr(bulk_release, "MAX_RELEASED", 3)
    flow = harness.open(listens(works, name="h"))
    for instance in range(number):
        flow.take(f"i{instance}", wait=0)
    for event_id in flow.events():
        flow.settled(event_id, State.DEAD)
    works.error = None
    done = replay(flow.app.operation_context, EventFilter(state="dead"))
    assert (done.planned, done.released, done.changed) == (number, number, 0)
    for event_id in flow.events():
        flow.settled(event_id, State.SUCCEEDED, attempt=2)


def test_a_delivery_that_changes_during_the_planning_is_not_planned(harness, listens, works, monkeypatch):
    """A delivery that another replay released since it was read is not in the plan."""
    flow = harness.open(listens(works, name="h"))
    flow.take("i1")
    flow.take("i2")
    works.error = None
    real = bulk_plans.candidate_pages

    def pages(*given):
        monkeypatch.undo()
        for page in real(*given):
            assert replay(flow.app.operation_context, EventFilter(flow_instance_id="i1")).released == 1
            yield page

    monkeypatch.setattr(bulk_plans, "candidate_pages", pages)
    done = replay(flow.app.operation_context)
    assert (done.planned, done.released, done.changed) == (1, 1, 0)
    for event_id in flow.events():
        flow.settled(event_id, State.SUCCEEDED, attempt=2)


def test_concurrent_replays_run_each_delivery_once(harness, listens, works, together):
    """With any number of concurrent replays, each dead delivery gets one more attempt."""
    flow = harness.open(listens(works, name="h"))
    for number in range(10):
        flow.take(f"i{number}", wait=0)
    for event_id in flow.events():
        flow.settled(event_id, State.DEAD)
    works.error = None
    results = together(*[lambda: replay(flow.app.operation_context, EventFilter(state="dead"))] * 4)
    assert sum(result.released for result in results) == 10
    for event_id in flow.events():
        flow.settled(event_id, State.SUCCEEDED, attempt=2)
    assert len(works.runs) == 20


def test_a_replay_does_not_route_events_again(harness, listens, works):
    """A replay gives old events no delivery for a newly installed handler."""
    harness.open(listens(works, name="h")).take()
    harness.opened[-1].close()
    new = Works()
    new.error = works.error = None
    flow = harness.open(listens(works, name="h"), listens(new, name="new"))
    replay(flow.app.operation_context)
    flow.settled(flow.events()[0], State.SUCCEEDED)
    assert new.runs == []


def test_a_failed_release_changes_nothing(harness, listens, works, monkeypatch):
    """A release that failed while the database was locked is not made when it works again, and can be repeated."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.5)
    flow = harness.open(listens(works, name="h"))
    event_id = flow.take().event_id
    flow.close()
    flow = harness.open(listens(works, name="h"), start=False)
    context = flow.app.operation_context
    planned = plan_operation(context, BulkAction.REPLAY, EventFilter())
    start_operation(context, planned.id)
    with flow.locked(timeout=0.1), pytest.raises(Unavailable):
        release_all(context, planned.id)
    flow.app.ledger.write(lambda transaction: None, timeout=20)
    assert flow.only(event_id).state is State.DEAD
    assert release_all(context, planned.id).released == 1
    assert flow.only(event_id).state is State.WAITING
    assert len(works.runs) == 1
