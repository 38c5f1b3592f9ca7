"""Bulk operations: planned with an exact count, started, paused, resumed and cancelled; audited once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import event

from flowhooks import Retry, State
from flowhooks.errors import InvalidTransition, NotFound, SettingsError
from flowhooks.ledger import audit, bulk_operations, bulk_plans, bulk_release, database, operation_retention
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction, ItemResult, ItemStatus, OperationState
from flowhooks.operations import bulk
from flowhooks.operations.context import Actor
from flowhooks.operations.pause import pause
from flowhooks.operations.resolve import Resolution, resolve
from support.run_bulk import replay
from support.waiting import until

ALL = EventFilter()
DAY = 86_400


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
    assert [(item.event_id, item.handler, item.status, item.state) for item in listed] == [
        (event_id, "p:h", ItemStatus.PLANNED, State.DEAD) for event_id in dead
    ]
    assert flow.sql("SELECT * FROM deliveries ORDER BY id") == before
    with flow.app.ledger.connection() as connection:
        assert bulk_operations.list_operations(connection, limit=10) == (plan,)
        assert bulk_operations.list_operations(connection, limit=10, active_only=True) == ()
        assert bulk_operations.operations_of(connection, [item.delivery_id for item in listed]) == {}
        assert audit.entries(connection, limit=10) == []


def test_a_start_is_audited_once_and_a_second_start_is_refused(harness, listens, works):
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


def test_a_start_can_drop_the_rate_of_the_plan(harness, listens, works):
    """An unlimited start has no rate, is audited so, and changes no running operation."""
    flow = harness.open(listens(works, name="h"), start=False)
    plan = bulk.plan_operation(by_ann(flow), BulkAction.CLOSE, ALL, rate=3)
    assert bulk.start_operation(by_ann(flow), plan.id, unlimited=True).rate is None
    limited = bulk.plan_operation(by_ann(flow), BulkAction.CLOSE, ALL, rate=3)
    bulk.start_operation(by_ann(flow), limited.id)
    with pytest.raises(InvalidTransition, match="is running: it cannot be started"):
        bulk.start_operation(by_ann(flow), limited.id, unlimited=True)
    with flow.app.ledger.connection() as connection:
        assert bulk_operations.read_operation(connection, limited.id).rate == 3
        assert [entry.detail["rate"] for entry in audit.entries(connection, limit=10)] == [3, None]


def test_an_event_has_the_operations_that_acted_on_it(harness, listens, works):
    """The audit log of an event and its deliveries name the bulk operations that acted on them, and no others."""
    flow = harness.open(listens(works, name="h"))
    dead, other = flow.take("i1").event_id, flow.take("i2").event_id
    planned = bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, EventFilter(ids=(dead, other)))
    first = replay(by_ann(flow), EventFilter(ids=(dead,)))
    second = replay(by_ann(flow), EventFilter(ids=(other,)))
    with flow.app.ledger.connection() as connection:
        for event_id, operation in ((dead, first), (other, second)):
            found = audit.entries(connection, limit=10, target=event_id)
            assert [(entry.action, entry.target) for entry in found] == [("operation", operation.id)]
        assert audit.entries(connection, limit=10, target="unknown") == []
        assert audit.entries(connection, limit=10, target=planned.id) == []
        ids = {flow.only(event_id).delivery_id: (acted.id,) for event_id, acted in ((dead, first), (other, second))}
        assert bulk_operations.operations_of(connection, list(ids)) == ids


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
        bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, ALL, rate=0.00009)
    hourly = bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, ALL, rate=1 / 3600)
    assert hourly.rate == pytest.approx(1 / 3600, rel=1e-4)
    with pytest.raises(InvalidTransition, match="replay acts on deliveries that are dead"):
        bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, EventFilter(state="succeeded"))


def run(flow, action, event_filter=ALL, **given):
    """Plan and start an operation; return its id."""
    plan = bulk.plan_operation(by_ann(flow), action, event_filter, **given)
    return bulk.start_operation(by_ann(flow), plan.id).id


def ended(flow, operation_id, state=OperationState.FINISHED):
    """An operation, once it has ended and its results are stored."""

    def stored():
        ((succeeded, present),) = flow.sql("SELECT succeeded, state FROM operations WHERE id = ?", operation_id)
        return succeeded is not None and present == state and read(flow, operation_id)

    return until(stored)


@pytest.mark.runners
def test_dead_deliveries_run_again_until_all_are_executed(harness, listens, works):
    """The operation finishes when its deliveries were executed, with the numbers that succeeded and failed again."""
    flow = harness.open(listens(works, name="h"))
    dead = [flow.take(f"i{number}").event_id for number in range(3)]
    still = dead[1]

    def work_for_most(event, delivery):
        works.runs.append((event.flow_instance_id, delivery.attempt))
        if event.id == still:
            raise ValueError("broken for good")

    works.error = None
    flow.close()
    flow = harness.open(listens(work_for_most, name="h"))
    operation_id = run(flow, BulkAction.REPLAY, note="ERP is up")
    done = ended(flow, operation_id)
    assert (done.planned, done.released, done.changed) == (3, 3, 0)
    assert (done.succeeded, done.failed, done.remaining) == (2, 1, 0)
    assert done.finished_at is not None
    assert {item.status for item in items(flow, operation_id)} == {ItemStatus.RELEASED}
    assert [item.event_id for item in items(flow, operation_id, status=ItemResult.FAILED)] == [still]
    assert [item.event_id for item in items(flow, operation_id, status=ItemResult.SUCCEEDED)] == [dead[0], dead[2]]
    for event_id in dead:
        delivery_status = flow.only(event_id)
        assert (delivery_status.attempt, delivery_status.comment) == (2, "ERP is up")
    ids = [flow.only(event_id).delivery_id for event_id in dead]
    rows = flow.sql("SELECT delivery_id, trigger, actor, operation_id FROM attempts WHERE number = 2")
    assert sorted(rows) == [(delivery_id, "replay", "ann", operation_id) for delivery_id in sorted(ids)]


@pytest.mark.postgresql
def test_statements_about_whole_operations_may_take_longer(harness, listens, works):
    """With millions of deliveries, the search of a plan and the count of results take longer than any other read."""
    flow = harness.open(listens(works, name="h"))
    flow.take("i1")
    works.error = None
    long = set()

    def note(connection, _cursor, statement, *_rest):
        if connection.connection.dbapi_connection.statement_timeout == database.LONG_STATEMENT_TIMEOUT:
            long.add(statement)

    event.listen(flow.app.ledger._engine, "before_cursor_execute", note)
    assert ended(flow, run(flow, BulkAction.REPLAY)).succeeded == 1
    search, *of_results = sorted(long, key=lambda statement: "operation_items" in statement)
    assert search.startswith("SELECT deliveries.id")
    assert [statement.startswith("SELECT") for statement in of_results] == [True, True]


def test_a_delivery_outside_the_plan_is_not_released(harness, listens, works):
    """A delivery that is dead after the plan is not released, although it matches the filter."""
    flow = harness.open(listens(works, name="h"))
    flow.take("planned")
    plan = bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, ALL)
    late = flow.take("late").event_id
    works.error = None
    bulk.start_operation(by_ann(flow), plan.id)
    done = ended(flow, plan.id)
    assert (done.planned, done.succeeded) == (1, 1)
    assert (flow.only(late).state, flow.only(late).attempt) == (State.DEAD, 1)


def test_a_delivery_that_changed_after_the_plan_is_skipped(harness, listens, works):
    """A delivery that was replayed, or closed, after the plan counts as changed and is not touched."""
    flow = harness.open(listens(works, name="h"))
    events = [flow.take(f"i{number}").event_id for number in range(3)]
    plan = bulk.plan_operation(by_ann(flow), BulkAction.CLOSE, ALL, note="not needed")
    replay(flow.app.operation_context, EventFilter(ids=(events[0],)))
    flow.settled(events[0], State.DEAD, attempt=2)
    resolve(flow.app.operation_context, flow.only(events[1]).delivery_id, Resolution.CLOSE, note="mine")
    bulk.start_operation(by_ann(flow), plan.id)
    done = ended(flow, plan.id)
    assert (done.released, done.changed, done.succeeded, done.failed, done.remaining) == (1, 2, 1, 0, 0)
    assert [(flow.only(event_id).state, flow.only(event_id).comment) for event_id in events] == [
        (State.DEAD, ""),
        (State.CLOSED, "mine"),
        (State.CLOSED, "not needed"),
    ]
    assert [item.event_id for item in items(flow, plan.id, status=ItemStatus.CHANGED)] == events[:2]
    assert [item.event_id for item in items(flow, plan.id, status=ItemResult.SUCCEEDED)] == events[2:]
    assert items(flow, plan.id, status=ItemResult.FAILED) == ()
    resolved, closed = (flow.only(event_id).delivery_id for event_id in events[1:])
    with flow.app.ledger.connection() as connection:
        assert bulk_operations.operations_of(connection, [resolved, closed]) == {closed: (plan.id,)}


def test_a_paused_operation_releases_nothing_until_it_is_resumed(harness, listens, works):
    """At a rate, deliveries are released one by one; unreleased ones keep their state."""
    flow = harness.open(listens(works, name="h"))
    for number in range(4):
        flow.take(f"i{number}")
    works.error = None
    operation_id = run(flow, BulkAction.REPLAY, rate=0.1)
    until(lambda: read(flow, operation_id).succeeded == 1)
    flow.clock.advance(10)
    until(lambda: read(flow, operation_id).succeeded == 2)
    paused = bulk.pause_operation(by_ann(flow), operation_id)
    assert (paused.state, paused.remaining) == (OperationState.PAUSED, 2)
    flow.clock.advance(1_000)
    flow.app.bulk_operations.wake()
    assert [delivery_status.state for _, delivery_status in all_of(flow)] == [State.SUCCEEDED] * 2 + [State.DEAD] * 2
    bulk.set_operation_rate(by_ann(flow), operation_id, None)
    assert read(flow, operation_id).rate is None
    assert bulk.resume_operation(by_ann(flow), operation_id).state == OperationState.RUNNING
    assert ended(flow, operation_id).succeeded == 4
    with flow.app.ledger.connection() as connection:
        entries = audit.entries(connection, limit=10, target=operation_id)
    assert [entry.detail["change"] for entry in reversed(entries)] == ["started", "paused", "rate", "resumed"]


def all_of(flow):
    """All deliveries in the order of their ids, each with its event's id."""
    found = [
        (stored.event.id, delivery_status)
        for stored in flow.app.ledger.page(ALL, limit=100)
        for delivery_status in stored.delivery_statuses
    ]
    return sorted(found, key=lambda pair: pair[1].delivery_id)


