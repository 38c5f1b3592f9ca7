"""Circuit breaker: a handler whose last attempts failed is paused, tested periodically, and runs again."""

from __future__ import annotations

import threading

import pytest

from flowhooks import Reject, Retry, RetryAfter, State
from flowhooks.errors import Unavailable
from flowhooks.ledger import circuit_state
from flowhooks.ledger.circuit_state import TrialDelivery
from flowhooks.model.plugin_version import PluginVersion
from flowhooks.operations.pause import pause, resume
from flowhooks.settings import HandlerSettings

pytestmark = pytest.mark.runners


class Works:
    """A handler that raises its `error`, or succeeds without one, once its gate is open."""

    def __init__(self, *, error=None):
        self.error = error
        self.entered = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, event):
        """Fail or succeed."""
        self.entered += 1
        assert self.gate.wait(60)
        if self.error:
            raise self.error


def circuits(flow):
    """The open circuits by the ids of their handlers."""
    with flow.app.ledger.connection() as connection:
        return circuit_state.open_circuits(connection)


def breaker(**given):
    """Settings of the circuit breaker: it opens after three failures, and runs a trial each minute."""
    return {"failures": 3, "retry_interval": 60.0, **given}


@pytest.fixture
def broken(harness, listens, eventually):
    """A handler whose circuit is open after three failures, and its waiting deliveries."""
    works = Works(error=ValueError("the archive is away"))
    flow = harness.open(
        listens(works, name="h", retry=Retry(attempts=5, delays=[30], jitter=0)), circuit_breaker=breaker()
    )
    for number in range(3):
        flow.settled(flow.take(str(number), wait=0).event_id, State.WAITING, attempt=1)
    eventually(lambda: circuits(flow))
    return flow, works


def test_the_circuit_opens_after_failures(broken, logged):
    """Later deliveries wait without an attempt; callbacks are answered at once with the reason."""
    flow, works = broken
    answer = flow.take("later", wait=600)
    assert answer.status == "pending"
    assert flow.only(answer.event_id).attempt == 0
    assert works.entered == 3
    circuit = circuits(flow)["p:h"]
    assert "the archive is away" in circuit.reason
    assert circuit.retry_at == circuit.opened_at + 60_000_000
    flow.advance(40)  # the retries are due, and do not start
    flow.app.runner.wake()
    assert flow.take("again", wait=600).status == "pending"
    assert works.entered == 3


def test_a_successful_trial_releases_all_deliveries(broken, eventually):
    """The trial runs a delivery with the fewest attempts; its success releases all others."""
    flow, works = broken
    later = flow.take("later", wait=0).event_id
    works.error = None
    flow.advance(61)
    flow.settled(later, State.SUCCEEDED, attempt=1)
    eventually(lambda: not circuits(flow))
    for event_id in flow.events():
        flow.settled(event_id, State.SUCCEEDED)


def test_a_failed_trial_leaves_the_circuit_open(broken, eventually):
    """Each interval has one attempt; retries of other deliveries are not used up."""
    flow, works = broken
    for trial in range(1, 4):
        flow.advance(61)
        eventually(lambda trial=trial: works.entered == 3 + trial)
        eventually(
            lambda: (
                not any(
                    delivery_status.state is State.RUNNING
                    for id_ in flow.events()
                    for delivery_status in flow.delivery_statuses(id_)
                )
            )
        )
        assert circuits(flow)
    attempts = sorted(flow.only(event_id).attempt for event_id in flow.events())
    assert attempts == [2, 2, 2]  # deliveries with the fewest attempts first, so that no delivery uses up its attempts


def test_no_second_trial_starts_while_a_trial_runs(broken, eventually):
    """The next trial starts after the end of the current one, however long that runs."""
    flow, works = broken
    works.gate.clear()
    flow.advance(61)
    eventually(lambda: works.entered == 4)
    flow.advance(600)
    assert flow.app.ledger.claim_trial_delivery(TrialDelivery("p:h", flow.clock.now())) is None
    assert works.entered == 4
    works.gate.set()
    eventually(lambda: works.entered == 5)


def test_shutdown_waits_for_a_trial_if_another_could_not_start(harness, listens, eventually, monkeypatch):
    """Shutdown waits for all trials, also if the database failed between two of them."""
    works = Works(error=ValueError("away"))
    two = [listens(works, name=name, process_key=name, retry=Retry(attempts=5)) for name in ("a", "b")]
    flow = harness.open(*two, circuit_breaker=breaker(failures=1))
    for name in ("a", "b"):
        flow.take(name, key=name, wait=0)
    eventually(lambda: len(circuits(flow)) == 2)
    works.gate.clear()
    begin = flow.app.ledger.claim_trial_delivery

    def try_out(trial):
        if trial.handler == "p:b":
            raise Unavailable("ledger_down")
        return begin(trial)

    monkeypatch.setattr(flow.app.ledger, "claim_trial_delivery", try_out)
    flow.advance(61)
    for name in ("a", "b"):
        flow.take(f"{name}2", key=name, wait=0)
    eventually(lambda: works.entered == 3)
    assert not flow.app.close(timeout=1.0)
    works.gate.set()


