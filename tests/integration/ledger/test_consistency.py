"""The counts of the ledger balance after every operation, and every kind of tampering is reported."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import NullPool, create_engine

from flowhooks import OutcomeKind, State
from flowhooks.ledger.consistency import MAX_SHOWN, verify
from flowhooks.model.delivery import Trigger

ONE = "(SELECT id FROM deliveries WHERE handler = 'p:{}')"


@pytest.fixture
def full(ledger_steps, harness):
    """A ledger with a delivery in every state, one of them for the second time, and events without deliveries."""
    for number, state in enumerate(State):
        _, (queued,) = ledger_steps.accept(f"i{number}", f"p:{state}")
        if state is State.CLOSED:
            ledger_steps.bring(queued, State.DEAD)
        ledger_steps.bring(queued, state)
    _, (again,) = ledger_steps.accept("again", "p:again")
    ledger_steps.bring(again, State.SUCCEEDED)
    ledger_steps.ledger.write(
        lambda t: ledger_steps.ledger.requeue(
            t, [ledger_steps.delivery_status(again.delivery_id)], trigger=Trigger.REPLAY, reset_retries=True
        )
    )
    _, (retried,) = ledger_steps.accept("retried", "p:retried")
    ledger_steps.ledger.claim(retried)
    ledger_steps.settle(retried, 1, OutcomeKind.FAILED, State.WAITING, ledger_steps.clock.now())
    ledger_steps.accept("two", "p:x", "p:y")
    ledger_steps.accept("parked")
    assert ledger_steps.ledger.verify().problems == []
    harness.check_at_end = False
    return ledger_steps


def test_counts_of_a_ledger_with_every_state_balance(full):
    """The counts of a ledger with deliveries in every state balance."""
    books = full.ledger.verify()
    assert books.is_consistent
    assert (books.accepted, books.stored, books.purged) == (10, 10, 0)
    assert books.events == {"parked": 1, "routed": 9}
    assert books.deliveries == {
        "closed": 1,
        "dead": 1,
        "running": 1,
        "succeeded": 1,
        "unknown": 1,
        "waiting": 5,
    }
    assert books.attempts == 7


def test_counts_of_an_empty_ledger_balance(ledger_steps):
    """An empty ledger balances."""
    assert ledger_steps.ledger.verify().is_consistent


TAMPERING = {
    "an event is deleted": ["DELETE FROM events WHERE flow_instance_id = 'parked'"],
    "an event is deleted with all it had": [
        "DELETE FROM attempts WHERE delivery_id = " + ONE.format("dead"),
        "DELETE FROM deliveries WHERE handler = 'p:dead'",
        "DELETE FROM events WHERE flow_instance_id = 'i3'",
    ],
    "an event is added": [
        (
            "INSERT INTO events (id, source, kind, flow_instance_id, callback_class, body, digest, state, route, "
            "route_size, repeats, received_at, parked_by, identity_sha256) SELECT 'new', source, kind, 'new', "
            "callback_class, body, digest, 'parked', '{}', 0, 0, received_at, 'handler', 'new' FROM events LIMIT 1"
        )
    ],
    "an event is changed before it was received": ["UPDATE events SET rerouted_at = 1 WHERE flow_instance_id = 'i3'"],
    "the count of accepted events is raised": ["UPDATE counters SET value = value + 1 WHERE name = 'accepted'"],
    "the count of accepted events is deleted": ["DELETE FROM counters"],
    "events are said to be purged": ["INSERT INTO counters VALUES ('purged', 'x', 1)"],
    "a delivery that waits is deleted": ["DELETE FROM deliveries WHERE handler = 'p:waiting'"],
    "one of two deliveries is deleted": ["DELETE FROM deliveries WHERE handler = 'p:y'"],
    "a delivery is added": [
        (
            "INSERT INTO deliveries SELECT 'new', event_id, 'p:new', 'waiting', 0, 0, due_at, '', created_at, "
            "changed_at, NULL, 0, NULL, NULL, NULL FROM deliveries WHERE handler = 'p:x'"
        )
    ],
    "a delivery is moved to another event": [
        (
            "UPDATE deliveries SET event_id = (SELECT id FROM events WHERE flow_instance_id = 'parked') "
            "WHERE handler = 'p:x'"
        )
    ],
    "an attempt is deleted": ["DELETE FROM attempts WHERE delivery_id = " + ONE.format("succeeded")],
    "an earlier attempt is deleted": ["DELETE FROM attempts WHERE delivery_id = " + ONE.format("retried")],
    "an attempt is added": [
        "INSERT INTO attempts (delivery_id, number, process, started_at, finished_at, outcome, error, traceback) "
        "SELECT delivery_id, 2, process, 0, 0, 'failed', '', '' FROM attempts "
        "WHERE delivery_id = " + ONE.format("dead")
    ],
    "an attempt is counted that was not made": ["UPDATE deliveries SET attempt = 2 WHERE handler = 'p:dead'"],
    "an attempt is not counted": ["UPDATE deliveries SET attempt = 0 WHERE handler = 'p:retried'"],
    "an attempt is renumbered": ["UPDATE attempts SET number = 2 WHERE delivery_id = " + ONE.format("dead")],
    "an attempt that runs is said to have ended": [
        "UPDATE attempts SET outcome = 'succeeded' WHERE delivery_id = " + ONE.format("running")
    ],
    "an attempt that ended is said to run": [
        "UPDATE attempts SET outcome = NULL WHERE delivery_id = " + ONE.format("dead")
    ],
    "an attempt has another outcome": [
        "UPDATE attempts SET outcome = 'failed' WHERE delivery_id = " + ONE.format("succeeded")
    ],
    "an event is in no state": ["UPDATE events SET state = 'gone' WHERE flow_instance_id = 'parked'"],
    "an event that goes nowhere counts as routed": [
        "UPDATE events SET state = 'routed' WHERE flow_instance_id = 'parked'"
    ],
    "a route asks for more": ["UPDATE events SET route_size = 2 WHERE flow_instance_id = 'i1'"],
    "a delivery is in no state": ["UPDATE deliveries SET state = 'gone' WHERE handler = 'p:waiting'"],
    **{
        f"what is {was} is said to be {said}": [f"UPDATE deliveries SET state = '{said}' WHERE handler = 'p:{was}'"]
        for was, all_said in {
            "waiting": ["running", "succeeded", "unknown"],
            "running": ["waiting", "succeeded", "dead", "unknown", "closed"],
            "succeeded": ["waiting", "running", "dead", "unknown", "closed"],
            "dead": ["running", "succeeded", "unknown"],
            "unknown": ["running"],
            "closed": ["running", "succeeded", "unknown"],
            "again": ["running", "unknown"],
        }.items()
        for said in all_said
    },
}


@pytest.mark.sqlite
def test_tampering_is_reported(full, tmp_path):
    """Rows that were changed outside flowhooks are reported."""
    full.flow.close()
    file, unseen = tmp_path / "tampered.db", []
    looking = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    for what, statements in TAMPERING.items():
        shutil.copy(full.flow.file, file)
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount > 0, what
        with looking.connect() as connection:
            if verify(connection).is_consistent:
                unseen.append(what)
    assert unseen == []


def test_a_reported_fault_names_its_delivery_or_event(full):
    """A reported fault has the id of its delivery or event."""
    full.sql("UPDATE deliveries SET state = 'succeeded' WHERE handler = 'p:dead'")
    ((dead,),) = full.sql("SELECT id FROM deliveries WHERE handler = 'p:dead'")
    assert full.ledger.verify().problems == [f"delivery {dead} does not agree with its last attempt"]


def test_a_long_list_of_faults_is_truncated(ledger_steps, harness):
    """Of many faults of one kind the first are listed, with a note that there are more."""
    harness.check_at_end = False
    for number in range(MAX_SHOWN + 5):
        ledger_steps.accept(f"i{number}", "p:a")
    ledger_steps.sql("UPDATE deliveries SET attempt = 1")
    of_attempts = [line for line in ledger_steps.ledger.verify().problems if "attempts" in line]
    assert len(of_attempts) == MAX_SHOWN + 1
    assert "more" in of_attempts[-1]


def test_counts_balance_while_callbacks_are_stored_and_run(harness, listens, together):
    """The counts balance at any time while callbacks are stored and run."""
    flow = harness.open(listens(lambda event: None), runner={"threads": 4})

    def send(thread):
        for number in range(25):
            flow.take(f"{thread}-{number}", wait=0)

    def check():
        return [flow.app.ledger.verify().problems for _ in range(15)]

    *_, problems = together(*[lambda thread=thread: send(thread) for thread in range(4)], check)
    assert problems == [[]] * 15
