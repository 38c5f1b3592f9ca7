"""Reroute: events get the deliveries of a new look-up once; existing deliveries stay and do not run again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks import State
from flowhooks.errors import Unavailable
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations import reroute as module
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.reroute import reroute
from flowhooks.routing.router import Router

ALL = EventFilter()

pytestmark = pytest.mark.runners


def counts(done):
    """The counts of a reroute's result."""
    return {
        name: getattr(done, name)
        for name in ("events", "delivered", "deliveries", "parked", "dismissed", "skipped", "changed_meanwhile")
        if getattr(done, name)
    }


@pytest.fixture
def runs():
    """(handler, instance) of each run of a handler."""
    return []


@pytest.fixture
def noted(listens, runs):
    """A function that makes a handler that records its runs."""

    def make(name, error=None, **given):
        def function(event):
            runs.append((name, event.flow_instance_id))
            if error:
                raise error

        return listens(function, name=name, **given)

    return make


def test_a_plugin_installed_later_gets_earlier_events(harness, noted, runs):
    """A routed event gets a delivery for a new handler; its other deliveries, also dead ones, stay."""
    first, dead = noted("first"), noted("dead", ValueError("no"))
    flow = harness.open(first, dead)
    event_id = flow.take("i1").event_id
    before = flow.delivery_statuses(event_id)
    flow.close()
    flow = harness.open(first, dead, noted("late"))
    assert counts(reroute(flow.app.operation_context, ALL)) == {"events": 1, "delivered": 1, "deliveries": 1}
    flow.settled(event_id, State.SUCCEEDED, attempt=1)
    late = next(
        delivery_status for delivery_status in flow.delivery_statuses(event_id) if delivery_status.handler == "p:late"
    )
    assert [
        delivery_status
        for delivery_status in flow.delivery_statuses(event_id)
        if delivery_status is not late and delivery_status.handler != "p:late"
    ] == list(before)
    assert flow.app.ledger.event(event_id).route == {
        "p:first": "key leave",
        "p:dead": "key leave",
        "p:late": "key leave",
    }
    assert counts(reroute(flow.app.operation_context, ALL)) == {"events": 1, "skipped": 1}
    flow.take("i1")
    assert sorted(runs) == [("dead", "i1"), ("first", "i1"), ("late", "i1")]


def test_no_delivery_is_removed(harness, noted, runs):
    """A delivery of a handler that no longer matches stays."""
    flow = harness.open(noted("h"))
    event_id = flow.take("i1").event_id
    flow.close()
    flow = harness.open(noted("h", process_key="other"))
    assert counts(reroute(flow.app.operation_context, ALL)) == {"events": 1, "skipped": 1}
    stored = flow.app.ledger.event(event_id)
    assert (stored.state, stored.route) == ("routed", {"p:h": "key leave"})
    assert runs == [("h", "i1")]


def test_parked_events_get_their_deliveries(harness, noted, runs, eventually):
    """Parked events get deliveries as from `reroute_parked`; an event that matches no handler stays parked."""
    flow = harness.open(start=False)
    wanted, other = flow.take("i1", wait=0).event_id, flow.take("i2", key="else", wait=0).event_id
    flow.close()
    flow = harness.open(noted("h"), start=False)
    assert counts(reroute(flow.app.operation_context, ALL)) == {
        "events": 2,
        "delivered": 1,
        "deliveries": 1,
        "skipped": 1,
    }
    assert flow.only(wanted).state is State.WAITING
    flow.app.start()
    flow.settled(wanted, State.SUCCEEDED)
    assert flow.app.ledger.event(other).state == "parked"
    assert runs == [("h", "i1")]


def test_a_dismissal_is_undone(harness, noted):
    """A dismissed event becomes parked, or gets deliveries if it now matches a handler."""
    flow = harness.open()
    nobody, somebody = flow.take("i1", key="else").event_id, flow.take("i2").event_id
    dismiss(flow.app.operation_context, ALL)
    flow.close()
    flow = harness.open(noted("h"))
    assert flow.app.ledger.event(somebody).state == "dismissed"
    done = reroute(flow.app.operation_context, EventFilter(state="dismissed"))
    assert counts(done) == {"events": 2, "delivered": 1, "deliveries": 1, "parked": 1}
    assert flow.app.ledger.event(nobody).state == "parked"
    flow.settled(somebody, State.SUCCEEDED)
    assert flow.take("i1", key="else").status == "parked"


