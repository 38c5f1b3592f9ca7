"""Storing events: each identity once, with its deliveries, in one transaction."""

from __future__ import annotations

import random
import string
from dataclasses import replace

import pytest

from flowhooks import State
from flowhooks.clock import SECOND
from flowhooks.errors import Unavailable
from flowhooks.ledger.alert_queries import count_parked, parked_backlogs
from flowhooks.ledger.conclusions import unknown_conclusions
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.purge import purge

ODD = [
    "a'b",
    'a"b',
    "a\\b",
    "日本語",
    "\U0001f40d",
    "￾￿\u2028",
    " x ",
    "%_",
    "1",
    "1.0",
    "null",
    "true",
    "$[0]",
    "\x7f\x01",
]


def test_an_event_is_stored_with_its_deliveries(ledger_steps):
    """A new event is stored as received, with one waiting delivery for each handler of its route."""
    new = ledger_steps.new("i1", "p:a", "p:b", businessKey="B-1", callBackProcessClass="com.example.X", more={"x": [1]})
    accepted = ledger_steps.store(new)
    assert (accepted.event_id, accepted.new, accepted.conflict, accepted.state) == (new.event.id, True, False, "routed")
    stored = ledger_steps.ledger.event(new.event.id)
    assert stored.event == new.event
    assert stored.body == new.body
    assert stored.route == {"p:a": "key k", "p:b": "key k"}
    assert [
        (delivery_status.handler, delivery_status.state, delivery_status.attempt, delivery_status.due_at)
        for delivery_status in stored.delivery_statuses
    ] == [
        ("p:a", State.WAITING, 0, ledger_steps.clock.now()),
        ("p:b", State.WAITING, 0, ledger_steps.clock.now()),
    ]


def test_an_identical_callback_finds_the_stored_event(ledger_steps):
    """An identical callback is counted and answered from the stored deliveries, and stores nothing."""
    event_id, (queued,) = ledger_steps.accept("i1", "p:a", x=1)
    claimed = ledger_steps.ledger.claim(queued)
    ledger_steps.settle(queued, claimed.attempt)
    again = ledger_steps.store(ledger_steps.new("i1", "p:a", "p:b", x=1))
    assert (again.event_id, again.new, again.conflict) == (event_id, False, False)
    assert [delivery_status.state for delivery_status in again.delivery_statuses] == [State.SUCCEEDED]
    assert ledger_steps.ledger.event(event_id).repeats == 1
    assert ledger_steps.sql("SELECT count(*) FROM deliveries") == [(1,)]


@pytest.mark.parametrize(
    "other",
    [
        {"callBackProcessClass": "B"},
        {"callBackProcessClass": None},
        {"source": "second"},
        {"kind": "other"},
        {"to": "i2"},
    ],
)
def test_a_different_identity_is_another_event(ledger_steps, other):
    """Another class, no class, another source, kind or instance is another event."""
    ledger_steps.accept("i1", "p:a", callBackProcessClass="A")
    given = {"to": "i1", "callBackProcessClass": "A"} | other
    instance = given.pop("to")
    assert ledger_steps.store(ledger_steps.new(instance, "p:a", **given)).new
    assert ledger_steps.sql("SELECT count(*) FROM events") == [(2,)]


def test_an_empty_class_is_no_class(ledger_steps):
    """An empty `callBackProcessClass` counts as absent: both bodies have one identity, though they differ."""
    event_id, _ = ledger_steps.accept("i1", "p:a")
    again = ledger_steps.store(ledger_steps.new("i1", "p:a", callBackProcessClass=""))
    assert (again.event_id, again.conflict) == (event_id, True)


def test_identities_with_odd_characters_are_distinguished(ledger_steps):
    """An identity with odd characters is recognised and distinguished from others."""
    for odd in ODD:
        event_id, _ = ledger_steps.accept("i1", "p:a", callBackProcessClass=odd)
        again = ledger_steps.store(ledger_steps.new("i1", "p:a", callBackProcessClass=odd))
        assert (again.event_id, again.new, again.conflict) == (event_id, False, False), ascii(odd)
        assert ledger_steps.store(ledger_steps.new("i1", "p:a", callBackProcessClass=odd + "x")).new, ascii(odd)
        assert ledger_steps.ledger.event(event_id).event.callback_class == odd


