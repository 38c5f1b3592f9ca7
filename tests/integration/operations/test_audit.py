"""Actions of operators are recorded in the same transaction; automatic actions of flowhooks are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks.errors import InvalidTransition
from flowhooks.ledger import audit
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.context import Actor, AuditRecord
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.resolve import Resolution, resolve
from flowhooks.operations.retire import retire

ANN = Actor("ann", "console")


def fails(event, delivery):
    """Fail."""
    raise ValueError("broken")


def entries(flow, **narrowing):
    """All entries of the audit log, newest first."""
    with flow.app.ledger.connection() as connection:
        return audit.entries(connection, limit=100, **narrowing)


@pytest.fixture
def flow(harness, listens):
    """A ledger with a dead delivery and a parked event."""
    flow = harness.open(listens(fails, name="h"))
    flow.dead = flow.take().event_id
    flow.parked = park(flow, "parked")
    return flow


def park(flow, instance):
    """Park an event; return its id."""
    return flow.take(instance, key="nobody").event_id


def context_of(flow, actor=ANN):
    """The operation context of an operator."""
    return replace(flow.app.operation_context, by=actor)


def test_a_dismissal_is_recorded(flow):
    """The entry has operator, time, interface, filter, note and the number of events."""
    dismiss(context_of(flow), EventFilter(ids=(flow.parked,)), note="a test")
    (entry,) = entries(flow)
    assert (entry.actor, entry.interface, entry.action, entry.target) == ("ann", "console", "dismiss", flow.parked)
    assert entry.at == flow.clock.now()
    assert entry.detail == {"event_filter": {"ids": [flow.parked]}, "events": 1, "note": "a test"}


def test_a_dry_run_and_an_action_without_effect_are_not_recorded(flow):
    """Only an action that changed something is recorded."""
    dismiss(context_of(flow), EventFilter(), dry_run=True)
    dismiss(context_of(flow), EventFilter(flow_instance_id="no-such-flow"))
    assert entries(flow) == []


def dismiss_pages(flow, event_filter, *, actor=ANN, after="", pages=100):
    """Dismiss so many pages, as a command does; where the next one starts."""
    for _ in range(pages):
        after = dismiss(context_of(flow, actor), event_filter, after=after).next
        if not after:
            break
    return after


@pytest.mark.either
def test_the_pages_of_an_operation_share_an_audit_entry(flow, monkeypatch):
    """A dismissal of three events in two pages is one action: the entry has the sum, and no position at its end."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 2)
    park(flow, "2")
    park(flow, "3")
    assert dismiss_pages(flow, EventFilter(state="parked")) == ""
    (entry,) = entries(flow)
    assert (entry.target, entry.detail) == ("", {"event_filter": {"state": "parked"}, "events": 3, "note": ""})


@pytest.mark.either
def test_an_interrupted_operation_continues_its_audit_entry(flow, monkeypatch):
    """The entry says where it stopped; what another operator or another filter dismisses has an entry of its own."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 1)
    events = [flow.parked, *(park(flow, str(number)) for number in range(2, 5))]
    after = dismiss_pages(flow, EventFilter(state="parked"), pages=1)
    (entry,) = entries(flow)
    assert (after, entry.detail["after"], entry.detail["events"]) == (events[0], events[0], 1)
    dismiss_pages(flow, EventFilter(state="parked"), actor=Actor("bob", "console"), after=after, pages=1)
    dismiss_pages(flow, EventFilter(ids=(events[2],)), after=events[1])
    dismiss_pages(flow, EventFilter(state="parked"), after=after)
    found = {(entry.actor, *entry.detail["event_filter"]): entry.detail["events"] for entry in entries(flow)}
    assert found == {("ann", "state"): 2, ("bob", "state"): 1, ("ann", "ids"): 1}


@pytest.mark.either
def test_a_repeated_operation_has_its_own_audit_entry(flow, monkeypatch):
    """Two dismissals with the same filter are two actions, in whatever pages they are made."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 1)
    for number in range(2):
        park(flow, f"{number}")
        dismiss_pages(flow, EventFilter())
    assert [entry.detail["events"] for entry in entries(flow)] == [1, 2]


def test_an_action_without_an_operator_is_not_recorded(flow):
    """An action without an operator, such as rerouting parked events at the start, is not recorded."""
    dismiss(flow.app.operation_context, EventFilter())
    assert entries(flow) == []


def test_a_resolution_and_a_retirement_are_recorded(flow):
    """A resolution is recorded under its event, a retirement under its handler, so that their pages find them."""
    (delivery_status,) = flow.app.ledger.delivery_statuses(flow.dead)
    resolve(context_of(flow), delivery_status.delivery_id, Resolution.CLOSE, note="by hand")
    retire(context_of(flow), [delivery_status.handler])
    (closed,) = entries(flow, target=flow.dead)
    assert closed.detail == {
        "delivery": delivery_status.delivery_id,
        "handler": delivery_status.handler,
        "verdict": "close",
        "note": "by hand",
    }
    (retired,) = entries(flow, target=delivery_status.handler)
    assert (retired.action, retired.detail) == ("retire", {"handlers": [delivery_status.handler]})
    assert [entry.id for entry in entries(flow)] == [retired.id, closed.id]
    assert entries(flow, before=retired.id) == [closed]


def test_a_rollback_leaves_no_audit_entry(flow):
    """An action and its entry are one transaction: if the change fails, there is no entry."""

    def breaks(transaction):
        raise InvalidTransition("no")

    with pytest.raises(InvalidTransition):
        context_of(flow).change(breaks, lambda _done: AuditRecord("resolve", "", {}))
    assert entries(flow) == []