def test_a_cancelled_operation_undoes_nothing(harness, listens, works):
    """Released deliveries are executed and counted, others keep their state."""
    flow = harness.open(listens(works, name="h"))
    for number in range(3):
        flow.take(f"i{number}")
    works.error = None
    operation_id = run(flow, BulkAction.REPLAY, rate=0.1)
    until(lambda: read(flow, operation_id).released == 1)
    cancelled = bulk.cancel_operation(by_ann(flow), operation_id)
    assert (cancelled.state, cancelled.finished_at) == (OperationState.CANCELLED, flow.clock.now())
    done = ended(flow, operation_id, OperationState.CANCELLED)
    assert (done.succeeded, done.failed, done.remaining) == (1, 0, 2)
    with pytest.raises(InvalidTransition, match="is cancelled: it cannot be resumed"):
        bulk.resume_operation(by_ann(flow), operation_id)


def test_succeeded_deliveries_run_again_only_with_rerun(harness, listens, works):
    """Replay plans the dead deliveries only, rerun also the succeeded ones."""
    flow = harness.open(listens(works, name="h"))
    flow.take("dead")
    works.error = None
    flow.take("good")
    assert bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, ALL).planned == 1
    assert bulk.plan_operation(by_ann(flow), BulkAction.RERUN, EventFilter(state="succeeded")).planned == 1
    done = ended(flow, run(flow, BulkAction.RERUN))
    assert (done.planned, done.succeeded) == (2, 2)
    assert max(works.runs) == ("good", 2)


