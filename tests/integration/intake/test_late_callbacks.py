"""A callback for an instance that reconciliation has taken in: nothing runs twice, and its data are not lost."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from flowhooks import Reject, State
from flowhooks.errors import IdentityConflict, InvalidCallback
from flowhooks.ledger.late_callbacks import MAX_LATE_CALLBACKS
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.context import Actor
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.purge import purge
from support.app_harness import TRACEPARENT, ingress_callback
from support.silent_engine import with_silent_engine
from support.waiting import until

pytestmark = pytest.mark.either

CLASS = "com.example.Late"


@pytest.fixture
def runs():
    """The handlers that ran, each with the class of its event and its amount."""
    return []


@pytest.fixture
def flow(harness, listens, runs):
    """A server with handlers by key, class and condition, and a source whose engine flowhooks asks."""

    def ran(name):
        def function(event):
            runs.append((name, event.callback_class, event.data.get("amount")))
            if event.data.get("rejected"):
                raise Reject("no")

        return function

    return harness.open(
        **with_silent_engine(
            listens(ran("key"), name="key"),
            listens(ran("class"), name="class", callback_class=CLASS),
            listens(ran("every"), name="every", every=True),
            listens(ran("approved"), name="approved", process_key="travel", conclusion="approved"),
            listens(ran("cancel"), name="cancel", process_key="stop", kind="cancel"),
        ),
        routing={"ignore_process_keys": ("ignored",)},
    )


def late(flow, event_id):
    """The bodies beside that of an event, each with the number of its repeats."""
    return [(json.loads(callback.body), callback.repeats) for callback in flow.app.ledger.late_callbacks(event_id)]


def handlers_of(flow, event_id):
    """The states of the deliveries of an event, by handler."""
    return {
        delivery_status.handler.removeprefix("p:"): delivery_status.state
        for delivery_status in flow.delivery_statuses(event_id)
    }


def at_rest(flow):
    """Wait until no delivery waits or runs."""
    until(flow.is_idle)


def pulled(flow, **given):
    """The id of an event that was taken in, once its deliveries are at rest."""
    taken_in = flow.take_in(**given)
    assert taken_in.new
    at_rest(flow)
    return taken_in.event_id


def events(flow):
    """The stored events of the instance."""
    return flow.app.ledger.find(EventFilter(flow_instance_id="i1"), limit=10)


@pytest.mark.parametrize(
    ("kind", "callback_class"), [("complete", None), ("complete", CLASS), ("complete", "com.example.Other")]
)
def test_a_late_callback_of_a_delivered_event_runs_nothing(flow, runs, kind, callback_class):
    """The callback is answered like a repeat and kept, whatever class it has."""
    event_id = pulled(flow)
    assert sorted(name for name, *_ in runs) == ["every", "key"]
    answer = flow.take(source="oa", kind=kind, callback_class=callback_class, amount=1)
    assert (answer.event_id, answer.status) == (event_id, "done")
    at_rest(flow)
    assert len(runs) == 2
    (stored,) = events(flow)
    assert (stored.event.callback_class, stored.repeats) == (None, 0)
    ((body, repeats),) = late(flow, event_id)
    assert (body["amount"], repeats) == (1, 0)


def test_a_repeat_of_a_late_callback_is_counted(flow):
    """The same body is stored once."""
    event_id = pulled(flow)
    for _ in range(3):
        assert flow.take(source="oa", amount=1).event_id == event_id
    assert flow.take(source="oa", amount=2).event_id == event_id
    assert sorted((body["amount"], repeats) for body, repeats in late(flow, event_id)) == [(1, 2), (2, 0)]


def test_a_callback_with_the_same_data_is_a_repeat(flow):
    """It is counted at the event, and nothing is kept beside it."""
    event_id = pulled(flow)
    assert flow.take(source="oa", endState="completed").status == "done"
    assert events(flow)[0].repeats == 1
    assert late(flow, event_id) == []


@pytest.mark.parametrize("state", ["waiting", "running", "succeeded", "dead", "unknown", "closed"])
def test_a_late_callback_is_answered_like_a_repeat_in_each_state(flow, runs, state):
    """The answer tells the state of the deliveries, and no handler runs a second time."""
    event_id = pulled(flow, rejected=state in {"dead", "closed"})
    if state in {"waiting", "running", "unknown"}:
        flow.sql(
            "UPDATE deliveries SET state = ?, due_at = NULL WHERE event_id = ? AND handler = 'p:key'", state, event_id
        )
        outcome = {"waiting": "failed", "unknown": "lost", "running": None}[state]
        flow.sql(
            f"UPDATE attempts SET outcome = ?, finished_at = {'NULL' if outcome is None else 'finished_at'}"
            " WHERE delivery_id IN (SELECT id FROM deliveries WHERE handler = 'p:key')",
            outcome,
        )
    elif state == "closed":
        flow.sql("UPDATE deliveries SET state = 'closed' WHERE event_id = ?", event_id)
    before = len(runs)
    answer = flow.take(source="oa", amount=1, wait=0)
    expected = {"dead": "dead", "succeeded": "done", "closed": "done"}.get(state, "pending")
    assert (answer.event_id, answer.status) == (event_id, expected)
    assert handlers_of(flow, event_id)["key"] is State(state)
    assert len(runs) == before
    assert [body["amount"] for body, _ in late(flow, event_id)] == [1]


PARKED = {
    "handler": ({"key": "nobody"}, {"key": "nobody", "callback_class": CLASS}, ["class"]),
    "condition": ({"key": "travel"}, {"key": "travel", "conclusion": "approved"}, ["approved"]),
    "name": ({"key": None}, {"key": "leave"}, ["key"]),
    "end_state": ({"key": "leave", "end_undecided": True}, {"key": "leave"}, ["every", "key"]),
}


@pytest.mark.parametrize("reason", PARKED)
def test_a_parked_event_is_routed_with_the_body_of_its_late_callback(flow, runs, reason):
    """It takes over the callback's data, gets the deliveries that it lacks, and its first body is kept beside it."""
    history, callback, expected = PARKED[reason]
    event_id = pulled(flow, **history)
    (before,) = events(flow)
    assert (before.state, before.parked_by) == ("parked", reason)
    assert [name for name, *_ in runs] == ([] if reason == "end_state" else ["every"])
    runs.clear()
    answer = flow.take(source="oa", amount=1, **callback)
    assert (answer.event_id, answer.status) == (event_id, "done")
    assert sorted(name for name, *_ in runs) == expected
    assert {amount for *_, amount in runs} == {1}
    (after,) = events(flow)
    assert (after.state, after.parked_by, after.event.origin) == ("routed", None, "reconciled")
    assert after.event.callback_class == callback.get("callback_class")
    assert after.event.conclusion == callback.get("conclusion")
    assert after.event.received_at == before.event.received_at
    assert [body for body, _ in late(flow, event_id)] == [json.loads(before.body)]
    assert flow.take(source="oa", amount=1, **callback).status == "done"
    assert events(flow)[0].repeats == 1
    assert len(runs) == len(expected)


