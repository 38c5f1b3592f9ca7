"""Queries: filters select exactly their matches, listings page, and polling scans no table."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from flowhooks import OutcomeKind, State
from flowhooks.clock import MAX_TIME, MIN_TIME
from flowhooks.errors import LedgerUnusable, NotFound, SettingsError
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader

PARTIAL = (
    "deliveries_open",
    "deliveries_due",
    "deliveries_order_group",
    "deliveries_suspended",
    "events_parked",
    "events_parked_backlog",
)
"""Partial indexes, which may be scanned completely."""


def ids(found):
    """The events of a listing."""
    return [stored.event.id for stored in found]


def put(ledger_steps, instance, state, *, handler="p:a", **body):
    """Store an event with one delivery in a state."""
    event_id, (queued,) = ledger_steps.accept(instance, handler, **body)
    ledger_steps.bring(queued, state)
    return event_id


FILTERS = [
    ({}, {"one", "two", "three", "parked", "dismissed"}),
    ({"flow_instance_id": "i1"}, {"one", "three"}),
    ({"business_key": "B-2"}, {"two"}),
    ({"callback_class": "C"}, {"three"}),
    ({"process_key": "k2"}, {"two"}),
    ({"handler": "p:b"}, {"two"}),
    ({"state": "dead"}, {"two"}),
    ({"state": "parked"}, {"parked"}),
    ({"state": "dismissed"}, {"dismissed"}),
    ({"state": "waiting", "handler": "p:b"}, set()),
    ({"flow_instance_id": "i1", "callback_class": "C"}, {"three"}),
    ({"flow_instance_id": "i"}, set()),
    ({"flow_instance_id": "i_"}, set()),
    ({"business_key": "%"}, set()),
    ({"since": 20}, {"two", "three", "parked", "dismissed"}),
    ({"until": 20}, {"one"}),
    ({"since": 20, "until": 30}, {"two"}),
]


def test_a_filter_selects_exactly_its_matches(ledger_steps):
    """Each part of a filter selects exactly its matches; several parts select their intersection."""
    ledger_steps.clock.time = 10
    named = {"one": put(ledger_steps, "i1", State.WAITING, processDefinitionKey="k1")}
    ledger_steps.clock.time = 20
    named["two"] = put(ledger_steps, "i2", State.DEAD, handler="p:b", businessKey="B-2", processDefinitionKey="k2")
    ledger_steps.clock.time = 30
    named["three"] = put(ledger_steps, "i1", State.SUCCEEDED, callBackProcessClass="C")
    named["parked"], _ = ledger_steps.accept("i4")
    named["dismissed"], _ = ledger_steps.accept("i5")
    ledger_steps.sql("UPDATE events SET state = 'dismissed' WHERE id = ?", named["dismissed"])
    for wanted, means in FILTERS:
        found = EventFilter(**wanted)
        assert set(ids(ledger_steps.ledger.page(found, limit=100))) == {named[name] for name in means}, wanted
        assert ledger_steps.ledger.count_events(found) == len(means), wanted


def test_handler_and_state_filters_apply_to_the_same_delivery(ledger_steps):
    """Events with a dead delivery of one handler are not those where only another handler's is dead."""
    event_id, (first, second) = ledger_steps.accept("i1", "p:a", "p:b")
    ledger_steps.bring(first, State.DEAD)
    assert ids(ledger_steps.ledger.page(EventFilter(handler="p:a", state="dead"), limit=9)) == [event_id]
    assert ids(ledger_steps.ledger.page(EventFilter(handler="p:b", state="dead"), limit=9)) == []
    assert second.handler == "p:b"


def test_a_filter_with_an_invalid_state_is_rejected(ledger_steps):
    """A filter with a misspelt state is refused, because it would match every event."""
    ledger_steps.accept("i1", "p:a")
    with pytest.raises(SettingsError, match="ded"):
        EventFilter(state="ded")


def test_events_are_found_by_ids(ledger_steps):
    """Existing events are found by any number of ids, even above the limit of parameters."""
    event_id, _ = ledger_steps.accept("i1", "p:a")
    ledger_steps.accept("i2", "p:a")
    found = ledger_steps.ledger.page(EventFilter(ids=(*(f"none-{n}" for n in range(40_000)), event_id)), limit=9)
    assert ids(found) == [event_id]


