"""Finished instances of an engine's history become events, each instance once, whether or not the engine calls."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import event as sqlalchemy_event

from flowhooks import State
from flowhooks.clock import SECOND
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.route_changes import RouteChange
from flowhooks.operations.context import Actor
from flowhooks.operations.parked import count_deliverable
from flowhooks.operations.purge import purge
from flowhooks.operations.reroute import reroute, reroute_parked
from flowhooks.operations.routing import replaceable_body
from support.silent_engine import with_silent_engine
from support.waiting import until

pytestmark = pytest.mark.either


@pytest.fixture
def runs():
    """The instances and classes for which the handlers ran."""
    return []


@pytest.fixture
def flow(harness, listens, runs):
    """A server with a source whose engine flowhooks asks."""

    def by_key(event):
        runs.append((event.flow_instance_id, event.callback_class, event.origin))

    return harness.open(**with_silent_engine(listens(by_key, name="by_key")))


def stored(flow, instance="i1"):
    """The events of an instance, oldest first."""
    return [flow.app.ledger.event(event_id) for event_id in flow.events(flow_instance_id=instance)]


def test_a_finished_instance_is_stored_and_delivered(flow, runs):
    """It becomes an event with the origin *reconciled*, and its handlers run."""
    taken_in = flow.take_in()
    assert (taken_in.disposition, taken_in.new, taken_in.reused_id) == ("has_event", True, False)
    flow.settled(taken_in.event_id, State.SUCCEEDED)
    assert runs == [("i1", None, "reconciled")]
    (event,) = stored(flow)
    assert (event.event.id, event.event.origin, event.state) == (taken_in.event_id, "reconciled", "routed")


def test_an_instance_is_reconciled_once(flow, runs):
    """The second time its event is found."""
    first = flow.take_in()
    flow.settled(first.event_id, State.SUCCEEDED)
    again = flow.take_in(amount=2)
    assert (again.event_id, again.disposition, again.new) == (first.event_id, "has_event", False)
    assert len(runs) == 1
    assert stored(flow)[0].repeats == 0
    assert flow.app.ledger.conflicts(first.event_id) == []


@pytest.mark.parametrize("body", [{}, {"callback_class": "com.example.C"}, {"kind": "cancel"}])
def test_an_instance_with_a_callback_is_not_reconciled(flow, body):
    """Its event is found, whatever class or kind the callback has."""
    answer = flow.take(source="oa", **body)
    taken_in = flow.take_in(started_at=flow.clock.now() - SECOND)
    assert (taken_in.event_id, taken_in.disposition, taken_in.new) == (answer.event_id, "has_event", False)
    assert len(stored(flow)) == 1


@pytest.mark.parametrize(
    ("kind", "seconds", "counts"), [("suspend", 60, True), ("suspend", 61, False), ("cancel", 3600, True)]
)
def test_a_callback_of_a_running_instance_is_not_found(flow, kind, seconds, counts):
    """A kind that reports no end counts only from a minute before the end on, also without a start."""
    started_at = flow.clock.now()
    answer = flow.take(source="oa", kind=kind, wait=0)
    flow.clock.advance(seconds)
    for known in (started_at, None):
        taken_in = flow.take_in(started_at=known, ended_at=flow.clock.now())
        assert (taken_in.event_id == answer.event_id) is counts
        assert (taken_in.new, taken_in.reused_id) == (not counts and known is not None, False)
    assert len(stored(flow)) == (1 if counts else 2)


def test_a_callback_of_an_earlier_instance_with_the_id_is_found(flow):
    """Whatever its kind: a clock may have been wrong when it was received."""
    flow.take(source="oa", kind="suspend", wait=0)
    flow.clock.advance(3600)
    started_at = flow.clock.now()
    flow.clock.advance(600)
    taken_in = flow.take_in(started_at=started_at, ended_at=flow.clock.now())
    assert taken_in.reused_id
    assert flow.app.ledger.event(taken_in.event_id).parked_by == "reused_id"


def test_an_instance_that_reuses_an_id_is_reconciled(flow, runs):
    """An event that was received before the instance started belongs to an earlier instance."""
    first = flow.take(source="oa").event_id
    flow.clock.advance(2 * 86_400)
    taken_in = flow.take_in(started_at=flow.clock.now())
    assert (taken_in.new, taken_in.reused_id) == (True, True)
    assert taken_in.event_id != first
    flow.settled(taken_in.event_id, State.SUCCEEDED)
    assert [origin for *_, origin in runs] == ["callback", "reconciled"]
    again = flow.take_in(started_at=flow.clock.now())
    assert (again.event_id, again.new, again.reused_id) == (taken_in.event_id, False, False)
    flow.clock.advance(2 * 86_400)
    third = flow.take_in(started_at=flow.clock.now())
    assert third.reused_id
    assert len(stored(flow)) == 3


def test_a_callback_of_a_reused_id_belongs_to_the_newest_instance(flow, runs):
    """A repeat of the earlier instance's callback stays its repeat."""
    first = flow.take(source="oa", number=1).event_id
    flow.clock.advance(2 * 86_400)
    second = flow.take_in(started_at=flow.clock.now()).event_id
    flow.settled(second, State.SUCCEEDED)
    assert flow.take(source="oa", number=2).event_id == second
    assert flow.take(source="oa", number=1).event_id == first
    assert len(runs) == 2
    assert [late.repeats for late in flow.app.ledger.late_callbacks(second)] == [0]