@pytest.mark.parametrize(
    ("action", "results"),
    [
        (BulkAction.MARK_DONE, (State.SUCCEEDED, 1, "resolved by an operator: did")),
        (BulkAction.MARK_NOT_DONE, (State.SUCCEEDED, 2, "resolved by an operator: did-not")),
        (BulkAction.CLOSE, (State.CLOSED, 1, "closed by an operator")),
    ],
)
def test_unknown_deliveries_are_resolved_together(harness, listens, works, action, results):
    """A verdict on many unknown deliveries is recorded, and they run again if they did not do their work."""
    harness.check_at_end = False
    works.error = None
    flow = harness.open(listens(works, name="h"))
    events = [flow.take(f"i{number}").event_id for number in range(2)]
    flow.sql("UPDATE deliveries SET state = 'unknown'")
    done = ended(flow, run(flow, action, EventFilter(handler="p:h")))
    assert (done.planned, done.succeeded, done.failed) == (2, 2, 0)
    for event_id in events:
        delivery_status = flow.only(event_id)
        assert (delivery_status.state, delivery_status.attempt, delivery_status.comment) == results


def test_a_scheduled_retry_runs_now(harness, listens, works):
    """Run-now makes waiting deliveries due, except those of paused handlers."""
    flow = harness.open(
        listens(works, name="h", retry=Retry(attempts=3, delays=(3600,))),
        listens(works, name="paused", retry=Retry(attempts=3, delays=(3600,))),
    )
    event_id = flow.take(wait=0).event_id
    until(
        lambda: all(
            delivery_status.attempt == 1 and delivery_status.due_at
            for delivery_status in flow.delivery_statuses(event_id)
        )
    )
    until(lambda: {delivery_status.state for delivery_status in flow.delivery_statuses(event_id)} == {State.WAITING})
    pause(flow.app.operation_context, ["p:paused"])
    works.error = None
    operation_id = run(flow, BulkAction.RUN_NOW)
    done = ended(flow, operation_id)
    assert (done.planned, done.succeeded) == (1, 1)
    assert {delivery_status.handler: delivery_status.state for delivery_status in flow.delivery_statuses(event_id)} == {
        "p:h": State.SUCCEEDED,
        "p:paused": State.WAITING,
    }
    rows = flow.sql("SELECT trigger, actor FROM attempts WHERE number = 2")
    assert rows == [("run-now", "ann")]


