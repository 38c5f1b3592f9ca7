"""Deliveries of a missing handler wait without cost, and run when it is loaded again."""

from __future__ import annotations

import json

import pytest

from flowhooks import Retry, State
from flowhooks.clock import SECOND
from flowhooks.ledger.handlers import retry_from_json

LATER = 10**9 * SECOND


def nothing(event):
    """Do nothing."""


def did(event, delivery):
    """Answer that the work was done."""
    return True


def due(flow):
    """All deliveries that a runner can find."""
    return flow.app.ledger.due_deliveries(flow.clock.now() + LATER, lambda _handler: 100)


def lost(harness, listener):
    """The event of a delivery whose process was killed while it ran."""
    flow = harness.open(listener, start=False)
    answer = flow.take(wait=0)
    (queued,) = due(flow)
    assert flow.app.ledger.claim(queued)
    harness.crash(flow)
    return answer.event_id


@pytest.mark.sqlite
def test_selectors_of_loaded_handlers_are_stored(harness, listens):
    """The ledger stores each handler's selectors when it was last loaded, and the time."""
    harness.open(listens(nothing, versions=">=3", source="a", retry=Retry(), probe=did), start=False).close()
    harness.clock.advance(60)
    flow = harness.open(start=False)
    (known,) = flow.app.ledger.registered_handlers()
    assert (known.id, known.last_seen_at) == ("p:nothing", harness.clock.now() - 60 * SECOND)
    assert known.selectors == listens(nothing, versions=">=3", source="a").selectors
    assert flow.app.operation_context.missing_handlers == {"p:nothing"}


@pytest.mark.sqlite
@pytest.mark.parametrize("retry", [Retry(), Retry(attempts=3, delays=(1, 2.5), jitter=0), Retry(attempts=1)])
def test_a_stored_retry_equals_its_declaration(harness, listens, retry):
    """The stored `retry=` has its number of attempts, declared or derived from delays."""
    flow = harness.open(listens(nothing, retry=retry), start=False)
    ((text,),) = flow.sql("SELECT retry FROM handlers")
    assert retry_from_json(text) == retry
    assert json.loads(text)["attempts"] == retry.attempts


def test_a_retry_stored_by_an_earlier_build_is_readable():
    """The JSON in existing ledgers stays readable."""
    text = '{"attempts": 8, "delays": [5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0], "jitter": 0.1}'
    assert retry_from_json(text) == Retry()
    assert retry_from_json('{"attempts": 2, "delays": [10.0], "jitter": 0}') == Retry(delays=(10,), jitter=0)


def test_a_reloaded_handler_has_its_new_selectors(harness, listens):
    """New selectors of a handler replace its old ones."""
    harness.open(listens(nothing), start=False).close()
    harness.open(listens(nothing, process_key="other"), start=False).close()
    flow = harness.open(start=False)
    assert [handler.selectors.process_keys for handler in flow.app.ledger.registered_handlers()] == [("other",)]


@pytest.mark.sqlite
def test_a_stored_condition_that_is_now_rejected_is_undecided(harness, listens):
    """A slow regular expression that an earlier version accepted parks the events of its handler, and stops no other.

    The other events of the ledger must not wait for the operator who corrects that plugin.
    """
    flow = harness.open(listens(nothing, when={"/host": {"pattern": "^a+$"}}))
    ((selectors,),) = flow.sql("SELECT selectors FROM handlers")
    flow.sql("UPDATE handlers SET selectors = ?", selectors.replace("^a+$", "^(a+)+$"))
    flow.close()
    flow = harness.open()
    assert flow.take("other", key="other").status == "parked"
    answer = flow.take("i", host="a" * 40 + "!")
    assert (answer.status, answer.parked_by, answer.undecided) == ("parked", "condition", "/host")
    (handler,) = flow.app.ledger.registered_handlers()
    assert not handler.damage


@pytest.mark.sqlite
def test_deliveries_of_a_missing_handler_are_due_after_its_reload(harness, listens):
    """After a start without the handler its deliveries are not due; with the handler they are due at once."""
    first = harness.open(listens(nothing), start=False)
    event_id = first.take(wait=0).event_id
    first.close()
    second = harness.open(start=False)
    assert second.only(event_id).due_at is None
    assert due(second) == []
    assert second.app.ledger.count_by_state()["handler_missing"] == 1
    second.close()
    harness.clock.advance(100)
    third = harness.open(listens(nothing), start=False)
    assert third.only(event_id).due_at == harness.clock.now()
    assert third.app.ledger.count_by_state()["handler_missing"] == 0
    assert [delivery.handler for delivery in due(third)] == ["p:nothing"]


def test_a_restart_does_not_change_the_due_time_of_a_retry(harness, listens):
    """A restart does not change the due time of a retry."""
    listener = listens(nothing, retry=Retry())
    event_id = lost(harness, listener)
    second = harness.open(listener, start=False)
    when = second.only(event_id).due_at
    second.close()
    third = harness.open(listener, start=False)
    assert third.only(event_id).due_at == when == harness.clock.now() + 5 * SECOND


@pytest.mark.sqlite
@pytest.mark.parametrize("declared", [{"retry": Retry()}, {"probe": did}], ids=["retry", "probe"])
def test_a_lost_delivery_of_a_missing_handler_waits_for_the_handler(harness, listens, declared):
    """A lost delivery of a missing handler is not due until the handler is loaded again."""
    event_id = lost(harness, listens(nothing, **declared))
    second = harness.open(start=False)
    assert second.only(event_id).state is (State.WAITING if "retry" in declared else State.UNKNOWN)
    assert due(second) == []
    second.close()
    third = harness.open(listens(nothing, **declared), start=False)
    assert [delivery.probe for delivery in due(third)] == ["probe" in declared]


# On a shared ledger another process may have a handler that is missing here.
@pytest.mark.parametrize("there", [True, pytest.param(False, marks=pytest.mark.sqlite)], ids=["no probe", "missing"])
def test_an_unknown_delivery_without_a_probe_is_not_polled(harness, listens, there):
    """An *unknown* delivery without a probe or handler is not polled."""
    event_id = lost(harness, listens(nothing, probe=did))
    second = harness.open(listens(nothing, probe=did), start=False)
    assert [delivery.probe for delivery in due(second)] == [True]
    second.close()
    third = harness.open(*[listens(nothing)] * there, start=False)
    assert third.only(event_id).state is State.UNKNOWN
    assert due(third) == []


def test_a_newly_added_probe_checks_unknown_deliveries(harness, listens):
    """A start with a newly added probe checks *unknown* deliveries."""
    event_id = lost(harness, listens(nothing))
    second = harness.open(listens(nothing), start=False)
    assert (second.only(event_id).state, due(second)) == (State.UNKNOWN, [])
    second.close()
    third = harness.open(listens(nothing, probe=did))
    assert third.settled(event_id, State.SUCCEEDED).comment == "its probe says that its work was done"
