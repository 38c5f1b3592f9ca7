"""The queries of alerts find every cause, count exactly, and read only matching index entries."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import event

from flowhooks import AlertCause, State
from flowhooks.clock import SECOND
from flowhooks.ledger import alert_queries, alert_resolutions, routing_issues, undecided_ends
from flowhooks.ledger.value_checks import EARLIEST

HOUR = 3600 * SECOND
ANOTHER = "00000000-0000-7000-8000-000000000002"


def read(hands, function, *given, **named):
    """The result of a function of `alarming`."""
    with hands.ledger.connection() as connection:
        return function(connection, *given, **named)


def put(hands, instance, state, *handlers, **body):
    """Store an event whose deliveries are all in a state."""
    event_id, several = hands.accept(instance, *(handlers or ("p:a",)), **body)
    for queued in several:
        hands.bring(queued, state)
    return event_id


@pytest.mark.parametrize("state", [State.DEAD, State.UNKNOWN])
def test_failed_deliveries_are_found_by_handler(hands, state):
    """Each handler with such deliveries is found once, with its oldest delivery; other states do not count."""
    for other in State:
        if other is not state:
            put(hands, f"other-{other}", other, "p:other")
    hands.clock.advance(10)
    late = hands.accept("late", "p:a")[1][0]
    first = put(hands, "first", state, "p:b", "q:c")
    since = hands.clock.now()
    hands.clock.advance(10)
    put(hands, "second", state, "p:b")
    hands.bring(late, state)
    found = read(hands, alert_queries.failed, state)
    assert [(one.handler, one.since) for one in found] == [
        ("p:a", since + 10 * SECOND),
        ("p:b", since),
        ("q:c", since),
    ]
    assert [one.event_id for one in found[1:]] == [first, first]
    assert [read(hands, alert_queries.count_failed, state, one.handler) for one in found] == [1, 2, 1]
    assert read(hands, alert_queries.count_failed, state, "p:other") == 0


def test_a_ledger_without_failures_has_no_alert_causes(hands):
    """An empty ledger and one with only succeeded deliveries have no causes."""
    for number in range(2):
        now = hands.clock.now()
        for state in (State.DEAD, State.UNKNOWN):
            assert read(hands, alert_queries.failed, state) == []
        assert read(hands, alert_queries.overdue, now) == read(hands, alert_queries.missing_handlers, now) == []
        assert read(hands, alert_queries.parked_backlogs, now, limit=5) == ([], True)
        put(hands, f"fine{number}", State.SUCCEEDED)


def test_a_delivery_is_late_from_its_due_time(hands, harness):
    """A delivery is late from its due time, not from the time it was stored."""
    harness.check_books = False
    retried = put(hands, "retried", State.WAITING, "p:a")
    hands.sql("UPDATE deliveries SET due_at = due_at + ?", 10 * HOUR)
    put(hands, "asked", State.UNKNOWN, "p:b")
    hands.sql("UPDATE deliveries SET due_at = created_at WHERE handler = 'p:b'")
    put(hands, "running", State.RUNNING, "p:c")
    now = hands.clock.now()
    assert read(hands, alert_queries.overdue, now + 10 * HOUR - 1) == []
    (one,) = read(hands, alert_queries.overdue, now + 10 * HOUR)
    assert one == ("p:a", retried, now + 10 * HOUR)
    assert read(hands, alert_queries.count_overdue, now + 10 * HOUR, "p:a") == 1
    assert read(hands, alert_queries.count_overdue, now + 10 * HOUR, "p:b") == 0


def test_the_longest_late_delivery_of_each_handler(hands):
    """The delivery that is late longest is returned, and all late ones are counted."""
    events = []
    for number in range(3):
        events.append(put(hands, f"i{number}", State.WAITING, "p:a", "p:b"))
        hands.clock.advance(60)
    found = read(hands, alert_queries.overdue, hands.clock.now() - 60 * SECOND)
    assert [(one.handler, one.event_id) for one in found] == [("p:a", events[0]), ("p:b", events[0])]
    assert read(hands, alert_queries.count_overdue, hands.clock.now() - 60 * SECOND, "p:a") == 3
    assert read(hands, alert_queries.count_overdue, hands.clock.now() - 61 * SECOND, "p:a") == 2


@pytest.mark.sqlite
def test_a_suspended_delivery_counts_since_its_handler_is_missing(hands, harness, listens):
    """A delivery waits since the first start without its plugin, or since it was stored later."""

    def start(*handlers):
        hands.flow.close()
        hands.flow = harness.open(*handlers, start=False)
        hands.ledger, hands.sql = hands.flow.app.ledger, hands.flow.sql
        hands.clock.advance(100)
        return hands.clock.now() - 100 * SECOND

    start(listens(fine, name="h"))
    before = hands.accept("i1", "p:h")[0]
    missed = start()
    start()  # a second start without the handler does not change the time
    assert read(hands, alert_queries.missing_handlers, hands.clock.now()) == [("p:h", before, missed)]
    assert read(hands, alert_queries.missing_handlers, missed) == [("p:h", before, missed)]
    assert read(hands, alert_queries.missing_handlers, missed - 1) == []
    hands.sql("UPDATE deliveries SET state = 'closed'")
    stored = hands.clock.now()
    since = hands.accept("i2", "p:h", absent=["p:h"])[0]
    hands.clock.advance(100)
    hands.accept("i3", "p:h", absent=["p:h"])
    assert read(hands, alert_queries.missing_handlers, hands.clock.now()) == [("p:h", since, stored)]
    assert read(hands, alert_queries.count_missing_handler, "p:h") == 2


def fine(event):
    """Do nothing."""


def test_a_never_loaded_handler_is_missing_since_its_first_delivery(hands):
    """If no load time of the handler is stored, the delivery's own time counts."""
    stored = hands.clock.now()
    event_id, _ = hands.accept("i1", "q:never", absent=["q:never"])
    assert read(hands, alert_queries.missing_handlers, stored) == [("q:never", event_id, stored)]


