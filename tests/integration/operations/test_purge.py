"""Purge: old finished events are deleted with all their rows, open ones stay; a repeated callback is no new event."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import event, text

from flowhooks import Reject, Retry
from flowhooks.errors import IdentityConflict, InvalidCallback, NotFound, SettingsError, Unavailable
from flowhooks.ledger import bulk_operations, database, identities
from flowhooks.ledger import purge as purging
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction, ItemResult, ItemStatus, OperationState
from flowhooks.operations import bulk
from flowhooks.operations import purge as module
from flowhooks.operations.context import Actor
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.purge import purge
from flowhooks.operations.registry import run_operation
from flowhooks.operations.resolve import Resolution, resolve
from support.waiting import WAIT_TIMEOUT, until

DAY = 86_400


def fail(event):
    """Fail finally."""
    raise Reject("no")


def go(event):
    """Succeed with a result."""
    return {"done": True}


@pytest.fixture
def full(harness, listens):
    """A ledger with an event in each state by name, all 100 days old."""
    flow = harness.open(
        listens(go, name="go", process_key="go"),
        listens(fail, name="fail", process_key="fail"),
        listens(go, name="later", process_key="later", retry=Retry()),
        routing={"ignore_process_keys": ("ignored",)},
    )
    ids = {
        "succeeded": flow.take("s", key="go").event_id,
        "dead": flow.take("d", key="fail").event_id,
        "closed": flow.take("c", key="fail").event_id,
        "parked": flow.take("p", key="nobody").event_id,
        "dismissed": flow.take("i", key="ignored").event_id,
    }
    closing_one = flow.only(ids["closed"]).delivery_id
    resolve(flow.app.operation_context, closing_one, Resolution.CLOSE, note="by hand")
    with suppress(IdentityConflict):
        flow.take("s", key="go", other=1)
    assert len(flow.sql("SELECT * FROM conflicts")) == 1
    flow.clock.advance(100 * DAY)
    return flow, ids


@pytest.fixture
def long_timeouts(monkeypatch):
    """On a busy machine, neither a transaction that waits for a lock is ended, nor the one that has it."""
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT", WAIT_TIMEOUT)
    monkeypatch.setattr(database.engines, "BUSY_SECONDS", WAIT_TIMEOUT)
    monkeypatch.setattr(database.engines, "IDLE_SECONDS", int(WAIT_TIMEOUT))


def before(flow, days, **more):
    """A filter for events of this age."""
    return EventFilter(until=flow.clock.now() - days * DAY * 1_000_000, **more)


def left(flow, ids):
    """The names of the events that still exist."""
    there = set(flow.events())
    return {name for name, event_id in ids.items() if event_id in there}


def test_finished_events_are_deleted_with_all_their_rows(full):
    """Succeeded, closed and dismissed events are deleted with all their rows; the counts balance."""
    flow, ids = full
    done = purge(flow.app.operation_context, before(flow, 90))
    assert (done.events, done.purged, done.deliveries, done.next) == (5, 3, 2, "")
    assert left(flow, ids) == {"dead", "parked"}
    assert flow.sql("SELECT count(*) FROM conflicts") == [(0,)]
    assert flow.sql("SELECT count(*) FROM attempts") == [(1,)]
    books = flow.app.ledger.verify()
    assert (books.accepted, books.stored, books.purged, books.problems) == (5, 2, 3, [])
    assert purge(flow.app.operation_context, before(flow, 90)).purged == 0


def test_younger_events_stay(full):
    """Events younger than the given age stay."""
    flow, ids = full
    assert purge(flow.app.operation_context, before(flow, 101)).events == 0
    assert left(flow, ids) == set(ids)


def test_the_age_counts_from_the_last_change_of_an_event(full):
    """The age of an event replayed or dismissed yesterday is one day, however old its callback is."""
    flow, ids = full
    (delivery_status,) = flow.delivery_statuses(ids["dead"])
    resolve(flow.app.operation_context, delivery_status.delivery_id, Resolution.CLOSE)
    dismiss(flow.app.operation_context, EventFilter(ids=(ids["parked"],)))
    assert purge(flow.app.operation_context, before(flow, 90)).purged == 3
    assert left(flow, ids) == {"dead", "parked"}
    flow.clock.advance(91 * DAY)
    assert purge(flow.app.operation_context, before(flow, 90)).purged == 2


def test_the_newest_conflicting_body_decides_the_age(full):
    """An operator has time to decide on a body that was answered 409, also one that arrives during the purge."""
    flow, ids = full
    cutoffs = {"succeeded": flow.clock.now() - 90 * DAY * 1_000_000}
    assert flow.app.ledger.purgeable(cutoffs, event_filter=EventFilter(), after="", limit=10).ids == (ids["succeeded"],)
    with pytest.raises(IdentityConflict):
        flow.take("s", key="go", other=2)
    ledger = flow.app.ledger
    assert not ledger.write(lambda transaction: ledger.purge(transaction, [ids["succeeded"]], cutoffs))
    assert purge(flow.app.operation_context, before(flow, 90)).purged == 2
    assert left(flow, ids) == {"succeeded", "dead", "parked"}
    flow.clock.advance(91 * DAY)
    assert purge(flow.app.operation_context, before(flow, 90)).purged == 1


@pytest.mark.parametrize("state", [*purging.PURGED_BY_DEFAULT, *purging.PURGED_ON_REQUEST])
def test_a_state_filter_deletes_only_events_in_the_state(full, state):
    """With a state only events in it are deleted; dead and parked ones need it."""
    flow, ids = full
    assert purge(flow.app.operation_context, before(flow, 90, state=state)).purged == 1
    assert left(flow, ids) == set(ids) - {state}


@pytest.mark.parametrize(
    ("event", "of_deliveries", "decide"),
    [
        ("routed", {"succeeded"}, {"succeeded"}),
        ("routed", {"succeeded", "closed"}, {"closed"}),
        ("routed", {"succeeded", "closed", "dead"}, {"dead"}),
        ("parked", set(), {"parked"}),
        ("parked", {"succeeded"}, {"parked"}),
        ("parked", {"dead"}, {"parked", "dead"}),
        ("dismissed", set(), {"dismissed"}),
        ("dismissed", {"succeeded"}, {"dismissed"}),
        ("dismissed", {"dead"}, {"dead"}),
        ("routed", set(), set()),
        *(("routed", {"succeeded", state}, set()) for state in ("waiting", "running", "unknown")),
        *(("parked", {state}, set()) for state in ("waiting", "running", "unknown")),
    ],
)
def test_the_gravest_state_decides(event, of_deliveries, decide):
    """The gravest of several deliveries decides, and no event with an open delivery is deleted."""
    assert purging.deciding_states(event, of_deliveries) == decide


@pytest.mark.parametrize("state", ["waiting", "running", "unknown"])
def test_a_purge_of_open_states_or_without_a_time_is_rejected(full, state):
    """A request to purge states that are kept is rejected, as is one without a time."""
    flow, _ = full
    with pytest.raises(SettingsError, match="never purged"):
        purge(flow.app.operation_context, before(flow, 90, state=state))
    with pytest.raises(SettingsError, match="until"):
        purge(flow.app.operation_context, EventFilter())


@pytest.mark.parametrize("state", ["waiting", "unknown", "running"])
def test_events_with_open_deliveries_stay(harness, listens, state):
    """Waiting, unknown and running deliveries stay, however old they are."""
    flow = harness.open(listens(go, name="go"), start=False)
    event = flow.take("i1", wait=0).event_id
    if state != "waiting":
        harness.check_at_end = False
        flow.sql("UPDATE deliveries SET state = ?", state)
    flow.clock.advance(1000 * DAY)
    assert purge(flow.app.operation_context, before(flow, 1)).purged == 0
    assert flow.events() == [event]


@pytest.mark.parametrize(
    ("narrower", "stay"),
    [
        ({"handler": "p:go"}, {"closed", "dismissed"}),
        ({"process_key": "ignored"}, {"succeeded", "closed"}),
        ({"flow_instance_id": "c"}, {"succeeded", "dismissed"}),
    ],
)
def test_a_filter_limits_the_purge_to_matching_events(full, narrower, stay):
    """Only matching events are deleted."""
    flow, ids = full
    assert purge(flow.app.operation_context, before(flow, 90, **narrower)).purged == 1
    assert left(flow, ids) == stay | {"dead", "parked"}


@pytest.fixture
def mixed(harness, listens):
    """A ledger with an event 100 days old, of which `p:good` has succeeded, and `p:bad` and `p:worse` are dead."""
    flow = harness.open(listens(go, name="good"), listens(fail, name="bad"), listens(fail, name="worse"))
    flow.take("i")
    flow.clock.advance(100 * DAY)
    return flow


def close(flow, *handlers):
    """Close the deliveries of these handlers, and let 100 days pass."""
    for delivery_id, handler in flow.sql("SELECT id, handler FROM deliveries"):
        if handler in handlers:
            resolve(flow.app.operation_context, delivery_id, Resolution.CLOSE)
    flow.clock.advance(100 * DAY)


@pytest.mark.parametrize(
    ("closed", "handler", "purged"),
    [
        ((), "p:good", 0),
        ((), "p:bad", 0),
        (("p:worse",), "p:good", 0),
        (("p:worse",), "p:worse", 0),
        (("p:worse",), "p:bad", 1),
    ],
)
def test_no_dead_delivery_of_another_handler_is_deleted(mixed, closed, handler, purged):
    """With a handler, an event is deleted only if all its dead deliveries are of this handler."""
    close(mixed, *closed)
    assert purge(mixed.app.operation_context, before(mixed, 90, state="dead", handler=handler)).purged == purged


def test_a_delivery_of_the_handler_is_in_the_state(mixed):
    """With a handler and a state, one delivery has both; without a state, the event needs a delivery of the handler."""
    close(mixed, "p:bad", "p:worse")
    context = mixed.app.operation_context
    found = {
        (state, handler): purge(context, before(mixed, 90, state=state, handler=handler), dry_run=True).purged
        for state in ("succeeded", "closed", None)
        for handler in ("p:good", "p:bad", "p:other")
    }
    assert {key for key, number in found.items() if number} == {
        ("closed", "p:bad"),
        (None, "p:good"),
        (None, "p:bad"),
    }


@pytest.fixture
def operated(harness, listens):
    """A function that opens a ledger with an open operation; returns the flow and the operation's id.

    Of the operation's deliveries, that of `p:bad` has failed again, that of `p:good` has succeeded, and that of
    `p:held` waits, because its handler is paused.
    """

    def open_with(action=BulkAction.RERUN):
        flow = harness.open(
            listens(fail, name="bad", process_key="bad"),
            listens(go, name="good", process_key="good"),
            listens(go, name="held", process_key="held"),
        )
        for key in ("bad", "good", "held"):
            flow.take(key, key=key)
        pause(flow.app.operation_context, ("p:held",))
        plan = bulk.plan_operation(flow.app.operation_context, action, EventFilter())
        bulk.start_operation(flow.app.operation_context, plan.id)
        until(lambda: operation(flow, plan.id).remaining == (action is BulkAction.RERUN))
        flow.clock.advance(100 * DAY)
        return flow, plan.id

    return open_with


def operation(flow, operation_id):
    """An operation as stored."""
    with flow.app.ledger.connection() as connection:
        return bulk_operations.read_operation(connection, operation_id)


def results(flow, operation_id):
    """The state of an operation, and its numbers of succeeded and failed deliveries."""
    found = operation(flow, operation_id)
    return found.state, found.succeeded, found.failed


def listed(flow, operation_id, status):
    """The states of the deliveries that an operation lists under a status or result."""
    with flow.app.ledger.connection() as connection:
        found = bulk_operations.operation_items(connection, operation_id, status=status, limit=10)
    return [item.state for item in found]


def test_the_results_of_an_open_operation_stay(operated):
    """An event stays as long as its delivery counts as failed in an operation that has not ended."""
    flow, operation_id = operated()
    context = flow.app.operation_context
    for state, purged in (("dead", 0), ("succeeded", 1)):
        assert purge(context, before(flow, 90, state=state), dry_run=True).purged == purged
        assert purge(context, before(flow, 90, state=state)).purged == purged
    assert results(flow, operation_id) == (OperationState.RUNNING, 1, 1)
    resume(context, ("p:held",))
    until(lambda: operation(flow, operation_id).state is OperationState.FINISHED)
    assert purge(context, before(flow, 90, state="dead")).purged == 1
    assert results(flow, operation_id) == (OperationState.FINISHED, 2, 1)


def test_the_lists_of_an_ended_operation_keep_purged_deliveries(operated):
    """A purged delivery is listed under the result that the operation counts it as."""
    flow, operation_id = operated()
    resume(flow.app.operation_context, ("p:held",))
    until(lambda: operation(flow, operation_id).state is OperationState.FINISHED)
    assert listed(flow, operation_id, ItemResult.FAILED) == ["dead"]
    for state in ("dead", "succeeded"):
        assert purge(flow.app.operation_context, before(flow, 90, state=state)).purged == 1
    assert results(flow, operation_id) == (OperationState.FINISHED, 2, 1)
    assert listed(flow, operation_id, ItemResult.FAILED) == ["purged"]
    assert listed(flow, operation_id, ItemResult.SUCCEEDED) == ["purged", "succeeded"]
    assert listed(flow, operation_id, ItemStatus.RELEASED) == ["purged", "purged", "succeeded"]
    assert flow.app.ledger.verify().problems == []


def test_a_purged_delivery_that_an_operation_closed_succeeded(operated):
    """An operation that closes deliveries counts them as succeeded, also in its lists."""
    flow, operation_id = operated(BulkAction.CLOSE)
    assert purge(flow.app.operation_context, before(flow, 90, state="closed")).purged == 1
    assert results(flow, operation_id)[1:] == (1, 0)
    assert listed(flow, operation_id, ItemResult.SUCCEEDED) == ["purged"]
    assert listed(flow, operation_id, ItemResult.FAILED) == []


def test_the_transaction_that_deletes_looks_for_open_operations(operated):
    """An event that was selected before its operation was released stays."""
    flow, _ = operated()
    cutoffs = {"dead": flow.clock.now() - 90 * DAY * 1_000_000}
    dead = flow.events(state="dead")
    ledger = flow.app.ledger
    assert len(dead) == 1
    assert not ledger.write(lambda transaction: ledger.purge(transaction, dead, cutoffs))


def test_a_dry_run_changes_nothing(full):
    """A dry run returns the counts."""
    flow, ids = full
    done = purge(flow.app.operation_context, before(flow, 90), dry_run=True)
    assert (done.purged, done.deliveries, done.dry_run) == (3, 2, True)
    assert left(flow, ids) == set(ids)


def test_each_call_deletes_one_page(full, monkeypatch):
    """A call deletes a page and returns where to continue; an interrupted purge is simply repeated."""
    flow, ids = full
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    first = purge(flow.app.operation_context, before(flow, 90))
    assert (first.events, first.next) == (2, ids["dead"])
    second = purge(flow.app.operation_context, before(flow, 90), after=first.next)
    assert second.next
    third = purge(flow.app.operation_context, before(flow, 90), after=second.next)
    assert third.next == ""
    assert first.purged + second.purged + third.purged == 3


def test_a_purge_is_called_by_name_and_audited(full):
    """The operation is called like every other, and its audit entry is in the same transaction."""
    flow, _ = full
    desk = flow.app.operation_context
    wanted = {"until": before(flow, 90).until}
    done = run_operation(replace(desk, by=Actor("ann", "cli")), "purge", {"event_filter": wanted, "after": ""})
    assert done == {"events": 5, "purged": 3, "deliveries": 2, "next": "", "dry_run": False}
    ((who, action, detail),) = flow.sql("SELECT actor, action, detail FROM audit_log WHERE actor = 'ann'")
    assert (who, action, json.loads(detail)) == ("ann", "purge", {"event_filter": wanted, "events": 3})


@pytest.mark.parametrize(("instance", "key"), [("s", "go"), ("c", "fail"), ("i", "ignored")])
def test_a_repeat_of_a_purged_callback_is_answered_done(full, instance, key):
    """A repeated callback gets the event's id any number of times, and nothing is stored or run."""
    flow, ids = full
    event = {"s": ids["succeeded"], "c": ids["closed"], "i": ids["dismissed"]}[instance]
    purge(flow.app.operation_context, before(flow, 90))
    for _ in range(2):
        answer = flow.take(instance, key=key)
        assert (answer.status, answer.event_id, answer.delivery_statuses) == ("done", event, ())
    assert len(flow.events()) == 2
    assert flow.app.ledger.verify().accepted == 5


