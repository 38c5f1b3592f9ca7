"""Batches of events, which are stored all or none, and ignored requests, which are counted in the same transaction."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks.errors import Unavailable
from flowhooks.ledger.accept_results import BatchRolledBack, EventBatch
from flowhooks.ledger.ignored_requests import IgnoredRequestRecord


def ignored(ledger_steps, rule="/status = 1", source="oa"):
    """An ignored request."""
    return IgnoredRequestRecord(source, rule, '{"status": 1}', "application/json", ledger_steps.clock.now())


def store(ledger_steps, items, records=()):
    """Store a batch, and wait until it is durable."""
    return ledger_steps.ledger.wait_for(ledger_steps.ledger.accept(EventBatch(tuple(items), tuple(records))))


def counted(ledger_steps):
    """The number of ignored requests by rule."""
    return {rule: count for (_, rule), count in ledger_steps.ledger.ignored_counts().items()}


def test_a_batch_of_a_hundred_events_is_stored(ledger_steps):
    """All events of a batch are stored, with their deliveries, and the results are in their order."""
    items = [ledger_steps.new(f"i{number}", "p:a", a=number) for number in range(100)]
    results = store(ledger_steps, items, [ignored(ledger_steps), ignored(ledger_steps)])
    assert [result.event_id for result in results] == [item.event.id for item in items]
    assert all(result.new for result in results)
    assert ledger_steps.sql("SELECT count(*) FROM events") == [(100,)]
    assert ledger_steps.sql("SELECT count(*) FROM deliveries") == [(100,)]
    assert counted(ledger_steps) == {"/status = 1": 2}


def test_a_batch_of_new_repeated_conflicting_and_parked_events(ledger_steps):
    """A batch may repeat and contradict events, of itself too."""
    first = ledger_steps.store(ledger_steps.new("i1", "p:a", a=1))
    second = ledger_steps.store(ledger_steps.new("i2", a=1))
    new = ledger_steps.new("i3", "p:a", a=1)
    results = store(
        ledger_steps,
        [
            ledger_steps.new("i1", "p:a", a=1),
            ledger_steps.new("i2", a=2),
            new,
            ledger_steps.new("i3", "p:a", a=1),
            ledger_steps.new("i3", "p:a", a=2),
            ledger_steps.new("i4"),
        ],
    )
    assert [(result.new, result.conflict, result.state) for result in results] == [
        (False, False, "routed"),
        (False, True, "parked"),
        (True, False, "routed"),
        (False, False, "routed"),
        (False, True, "routed"),
        (True, False, "parked"),
    ]
    assert [result.event_id for result in results[:5]] == [first.event_id, second.event_id, *[new.event.id] * 3]
    assert ledger_steps.sql("SELECT sum(repeats) FROM events") == [(2,)]
    assert ledger_steps.sql("SELECT count(*) FROM conflicts") == [(2,)]


def test_a_batch_of_only_ignored_requests(ledger_steps):
    """A batch without events counts what is ignored."""
    assert store(ledger_steps, [], [ignored(ledger_steps)]) == []
    assert counted(ledger_steps) == {"/status = 1": 1}


def test_a_batch_with_a_reused_webhook_id_is_not_stored(ledger_steps):
    """If the id of a batch was used before for something else, nothing of the batch is stored or counted."""
    items = [replace(ledger_steps.new(f"i{number}"), webhook_id="m1", webhook_digest="a" * 64) for number in range(2)]
    assert all(result.new for result in store(ledger_steps, items))
    again = [replace(item, event=replace(item.event, id=ledger_steps.clock.new_id())) for item in items]
    assert [(result.new, result.webhook_id_reused) for result in store(ledger_steps, again)] == [(False, False)] * 2
    others = [
        replace(ledger_steps.new(f"i{number}"), webhook_id="m1", webhook_digest="b" * 64) for number in range(2, 4)
    ]
    results = store(ledger_steps, others, [ignored(ledger_steps)])
    assert [(result.new, result.webhook_id_reused, result.event_id) for result in results] == [(False, True, "")] * 2
    assert ledger_steps.sql("SELECT count(*) FROM events") == [(2,)]
    assert counted(ledger_steps) == {}


def test_one_event_with_a_reused_webhook_id_rejects_its_batch(ledger_steps):
    """An id that one event of a batch reuses keeps the others of the batch out, and those of other requests in."""
    ledger_steps.store(replace(ledger_steps.new("i1", a=1), webhook_id="m1"))
    batch = [replace(ledger_steps.new("i2", a=1), webhook_id="m1"), ledger_steps.new("i3", a=1)]
    results, single = ledger_steps.run_in_one_batch(
        lambda: store(ledger_steps, batch), lambda: ledger_steps.store(ledger_steps.new("i4", a=1))
    )
    assert [result.webhook_id_reused for result in results] == [True, True]
    assert single.new
    assert ledger_steps.sql("SELECT flow_instance_id FROM events ORDER BY id") == [("i1",), ("i4",)]


def test_one_damaged_event_rejects_its_batch(ledger_steps):
    """If an event of a batch repeats an unreadable one, nothing of the batch is stored; other requests are."""
    damaged = ledger_steps.store(ledger_steps.new("i1", "p:a", a=1))
    ledger_steps.sql("UPDATE deliveries SET state = 'x'")
    batch = [ledger_steps.new("i2", a=1), ledger_steps.new("i1", "p:a", a=1)]
    error, single = ledger_steps.run_in_one_batch(
        lambda: store(ledger_steps, batch, [ignored(ledger_steps)]),
        lambda: ledger_steps.store(ledger_steps.new("i3", a=1)),
    )
    assert isinstance(error, BatchRolledBack)
    assert isinstance(error, Unavailable)
    assert [bool(result.damage) for result in error.results] == [False, True]
    assert error.results[1].event_id == damaged.event_id
    assert single.new
    assert ledger_steps.sql("SELECT flow_instance_id FROM events ORDER BY id") == [("i1",), ("i3",)]
    assert ledger_steps.sql("SELECT sum(repeats) FROM events") == [(0,)]
    assert counted(ledger_steps) == {}
    ledger_steps.sql("UPDATE deliveries SET state = 'waiting'")


def test_an_event_the_database_rejects_undoes_its_batch(ledger_steps):
    """If the database refuses an event of a batch, nothing of the batch is stored; other requests are."""
    stored = ledger_steps.store(ledger_steps.new("i1", "p:a"))
    refused = ledger_steps.new("i3", "p:a")
    ((delivery_id,),) = ledger_steps.sql("SELECT id FROM deliveries")
    refused = replace(refused, deliveries=[(delivery_id, "p:a")])
    error, single = ledger_steps.run_in_one_batch(
        lambda: store(ledger_steps, [ledger_steps.new("i2"), refused], [ignored(ledger_steps)]),
        lambda: ledger_steps.store(ledger_steps.new("i4")),
    )
    assert isinstance(error, Unavailable)
    assert single.new
    assert ledger_steps.sql("SELECT id FROM events ORDER BY id") == [(stored.event_id,), (single.event_id,)]
    assert counted(ledger_steps) == {}


def test_a_batch_is_written_again_after_a_lost_commit_reply(ledger_steps):
    """If the reply to a COMMIT is lost, the batch is written again: its events are still new, and no count is lost."""
    items = [ledger_steps.new("i1", "p:a"), ledger_steps.new("i2", "p:a"), ledger_steps.new("i1", "p:a")]
    for written in (1, 2):
        results = store(ledger_steps, items, [ignored(ledger_steps)])
        assert [result.new for result in results] == [True, True, False]
        assert counted(ledger_steps) == {"/status = 1": written}
    assert ledger_steps.sql("SELECT count(*) FROM events") == [(2,)]
    assert ledger_steps.sql("SELECT count(*) FROM deliveries") == [(2,)]
    assert ledger_steps.sql("SELECT sum(value) FROM counters WHERE name = 'accepted'") == [(2,)]


@pytest.mark.postgresql
@pytest.mark.usefixtures("long_timeouts")
def test_batches_and_single_events_of_two_processes_do_not_deadlock(harness, ledger_steps_of, together):
    """Batches of one process and repeats, claims and ignored requests of another do not deadlock."""
    first, second = (ledger_steps_of(harness.open(start=False)) for _ in range(2))
    names = [f"i{number}" for number in range(12)]
    store(first, [first.new(name, "p:a", a=1) for name in names])
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = first.sql(deadlocks)
    for _ in range(20):
        batch = [first.new(name, "p:a", a=1) for name in reversed(names)]
        together(
            lambda batch=batch: store(first, batch, [ignored(first, "r"), ignored(first, "s")]),
            *[lambda name=name: second.store(second.new(name, "p:a", a=1)) for name in names],
            lambda: store(second, [], [ignored(second, "s"), ignored(second, "r")]),
        )
    assert first.sql(deadlocks) == before
    assert set(first.sql("SELECT repeats FROM events")) == {(40,)}
    assert counted(first) == {"r": 40, "s": 40}


@pytest.mark.postgresql
@pytest.mark.usefixtures("long_timeouts")
def test_overlapping_batches_of_two_processes_do_not_deadlock(harness, ledger_steps_of, together):
    """Batches of two processes with the same events and rules in opposite orders do not deadlock."""
    first, second = (ledger_steps_of(harness.open(start=False)) for _ in range(2))
    rules = [f"/status = {number}" for number in range(5)]
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = first.sql(deadlocks)
    for turn in range(30):
        names = [f"i{turn}-{number}" for number in range(20)] + ["always"]

        def batch(steps, order, names=names):
            items = [steps.new(name, "p:a", a=1) for name in order(names)]
            return store(steps, items, [ignored(steps, rule) for rule in order(rules)])

        found = together(
            lambda: batch(first, list),
            lambda: batch(second, lambda given: list(reversed(given))),
        )
        assert sum(result.new for results in found for result in results) == 20 + (turn == 0)
    assert first.sql(deadlocks) == before
    assert first.sql("SELECT repeats FROM events WHERE flow_instance_id = 'always'") == [(59,)]
    assert counted(first) == dict.fromkeys(rules, 60)