PARKED = [
    {"callBackProcessClass": "A"},
    {"callBackProcessClass": "A", "processDefinitionKey": "k1"},
    {"callBackProcessClass": "A", "processDefinitionKey": "k2"},
    {"callBackProcessClass": "B", "processDefinitionKey": "k1"},
    {"processDefinitionKey": "k1"},
    {},
]


@pytest.mark.either
def test_undecided_ends_by_source(hands):
    """Each source with such events up to a time is found once, with its oldest time and its newest event."""
    for number, source in enumerate(("oa", "oa", "hr", "oa", "crm")):
        hands.flow.take_in(f"i{number}", key="k1", source=source, end_undecided=True)
        hands.clock.advance(10)
    hands.accept("other", processDefinitionKey="k1")
    at = hands.clock.now()
    times = [at - seconds * SECOND for seconds in (50, 40, 30, 20, 10)]
    found = read(hands, undecided_ends.find_undecided_ends, times[3])
    assert [one[:3] for one in found] == [("hr", times[2], times[2]), ("oa", times[0], times[3])]
    assert [hands.flow.events(flow_instance_id=name)[0] for name in ("i2", "i3")] == [one.event_id for one in found]
    assert [read(hands, undecided_ends.count_undecided_ends, times[3], ends.source) for ends in found] == [1, 3]
    assert read(hands, undecided_ends.count_undecided_ends, times[3], "crm") == 0
    assert [ends.source for ends in read(hands, undecided_ends.find_undecided_ends, at)] == ["crm", "hr", "oa"]
    assert read(hands, alert_queries.count_parked, at, "", "k1") == 1


GROUPS = [("", None), ("", "k1"), ("A", None), ("A", "k1"), ("A", "k2"), ("B", "k1")]


def test_parked_events_by_class_and_key(hands):
    """Parked events are grouped by class and key, also without a key, with the oldest event."""
    oldest = {}
    for number in range(3):
        for place, body in enumerate(PARKED):
            event_id, _ = hands.accept(f"i{number}-{place}", **body)
            oldest.setdefault((body.get("callBackProcessClass", ""), body.get("processDefinitionKey")), event_id)
        hands.clock.advance(10)
    hands.accept("routed", "p:a", processDefinitionKey="k9")
    now = hands.clock.now()
    found, complete = read(hands, alert_queries.parked_backlogs, now, limit=99)
    assert complete
    assert [one[:2] for one in found] == GROUPS
    assert {one[:2]: one.event_id for one in found} == oldest
    assert {one.since for one in found} == {now - 30 * SECOND}
    assert [read(hands, alert_queries.count_parked, now - 20 * SECOND, *one[:2]) for one in found] == [2] * len(GROUPS)
    assert read(hands, alert_queries.parked_backlogs, now - 30 * SECOND - 1, limit=99) == ([], True)