@pytest.mark.parametrize(("instance", "key", "state"), [("d", "fail", "dead"), ("p", "nobody", "parked")])
def test_a_purged_dead_or_parked_event_is_answered_as_closed(full, instance, key, state):
    """A purged dead or parked event is answered like a closed or dismissed one."""
    flow, ids = full
    purge(flow.app.operation_context, before(flow, 90, state=state))
    answer = flow.take(instance, key=key)
    assert (answer.status, answer.event_id) == ("done", ids[state])


def test_a_conflict_with_a_purged_event_is_not_stored(full):
    """A callback that differs from a purged event is a conflict, but is not stored."""
    flow, ids = full
    purge(flow.app.operation_context, before(flow, 90))
    with pytest.raises(IdentityConflict) as raised:
        flow.take("s", key="go", other=2)
    assert raised.value.event_id == ids["succeeded"]
    assert raised.value.key == "conflict_purged"
    assert flow.sql("SELECT count(*) FROM conflicts") == [(0,)]


def test_a_repeat_of_a_purged_event_with_no_handler_reject(full, harness):
    """With routing.no_handler = "reject" a repeat of a purged callback is answered like any repeat."""
    flow, ids = full
    purge(flow.app.operation_context, before(flow, 90))
    flow.close()
    flow = harness.open(routing={"no_handler": "reject"})
    assert flow.take("s", key="go").event_id == ids["succeeded"]
    with pytest.raises(InvalidCallback):
        flow.take("new", key="nobody")