def test_handlers_of_every_event_do_not_unpark_events(harness, noted, runs, eventually):
    """A handler of every event gets earlier events once, and parked events stay parked."""
    flow = harness.open()
    event_id = flow.take("i1").event_id
    flow.close()
    flow = harness.open(noted("every", process_key=(), every=True))
    assert counts(reroute(flow.app.operation_context, ALL)) == {"events": 1, "delivered": 1, "deliveries": 1}
    flow.settled(event_id, State.SUCCEEDED)
    dismiss(flow.app.operation_context, ALL)
    assert counts(reroute(flow.app.operation_context, ALL)) == {"events": 1, "parked": 1}
    assert counts(reroute(flow.app.operation_context, ALL)) == {"events": 1, "skipped": 1}
    assert flow.app.ledger.event(event_id).state == "parked"
    assert runs == [("every", "i1")]
    flow.close()
    late = noted("late", process_key=(), every=True)
    flow = harness.open(late, routing={"ignore_process_keys": ("leave",)}, start=False)
    planned = {"events": 1, "delivered": 1, "deliveries": 1}
    assert counts(reroute(flow.app.operation_context, ALL, dry_run=True)) == planned  # it is dismissed as well
    dismiss(flow.app.operation_context, ALL)
    assert counts(reroute(flow.app.operation_context, ALL)) == planned
    assert flow.app.ledger.event(event_id).state == "dismissed"


def test_an_event_parked_for_another_reason_counts_as_skipped(harness, noted):
    """An event that stays parked because of a condition, and no longer for want of a handler, counts as skipped."""
    flow = harness.open()
    event_id = flow.take("i1").event_id
    flow.close()
    flow = harness.open(noted("h", when={"/amount": 1}), start=False)
    assert counts(reroute(flow.app.operation_context, ALL)) == {"events": 1, "skipped": 1}
    assert flow.app.ledger.event(event_id).parked_by == "condition"


def test_keys_that_need_no_handler(harness, noted):
    """An event of an ignored process key is dismissed, and stays so."""
    flow = harness.open()
    event_id = flow.take("i1").event_id
    flow.close()
    flow = harness.open(routing={"ignore_process_keys": ("leave",)}, start=False)
    assert counts(reroute(flow.app.operation_context, ALL)) == {"events": 1, "dismissed": 1}
    assert counts(reroute(flow.app.operation_context, ALL)) == {"events": 1, "skipped": 1}
    assert flow.app.ledger.event(event_id).state == "dismissed"


def test_a_filter_and_a_dry_run(harness, noted, context_of, audit_entries):
    """Only matching events are rerouted; a dry run only counts; the audit entry has operator and count."""
    flow = harness.open(start=False)
    ids = [flow.take(f"i{number}", wait=0).event_id for number in range(3)]
    flow.close()
    flow = harness.open(noted("h"), start=False)
    meant = EventFilter(ids=(ids[1],))
    done = reroute(context_of(flow), meant, dry_run=True)
    assert (done.delivered, done.deliveries, done.dry_run) == (1, 1, True)
    assert flow.app.ledger.event(ids[1]).state == "parked"
    assert audit_entries(flow) == []
    reroute(context_of(flow), meant)
    assert [flow.app.ledger.event(event_id).state for event_id in ids] == ["parked", "routed", "parked"]
    (entry,) = audit_entries(flow, target=ids[1])
    assert (entry.actor, entry.action) == ("ann", "reroute")
    assert entry.detail == {"event_filter": {"ids": [ids[1]]}, "events": 1, "deliveries": 1}