def test_the_number_of_class_and_key_groups_is_limited(hands):
    """The number of groups has a limit against invented classes; the result says whether some were left out."""
    for place, body in enumerate(PARKED):
        hands.accept(f"i{place}", **body)
    now = hands.clock.now()
    for most in (1, 5, 6, 7):
        found, complete = read(hands, alert_queries.parked_backlogs, now, limit=most)
        assert [one[:2] for one in found] == GROUPS[:most]
        assert complete is (most >= len(GROUPS))


def new(hands, subject="p:h", **changes):
    """An alert that can be opened."""
    members = {
        "id": hands.clock.new_id(),
        "cause": AlertCause.DEAD,
        "subject": subject,
        "message": "1 delivery is dead.",
        "started_at": hands.clock.now(),
        "count": 1,
        "event_id": "00000000-0000-7000-8000-000000000001",
    }
    return alert_queries.OpenAlert(**members | changes)


def opened(hands, *several):
    """Open these alerts; return the ids of those that were opened."""
    return hands.ledger.write(lambda transaction: alert_queries.insert_alerts(transaction, several, hands.clock.now()))


def close(hands, *ids):
    """Close these alerts."""
    hands.ledger.write(
        lambda transaction: alert_resolutions.close_alerts(transaction, dict.fromkeys(ids, ()), hands.clock.now())
    )


def test_one_alert_is_open_for_each_cause_and_subject(hands):
    """A second alert for the same cause and subject is not opened; one for another cause or subject is."""
    first, second, other, third = new(hands), new(hands), new(hands, "p:i"), new(hands, cause=AlertCause.UNKNOWN)
    assert opened(hands, first, second) == {first.id}
    assert opened(hands, second, other, third) == {other.id, third.id}
    assert read(hands, alert_queries.open_alerts) == [first, other, third]


def test_a_closed_alert_stays_stored_and_can_be_opened_again(hands):
    """A closed alert stays stored with its time, and the same cause opens another alert."""
    first = new(hands)
    opened(hands, first)
    hands.clock.advance(60)
    close(hands, first.id)
    assert read(hands, alert_queries.open_alerts) == []
    at = hands.clock.now()
    hands.clock.advance(60)
    close(hands, first.id)
    again = new(hands)
    assert opened(hands, again) == {again.id}
    assert hands.sql("SELECT id, opened_at, closed_at FROM alerts ORDER BY id") == [
        (first.id, at - 60 * SECOND, at),
        (again.id, at + 60 * SECOND, None),
    ]


def test_an_accepted_notification_is_recorded(hands):
    """Recording an accepted notification changes nothing else, and nothing at all for an older notification."""
    first = new(hands, message="it's 'quoted', 合同 {x}")
    opened(hands, first)
    told = replace(
        first,
        notified_plugins=("mail", "chat"),
        count=7,
        message="7",
        event_id=ANOTHER,
        started_at=EARLIEST,
        subject="other",
    )
    hands.ledger.write(lambda transaction: alert_queries.mark_notified(transaction, told))
    assert read(hands, alert_queries.open_alerts) == [replace(first, notified_plugins=told.notified_plugins)]
    late = replace(first, notified_plugins=("late",), notifications=2)
    hands.ledger.write(lambda transaction: alert_queries.mark_notified(transaction, late))
    assert read(hands, alert_queries.open_alerts) == [replace(first, notified_plugins=told.notified_plugins)]


def test_changes_of_an_alert_are_stored(hands):
    """Everything except subject and start is updated; growth is then measured from the lowest count."""
    first = new(hands, count=7, notified_count=7)
    opened(hands, first)
    after = replace(
        first,
        count=5,
        message="5",
        event_id=ANOTHER,
        last_at=EARLIEST + 9,
        last_error="x",
        notified_count=5,
        notified_plugins=("mail",),
    )
    update(hands, after, subject="other")
    assert read(hands, alert_queries.open_alerts) == [after]
    update(hands, after, count=6, notified_count=6)
    assert read(hands, alert_queries.open_alerts) == [replace(after, count=6)]
    grown = replace(
        after,
        count=50,
        notified_count=50,
        grown_from=5,
        notifications=2,
        notified_at=EARLIEST + 11,
        notified_plugins=(),
    )
    update(hands, grown)
    assert read(hands, alert_queries.open_alerts) == [grown]