def test_a_parked_instance_of_a_reused_id_is_routed_by_its_late_callback(flow, runs):
    """Its identity stays another than that of the earlier event, though both have the same class."""
    first = flow.take(source="oa").event_id
    flow.clock.advance(2 * 86_400)
    second = flow.take_in(started_at=flow.clock.now(), end_undecided=True).event_id
    assert flow.take(source="oa", number=2).event_id == second
    assert [event.event.id for event in reversed(stored(flow))] in ([first, second], [second, first])
    assert {event.state for event in stored(flow)} == {"routed"}
    assert len(runs) == 2


def test_engine_and_server_clocks_may_differ_by_a_minute(flow):
    """A callback that was received a little before its instance started belongs to the instance."""
    answer = flow.take(source="oa")
    flow.clock.advance(60)
    assert flow.take_in(started_at=flow.clock.now()).event_id == answer.event_id
    assert flow.take_in(started_at=flow.clock.now() + 1).reused_id


def test_an_instance_without_a_start_time_matches_any_event_of_its_id(flow):
    """It is not taken in beside one, however old that is."""
    answer = flow.take(source="oa")
    flow.clock.advance(365 * 86_400)
    assert flow.take_in().event_id == answer.event_id


def purged(flow, event_id):
    """Purge an event."""
    flow.clock.advance(86_400)
    purge(
        replace(flow.app.operation_context, by=Actor("ann", "cli")),
        EventFilter(until=flow.clock.now(), ids=(event_id,)),
    )
    assert stored(flow) == []


@pytest.mark.parametrize("body", [{}, {"callback_class": "com.example.C"}, {"kind": "cancel"}])
def test_an_instance_with_a_purged_event_is_not_reconciled(flow, runs, body):
    """Whatever class or kind the event had."""
    started_at = flow.clock.now()
    answer = flow.take(source="oa", **body)
    if body:
        flow.sql("UPDATE events SET state = 'dismissed', dismissed_by = 'setting' WHERE state = 'parked'")
    purged(flow, answer.event_id)
    n_runs = len(runs)
    for known in (started_at, None):
        taken_in = flow.take_in(started_at=known)
        assert (taken_in.event_id, taken_in.disposition, taken_in.new) == (answer.event_id, "purged", False)
    assert len(runs) == n_runs


def test_an_instance_that_reuses_a_purged_id_is_reconciled(flow):
    """The identity of the purged event is that of an earlier instance."""
    purged(flow, flow.take(source="oa").event_id)
    taken_in = flow.take_in(started_at=flow.clock.now())
    assert (taken_in.new, taken_in.reused_id) == (True, True)


