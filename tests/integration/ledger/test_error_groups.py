"""Error groups are counted in the transaction that records the attempts, and disappear with them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from flowhooks import OutcomeKind, Reject, Retry, State
from flowhooks.clock import SECOND
from flowhooks.ledger import error_groups
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.error_group import identify, other_errors
from flowhooks.operations.context import Actor
from flowhooks.operations.purge import purge


def groups(flow):
    """The groups as stored: message, count, first and last time, sample and versions; by handler and type."""
    rows = flow.sql(
        "SELECT handler, error_type, message, count, first_seen_at, last_seen_at, sample_delivery_id, sample_attempt, "
        "versions FROM error_groups"
    )
    return {(row[0], row[1], row[2]): row[3:] for row in rows}


def counts(flow):
    """The number of attempts of each group, by its message."""
    return {message: row[0] for (_, _, message), row in groups(flow).items()}


def fail(ledger_steps, instance, error, *, handler="p:a", target=State.DEAD):
    """Record a failed attempt of a new delivery; return the delivery."""
    _, (queued,) = ledger_steps.accept(instance, handler)
    ledger_steps.ledger.claim(queued)
    assert ledger_steps.settle(queued, 1, OutcomeKind.FAILED, target, error=error)
    return queued


def test_failures_and_rejects_of_one_handler_are_two_groups(harness, listens, eventually):
    """Each failure counts in the group of its error. A success changes no group."""

    def sync(event):
        if event.data["how"] == "down":
            raise ConnectionError(f"ERP is down for order {event.data['order']}")
        if event.data["how"] == "wrong":
            raise Reject(f"order {event.data['order']} has no amount")

    flow = harness.open(listens(sync, retry=Retry(delays=(60,), attempts=2)))
    for number, how in enumerate(["down", "wrong", "down", "well", "down"]):
        flow.take(f"i{number}", how=how, order=f"A-{number}")
    first_at = flow.clock.now()
    flow.advance(300)
    eventually(lambda: counts(flow) == {"ERP is down for order #": 6, "order # has no amount": 1})
    found = groups(flow)
    down = found["p:sync", "ConnectionError", "ERP is down for order #"]
    assert (down[1], down[2]) == (first_at, flow.clock.now())
    assert down[4] == 2
    assert found["p:sync", "Reject", "order # has no amount"][2] == first_at
    assert flow.sql("SELECT COUNT(*) FROM attempts WHERE error_group IS NULL") == [(1,)]


@pytest.mark.either
def test_lost_and_unstarted_attempts_are_grouped(ledger_steps):
    """An attempt that recovery records has a group, too; a delivery that its condition closes has none."""
    _, (lost,) = ledger_steps.accept("i1", "p:a")
    ledger_steps.ledger.claim(lost)
    ledger_steps.sql("UPDATE processes SET stopped_at = 1")
    ledger_steps.ledger.recover()
    fail(ledger_steps, "i2", "the condition is false: x", target=State.CLOSED)
    assert list(groups(ledger_steps)) == [
        ("p:a", "Lost", "the process was killed while this attempt ran: its work may or may not be done")
    ]


def test_a_batch_changes_each_group_once(ledger_steps):
    """The failures of one transaction are added to their groups by one statement; the newest is the sample."""
    queued = [ledger_steps.accept(f"i{number}", "p:a")[1][0] for number in range(4)]
    for delivery in queued:
        ledger_steps.ledger.claim(delivery)
    results = []
    for number, delivery in enumerate(queued):
        ledger_steps.clock.advance(1)
        results.append(
            ledger_steps.attempt_result(
                delivery, 1, OutcomeKind.FAILED, State.DEAD, error=f"no {'x' if number == 1 else number}"
            )
        )
    recorder = ledger_steps.ledger._result_recorder
    assert ledger_steps.ledger.write(lambda transaction: recorder(transaction, results[::-1])) == [True] * 4
    (same,) = [row for key, row in groups(ledger_steps).items() if key[2] == "no #"]
    assert same[0] == 3
    assert same[1:5] == (results[0].now, results[3].now, queued[3].delivery_id, 1)
    assert counts(ledger_steps) == {"no #": 3, "no x": 1}


@pytest.mark.either
def test_a_late_result_of_an_earlier_attempt_counts_nothing(ledger_steps):
    """A result that is not recorded changes no group, and one that is recorded again counts once."""
    delivery = fail(ledger_steps, "i1", "no")
    again = ledger_steps.attempt_result(delivery, 1, OutcomeKind.FAILED, State.DEAD, error="no")
    assert ledger_steps.ledger.wait_for(ledger_steps.ledger.record_result(again))
    ledger_steps.clock.advance(1)
    late = ledger_steps.attempt_result(delivery, 1, OutcomeKind.FAILED, State.DEAD, error="other")
    assert not ledger_steps.ledger.wait_for(ledger_steps.ledger.record_result(late))
    assert counts(ledger_steps) == {"no": 1}


def test_a_handler_has_a_limited_number_of_groups(ledger_steps, monkeypatch):
    """Further errors of a handler are in one group more; those of other handlers are not affected."""
    monkeypatch.setattr(error_groups, "MAX_GROUPS", 3)
    for number, name in enumerate(("aa", "bb", "cc", "dd", "ee", "aa")):
        fail(ledger_steps, f"i{number}", name)
    fail(ledger_steps, "other", "zz", handler="p:b")
    assert counts(ledger_steps) == {"aa": 2, "bb": 1, "cc": 1, "": 2, "zz": 1}
    assert groups(ledger_steps)["p:a", "other", ""][0] == 2
    other = other_errors("p:a").fingerprint
    assert ledger_steps.sql("SELECT COUNT(*) FROM attempts WHERE error_group = ?", other) == [(2,)]


@pytest.mark.either
def test_errors_of_one_transaction_share_the_limit(ledger_steps, monkeypatch):
    """A batch cannot exceed the limit, and a group whose place was freed is used again after a while."""
    monkeypatch.setattr(error_groups, "MAX_GROUPS", 2)
    queued = [ledger_steps.accept(name, "p:a")[1][0] for name in ("aa", "bb", "cc")]
    for delivery in queued:
        ledger_steps.ledger.claim(delivery)
    results = [
        ledger_steps.attempt_result(delivery, 1, OutcomeKind.FAILED, State.DEAD, error=name)
        for delivery, name in zip(queued, ("aa", "bb", "cc"), strict=True)
    ]
    recorder = ledger_steps.ledger._result_recorder
    ledger_steps.ledger.write(lambda transaction: recorder(transaction, results))
    assert counts(ledger_steps) == {"aa": 1, "bb": 1, "": 1}
    ledger_steps.ledger.write(lambda transaction: error_groups.remove_attempts(transaction, [queued[0].delivery_id]))
    ledger_steps.sql("UPDATE attempts SET error_group = NULL WHERE delivery_id = ?", queued[0].delivery_id)
    assert counts(ledger_steps) == {"bb": 1, "": 1}
    fail(ledger_steps, "dd", "dd")
    assert counts(ledger_steps) == {"bb": 1, "": 2}
    ledger_steps.clock.advance(error_groups.REREAD_INTERVAL // SECOND)
    fail(ledger_steps, "dd2", "dd")
    assert counts(ledger_steps) == {"bb": 1, "": 2, "dd": 1}


def test_purged_attempts_leave_their_group(ledger_steps):
    """A purge subtracts the attempts of its events. A group without attempts is deleted."""
    for name, error in (("i1", "no"), ("i2", "no"), ("i3", "never")):
        fail(ledger_steps, name, error)
    ledger_steps.clock.advance(86_400)
    fail(ledger_steps, "i4", "no")
    context = replace(ledger_steps.flow.app.operation_context, by=Actor("ann", "cli"))
    assert purge(context, EventFilter(state="dead", until=ledger_steps.clock.now() - 1)).purged == 3
    assert counts(ledger_steps) == {"no": 1}


def test_the_versions_of_the_plugin_are_listed_once(ledger_steps):
    """A group lists each version of the plugin with which it was seen, in the order of the first time."""
    versions = ["1.4", "1.4.1", None, "", "1.4", 'odd "\\ version', 'odd "\\ version', "2.0"]
    for number, version in enumerate(versions):
        _, (queued,) = ledger_steps.accept(f"i{number}", "p:a")
        ledger_steps.ledger.claim(queued)
        ledger_steps.sql("UPDATE attempts SET plugin_version = ? WHERE delivery_id = ?", version, queued.delivery_id)
        assert ledger_steps.settle(queued, 1, OutcomeKind.FAILED, State.DEAD, error="no")
    (row,) = groups(ledger_steps).values()
    assert json.loads(row[5]) == ["1.4", "1.4.1", 'odd "\\ version', "2.0"]


@pytest.mark.postgresql
@pytest.mark.usefixtures("long_timeouts")
def test_processes_add_to_one_group_together(harness, ledger_steps_of, together):
    """Two processes that record failures of the same groups at the same time count all of them."""
    one, other = ledger_steps_of(harness.open(start=False)), ledger_steps_of(harness.open(start=False))

    def record(ledger_steps, name):
        for number in range(20):
            fail(ledger_steps, f"{name}{number}", f"no {'x' if number % 2 else 'y'}")

    assert together(lambda: record(one, "a"), lambda: record(other, "b")) == [None, None]
    assert counts(one) == {"no x": 20, "no y": 20}


@pytest.mark.either
def test_verify_compares_groups_with_attempts(ledger_steps, harness):
    """A wrong count, a missing group and impossible times are reported."""
    harness.check_at_end = False
    delivery = fail(ledger_steps, "i1", "no")
    assert not ledger_steps.ledger.verify().problems
    fingerprint = identify("p:a", "Failed", "no").fingerprint
    ledger_steps.sql("UPDATE error_groups SET count = 2, first_seen_at = last_seen_at + 90000000000")
    assert ledger_steps.ledger.verify().problems[-2:] == [
        f"error group {fingerprint} does not have as many attempts as it counts",
        f"error group {fingerprint} was last seen before it was first seen",
    ]
    ledger_steps.sql("UPDATE error_groups SET handler = 'p:b'")
    assert (
        f"error group {fingerprint} belongs to another handler than its attempts"
        in ledger_steps.ledger.verify().problems
    )
    ledger_steps.sql("DELETE FROM error_groups")
    assert f"error group {fingerprint} has attempts and is not stored" in ledger_steps.ledger.verify().problems
    assert delivery