@pytest.mark.sqlite
def test_a_rerouted_delivery_waits_for_its_missing_handler(harness, noted):
    """A delivery for a registered but missing handler waits without a due time."""
    flow = harness.open(start=False)
    event_id = flow.take("i1", wait=0).event_id
    flow.close()
    harness.open(noted("h"), start=False).close()
    flow = harness.open(start=False)
    assert reroute(flow.app.operation_context, ALL).deliveries == 1
    assert flow.only(event_id).due_at is None


def test_ordered_deliveries_run_oldest_first(harness, noted, runs):
    """Of one key the older event's delivery runs first, and the next one after its end."""
    flow = harness.open(start=False)
    ids = [flow.take(f"i{number}", wait=0, businessKey="B").event_id for number in range(4)]
    flow.close()
    flow = harness.open(noted("h", order_by="business_key"), start=False)
    reroute(flow.app.operation_context, ALL)
    assert [flow.only(event_id).blocked_by for event_id in ids] == [None, ids[0], ids[0], ids[0]]
    flow.app.start()
    for event_id in ids:
        flow.settled(event_id, State.SUCCEEDED)
    assert runs == [("h", f"i{number}") for number in range(4)]


def test_concurrent_reroutes_deliver_once(harness, noted, together):
    """With concurrent reroutes and a dismissal, each delivery is created once."""
    flow = harness.open(start=False)
    for number in range(10):
        flow.take(f"i{number}", wait=0)
    flow.close()
    flow = harness.open(noted("h"), start=False)
    done = together(*[lambda: reroute(flow.app.operation_context, ALL)] * 4)
    assert sum(result.delivered for result in done) == sum(result.deliveries for result in done) == 10
    assert sum(result.events for result in done) == sum(
        result.delivered + result.skipped + result.changed_meanwhile for result in done
    )
    assert flow.sql("SELECT count(*) FROM deliveries") == [(10,)]


def test_concurrent_reroutes_with_different_handlers(harness, noted, together):
    """Two reroutes with different handlers, as on a shared ledger, keep each other's deliveries."""
    flow = harness.open(start=False)
    event_id = flow.take("i1", wait=0).event_id
    flow.close()
    a, b = noted("a"), noted("b")
    flow = harness.open(a, b, start=False)
    desks = [
        replace(
            flow.app.operation_context,
            router=Router([candidate for candidate in _candidates(flow) if candidate.handler_id == name]),
        )
        for name in ("p:a", "p:b")
    ]
    together(*[lambda desk=desk: reroute(desk, ALL) for desk in desks])
    for desk in desks:
        reroute(desk, ALL)
    assert set(flow.app.ledger.event(event_id).route) == {"p:a", "p:b"}
    assert sorted(delivery_status.handler for delivery_status in flow.delivery_statuses(event_id)) == ["p:a", "p:b"]


def _candidates(flow):
    from flowhooks.routing.index import Candidate

    return [
        Candidate(handler.id, handler.selectors, handler.order_by) for handler in flow.app.plugins.handlers.values()
    ]


def test_each_call_handles_one_page(harness, noted, monkeypatch):
    """Each call handles a limited number of events, and returns where to continue."""
    flow = harness.open(start=False)
    for number in range(5):
        flow.take(f"i{number}", wait=0)
    flow.close()
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    flow = harness.open(noted("h"), start=False)
    pages, after = [], ""
    while True:
        done = reroute(flow.app.operation_context, ALL, after=after)
        pages.append((done.events, done.deliveries))
        if not (after := done.next):
            break
    assert pages == [(2, 2), (2, 2), (1, 1)]


def test_a_failed_reroute_changes_nothing(harness, noted, context_of, audit_entries, monkeypatch):
    """While the database is locked the reroute is refused, and can be repeated."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    flow = harness.open(start=False)
    event_id = flow.take("i1", wait=0).event_id
    flow.close()
    flow = harness.open(noted("h"), start=False)
    with flow.locked(timeout=1), pytest.raises(Unavailable):
        reroute(context_of(flow), ALL)
    assert flow.app.ledger.event(event_id).state == "parked"
    assert audit_entries(flow) == []
    assert reroute(context_of(flow), ALL).delivered == 1