def test_a_listing_pages_both_ways(ledger_steps):
    """Pages have no gap or duplicate, newest first or oldest first."""
    all_ids = [ledger_steps.accept(f"i{number}", "p:a")[0] for number in range(7)]
    for read, order in ((ledger_steps.ledger.page, all_ids), (ledger_steps.ledger.find, all_ids[::-1])):
        seen, after = [], ""
        while page := ids(read(EventFilter(), limit=3, after=after)):
            seen += page
            after = page[-1]
        assert seen == order


def test_a_missing_event_is_an_error(ledger_steps):
    """A missing event is an error."""
    with pytest.raises(NotFound):
        ledger_steps.ledger.event("none")
    assert ledger_steps.ledger.delivery("none") is None
    assert ledger_steps.ledger.delivery_statuses("none") == ()
    assert ledger_steps.ledger.attempts("none") == ()
    assert ledger_steps.ledger.conflicts("none") == []


def test_a_delivery_status_describes_its_last_attempt(ledger_steps):
    """While an attempt runs, the error of the previous one is not shown."""
    _, (queued,) = ledger_steps.accept("i1", "p:a")
    ledger_steps.ledger.claim(queued)
    ledger_steps.settle(queued, 1, OutcomeKind.FAILED, State.WAITING, ledger_steps.clock.now(), error="first")
    assert ledger_steps.delivery_status(queued.delivery_id).error == "first"
    ledger_steps.ledger.claim(ledger_steps.queued(queued.delivery_id))
    delivery_status = ledger_steps.delivery_status(queued.delivery_id)
    assert (delivery_status.state, delivery_status.attempt, delivery_status.error, delivery_status.outcome) == (
        State.RUNNING,
        2,
        "",
        None,
    )


def test_the_tally_counts_unfinished_deliveries_and_parked_events(ledger_steps, harness):
    """Waiting, running, dead, unknown, suspended and parked are counted; finished deliveries are not."""
    harness.check_at_end = False
    for number, state in enumerate(State):
        put(ledger_steps, f"i{number}", state)
    ledger_steps.accept("away", "q:away", absent=["q:away"])
    ledger_steps.accept("parked")
    assert ledger_steps.ledger.count_by_state() == {
        "waiting": 1,
        "running": 1,
        "dead": 1,
        "unknown": 1,
        "handler_missing": 1,
        "parked": 1,
    }


def test_polling_returns_the_longest_due_deliveries_of_each_handler(ledger_steps, harness):
    """Polling returns each handler's deliveries longest due first, up to a limit; future ones are not due."""
    harness.check_at_end = False
    for number, (handler, due) in enumerate([("a", 3), ("a", 1), ("a", 2), ("b", 1), ("c", 1), ("a", 9)]):
        _, (queued,) = ledger_steps.accept(f"i{number}", f"p:{handler}")
        ledger_steps.sql("UPDATE deliveries SET due_at = ? WHERE id = ?", due, queued.delivery_id)
    ledger_steps.sql("UPDATE deliveries SET state = 'unknown' WHERE handler = 'p:c'")
    found = ledger_steps.ledger.due_deliveries(3, lambda handler: {"p:a": 2, "p:b": 5, "p:c": 5}[handler])
    whose = {
        row[0]: row[1]
        for row in ledger_steps.sql("SELECT d.id, e.flow_instance_id FROM deliveries d, events e WHERE e.id = event_id")
    }
    assert [(whose[delivery.delivery_id], delivery.probe) for delivery in found] == [
        ("i1", False),
        ("i2", False),
        ("i3", False),
        ("i4", True),
    ]
    assert [
        delivery.handler
        for delivery in ledger_steps.ledger.due_deliveries(3, lambda handler: 0 if handler == "p:a" else 9)
    ] == [
        "p:b",
        "p:c",
    ]