def test_a_damaged_event_does_not_stop_trials(harness, listens, eventually, logged, monkeypatch):
    """The trial of its handler runs another delivery, and those of other handlers run; so they do after a defect."""
    entered = []

    def fails(event):
        entered.append(event.flow_instance_id)
        raise ValueError("away")

    names = ("a", "b", "c")
    handlers = [listens(fails, name=name, process_key=name, retry=Retry(attempts=5)) for name in names]
    flow = harness.open(*handlers, circuit_breaker=breaker(failures=1))
    for name in names:
        flow.take(f"{name}1", key=name, wait=0)
    eventually(lambda: len(circuits(flow)) == 3)
    damaged, undecodable = [flow.take(instance, key="a", wait=0).event_id for instance in ("a2", "a3")]
    for instance in ("a4", "b2", "c2"):
        flow.take(instance, key=instance[0], wait=0)
    ((body,),) = flow.sql("SELECT body FROM events WHERE id = ?", damaged)
    flow.sql("UPDATE events SET body = 'x' WHERE id IN (?, ?)", damaged, undecodable)
    if not flow.url:
        flow.sql("UPDATE events SET body = CAST(X'80' AS TEXT) WHERE id = ?", undecodable)
    start_trial = flow.app.ledger.claim_trial_delivery

    def broken(trial):
        if trial.handler == "p:b":
            raise KeyError("defect")
        return start_trial(trial)

    monkeypatch.setattr(flow.app.ledger, "claim_trial_delivery", broken)
    flow.advance(61)
    eventually(lambda: {"a4", "c2"} <= set(entered))
    records = [entry for entry in logged if entry["event"] == "delivery_damaged"]
    waiting = [flow.only(event_id).delivery_id for event_id in (damaged, undecodable)]
    assert [record["delivery"] for record in records] == waiting
    assert {record["handler"] for record in records} == {"p:a"}
    (record,) = [entry for entry in logged if entry["event"] == "circuit_breaker_error"]
    assert record["handler"] == "p:b"
    flow.sql("UPDATE events SET body = ? WHERE id = ?", body, damaged)
    flow.advance(61)
    eventually(lambda: "a2" in entered)


def test_a_trial_runs_if_its_thread_cannot_be_started(broken, eventually, monkeypatch):
    """A started trial always runs, because no other trial runs while it is marked as running."""
    flow, works = broken
    works.error = None
    start = threading.Thread.start

    def starts(thread):
        if thread.name.startswith("trial-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    flow.advance(61)
    eventually(lambda: works.entered > 3 and not circuits(flow))
    for event_id in flow.events():
        flow.settled(event_id, State.SUCCEEDED)


def test_resume_by_an_operator_closes_the_circuit(broken):
    """`resume` closes the circuit as it ends a pause."""
    flow, works = broken
    works.error = None
    flow.advance(31)
    assert resume(flow.app.operation_context, ["p:h"]).handlers == ("p:h",)
    assert circuits(flow) == {}
    for event_id in flow.events():
        flow.settled(event_id, State.SUCCEEDED)


def test_no_trial_runs_while_an_operator_pauses_the_handler(broken):
    """An operator's pause of a handler whose circuit is open takes precedence: no trial runs."""
    flow, works = broken
    assert pause(flow.app.operation_context, ["p:h"]).handlers == ("p:h",)
    assert circuits(flow) == {}
    flow.advance(3600)
    assert flow.app.ledger.claim_trial_delivery(TrialDelivery("p:h", flow.clock.now())) is None
    assert works.entered == 3


def test_another_release_closes_the_circuit(harness, listens, broken, monkeypatch, eventually):
    """A start with the same release keeps the circuit open; another release closes it."""
    flow, _ = broken
    assert flow.close()
    works = Works()
    handler = listens(works, name="h", retry=Retry(attempts=5, delays=[30], jitter=0))
    flow = harness.open(handler, circuit_breaker=breaker())
    assert circuits(flow)
    assert flow.close()
    monkeypatch.setattr(
        "flowhooks.operations.registration.plugin_versions",
        lambda handlers, _version: dict.fromkeys(handlers, PluginVersion("2.0", "")),
    )
    flow = harness.open(handler, circuit_breaker=breaker())
    assert circuits(flow) == {}
    flow.advance(31)
    for event_id in flow.events():
        flow.settled(event_id, State.SUCCEEDED)


@pytest.mark.parametrize("error", [Reject("not mine"), RetryAfter(5)])
def test_reject_and_retry_after_do_not_count_as_failures(harness, listens, error):
    """A handler that rejects, or asks for a later retry, counts as working."""
    flow = harness.open(listens(Works(error=error), name="h"), circuit_breaker=breaker())
    for number in range(6):
        flow.settled(flow.take(str(number), wait=0).event_id, *_left(error))
    assert circuits(flow) == {}


def _left(error):
    return (State.DEAD,) if isinstance(error, Reject) else (State.WAITING,)


def test_a_success_resets_the_failure_count(harness, listens):
    """A success resets the count of failures."""
    works = Works(error=ValueError("sometimes"))
    flow = harness.open(listens(works, name="h"), circuit_breaker=breaker())
    for number in range(8):
        works.error = None if number % 3 == 2 else ValueError("sometimes")
        flow.settled(flow.take(str(number), wait=0).event_id, State.DEAD if works.error else State.SUCCEEDED)
    assert circuits(flow) == {}


@pytest.mark.parametrize(
    "given",
    [
        {"circuit_breaker": {"failures": 0}},
        {"handlers": {"p:h": HandlerSettings(circuit_breaker_failures=0)}, "circuit_breaker": breaker()},
    ],
)
def test_the_circuit_never_opens_with_a_threshold_of_zero(harness, listens, given):
    """With 0 the circuit never opens, for all handlers or for one."""
    flow = harness.open(listens(Works(error=ValueError("always")), name="h"), **given)
    for number in range(12):
        flow.settled(flow.take(str(number), wait=0).event_id, State.DEAD)
    assert circuits(flow) == {}