def test_other_data_under_the_same_identity_is_a_conflict(ledger_steps):
    """The first event stays, no event is stored, and the second body is kept beside it."""
    event_id, _ = ledger_steps.accept("i1", "p:a", x=1)
    ledger_steps.clock.advance(5)
    second = ledger_steps.new("i1", "p:a", x=2)
    answer = ledger_steps.store(second)
    assert (answer.event_id, answer.new, answer.conflict, answer.delivery_statuses) == (event_id, False, True, ())
    assert [(conflict.received_at, conflict.body) for conflict in ledger_steps.ledger.conflicts(event_id)] == [
        (ledger_steps.clock.now(), second.body)
    ]
    assert ledger_steps.ledger.event(event_id).repeats == 0
    assert ledger_steps.sql("SELECT count(*) FROM events") == [(1,)]


def test_each_conflict_is_stored_once_and_at_most_ten(ledger_steps):
    """A repeated conflict is stored once, and at most ten differing bodies are."""
    event_id, _ = ledger_steps.accept("i1", "p:a", x=0)
    for number in [*range(1, 14), 1, 2]:
        ledger_steps.clock.advance(1)
        assert ledger_steps.store(ledger_steps.new("i1", "p:a", x=number)).conflict
    assert [conflict.body for conflict in ledger_steps.ledger.conflicts(event_id)] == [
        f'{{"x": {n}}}' for n in range(1, 11)
    ]


def test_bodies_that_differ_only_in_ignored_members_are_equal(ledger_steps):
    """Two bodies that differ only in ignored members are equal."""
    event_id, _ = ledger_steps.accept("i1", "p:a", ignore=["/sent"], x=1, sent="09:00")
    again = ledger_steps.store(ledger_steps.new("i1", "p:a", ignore=["/sent"], x=1, sent="09:05"))
    assert (again.event_id, again.conflict) == (event_id, False)
    assert ledger_steps.store(ledger_steps.new("i1", "p:a", ignore=["/sent"], x=2, sent="09:00")).conflict


def unlike(seed, chars=8_000):
    """This many incompressible characters."""
    return "".join(random.Random(seed).choices(string.ascii_letters + string.digits, k=chars))


def test_an_event_with_long_texts_is_stored_once_and_found(ledger_steps):
    """A schema may allow thousands of characters. PostgreSQL refuses index rows of more than about 2,700 bytes."""
    names = ("callBackProcessClass", "processDefinitionKey", "businessKey", "conclusion")
    body, instance = {name: unlike(name) for name in names}, unlike("instance")
    new = replace(ledger_steps.new(instance, **body), unknown_conclusion=True)
    assert ledger_steps.store(new).new
    assert ledger_steps.store(ledger_steps.new(instance, **body)).event_id == new.event.id
    assert ledger_steps.store(ledger_steps.new(instance, **body | {"businessKey": "other"})).conflict
    other = ledger_steps.new(instance[:-1] + "!", "p:a", **body)
    assert ledger_steps.store(other).new
    assert ledger_steps.ledger.is_stored(new.event.identity)
    for wanted, found in (
        (EventFilter(flow_instance_id=instance), [new]),
        (EventFilter(flow_instance_id=instance[:-1]), []),
        (EventFilter(business_key=body["businessKey"]), [other, new]),
        (EventFilter(callback_class=body["callBackProcessClass"], state="parked"), [new]),
    ):
        assert [stored.event.id for stored in ledger_steps.ledger.find(wanted, limit=9)] == [
            stored.event.id for stored in found
        ]
    with ledger_steps.ledger.connection() as connection:
        (backlog,), complete = parked_backlogs(connection, ledger_steps.clock.now(), limit=9)
        (unknown,) = unknown_conclusions(connection)
        count = count_parked(connection, ledger_steps.clock.now(), backlog.callback_class, backlog.process_key)
    assert (backlog.event_id, backlog.process_key, complete, count) == (
        new.event.id,
        body["processDefinitionKey"],
        True,
        1,
    )
    assert (unknown.callback_class, unknown.conclusion) == (body["callBackProcessClass"], body["conclusion"])
    ledger_steps.clock.advance(86_400)
    ledger_steps.flow.app.alerts.poll()
    found = dict(ledger_steps.sql("SELECT cause, max(length(subject)) FROM alerts GROUP BY cause"))
    assert {"parked", "conflict"} <= found.keys()
    assert max(found.values()) < 900
    assert (
        purge(
            ledger_steps.flow.app.operation_context, EventFilter(state="parked", until=ledger_steps.clock.now())
        ).purged
        == 1
    )
    assert ledger_steps.store(ledger_steps.new(instance, **body)).state == "purged"