DISMISSED = {
    "setting": ({"key": "ignored"}, {"key": "ignored", "callback_class": CLASS}, ["class"]),
    "condition": ({"key": "travel", "conclusion": "rejected"}, {"key": "travel", "callback_class": CLASS}, ["class"]),
    "kind": ({"key": "stop"}, {"key": "stop", "callback_class": CLASS}, ["class"]),
    "operator": ({"key": "nobody"}, {"key": "nobody", "callback_class": CLASS}, ["class"]),
}


@pytest.mark.parametrize("reason", DISMISSED)
def test_a_dismissed_event_is_routed_with_the_body_of_its_late_callback(flow, runs, reason):
    """Whatever dismissed it."""
    history, callback, expected = DISMISSED[reason]
    event_id = pulled(flow, **history)
    if reason == "operator":
        dismiss(replace(flow.app.operation_context, by=Actor("ann", "cli")), EventFilter(ids=(event_id,)))
    (before,) = events(flow)
    assert (before.state, before.dismissed_by) == ("dismissed", reason)
    runs.clear()
    answer = flow.take(source="oa", amount=1, **callback)
    assert (answer.event_id, answer.status) == (event_id, "done")
    assert [name for name, *_ in runs] == expected
    (after,) = events(flow)
    assert (after.state, after.dismissed_by) == ("routed", None)