def update(hands, alert, **changes):
    """Store an alert with changes."""
    hands.ledger.write(lambda transaction: alert_queries.update_alert(transaction, replace(alert, **changes)))


def test_growth_is_measured_from_the_acknowledgement(hands):
    """A check that read the alert before the acknowledgement does not undo it."""
    first = new(hands, count=7, notified_count=1)
    opened(hands, first)
    hands.ledger.write(lambda transaction: alert_queries.acknowledge(transaction, [first.id], "ann", EARLIEST + 5))
    assert read(hands, alert_queries.open_alerts)[0].notified_count == 7


@pytest.mark.parametrize("state", [State.DEAD, State.UNKNOWN])
def test_the_newest_failed_delivery_of_a_handler(hands, state):
    """The handler's delivery that entered the state last is returned with its last error."""
    assert read(hands, alert_queries.latest_failed, state, "p:a") is None
    put(hands, "first", state)
    hands.clock.advance(10)
    put(hands, "second", state)
    at = hands.clock.now()
    hands.clock.advance(10)
    put(hands, "other", state, "p:b")
    hands.sql("UPDATE attempts SET error = 'Broken: ' || delivery_id")
    (second,) = hands.sql("SELECT id FROM deliveries WHERE handler = 'p:a' AND changed_at = ?", at)
    assert read(hands, alert_queries.latest_failed, state, "p:a") == (at, f"Broken: {second[0]}")


def test_the_newest_parked_event_of_a_class_and_key(hands):
    """The newest event of a class and key that was parked up to a time is returned."""
    hands.accept("i1", callBackProcessClass="A")
    at = hands.clock.now()
    hands.clock.advance(10)
    hands.accept("i2", callBackProcessClass="A")
    assert read(hands, alert_queries.latest_parked, at, "A", None) == (at, "")
    assert read(hands, alert_queries.latest_parked, hands.clock.now(), "A", None) == (hands.clock.now(), "")
    assert read(hands, alert_queries.latest_parked, at, "A", "k1") is None


LOOKING = [
    lambda connection, now: alert_queries.failed(connection, State.DEAD),
    lambda connection, now: alert_queries.failed(connection, State.UNKNOWN),
    alert_queries.overdue,
    alert_queries.missing_handlers,
    lambda connection, now: alert_queries.parked_backlogs(connection, now, limit=99),
    undecided_ends.find_undecided_ends,
    lambda connection, now: alert_queries.open_alerts(connection),
    lambda connection, now: alert_queries.count_failed(connection, State.DEAD, "p:a"),
    lambda connection, now: alert_queries.count_missing_handler(connection, "p:a"),
    lambda connection, now: alert_queries.count_overdue(connection, now, "p:a"),
    lambda connection, now: alert_queries.count_parked(connection, now, "A", "k1"),
    lambda connection, now: alert_queries.count_parked(connection, now, "A", None),
    lambda connection, now: undecided_ends.count_undecided_ends(connection, now, "oa"),
    lambda connection, now: alert_queries.latest_failed(connection, State.DEAD, "p:a"),
    lambda connection, now: alert_queries.latest_parked(connection, now, "A", "k1"),
]
INDEXES = (
    "deliveries_failed",
    "deliveries_due",
    "deliveries_suspended",
    "events_parked_backlog",
    "events_undecided_end",
    "events_undecided",
    "events_parked_by_condition",
    "conflicts_received",
    "alerts_open",
    "PRIMARY KEY",
)


@pytest.fixture
def asked(hands):
    """The executed statements with their values; the ledger has data for each of them."""
    for number, state in enumerate((State.DEAD, State.UNKNOWN, State.WAITING, State.SUCCEEDED)):
        put(hands, f"i{number}", state)
    hands.accept("away", "q:away", absent=["q:away"])
    for place, body in enumerate(PARKED):
        hands.accept(f"p{place}", **body)
    hands.flow.take_in("ended", key="k1", end_undecided=True)
    statements = []
    event.listen(hands.ledger._engine, "before_cursor_execute", lambda *given: statements.append(given[2:4]))
    return statements