def test_a_purge_deletes_late_callbacks(flow):
    """With the event that they belong to, from whose newest one its age counts, and which is not taken in again."""
    first = flow.take_in(started_at=flow.clock.now())
    flow.settled(first.event_id, State.SUCCEEDED)
    flow.clock.advance(1)
    flow.take(source="oa", amount=1)
    assert flow.app.ledger.late_callbacks(first.event_id)
    assert purge(flow.app.operation_context, EventFilter(until=flow.clock.now())).purged == 0
    purged(flow, first.event_id)
    assert flow.sql("SELECT count(*) FROM late_callbacks") == [(0,)]
    assert flow.take_in(started_at=flow.clock.now() - 86_400 * SECOND).disposition == "purged"


def test_events_under_former_source_names_count(harness, listens, flow):
    """A renamed source does not take in what its callbacks under the former name have brought."""
    answer = flow.take(source="oa")
    gone = flow.take("i2", source="oa")
    purge(
        replace(flow.app.operation_context, by=Actor("ann", "cli")),
        EventFilter(until=flow.clock.now() + 1, ids=(gone.event_id,)),
    )
    flow.close()
    renamed = with_silent_engine(listens(lambda event: None, name="by_key"), former_names=("oa",))
    renamed["sources"] = {"new": renamed["sources"]["oa"]}
    flow = harness.open(**renamed)
    assert flow.take_in(source="new").event_id == answer.event_id
    assert flow.take_in("i2", source="new").event_id == gone.event_id
    assert flow.take_in("i3", source="new").new
    assert flow.take_in(source="other").new


def test_an_instance_without_a_handler_is_parked(harness, listens):
    """Also where the settings reject such callbacks: no engine would get the answer."""
    flow = harness.open(**with_silent_engine(), routing={"no_handler": "reject", "no_name": "reject"})
    for instance, key in (("i1", "leave"), ("i2", None)):
        taken_in = flow.take_in(instance, key=key)
        assert taken_in.new
        assert flow.app.ledger.event(taken_in.event_id).state == "parked"


def test_an_undecided_end_is_parked(flow, runs):
    """Nothing runs, however its handlers listen."""
    event_id = flow.take_in(end_undecided=True).event_id
    (event,) = stored(flow)
    assert (event.state, event.parked_by, event.route) == ("parked", "end_state", {})
    assert flow.delivery_statuses(event_id) == ()
    assert runs == []


def test_a_reroute_skips_undecided_ends(harness, listens, flow, runs):
    """Neither at the start nor for all parked events, nor by a filter; an operator who names the event decides."""
    event_id = flow.take_in(end_undecided=True).event_id
    parked = flow.take("i2", key="travel").event_id
    flow.close()
    flow = harness.open(
        **with_silent_engine(
            listens(lambda event: runs.append(event.flow_instance_id), name="by_key", process_key=["leave", "travel"])
        )
    )
    flow.settled(parked, State.SUCCEEDED)
    context = replace(flow.app.operation_context, by=Actor("ann", "cli"))
    assert reroute_parked(context).delivered == 0
    assert count_deliverable(context) == 0
    assert reroute(context, EventFilter(flow_instance_id="i1")).delivered == 0
    assert flow.app.ledger.event(event_id).parked_by == "end_state"
    assert reroute(context, EventFilter(ids=(event_id,))).delivered == 1
    flow.settled(event_id, State.SUCCEEDED)
    assert runs == ["i2", "i1"]


def test_a_reroute_does_not_overwrite_a_concurrent_late_callback(flow, runs):
    """A late callback replaces the body between the operator's reading and writing: the operator's change is lost."""
    event_id = flow.take_in(key="nobody").event_id
    context = flow.app.operation_context
    before = flow.app.ledger.event(event_id)
    change = RouteChange(
        event_id=event_id,
        state="routed",
        route={"p:by_key": "key leave"},
        deliveries=((flow.clock.new_id(), "p:by_key"),),
        expected_body=replaceable_body(before),
    )
    flow.clock.advance(1)
    assert flow.take(source="oa", key="nobody", amount=1).status == "parked"
    assert flow.sql("SELECT rerouted_at FROM events") == [(flow.clock.now(),)]  # it is younger than its first body
    assert context.ledger.write(lambda transaction: context.ledger.reroute(transaction, [change])) == set()
    assert runs == []