def test_the_received_body_is_replaced_with_the_body(flow):
    """An event whose body a request to a fixed URL replaces gets the received body of that request and its trace."""
    pulled(flow, key="nobody")
    (before,) = events(flow)
    assert (before.raw_body, before.media_type, before.event.traceparent) == (None, None, None)
    given = ingress_callback(key="nobody", amount=1)
    (answer,) = flow.app.intake.accept_all([given])
    assert answer.event_id == before.event.id
    (after,) = events(flow)
    assert (after.event.origin, after.body) == ("reconciled", given.text)
    assert (after.raw_body, after.media_type) == (given.raw_body, given.media_type)
    assert after.event.traceparent == TRACEPARENT
    assert flow.take(source="oa", key="nobody", amount=2, wait=0).event_id == before.event.id
    (last,) = events(flow)
    assert (last.event.data["amount"], last.raw_body, last.media_type, last.event.traceparent) == (2, None, None, None)


def test_a_parked_event_may_stay_parked_after_a_late_callback(flow):
    """The event then has the callback's data and the reason of its new route; a further late callback may route it."""
    event_id = pulled(flow, key=None)
    assert flow.take(source="oa", key="nobody", amount=1).status == "parked"
    (stored,) = events(flow)
    assert (stored.parked_by, stored.event.process_definition_key, stored.event.data["amount"]) == (
        "handler",
        "nobody",
        1,
    )
    assert flow.take(source="oa", key="nobody", amount=2, callback_class=CLASS).status == "done"
    assert len(late(flow, event_id)) == 2


def test_a_repeat_of_an_earlier_body_does_not_replace_a_later_body(flow):
    """It is counted beside the event, also if it is the body from the history."""
    event_id = pulled(flow, key="nobody")
    for amount in (1, 2, 1):
        assert flow.take(source="oa", key="nobody", amount=amount).status == "parked"
    assert flow.take(source="oa", key="nobody", endState="completed").status == "parked"
    assert events(flow)[0].event.data["amount"] == 2
    assert sorted((body.get("amount", 0), repeats) for body, repeats in late(flow, event_id)) == [(0, 1), (1, 1)]
    assert flow.app.ledger.verify().problems == []


def test_the_late_callback_sets_the_kind_of_an_undecided_end(flow, runs):
    """The history does not tell it, so another kind is no conflict."""
    event_id = pulled(flow, key="stop", end_undecided=True)
    answer = flow.take(source="oa", key="stop", kind="cancel")
    assert (answer.event_id, answer.status) == (event_id, "done")
    assert [name for name, *_ in runs] == ["cancel"]
    assert events(flow)[0].event.kind == "cancel"


def test_a_kind_that_reports_no_end_does_not_decide_an_undecided_end(flow, runs):
    """A callback that was sent while the instance ran is a conflict, and the callback of the end still decides."""
    event_id = pulled(flow, key="stop", end_undecided=True)
    before = events(flow)
    with pytest.raises(IdentityConflict) as caught:
        flow.take(source="oa", key="stop", kind="suspend")
    assert caught.value.event_id == event_id
    assert [conflict.kind for conflict in flow.app.ledger.conflicts(event_id)] == ["suspend"]
    assert events(flow) == before
    assert flow.take(source="oa", key="stop", kind="cancel").status == "done"
    assert [name for name, *_ in runs] == ["cancel"]