def test_a_request_for_a_purged_event_reports_the_purge(full):
    """A request for a purged id says so; a request for another id says "not found"."""
    flow, ids = full
    purge(flow.app.operation_context, before(flow, 90))
    with pytest.raises(NotFound, match=f"{ids['closed']}, received 20.*, has been purged"):
        flow.app.ledger.event(ids["closed"])
    for other in (flow.clock.new_id(), "nothing", ""):
        with pytest.raises(NotFound, match="there is no event"):
            flow.app.ledger.event(other)


def test_the_next_retention_run_deletes_expired_identities(full, harness):
    """The clock may be wrong, so the purge keeps them. Without identities, repeats are new events."""
    flow, ids = full
    flow.close()
    flow = harness.open(retention={"identities": 50})
    purge(flow.app.operation_context, before(flow, 90))
    assert flow.take("s", key="go").event_id == ids["succeeded"]
    assert flow.app.retention.run(flow.clock.now())["identities"] == 3
    again = flow.take("s", key="go", wait=0)
    assert again.status == "pending"
    assert flow.events()[-1] == again.event_id


def test_new_and_purged_events_in_one_batch(full, together):
    """New events are stored, and counted, beside the purged ones."""
    flow, _ = full
    purge(flow.app.operation_context, before(flow, 90))
    answers = together(
        *(lambda: flow.take("s", key="go", wait=0) for _ in range(3)),
        *(lambda number=number: flow.take(f"new{number}", key="go") for number in range(5)),
    )
    assert len({answer.event_id for answer in answers}) == 6
    assert flow.app.ledger.verify().problems == []