@pytest.mark.sqlite
@pytest.mark.parametrize("place", range(len(LOOKING)))
def test_alert_queries_use_indexes_only(hands, asked, place):
    """No query scans a table or a whole index or sorts, for any amount of data."""
    read(hands, LOOKING[place], hands.clock.now())
    assert asked
    for statement, values in asked:
        plan = [row[-1] for row in hands.sql(f"EXPLAIN QUERY PLAN {statement}", *values)]
        of_tables = [line for line in plan if any(f" {table}" in line for table in ("deliveries", "events", "facts"))]
        for line in of_tables:
            # The first step may read the first entry of a partial index.
            assert any(name in line for name in INDEXES), plan
        assert not any("TEMP B-TREE" in line for line in plan), plan


@pytest.mark.sqlite
@pytest.mark.parametrize("look", [routing_issues.undecided, routing_issues.conflicts])
def test_routing_issues_are_read_from_the_end_of_an_index(hands, asked, look):
    """A query reads no row of another event. It sorts its groups, because it reads a bounded number of rows."""
    read(hands, look, since=hands.clock.now())
    for statement, values in asked:
        plan = [row[-1] for row in hands.sql(f"EXPLAIN QUERY PLAN {statement}", *values)]
        of_tables = [line for line in plan if any(f" {table} " in line for table in ("events", "conflicts"))]
        assert of_tables
        assert all(
            any(f"{name} " in f"{line} " for name in (*INDEXES, "sqlite_autoindex_events_1")) for line in of_tables
        ), plan


@pytest.mark.sqlite
@pytest.mark.parametrize("place", [7, 8, 10, 11, 12])
def test_counting_reads_only_an_index(hands, asked, place):
    """Counting dead or parked rows reads only an index."""
    read(hands, LOOKING[place], hands.clock.now())
    ((statement, values),) = asked
    tables = {row[0] for row in hands.sql("SELECT rootpage FROM sqlite_master WHERE type = 'table'")}
    steps = hands.sql(f"EXPLAIN {statement}", *values)
    of_tables = {first for _, step, first, second, *_ in steps if step == "OpenRead" and second in tables}
    assert {first for _, step, first, *_ in steps if step == "Column"}.isdisjoint(of_tables)


@pytest.mark.sqlite
def test_a_repeated_check_costs_the_same_for_any_number_of_deliveries(hands, asked, harness):
    """A repeated check takes as many database steps with 20,000 shared deliveries as with one.

    This includes routed events of yesterday for which a condition was undecided.
    """
    harness.check_books = False
    hands.sql("UPDATE events SET no_match = '{}' WHERE state = 'routed'")

    def steps():
        counted = 0

        def count():
            nonlocal counted
            counted += 1
            return 0

        with hands.ledger.connection() as connection:
            driver = connection.connection.dbapi_connection
            driver.set_progress_handler(count, 1)
            now = hands.clock.now() + HOUR
            for look in LOOKING[:6]:
                look(connection, now)
            routing_issues.undecided(connection, since=now)
            driver.set_progress_handler(None, 0)
        return counted

    few = steps()
    _multiply(hands, 20_000)
    assert steps() <= 1.5 * few


def _multiply(hands, times):
    """Copy each delivery and each parked event this many times."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    columns = [row[1] for row in hands.sql("PRAGMA table_info(events)")]
    picked = [{"id": "e.id || '-' || i", "identity_sha256": "e.id || '-' || i"}.get(c, c) for c in columns]
    hands.sql(
        f"{numbers} INSERT INTO events SELECT {', '.join(picked)} FROM events e, n WHERE e.state = 'parked'", times // 6
    )
    for state, due in (("dead", ""), ("unknown", ""), ("waiting", "NOT NULL"), ("waiting", "NULL")):
        hands.sql(
            f"""{numbers} INSERT INTO events SELECT {", ".join(picked)} FROM events e, n WHERE e.id =
            (SELECT event_id FROM deliveries d WHERE d.state = '{state}' {due and "AND due_at IS " + due} LIMIT 1)""",
            times,
        )
    columns = [row[1] for row in hands.sql("PRAGMA table_info(deliveries)")]
    picked = [{"id": "d.id || '-' || e.id", "event_id": "e.id"}.get(c, f"d.{c}") for c in columns]
    hands.sql(
        f"""INSERT INTO deliveries SELECT {", ".join(picked)} FROM deliveries d, events e
        WHERE e.id > d.event_id || '-' AND e.id < d.event_id || '.'"""
    )