def test_run_now_finishes_after_one_attempt_of_each_delivery(harness, listens, works):
    """A delivery that fails again and waits for its schedule has failed; the operation does not wait for the rest."""
    flow = harness.open(listens(works, name="h", retry=Retry(attempts=4, delays=(3600,))))
    events = [flow.take(f"i{number}", wait=0).event_id for number in range(2)]
    for event_id in events:
        flow.settled(event_id, State.WAITING, attempt=1)
    operation_id = run(flow, BulkAction.RUN_NOW)
    done = ended(flow, operation_id)
    assert (done.state, done.succeeded, done.failed, done.remaining) == (OperationState.FINISHED, 0, 2, 0)
    for event_id in events:
        assert flow.only(event_id).attempt == 2
        assert flow.only(event_id).state is State.WAITING
    assert len(items(flow, operation_id, status=ItemResult.FAILED)) == 2
    assert items(flow, operation_id, status=ItemResult.SUCCEEDED) == ()
    assert items(flow, operation_id, status=ItemResult.REMAINING) == ()
    works.error = None
    flow.advance(3601)
    for event_id in events:
        flow.settled(event_id, State.SUCCEEDED, attempt=3)
    assert read(flow, operation_id) == done


def test_only_suspended_deliveries_are_closed(harness, listens, works):
    """A filter for suspended deliveries closes those that are still suspended when they are released."""
    flow = harness.open(listens(works, name="h"), start=False)
    events = [flow.take(f"i{number}", wait=0).event_id for number in range(2)]
    flow.sql("UPDATE deliveries SET due_at = NULL WHERE event_id = ?", events[0])
    plan = bulk.plan_operation(by_ann(flow), BulkAction.CLOSE, EventFilter(state="suspended"))
    flow.sql("UPDATE deliveries SET due_at = NULL WHERE event_id = ?", events[1])
    other = bulk.plan_operation(by_ann(flow), BulkAction.CLOSE, EventFilter(state="suspended"))
    flow.sql("UPDATE deliveries SET due_at = 1 WHERE event_id = ?", events[1])
    assert (plan.planned, other.planned) == (1, 2)
    bulk.start_operation(by_ann(flow), other.id)
    done = bulk.release_all(by_ann(flow), other.id)
    assert (done.state, done.released, done.changed) == (OperationState.FINISHED, 1, 1)
    assert [flow.only(event_id).state for event_id in events] == [State.CLOSED, State.WAITING]


