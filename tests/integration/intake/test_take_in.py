"""Finished instances of an engine's history become events, each instance once, whether or not the engine calls."""

from __future__ import annotations

import pytest

from flowhooks import State
from flowhooks.clock import SECOND
from support.silent_engine import asked

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

    return harness.open(**asked(listens(by_key, name="by_key")))


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


def test_an_instance_is_taken_in_once(flow, runs):
    """The second time its event is found."""
    first = flow.take_in()
    flow.settled(first.event_id, State.SUCCEEDED)
    again = flow.take_in(amount=2)
    assert (again.event_id, again.disposition, again.new) == (first.event_id, "has_event", False)
    assert len(runs) == 1
    assert stored(flow)[0].repeats == 0
    assert flow.app.ledger.conflicts(first.event_id) == []


@pytest.mark.parametrize("body", [{}, {"callback_class": "com.example.C"}, {"kind": "cancel"}])
def test_an_instance_that_the_engine_has_called_for_is_not_taken_in(flow, body):
    """Its event is found, whatever class or kind the callback has."""
    answer = flow.take(source="oa", **body)
    taken_in = flow.take_in(started_at=flow.clock.now() - SECOND)
    assert (taken_in.event_id, taken_in.disposition, taken_in.new) == (answer.event_id, "has_event", False)
    assert len(stored(flow)) == 1