HISTORY = {
    "businessKey": "k1",
    "processDefinitionVersion": 3,
    "conclusion": "approved",
    "callback_class": "com.example.C",
}


@pytest.mark.parametrize("state", ["routed", "parked"])
@pytest.mark.parametrize(
    "other",
    [
        {"businessKey": "k2"},
        {"key": "other"},
        {"processDefinitionVersion": 4},
        {"conclusion": "rejected"},
        {"callback_class": CLASS},
        {"kind": "cancel"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_callback_that_contradicts_the_history_is_a_conflict(flow, runs, other, state):
    """Of each named value: nothing runs, the body is kept as a conflict, and the event stays as it is."""
    key = {"key": "leave" if state == "routed" else "nobody"}
    event_id = pulled(flow, **HISTORY | key)
    before, n_runs = events(flow), len(runs)
    with pytest.raises(IdentityConflict) as caught:
        flow.take(source="oa", **HISTORY | key | other)
    assert caught.value.event_id == event_id
    assert len(flow.app.ledger.conflicts(event_id)) == 1
    at_rest(flow)
    assert events(flow) == before
    assert before[0].state == state
    assert len(runs) == n_runs
    assert late(flow, event_id) == []


@pytest.mark.parametrize("left_out", ["businessKey", "processDefinitionVersion", "conclusion", "callback_class"])
@pytest.mark.parametrize("side", ["history", "callback"])
def test_a_value_missing_on_one_side_is_no_conflict(flow, left_out, side):
    """Neither a value that only the history has, nor one that only the callback has."""
    less = {name: value for name, value in HISTORY.items() if name != left_out}
    history, callback = (less, HISTORY) if side == "history" else (HISTORY, less)
    event_id = pulled(flow, **history)
    assert flow.take(source="oa", amount=1, **callback).event_id == event_id
    assert len(late(flow, event_id)) == 1


def test_conclusions_are_compared_after_mapping(harness, listens):
    """The engine's word in the history and in the callback may differ, if the settings map both to one."""
    flow = harness.open(**with_silent_engine(listens(lambda event: None, name="key"), conclusion={"OK": "approved"}))
    event_id = flow.take_in(conclusion="approved").event_id
    assert flow.take(source="oa", conclusion="OK").event_id == event_id


def test_at_most_ten_late_callbacks_are_stored(flow):
    """A further one is answered in the same way and not stored."""
    event_id = pulled(flow)
    for amount in range(MAX_LATE_CALLBACKS + 3):
        assert flow.take(source="oa", amount=amount).status == "done"
    assert len(late(flow, event_id)) == MAX_LATE_CALLBACKS
    assert flow.take(source="oa", amount=1).status == "done"
    assert {body["amount"]: repeats for body, repeats in late(flow, event_id)}[1] == 1


def test_a_late_body_replaces_the_body_only_if_both_can_be_stored(flow):
    """An event takes over the body of a late callback only if its own one can be kept."""
    event_id = pulled(flow, key="nobody")
    for amount in range(MAX_LATE_CALLBACKS + 3):
        assert flow.take(source="oa", key="nobody", amount=amount).status == "parked"
    assert len(late(flow, event_id)) == MAX_LATE_CALLBACKS
    (stored,) = events(flow)
    assert stored.event.data["amount"] == MAX_LATE_CALLBACKS - 1


def test_a_late_callback_is_accepted_despite_no_handler_reject(harness, listens, flow):
    """`no_handler = "reject"` rejects only callbacks without an event."""
    event_id = pulled(flow, key="leave")
    flow.close()
    flow = harness.open(
        **with_silent_engine(listens(lambda event: None, name="key")),
        routing={"no_handler": "reject", "no_name": "reject"},
    )
    assert flow.take(source="oa", key=None).event_id == event_id
    with pytest.raises(InvalidCallback):
        flow.take("i2", source="oa", key=None)
    assert flow.take_in("i3", key=None).new


def test_a_late_callback_of_a_purged_event_is_a_conflict(flow, runs):
    """Nothing is left to compare it with, so it is neither run nor acknowledged."""
    event_id = pulled(flow)
    flow.clock.advance(86_400)
    purge(
        replace(flow.app.operation_context, by=Actor("ann", "cli")),
        EventFilter(until=flow.clock.now(), ids=(event_id,)),
    )
    n_runs = len(runs)
    for callback_class in (None, CLASS):
        with pytest.raises(IdentityConflict) as caught:
            flow.take(source="oa", callback_class=callback_class)
        assert caught.value.event_id == event_id
    assert events(flow) == []
    assert len(runs) == n_runs


def test_a_source_without_an_engine_has_no_late_callbacks(flow):
    """Its callbacks of one instance with other classes are other events, as ever."""
    first = flow.take(source="default").event_id
    assert flow.take(source="default", callback_class=CLASS).event_id != first


def test_a_late_callback_matches_its_instance_in_any_tenant(flow):
    """An instance id names one instance of an engine, whichever tenant the callback tells."""
    event_id = pulled(flow, tenantId="a")
    assert flow.take(source="oa", tenantId="b").event_id == event_id


def test_a_late_callback_under_a_former_source_name_finds_its_event(harness, listens, flow):
    """A renamed source keeps its reconciled events."""
    event_id = pulled(flow)
    flow.close()
    renamed = with_silent_engine(listens(lambda event: None, name="key"), former_names=("oa",))
    renamed["sources"] = {"new": renamed["sources"]["oa"]}
    flow = harness.open(**renamed)
    assert flow.take(source="new", callback_class=CLASS).event_id == event_id
    assert flow.take_in(source="new").event_id == event_id


@pytest.mark.parametrize("asks", [True, False], ids=["engine", "no engine"])
def test_a_repeated_callback_is_recognised_after_its_source_was_renamed(harness, listens, flow, runs, asks):
    """The engine repeats a callback after its source was renamed: nothing runs, and other data are a conflict."""
    first = flow.take(source="oa", amount=1).event_id
    gone = flow.take("i2", source="oa").event_id
    purge(
        replace(flow.app.operation_context, by=Actor("ann", "cli")),
        EventFilter(until=flow.clock.now() + 1, ids=(gone,)),
    )
    flow.close()
    renamed = with_silent_engine(listens(lambda event: runs.append(event.source), name="key"), former_names=("oa",))
    new = renamed["sources"]["oa"]
    renamed["sources"] = {"new": new if asks else replace(new, engine=None)}
    flow = harness.open(**renamed)
    runs.clear()
    assert flow.take(source="new", amount=1).event_id == first
    with pytest.raises(IdentityConflict):
        flow.take(source="new", amount=2)
    assert flow.take("i2", source="new").event_id == gone
    at_rest(flow)
    assert runs == []
    assert flow.sql("SELECT source, repeats FROM events") == [("oa", 1)]
    flow.take(source="new", callback_class=CLASS)
    assert len(events(flow)) == 2


def test_a_callback_under_a_former_source_name_belongs_to_the_source(harness, listens, runs):
    """A callback without a credential is stored under the name of the source, and is late if the instance is."""
    given = with_silent_engine(
        listens(lambda event: runs.append(event.source), name="key"), token_sha256=(), former_names=("default",)
    )
    flow = harness.open(**given)
    event_id = pulled(flow)
    assert flow.take(callback_class=CLASS).event_id == event_id
    called = flow.take("i2").event_id
    assert flow.take_in("i2").event_id == called
    at_rest(flow)
    assert runs == ["oa", "oa"]