def test_a_filter_by_ids_plans_only_the_selected_deliveries(harness, listens, works):
    """A filter by ids of deliveries plans these deliveries only, also of an event with several."""
    flow = harness.open(listens(works, name="h"), listens(works, name="other"))
    event_id = flow.take().event_id
    chosen = next(
        delivery_status for delivery_status in flow.delivery_statuses(event_id) if delivery_status.handler == "p:other"
    )
    plan = bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, EventFilter(delivery_ids=(chosen.delivery_id,)))
    assert [item.delivery_id for item in items(flow, plan.id)] == [chosen.delivery_id]
    assert plan.event_filter == {"delivery_ids": [chosen.delivery_id]}


def test_a_command_without_a_server_releases_all_deliveries(harness, listens, works):
    """`release_all` releases all deliveries in its thread; they run when a server starts, which stores the results."""
    flow = harness.open(listens(works, name="h"))
    for number in range(3):
        flow.take(f"i{number}")
    flow.close()
    works.error = None
    command = harness.open(listens(works, name="h"), start=False)
    operation_id, progress = run(command, BulkAction.REPLAY), []
    after = bulk.release_all(by_ann(command), operation_id, progress.append)
    assert (after.state, after.released, after.remaining) == (OperationState.RUNNING, 3, 3)
    assert progress == [3]
    command.close()
    server = harness.open(listens(works, name="h"))
    assert ended(server, operation_id).succeeded == 3


@pytest.mark.parametrize(("others", "sizes"), [(False, [2, 4, 6, 6, 2]), (True, [2] * 10)], ids=["alone", "others"])
def test_pages_of_a_plan_are_large_without_concurrent_writes(  # noqa: PLR0917 (fixtures)
    harness, listens, works, monkeypatch, others, sizes
):
    """Large pages need fewer commits; while others write, pages are small, so that these do not wait long."""
    monkeypatch.setattr(bulk_plans, "PAGE_SIZE", 2)
    monkeypatch.setattr(bulk_plans, "MAX_PAGE_SIZE", 6)
    flow = harness.open(listens(works, name="h"), start=False)
    for number in range(20):
        flow.take(f"i{number}", wait=0)
    real, stored = bulk_plans.insert_page, []

    def insert_page(transaction, plan, delivery_ids):
        stored.append(len(delivery_ids))
        return real(transaction, plan, delivery_ids)

    def pages(*given):
        for page in read(*given):
            if others:
                flow.app.ledger.write(lambda _transaction: None)
            yield page

    read = bulk_plans.candidate_pages
    monkeypatch.setattr(bulk_plans, "insert_page", insert_page)
    monkeypatch.setattr(bulk_plans, "candidate_pages", pages)
    assert bulk.plan_operation(by_ann(flow), BulkAction.CLOSE, ALL).planned == 20
    assert stored == sizes


def test_an_interrupted_plan_cannot_be_started(harness, listens, works, monkeypatch):
    """A plan that was not finished stays in state planning."""
    flow = harness.open(listens(works, name="h"), start=False)
    monkeypatch.setattr(bulk_plans, "finish_plan", lambda *_given: None)
    plan = bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, ALL)
    assert plan.state == OperationState.PLANNING
    with pytest.raises(InvalidTransition, match="is planning: it cannot be started"):
        bulk.start_operation(by_ann(flow), plan.id)


