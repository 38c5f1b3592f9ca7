"""Each attempt stores which plugin ran, why it started, and who asked for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks import OutcomeKind, Retry, State
from flowhooks.clock import SECOND
from flowhooks.model.delivery import Trigger
from flowhooks.model.plugin_version import PluginVersion
from flowhooks.operations.context import Actor
from flowhooks.operations.resolve import Resolution, resolve
from support.run_bulk import replay

ANN = Actor("ann", "cli")
V1, V2 = PluginVersion("1.4", "a" * 64), PluginVersion("2.0", "b" * 64)


def nothing(event):
    """Do nothing."""


def attempts(flow, event_id):
    """The attempts of the only delivery of an event."""
    return flow.app.ledger.attempts(flow.only(event_id).delivery_id)


def triggers(flow, event_id):
    """Why each attempt of an event started, and who asked for it."""
    return [(attempt.trigger.value, attempt.actor) for attempt in attempts(flow, event_id)]


def by_ann(flow):
    """The context of operations by the operator ann."""
    return replace(flow.app.operation_context, by=ANN)


class Handler:
    """A handler that fails until `works` is true."""

    def __init__(self):
        self.works = False

    def __call__(self, event):
        """Fail, or do nothing."""
        if not self.works:
            raise ValueError("away")


@pytest.fixture
def failing(harness, listens):
    """A flow whose handler fails twice per schedule, and the handler."""
    function = Handler()
    return harness.open(listens(function, name="h", retry=Retry(attempts=2, delays=[30], jitter=0))), function


@pytest.mark.runners
def test_triggers_of_first_attempt_retry_replay_and_repeated_callback(failing):
    """The first attempt, its retry, an operator's replay and a repeated callback are distinguished."""
    flow, function = failing
    event_id = flow.take(wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.advance(31)
    flow.settled(event_id, State.DEAD, attempt=2)
    assert replay(by_ann(flow)).released == 1
    flow.settled(event_id, State.WAITING, attempt=3)
    flow.advance(31)
    flow.settled(event_id, State.DEAD, attempt=4)
    function.works = True
    flow.advance(60)
    flow.take(wait=0)
    flow.settled(event_id, State.SUCCEEDED, attempt=5)
    expected = [("first", ""), ("retry", ""), ("replay", "ann"), ("retry", ""), ("repeated", "")]
    assert triggers(flow, event_id) == expected
    assert flow.sql("SELECT next_trigger, next_actor, operation_id FROM deliveries") == [(None, None, None)]


@pytest.mark.runners
def test_the_first_trigger_is_the_origin_of_the_event(harness, listens):
    """A delivery that waited for its first attempt has the trigger of its event's origin."""
    handler = listens(nothing, name="h")
    flow = harness.open(handler, start=False)
    of_callback, reconciled = flow.take("i1", wait=0).event_id, flow.take_in("i2").event_id
    assert flow.close()
    flow = harness.open(handler)
    for event_id, trigger in ((of_callback, "first"), (reconciled, "reconciled")):
        flow.settled(event_id, State.SUCCEEDED)
        assert triggers(flow, event_id) == [(trigger, "")]
    at_once = flow.take_in("i3").event_id
    flow.settled(at_once, State.SUCCEEDED)
    assert triggers(flow, at_once) == [("reconciled", "")]


def test_triggers_of_deliveries_resolved_by_operator_or_probe(harness, listens):
    """A delivery that did not do its work runs again as resolved, with the operator's name, or as probed."""
    handler = listens(nothing, name="h")
    flow = harness.open(handler, start=False)
    event_id = flow.take(wait=0).event_id
    (queued,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 1)
    flow.app.ledger.claim(queued)
    harness.crash(flow)
    flow = harness.open(handler)
    (lost,) = attempts(flow, event_id)
    assert (lost.outcome, lost.trigger) == ("lost", "first")
    assert len(lost.plugin_digest) == 64
    resolve(by_ann(flow), queued.delivery_id, Resolution.DID_NOT)
    flow.settled(event_id, State.SUCCEEDED)
    assert triggers(flow, event_id) == [("first", ""), ("resolved", "ann")]


def test_the_trigger_after_a_negative_probe(harness, listens):
    """The attempt after a probe's answer has the trigger `probe`."""
    handler = listens(nothing, name="h", probe=lambda _event, _delivery: False)
    flow = harness.open(handler, start=False)
    event_id = flow.take(wait=0).event_id
    (queued,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 1)
    flow.app.ledger.claim(queued)
    harness.crash(flow)
    flow = harness.open(handler)
    flow.settled(event_id, State.SUCCEEDED, attempt=2)
    assert triggers(flow, event_id) == [("first", ""), ("probe", "")]


def test_the_trigger_of_a_trial_of_an_open_circuit(harness, listens, eventually):
    """The attempt that tests a handler whose circuit is open has the trigger `trial`."""
    function = Handler()
    handler = listens(function, name="h", retry=Retry(attempts=5, delays=[30], jitter=0))
    flow = harness.open(handler, circuit_breaker={"failures": 1, "retry_interval": 60.0})
    event_id = flow.take(wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    eventually(lambda: flow.app.ledger.pauses.handlers)
    function.works = True
    flow.advance(61)
    flow.settled(event_id, State.SUCCEEDED)
    assert triggers(flow, event_id) == [("first", ""), ("trial", "")]


@pytest.mark.runners
def test_each_attempt_stores_the_loaded_plugin_version(harness, listens, monkeypatch):
    """Each attempt has the version that was loaded when it started, also after another one was installed."""
    function = Handler()
    handler = listens(function, name="h", retry=Retry(attempts=1))
    event_id = ""
    for version in (V1, V2):
        monkeypatch.setattr(
            "flowhooks.operations.registration.plugin_versions",
            lambda handlers, _version, version=version: dict.fromkeys(handlers, version),
        )
        flow = harness.open(handler)
        if event_id:
            replay(by_ann(flow))
        event_id = event_id or flow.take(wait=0).event_id
        flow.settled(event_id, State.DEAD, attempt=1 if version == V1 else 2)
        assert flow.close()
    flow = harness.open(handler)
    assert [PluginVersion(attempt.plugin_version, attempt.plugin_digest) for attempt in attempts(flow, event_id)] == [
        V1,
        V2,
    ]


def test_the_operation_is_stored_with_the_attempt(ledger_steps):
    """The operation that made a delivery run again is stored with the attempt, and cleared by its result."""
    operation = ledger_steps.clock.new_id()
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    ledger_steps.bring(queued, State.DEAD)
    ledger_steps.ledger.write(
        lambda transaction: ledger_steps.ledger.requeue(
            transaction,
            [ledger_steps.delivery_status(queued.delivery_id)],
            trigger=Trigger.REPLAY,
            actor="ann",
            operation_id=operation,
            reset_retries=True,
        )
    )
    stored = "SELECT next_trigger, next_actor, operation_id FROM deliveries"
    assert ledger_steps.sql(stored) == [("replay", "ann", operation)]
    ledger_steps.ledger.claim(ledger_steps.queued(queued.delivery_id))
    ledger_steps.settle(queued, 2, OutcomeKind.FAILED, State.WAITING, ledger_steps.clock.now() + SECOND)
    assert ledger_steps.sql(stored) == [(None, None, None)]
    second = ledger_steps.ledger.attempts(queued.delivery_id)[1]
    assert (second.trigger, second.actor, second.operation_id) == (Trigger.REPLAY, "ann", operation)


def test_the_trigger_is_cleared_when_the_delivery_is_closed_first(ledger_steps):
    """A replayed delivery that is closed before it runs keeps no trigger for a later attempt."""
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    ledger_steps.bring(queued, State.DEAD)
    ledger_steps.ledger.write(
        lambda transaction: ledger_steps.ledger.requeue(
            transaction,
            [ledger_steps.delivery_status(queued.delivery_id)],
            trigger=Trigger.REPLAY,
            actor="ann",
            reset_retries=True,
        )
    )
    resolve(ledger_steps.flow.app.operation_context, queued.delivery_id, Resolution.CLOSE)
    assert ledger_steps.sql("SELECT next_trigger, next_actor FROM deliveries") == [(None, None)]
    assert len(ledger_steps.ledger.attempts(queued.delivery_id)) == 1
