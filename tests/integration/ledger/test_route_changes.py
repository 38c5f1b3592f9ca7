"""Parked events are grouped by what a router reads, and get deliveries once, if they are unchanged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks import State
from flowhooks.ledger.route_changes import ParkedGroup, RouteChange


def rerouted(ledger_steps, event_id, *handlers, state="routed", before=(), seen="parked"):
    """The event with new deliveries for these handlers."""
    return RouteChange(
        event_id=event_id,
        state=state,
        parked_by="handler" if state == "parked" else None,
        dismissed_by="operator" if state == "dismissed" else None,
        route=dict.fromkeys([*before, *handlers], "key k"),
        deliveries=tuple((ledger_steps.clock.new_id(), handler) for handler in handlers),
        expected_state=seen,
    )


def reroute(ledger_steps, items, *, absent=()):
    """Reroute in a new transaction; return the events that were unchanged."""
    return ledger_steps.ledger.write(
        lambda transaction: ledger_steps.ledger.reroute(transaction, items, missing_handlers=absent)
    )


def test_parked_events_are_grouped_by_the_properties_a_router_reads(ledger_steps):
    """Kind, source, class, key and version make a group; the largest comes first."""
    same = {"processDefinitionKey": "k", "processDefinitionVersion": 2}
    for number in range(3):
        ledger_steps.accept(f"i{number}", **same)
    ledger_steps.accept("i8", callBackProcessClass="C", **same)
    ledger_steps.accept("routed", "p:a", **same)
    ledger_steps.store(ledger_steps.new("i9", source="s2", kind="other"))
    assert ledger_steps.ledger.parked() == [
        ParkedGroup("complete", "default", "", "k", 2, None, 3),
        *sorted(
            [
                ParkedGroup("complete", "default", "C", "k", 2, None, 1),
                ParkedGroup("other", "s2", "", None, None, None, 1),
            ],
            key=ledger_steps.ledger.parked().index,
        ),
    ]


def test_a_parked_event_gets_its_deliveries(ledger_steps):
    """The event is routed with waiting deliveries; that of a missing handler has no due time."""
    event_id, _ = ledger_steps.accept("i1")
    item = rerouted(ledger_steps, event_id, "p:a", "q:away")
    assert reroute(ledger_steps, [item], absent={"q:away"}) == {event_id}
    stored = ledger_steps.ledger.event(event_id)
    assert (stored.state, stored.route) == ("routed", {"p:a": "key k", "q:away": "key k"})
    assert [
        (delivery_status.handler, delivery_status.state, delivery_status.due_at)
        for delivery_status in stored.delivery_statuses
    ] == [
        ("p:a", State.WAITING, ledger_steps.clock.now()),
        ("q:away", State.WAITING, None),
    ]
    assert ledger_steps.ledger.parked() == []


def test_an_event_is_rerouted_once(ledger_steps, together):
    """Of several concurrent reroutes of one event, one succeeds; the others find it no longer parked."""
    event_id, _ = ledger_steps.accept("i1")
    results = together(*[lambda: reroute(ledger_steps, [rerouted(ledger_steps, event_id, "p:a")])] * 6)
    assert sorted(map(len, results)) == [0, 0, 0, 0, 0, 1]
    assert len(ledger_steps.ledger.delivery_statuses(event_id)) == 1


def test_existing_deliveries_of_a_parked_event_stay_unchanged(ledger_steps):
    """The deliveries that a parked event had of `every` handlers stay as they are, and its route grows."""
    new = ledger_steps.new("i1", "p:every")
    ledger_steps.store(new)
    ledger_steps.sql("UPDATE events SET state = 'parked'")
    (before,) = ledger_steps.ledger.delivery_statuses(new.event.id)
    reroute(ledger_steps, [rerouted(ledger_steps, new.event.id, "p:a", before=["p:every"])])
    stored = ledger_steps.ledger.event(new.event.id)
    assert list(stored.route) == ["p:every", "p:a"]
    assert before in stored.delivery_statuses
    assert len(stored.delivery_statuses) == 2


def test_a_dismissed_event_is_not_parked(ledger_steps):
    """A dismissed event is neither parked nor routed."""
    event_id, _ = ledger_steps.accept("i1")
    assert reroute(ledger_steps, [rerouted(ledger_steps, event_id, state="dismissed")]) == {event_id}
    assert ledger_steps.ledger.event(event_id).state == "dismissed"


def test_an_event_changed_meanwhile_is_not_rerouted(ledger_steps):
    """If the state has changed or the route has grown, the event does not change and gets no delivery."""
    event_id, _ = ledger_steps.accept("i1", "p:a")
    stale = rerouted(ledger_steps, event_id, "p:b", before=["p:a"], seen="routed")
    assert reroute(ledger_steps, [rerouted(ledger_steps, event_id, "p:b", before=["p:a"], seen="dismissed")]) == set()
    assert reroute(ledger_steps, [rerouted(ledger_steps, event_id, "p:c", before=["p:a"], seen="routed")]) == {event_id}
    assert reroute(ledger_steps, [stale]) == set()
    stored = ledger_steps.ledger.event(event_id)
    assert (
        list(stored.route)
        == [delivery_status.handler for delivery_status in stored.delivery_statuses]
        == ["p:a", "p:c"]
    )


def test_a_failed_reroute_leaves_all_events_parked(ledger_steps):
    """If one of several events cannot get its deliveries, none is rerouted."""
    from flowhooks.errors import Unavailable

    first, _ = ledger_steps.accept("i1")
    second, _ = ledger_steps.accept("i2")
    good, bad = rerouted(ledger_steps, first, "p:a"), rerouted(ledger_steps, second, "p:a", "p:b")
    bad = replace(bad, deliveries=(bad.deliveries[0], (good.deliveries[0][0], "p:b")))
    with pytest.raises(Unavailable):
        reroute(ledger_steps, [good, bad])
    assert [ledger_steps.ledger.event(event_id).state for event_id in (first, second)] == ["parked", "parked"]
    assert ledger_steps.sql("SELECT count(*) FROM deliveries") == [(0,)]