def test_old_operations_and_items_are_deleted(harness, listens, works):
    """A plan that nobody started is deleted after a day; items 30 days after the end, operations as the audit log."""
    flow = harness.open(listens(works, name="h"), retention={"audit": 60})
    for number in range(3):
        flow.take(f"i{number}")
    started = bulk.plan_operation(by_ann(flow), BulkAction.CLOSE, EventFilter(flow_instance_id="i0"))
    unstarted = bulk.plan_operation(by_ann(flow), BulkAction.CLOSE, ALL)
    bulk.start_operation(by_ann(flow), started.id)
    ended(flow, started.id)
    flow.clock.advance(DAY - 1)
    flow.app.retention.run(flow.clock.now())
    assert read(flow, unstarted.id) == unstarted
    flow.clock.advance(2)
    flow.app.ledger.write(
        lambda transaction: operation_retention.delete_expired(transaction, flow.clock.now(), ended_before=0, limit=1)
    )
    with pytest.raises(InvalidTransition, match="cannot be started"):  # it would act on a part of its plan
        bulk.start_operation(by_ann(flow), unstarted.id)
    assert flow.app.retention.run(flow.clock.now())["operations"] == 1
    assert read(flow, unstarted.id) is None
    assert flow.sql("SELECT DISTINCT operation_id FROM operation_items") == [(started.id,)]
    flow.clock.advance(30 * DAY)
    # As if it were cancelled while a delivery waits: its results are counted later, from its items.
    flow.sql("UPDATE operations SET succeeded = NULL, failed = NULL")
    flow.app.retention.run(flow.clock.now())
    assert flow.sql("SELECT count(*) FROM operation_items") == [(1,)]
    flow.sql("UPDATE operations SET succeeded = 1, failed = 0")
    flow.app.retention.run(flow.clock.now())
    assert flow.sql("SELECT count(*) FROM operation_items") == [(0,)]
    assert read(flow, started.id).succeeded == 1
    flow.clock.advance(30 * DAY)
    flow.app.retention.run(flow.clock.now())
    assert read(flow, started.id) is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE operation_items SET status = 'changed'", "has other items than it counts"),
        ("DELETE FROM operation_items", "has other items than it counts"),
        ("UPDATE operations SET planned = 1", "has more items than it counts"),
        ("UPDATE operations SET released = 3", "has numbers that contradict each other"),
        ("UPDATE operations SET started_at = NULL", "has times or results that contradict its state"),
        ("UPDATE operation_items SET released_at = 5", "whose time of release contradicts its status"),
    ],
)
def test_verify_finds_operations_that_disagree_with_their_items(harness, listens, works, damage, words):
    """A running operation whose row, or whose items, were changed by hand is reported."""
    flow = harness.open(listens(works, name="h"), start=False)
    harness.check_at_end = False
    for number in range(2):
        flow.take(f"i{number}", wait=0)
    flow.sql("UPDATE deliveries SET due_at = NULL")
    run(flow, BulkAction.CLOSE)
    assert flow.app.ledger.verify().problems == []
    flow.sql(damage)
    assert any(words in line for line in flow.app.ledger.verify().problems)


@pytest.mark.parametrize(
    ("interval", "used_until", "now", "number", "until_when"),
    [
        (None, 0, 1_000, 100, 0),
        (200_000, 0, 1_000_000_000, 2, 1_000_150_000),
        (200_000, 1_000_000_001, 1_000_000_000, 0, 1_000_000_001),
        (200_000, 999_999_999, 1_000_000_000, 1, 1_000_199_999),
        (10_000_000, 0, 1_000_000_000, 1, 1_009_750_000),
        (100, 0, 1_000_000_000, 100, 999_760_000),
        (200_000, 9_000_000_000, 1_000_000_000, 0, 1_020_000_000),
    ],
)
def test_number_of_releases_that_a_rate_allows(interval, used_until, now, number, until_when):
    """The average is the rate, little is made up for, and a clock that jumped back stops nothing for long."""
    assert bulk_release.allowed(interval, used_until, now) == (number, until_when)


@pytest.mark.parametrize(("rate", "pause", "number"), [(100.0, 100_000, 10), (5.0, 150_000, 1)])
def test_a_high_rate_releases_several_deliveries_at_a_time(harness, listens, works, *, rate, pause, number):
    """At most ten transactions per second release deliveries, because each delays the callbacks that are stored."""
    flow = harness.open(listens(works, name="h"), start=False)
    harness.check_at_end = False
    for each in range(40):
        flow.take(f"i{each}", wait=0)
    flow.sql("UPDATE deliveries SET state = 'dead', due_at = NULL")
    plan = bulk.plan_operation(by_ann(flow), BulkAction.REPLAY, ALL, rate=rate)
    bulk.start_operation(by_ann(flow), plan.id)
    ledger, now = flow.app.ledger, flow.app.clock.now()
    first, second = (
        ledger.write(
            lambda transaction, at=at: ledger.release(
                transaction, bulk_release.Release(plan.id, ledger.process, at, frozenset())
            )
        )
        for at in (now, now + pause)
    )
    assert first.next_at == now + pause
    assert second.released == number