def test_a_failing_purge_changes_nothing(full, monkeypatch):
    """A transaction that is rolled back leaves all unchanged."""
    flow, ids = full

    def broken(*_given, **_more):
        raise Unavailable("ledger_down")

    with monkeypatch.context() as patched:
        patched.setattr(purging, "increment", broken)
        with pytest.raises(Unavailable):
            purge(flow.app.operation_context, before(flow, 90))
    assert left(flow, ids) == set(ids)
    assert flow.sql("SELECT count(*) FROM purged_identities") == [(0,)]


@pytest.mark.postgresql
class TestRaces:
    """On PostgreSQL another process may purge while this one accepts the same callback."""

    @pytest.mark.usefixtures("long_timeouts")
    def test_a_callback_that_waits_for_a_purge_is_no_new_event(self, full, eventually):
        """A callback waits for the deletion of its event, and is answered as purged."""
        flow, ids = full
        engine = database.open_engine(flow.address, writing=True)
        answers = []
        with engine.connect() as connection:
            began = connection.begin()
            gone = purging.purge(
                _Open(connection),
                [ids["succeeded"]],
                {"succeeded": flow.clock.now()},
                kept_from=0,
                process="00000000-0000-7000-8000-000000000001",
            )
            assert gone.events == 1
            caller = threading.Thread(target=lambda: answers.append(flow.take("s", key="go")))
            caller.start()
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            eventually(lambda: flow.sql(waits) != [(0,)])
            began.commit()
            caller.join(WAIT_TIMEOUT)
        engine.dispose()
        assert [(answer.status, answer.event_id) for answer in answers] == [("done", ids["succeeded"])]
        assert ids["succeeded"] not in flow.events()
        assert flow.app.ledger.verify().problems == []

    def test_a_purge_skips_locked_events(self, full):
        """A purge skips a locked event, such as one whose callback is being repeated."""
        flow, ids = full
        engine = database.open_engine(flow.address, writing=True)
        with engine.connect() as connection, connection.begin():
            connection.execute(
                text("SELECT id FROM events WHERE id = :id FOR KEY SHARE"), {"id": ids["succeeded"]}
            ).all()
            connection.execute(
                text("SELECT id FROM deliveries WHERE event_id = :id FOR UPDATE"), {"id": ids["closed"]}
            ).all()
            assert purge(flow.app.operation_context, before(flow, 90)).purged == 1
        engine.dispose()
        assert left(flow, ids) == set(ids) - {"dismissed"}

    def test_an_event_purged_during_a_lookup_is_found(self, full):
        """A purge that commits after the first statement of the look-up hides no identity."""
        flow, ids = full
        ((digest,),) = flow.sql("SELECT identity_sha256 FROM events WHERE id = ?", ids["succeeded"])
        engine = database.open_engine(flow.address, writing=True)

        def purge_all(*_of_statement):
            assert purge(flow.app.operation_context, before(flow, 90)).purged == 3

        with engine.connect() as connection, connection.begin():
            event.listen(connection, "after_cursor_execute", purge_all, once=True)
            assert identities.find_all(connection, [digest])[digest][0] == ids["succeeded"]
        engine.dispose()
        assert left(flow, ids) == {"dead", "parked"}

    @pytest.mark.usefixtures("long_timeouts")
    def test_no_event_is_stored_twice_under_load(self, harness, listens, together):
        """Two processes accept the same callbacks while a third purges them as soon as they are done."""
        first, second = (harness.open(listens(go, name="go")) for _ in range(2))
        third = harness.open(start=False)
        over = threading.Event()

        def purging_on():
            while not over.is_set():
                soon = EventFilter(until=third.clock.now() + DAY * 1_000_000)
                purge(third.app.operation_context, soon)

        def calling(flow, name):
            return [flow.take(f"{name}{number // 3}").event_id for number in range(60)]

        def called():
            try:
                return together(*(lambda flow=flow: calling(flow, "same") for flow in (first, second, first, second)))
            finally:
                over.set()

        answers, _ = together(called, purging_on)
        assert not any(isinstance(answer, Exception) for answer in answers), answers
        assert all(answer == answers[0] for answer in answers)
        books = third.app.ledger.verify()
        assert (books.accepted, books.problems) == (20, [])


class _Open:
    """A transaction of another process."""

    def __init__(self, connection):
        self.connection = connection