def test_duplicates_in_one_batch_are_one_event(ledger_steps):
    """Of five equal callbacks in one batch one is stored, and all callers get its event."""
    several = [ledger_steps.new("i1", "p:a", x=1) for _ in range(5)]
    results = ledger_steps.run_in_one_batch(*(lambda new=new: ledger_steps.store(new) for new in several))
    assert [result.new for result in results] == [True, False, False, False, False]
    assert {result.event_id for result in results} == {several[0].event.id}
    assert all(
        [delivery_status.state for delivery_status in result.delivery_statuses] == [State.WAITING]
        for result in results[1:]
    )
    assert ledger_steps.ledger.event(several[0].event.id).repeats == 4
    assert ledger_steps.sql("SELECT count(*) FROM deliveries") == [(1,)]


def test_a_batch_repeated_after_its_commit_gets_the_same_answers(ledger_steps):
    """The reply to a COMMIT may be lost. The writer then runs the batch again, and its events still count as new."""
    new, again = ledger_steps.new("i1", "p:a", x=1), ledger_steps.new("i1", "p:a", x=1)
    conflict = ledger_steps.new("i1", "p:a", x=2)
    assert ledger_steps.store(new).new
    results = ledger_steps.run_in_one_batch(
        *(lambda new=new: ledger_steps.store(new) for new in (new, again, conflict))
    )
    assert [(result.new, result.conflict) for result in results] == [(True, False), (False, False), (False, True)]
    assert {result.event_id for result in results} == {new.event.id}
    assert ledger_steps.ledger.event(new.event.id).repeats == 1
    assert ledger_steps.sql("SELECT count(*) FROM deliveries") == [(1,)]
    assert ledger_steps.sql("SELECT sum(value) FROM counters WHERE name = 'accepted'") == [(1,)]


def test_a_purged_event_is_no_longer_new(ledger_steps):
    """A repeated batch announces no event that was purged meanwhile."""
    new = ledger_steps.new("i1")
    assert ledger_steps.store(new).new
    ledger_steps.clock.advance(1)
    assert (
        purge(
            ledger_steps.flow.app.operation_context, EventFilter(state="parked", until=ledger_steps.clock.now())
        ).purged
        == 1
    )
    again = ledger_steps.store(new)
    assert (again.event_id, again.new, again.state) == (new.event.id, False, "purged")


def test_a_conflict_within_one_batch(ledger_steps):
    """Of two bodies with one identity in one batch the first is stored, and repeating it is no conflict."""
    first, other, same = (
        ledger_steps.new("i1", "p:a", x=1),
        ledger_steps.new("i1", "p:a", x=2),
        ledger_steps.new("i1", "p:a", x=1),
    )
    results = ledger_steps.run_in_one_batch(*(lambda new=new: ledger_steps.store(new) for new in (first, other, same)))
    assert [(result.new, result.conflict) for result in results] == [(True, False), (False, True), (False, False)]
    assert {result.event_id for result in results} == {first.event.id}
    assert [conflict.body for conflict in ledger_steps.ledger.conflicts(first.event.id)] == [other.body]


def test_a_batch_of_new_repeated_and_conflicting_callbacks(ledger_steps):
    """New events, repeats and conflicts in one batch are each answered separately."""
    stored, _ = ledger_steps.accept("old", "p:a", x=1)
    batch = [
        ledger_steps.new("z", "p:a"),
        ledger_steps.new("old", "p:a", x=2),
        ledger_steps.new("a", "p:a", "p:b"),
        ledger_steps.new("old", "p:a", x=1),
        ledger_steps.new("parked"),
        ledger_steps.new("old", "p:a", x=1),
    ]
    results = ledger_steps.run_in_one_batch(*(lambda new=new: ledger_steps.store(new) for new in batch))
    assert [(result.new, result.conflict) for result in results] == [
        (True, False),
        (False, True),
        (True, False),
        (False, False),
        (True, False),
        (False, False),
    ]
    assert [result.event_id for result in results] == [
        batch[0].event.id,
        stored,
        batch[2].event.id,
        stored,
        batch[4].event.id,
        stored,
    ]
    assert results[4].state == "parked"
    assert ledger_steps.ledger.event(stored).repeats == 2
    assert ledger_steps.sql("SELECT sum(value) FROM counters WHERE name = 'accepted'") == [(4,)]


def test_a_delivery_for_a_missing_handler_has_no_due_time(ledger_steps):
    """A delivery whose handler is not loaded has no due time and is not polled."""
    _, (here, away) = ledger_steps.accept("i1", "p:here", "q:away", absent=["q:away"])
    assert ledger_steps.delivery_status(here.delivery_id).due_at == ledger_steps.clock.now()
    assert ledger_steps.delivery_status(away.delivery_id).due_at is None
    due = ledger_steps.ledger.due_deliveries(ledger_steps.clock.now() + 10**9 * SECOND, lambda _handler: 100)
    assert [delivery.delivery_id for delivery in due] == [here.delivery_id]