def in_book(flow, instance="i1", disposition="in_grace", source="oa"):
    """Record an instance, as a reconciliation does that has read it."""
    now = flow.clock.now()
    body, rule = ("{}", "") if disposition == "in_grace" else (None, "child")
    flow.sql(
        "INSERT INTO engine_instances (source, flow_instance_id, ended_at, end_state, disposition, rule, body,"
        " first_seen_at, changed_at) VALUES (?, ?, ?, 'completed', ?, ?, ?, ?, ?)",
        *(source, instance, now, disposition, rule, body, now, now),
    )


@pytest.mark.parametrize("disposition", ["in_grace", "skipped"])
@pytest.mark.parametrize("origin", ["callback", "reconciled"])
def test_engine_instances_has_the_event_in_the_same_transaction(flow, disposition, origin):
    """In the transaction that stores or finds the event of a callback or of an instance."""
    in_book(flow, disposition=disposition)
    in_book(flow, "i2")
    event_id = (flow.take(source="oa") if origin == "callback" else flow.take_in()).event_id
    rows = "SELECT disposition, rule, event_id, body FROM engine_instances WHERE flow_instance_id = ?"
    assert flow.sql(rows, "i1") == [("has_event", "", event_id, None)]
    assert flow.sql(rows, "i2") == [("in_grace", "", None, "{}")]
    other = flow.take(source="oa", kind="cancel") if origin == "callback" else flow.take_in(amount=2)
    assert flow.sql(rows, "i1") == [("has_event", "", event_id, None)]
    assert other.event_id == event_id or origin == "callback"


def test_a_source_without_an_engine_costs_no_further_statement(harness, listens):
    """Only sources with an engine cost the statements that reconciliation needs."""
    flow = harness.open(**with_silent_engine(listens(lambda event: None, name="by_key")))
    # The first round also deletes old rows before it gives up its lease.
    until(lambda: flow.sql("SELECT 1 FROM engine_positions WHERE round_at > 0 AND process = ''"))
    engine, executed = flow.app.ledger._write_engine, {}
    for source in ("oa", "default"):
        statements = executed[source] = []

        def note(_connection, _cursor, statement, *_rest, into=statements):
            into.append(statement)

        sqlalchemy_event.listen(engine, "before_cursor_execute", note)
        flow.take(source=source, wait=0)
        sqlalchemy_event.remove(engine, "before_cursor_execute", note)
        until(flow.is_idle)
    words = ("engine_instances", "instance_sha256", "advisory", "late_callbacks", "'reconciled'")
    found = {source: {word for word in words if word in "".join(executed[source])} for source in executed}
    assert {"engine_instances", "instance_sha256"} <= found["oa"]
    assert found["default"] == set()


@pytest.mark.sqlite
def test_the_events_of_an_instance_are_found_by_indexes(flow):
    """However many events there are, no statement reads a whole table."""
    engine, plans = flow.app.ledger._write_engine, []

    def explain(_connection, cursor, statement, parameters, *_rest):
        if not statement.startswith("EXPLAIN"):
            plans.extend(row[-1] for row in cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall())

    sqlalchemy_event.listen(engine, "before_cursor_execute", explain)
    first = flow.take_in().event_id
    assert flow.take(source="oa", amount=1, wait=0).event_id == first
    sqlalchemy_event.remove(engine, "before_cursor_execute", explain)
    tables = ("events", "purged_identities", "engine_instances", "late_callbacks")
    scans = [line for line in plans if line.startswith(tuple(f"SCAN {table}" for table in tables))]
    assert [line for line in scans if "purged_identities_received" not in line] == []  # whether there is any row
    assert any("events_flow_instance" in line for line in plans)
    assert any("purged_identities_instance" in line for line in plans)
