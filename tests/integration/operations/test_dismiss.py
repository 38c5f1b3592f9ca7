"""Dismiss parked events that need no handler; other events are not dismissed, and deliveries stay."""

from __future__ import annotations

import pytest

from flowhooks import State
from flowhooks.errors import Unavailable
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations import dismiss as module
from flowhooks.operations.context import OperationContext
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.parked import count_deliverable
from flowhooks.operations.reroute import reroute_parked
from support.silent_engine import with_silent_engine

ALL = EventFilter()


def states(flow):
    """The state of each event by its instance."""
    return {
        stored_event.event.flow_instance_id: stored_event.state
        for stored_event in flow.app.ledger.page(ALL, limit=1000)
    }


@pytest.fixture
def flow(harness, listens):
    """A ledger with a routed event and three parked events of two keys."""
    flow = harness.open(listens(lambda event: 1, name="h"))
    flow.take("routed")
    for instance, key in (("p1", "trip"), ("p2", "trip"), ("p3", "other")):
        assert flow.take(instance, key=key).status == "parked"
    return flow


def test_parked_events_that_match_the_filter_are_dismissed(flow, context_of, audit_entries):
    """Only matching events are dismissed, and stored with the operator and the reason."""
    done = dismiss(context_of(flow), EventFilter(process_key="trip"), note="a test of the engine")
    assert (done.events, done.dismissed, done.skipped, done.changed_meanwhile, done.next) == (2, 2, 0, 0, "")
    assert states(flow) == {"routed": "routed", "p1": "dismissed", "p2": "dismissed", "p3": "parked"}
    (entry,) = audit_entries(flow)
    assert (entry.actor, entry.action, entry.target) == ("ann", "dismiss", "")
    assert entry.detail == {"event_filter": {"process_key": "trip"}, "events": 2, "note": "a test of the engine"}


def test_the_audit_entry_of_one_dismissal_names_the_event(flow, context_of, audit_entries):
    """A dismissal of one event is recorded under it, so that its page shows the operator."""
    (event_id,) = flow.events(flow_instance_id="p1")
    dismiss(context_of(flow), EventFilter(ids=(event_id,)), note="not ours")
    (entry,) = audit_entries(flow, target=event_id)
    assert entry.detail["note"] == "not ours"


def test_events_that_are_not_parked_are_skipped(flow, context_of, audit_entries):
    """An event with deliveries cannot be dismissed; without a change there is no audit entry."""
    done = dismiss(context_of(flow), EventFilter(ids=tuple(flow.events(flow_instance_id="routed"))))
    assert (done.events, done.dismissed, done.skipped) == (1, 0, 1)
    dismiss(context_of(flow), EventFilter(state="succeeded"))
    assert states(flow)["routed"] == "routed"
    assert audit_entries(flow) == []


def test_dismissal_without_ids_uses_the_index_of_parked_events(flow):
    """Without ids or a state the operation uses the index of parked events."""
    done = dismiss(flow.app.operation_context, ALL)
    assert (done.events, done.dismissed, done.skipped) == (3, 3, 0)
    assert dismiss(flow.app.operation_context, ALL).events == 0


def test_a_dry_run_counts_and_changes_nothing(flow, context_of, audit_entries):
    """A dry run returns the count of events that would be dismissed."""
    done = dismiss(context_of(flow), ALL, dry_run=True)
    assert (done.dismissed, done.dry_run) == (3, True)
    assert list(states(flow).values()).count("parked") == 3
    assert audit_entries(flow) == []


def test_a_repeat_of_a_dismissed_event_is_answered_done(flow):
    """A repeated callback of a dismissed event is answered done, and no reroute of parked events includes it."""
    dismiss(flow.app.operation_context, EventFilter(flow_instance_id="p1"))
    assert flow.take("p1", key="trip").status == "done"
    assert count_deliverable(flow.app.operation_context) == 0
    reroute_parked(flow.app.operation_context)
    assert states(flow)["p1"] == "dismissed"


def test_deliveries_of_a_dismissed_event_stay(harness, listens):
    """Deliveries to handlers of every event stay."""
    flow = harness.open(listens(lambda event: 1, name="every", every=True))
    event_id = flow.take("i1", key="trip").event_id
    assert dismiss(flow.app.operation_context, ALL).dismissed == 1
    assert flow.only(event_id).state is State.SUCCEEDED
    assert flow.app.ledger.event(event_id).route == {"p:every": "every"}


def test_each_call_handles_one_page(flow, monkeypatch):
    """Each call handles a limited number of events, and returns where to continue."""
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    first = dismiss(flow.app.operation_context, ALL)
    rest = dismiss(flow.app.operation_context, ALL, after=first.next)
    assert [(result.events, result.dismissed, bool(result.next)) for result in (first, rest)] == [
        (2, 2, True),
        (1, 1, False),
    ]


def test_dismissal_during_a_drain(harness, listens, together):
    """An event that now matches a handler is either delivered or dismissed, and the counts say which."""
    flow = harness.open()
    for number in range(20):
        flow.take(f"i{number}")
    flow.close()
    flow = harness.open(listens(lambda event: 1, name="h"), start=False)
    rerouted, dismissed = together(
        lambda: reroute_parked(flow.app.operation_context), lambda: dismiss(flow.app.operation_context, ALL)
    )
    assert rerouted.delivered + dismissed.dismissed == 20
    assert list(states(flow).values()).count("dismissed") == dismissed.dismissed
    assert flow.sql("SELECT count(*) FROM deliveries") == [(rerouted.delivered,)]


def test_an_event_replaced_by_a_late_callback_stays_parked(harness, monkeypatch):
    """A late callback replaces the body between the reading and the writing: its event stays parked."""
    flow = harness.open(**with_silent_engine())
    flow.take_in("late", key="trip")
    context = flow.app.operation_context
    change = OperationContext.change

    def change_later(*given):
        flow.take("late", key="trip", source="oa", amount=1)
        return change(*given)

    with monkeypatch.context() as patch:
        patch.setattr(OperationContext, "change", change_later)
        assert dismiss(context, ALL).changed_meanwhile == 1
    assert states(flow)["late"] == "parked"
    assert dismiss(context, ALL).dismissed == 1


def test_a_failed_dismissal_changes_nothing(flow, context_of, audit_entries, monkeypatch):
    """While the database is locked the dismissal is refused, and can be repeated."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    with flow.locked(timeout=1), pytest.raises(Unavailable):
        dismiss(context_of(flow), ALL)
    assert list(states(flow).values()).count("parked") == 3
    assert audit_entries(flow) == []
    assert dismiss(context_of(flow), ALL).dismissed == 3