def test_an_event_and_its_deliveries_are_stored_atomically(ledger_steps):
    """If storing fails after the rows were written, no event, delivery or count remains."""
    accepting = ledger_steps.ledger._event_inserter
    new = ledger_steps.new("i1", "p:a", "p:b")

    def broken(transaction):
        assert accepting(transaction, [new])[0].new
        assert transaction.connection.exec_driver_sql("SELECT count(*) FROM deliveries").scalar_one() == 2
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError):
        ledger_steps.ledger.write(broken)
    for table in ("events", "deliveries", "counters"):
        assert ledger_steps.sql(f"SELECT count(*) FROM {table}") == [(0,)]
    assert ledger_steps.store(new).new


def test_an_event_is_not_stored_without_all_its_deliveries(ledger_steps):
    """If the database refuses an event's second delivery, the event is not stored, but its batch is."""
    taken, (queued,) = ledger_steps.accept("i0", "p:a")
    bad = ledger_steps.new("i1", "p:a", "p:b")
    bad.deliveries[1] = (queued.delivery_id, "p:b")
    good = ledger_steps.new("i2", "p:a")
    results = ledger_steps.run_in_one_batch(lambda: ledger_steps.store(bad), lambda: ledger_steps.store(good))
    assert isinstance(results[0], Unavailable)
    assert results[1].new
    assert ledger_steps.sql("SELECT flow_instance_id FROM events ORDER BY 1") == [("i0",), ("i2",)]
    assert ledger_steps.delivery_status(queued.delivery_id).handler == "p:a"
    assert taken


def test_an_event_may_have_a_thousand_deliveries(ledger_steps):
    """A route of a thousand handlers gives a thousand deliveries."""
    event_id, queued = ledger_steps.accept("i1", *(f"p:h{number}" for number in range(1000)))
    assert len(queued) == 1000
    assert len(ledger_steps.ledger.delivery_statuses(event_id)) == 1000


def test_each_process_counts_its_accepted_events(harness, ledger_steps):
    """The count of accepted events continues over restarts, in a row for each process."""
    ledger_steps.accept("i1", "p:a")
    ledger_steps.flow.close()
    second = harness.open(start=False)
    second.take("i2")
    second.take("i2")
    assert sorted(second.sql("SELECT value FROM counters WHERE name = 'accepted'")) == [(1,), (1,)]
    assert second.app.ledger.verify().accepted == 2


@pytest.mark.sqlite
def test_a_full_disk_causes_unavailable_and_no_data_loss(ledger_steps, logged):
    """On a full disk the answer is Unavailable; with space work continues without partial data."""
    ledger_steps.accept("before", "p:a")
    pages = ledger_steps.sql("PRAGMA page_count")[0][0]
    ledger_steps.ledger.write(lambda t: t.connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 3}").all())
    stored, refused = ["before"], []
    for number in range(40):
        try:
            accepted = ledger_steps.store(ledger_steps.new(f"i{number}", "p:a", filler="x" * 3000)).new
        except Unavailable:
            accepted = False
        (stored if accepted else refused).append(f"i{number}")
    assert refused
    assert ledger_steps.ledger.write_error
    failed = next(record for record in logged if record["event"] == "ledger_write_failed")
    assert failed["next"] == (
        "free some space on the disk of the database; callbacks are answered 503 until the database works again"
    )
    assert [row for (row,) in ledger_steps.sql("SELECT flow_instance_id FROM events ORDER BY id")] == stored
    ledger_steps.ledger.write(lambda t: t.connection.exec_driver_sql("PRAGMA max_page_count=1000000").all())
    for instance in refused:
        assert ledger_steps.store(ledger_steps.new(instance, "p:a", filler="x" * 3000)).new
    assert ledger_steps.ledger.write_error is None


@pytest.mark.parametrize(("handlers", "read"), [(("p:a",), True), (("p:a", "p:b"), False), (("p:a",), False)])
def test_event_data_is_copied_only_for_several_deliveries(ledger_steps, handlers, read):
    """A single delivery gets the event's own data; several deliveries get a copy each."""
    new = replace(ledger_steps.new("i1", *handlers, amount=1), read=read)
    own = len(handlers) == 1 and not read
    fresh = new.load()
    assert fresh == new.event
    assert (fresh.data is new.event.data) == own