@pytest.mark.sqlite
def test_polling_scans_no_table(ledger_steps):
    """Due deliveries are found through the index, handler by handler, with any other data stored."""
    ledger_steps.accept("i1", "p:a", "p:b")
    asked = []

    def note(_connection, _cursor, statement, parameters, *_):
        asked.append((statement, parameters))

    event.listen(ledger_steps.ledger._engine, "before_cursor_execute", note)
    assert len(ledger_steps.ledger.due_deliveries(ledger_steps.clock.now(), lambda _handler: 10)) == 2
    assert len(asked) == 3
    for statement, parameters in asked:
        plan = [row[-1] for row in ledger_steps.sql(f"EXPLAIN QUERY PLAN {statement}", *parameters)]
        of_deliveries = [line for line in plan if "deliveries" in line]
        assert of_deliveries
        found, *others = of_deliveries
        assert "deliveries_due" in found, plan
        assert found.startswith("SEARCH"), plan
        # For an ordered delivery, whether it is the first of its key.
        ahead = "SEARCH others USING INDEX deliveries_order_group (handler=? AND order_key=? AND order_position<?)"
        assert all(line == ahead or ("deliveries_due" in line and line.startswith("SEARCH")) for line in others), plan
        assert not any("TEMP B-TREE" in line for line in plan), plan


OFTEN = [
    lambda ledger: ledger.count_by_state(),
    lambda ledger: ledger.page(EventFilter(state="parked"), limit=5),
    lambda ledger: ledger.page(EventFilter(state="dead"), limit=5),
    lambda ledger: ledger.find(EventFilter(state="unknown", handler="p:a"), limit=5),
    lambda ledger: ledger.page(EventFilter(flow_instance_id="i1"), limit=5),
    lambda ledger: ledger.page(EventFilter(business_key="B"), limit=5),
    lambda ledger: ledger.page(EventFilter(ids=("e1", "e2")), limit=5),
    lambda ledger: ledger.parked(),
    lambda ledger: ledger.delivery_statuses("e1"),
    lambda ledger: ledger.delivery("d1"),
    lambda ledger: ledger.attempts("d1"),
    lambda ledger: ledger.register_handlers([]),
    lambda ledger: ledger.recover(),
]


@pytest.mark.sqlite
def test_frequent_queries_scan_no_whole_table(ledger_steps):
    """The queries of the console, the operations and a start do not read a million events or deliveries."""
    asked = []
    for engine in (ledger_steps.ledger._engine, ledger_steps.ledger._write_engine):
        event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
    for call in OFTEN:
        call(ledger_steps.ledger)
    assert len(asked) >= len(OFTEN)
    plans = [
        row[-1] for statement, values in asked for row in ledger_steps.sql(f"EXPLAIN QUERY PLAN {statement}", *values)
    ]
    tables = [line for line in plans if line.startswith(("SCAN deliveries", "SCAN events", "SCAN attempts"))]
    assert [line for line in tables if not line.endswith(PARTIAL)] == []


def test_a_read_only_connection_cannot_write(ledger_steps):
    """A read-only connection cannot write, with any statement."""
    reader = Reader(ledger_steps.flow.address)
    try:
        with pytest.raises(LedgerUnusable, match=r"read-?only"), reader.connection() as connection:
            connection.exec_driver_sql("DELETE FROM events")
    finally:
        reader.close()


def test_a_reader_of_a_missing_database_gets_an_error(tmp_path):
    """A missing database is an error with a remedy, and is not created."""
    file = tmp_path / "none.db"
    with pytest.raises(LedgerUnusable, match=r"no database at .*flowhooks db upgrade"):
        Reader(f"sqlite:///{file}")
    assert not file.exists()


def test_a_reader_does_not_wait_for_the_writer(ledger_steps):
    """A reader does not wait for the writer, and sees committed data."""
    ledger_steps.accept("i1", "p:a")
    with ledger_steps.flow.locked():
        assert ledger_steps.ledger.count_events(EventFilter()) == 1


def test_a_time_outside_of_the_calendar_is_rejected(ledger_steps):
    """A time outside of the years 1 to 9999, such as one in nanoseconds, is refused with this reason."""
    with pytest.raises(SettingsError, match="years 1 to 9999"):
        EventFilter(since=MAX_TIME + 1)
    with pytest.raises(SettingsError, match="years 1 to 9999"):
        EventFilter(until=MIN_TIME - 1)
    assert ledger_steps.ledger.page(EventFilter(since=MIN_TIME, until=MAX_TIME), limit=5) == []
