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


def read(ledger_steps, function, *given, **named):
    """The result of a function of `alarming`."""
    with ledger_steps.ledger.connection() as connection:
        return function(connection, *given, **named)


def put(ledger_steps, instance, state, *handlers, **body):
    """Store an event whose deliveries are all in a state."""
    event_id, several = ledger_steps.accept(instance, *(handlers or ("p:a",)), **body)
    for queued in several:
        ledger_steps.bring(queued, state)
    return event_id


@pytest.mark.parametrize("state", [State.DEAD, State.UNKNOWN])
def test_failed_deliveries_are_found_by_handler(ledger_steps, state):
    """Each handler with such deliveries is found once, with its oldest delivery; other states do not count."""
    for other in State:
        if other is not state:
            put(ledger_steps, f"other-{other}", other, "p:other")
    ledger_steps.clock.advance(10)
    late = ledger_steps.accept("late", "p:a")[1][0]
    first = put(ledger_steps, "first", state, "p:b", "q:c")
    since = ledger_steps.clock.now()
    ledger_steps.clock.advance(10)
    put(ledger_steps, "second", state, "p:b")
    ledger_steps.bring(late, state)
    found = read(ledger_steps, alert_queries.failed, state)
    assert [(issue.handler, issue.since) for issue in found] == [
        ("p:a", since + 10 * SECOND),
        ("p:b", since),
        ("q:c", since),
    ]
    assert [issue.event_id for issue in found[1:]] == [first, first]
    assert [read(ledger_steps, alert_queries.count_failed, state, issue.handler) for issue in found] == [1, 2, 1]
    assert read(ledger_steps, alert_queries.count_failed, state, "p:other") == 0


def test_a_ledger_without_failures_has_no_alert_causes(ledger_steps):
    """An empty ledger and one with only succeeded deliveries have no causes."""
    for number in range(2):
        now = ledger_steps.clock.now()
        for state in (State.DEAD, State.UNKNOWN):
            assert read(ledger_steps, alert_queries.failed, state) == []
        assert (
            read(ledger_steps, alert_queries.overdue, now)
            == read(ledger_steps, alert_queries.missing_handlers, now)
            == []
        )
        assert read(ledger_steps, alert_queries.parked_backlogs, now, limit=5) == ([], True)
        put(ledger_steps, f"fine{number}", State.SUCCEEDED)


def test_a_delivery_is_late_from_its_due_time(ledger_steps, harness):
    """A delivery is late from its due time, not from the time it was stored."""
    harness.check_at_end = False
    retried = put(ledger_steps, "retried", State.WAITING, "p:a")
    ledger_steps.sql("UPDATE deliveries SET due_at = due_at + ?", 10 * HOUR)
    put(ledger_steps, "asked", State.UNKNOWN, "p:b")
    ledger_steps.sql("UPDATE deliveries SET due_at = created_at WHERE handler = 'p:b'")
    put(ledger_steps, "running", State.RUNNING, "p:c")
    now = ledger_steps.clock.now()
    assert read(ledger_steps, alert_queries.overdue, now + 10 * HOUR - 1) == []
    (late,) = read(ledger_steps, alert_queries.overdue, now + 10 * HOUR)
    assert late == ("p:a", retried, now + 10 * HOUR)
    assert read(ledger_steps, alert_queries.count_overdue, now + 10 * HOUR, "p:a") == 1
    assert read(ledger_steps, alert_queries.count_overdue, now + 10 * HOUR, "p:b") == 0


def test_the_longest_late_delivery_of_each_handler(ledger_steps):
    """The delivery that is late longest is returned, and all late ones are counted."""
    events = []
    for number in range(3):
        events.append(put(ledger_steps, f"i{number}", State.WAITING, "p:a", "p:b"))
        ledger_steps.clock.advance(60)
    found = read(ledger_steps, alert_queries.overdue, ledger_steps.clock.now() - 60 * SECOND)
    assert [(issue.handler, issue.event_id) for issue in found] == [("p:a", events[0]), ("p:b", events[0])]
    assert read(ledger_steps, alert_queries.count_overdue, ledger_steps.clock.now() - 60 * SECOND, "p:a") == 3
    assert read(ledger_steps, alert_queries.count_overdue, ledger_steps.clock.now() - 61 * SECOND, "p:a") == 2


@pytest.mark.sqlite
def test_a_suspended_delivery_counts_since_its_handler_is_missing(ledger_steps, harness, listens):
    """A delivery waits since the first start without its plugin, or since it was stored later."""

    def start(*handlers):
        ledger_steps.flow.close()
        ledger_steps.flow = harness.open(*handlers, start=False)
        ledger_steps.ledger, ledger_steps.sql = ledger_steps.flow.app.ledger, ledger_steps.flow.sql
        ledger_steps.clock.advance(100)
        return ledger_steps.clock.now() - 100 * SECOND

    start(listens(fine, name="h"))
    before = ledger_steps.accept("i1", "p:h")[0]
    missed = start()
    start()  # a second start without the handler does not change the time
    assert read(ledger_steps, alert_queries.missing_handlers, ledger_steps.clock.now()) == [("p:h", before, missed)]
    assert read(ledger_steps, alert_queries.missing_handlers, missed) == [("p:h", before, missed)]
    assert read(ledger_steps, alert_queries.missing_handlers, missed - 1) == []
    ledger_steps.sql("UPDATE deliveries SET state = 'closed'")
    stored = ledger_steps.clock.now()
    since = ledger_steps.accept("i2", "p:h", absent=["p:h"])[0]
    ledger_steps.clock.advance(100)
    ledger_steps.accept("i3", "p:h", absent=["p:h"])
    assert read(ledger_steps, alert_queries.missing_handlers, ledger_steps.clock.now()) == [("p:h", since, stored)]
    assert read(ledger_steps, alert_queries.count_missing_handler, "p:h") == 2


def fine(event):
    """Do nothing."""


def test_a_never_loaded_handler_is_missing_since_its_first_delivery(ledger_steps):
    """If no load time of the handler is stored, the delivery's own time counts."""
    stored = ledger_steps.clock.now()
    event_id, _ = ledger_steps.accept("i1", "q:never", absent=["q:never"])
    assert read(ledger_steps, alert_queries.missing_handlers, stored) == [("q:never", event_id, stored)]


PARKED = [
    {"callBackProcessClass": "A"},
    {"callBackProcessClass": "A", "processDefinitionKey": "k1"},
    {"callBackProcessClass": "A", "processDefinitionKey": "k2"},
    {"callBackProcessClass": "B", "processDefinitionKey": "k1"},
    {"processDefinitionKey": "k1"},
    {},
]


@pytest.mark.either
def test_undecided_ends_by_source(ledger_steps):
    """Each source with such events up to a time is found once, with its oldest time and its newest event."""
    for number, source in enumerate(("oa", "oa", "hr", "oa", "crm")):
        ledger_steps.flow.take_in(f"i{number}", key="k1", source=source, end_undecided=True)
        ledger_steps.clock.advance(10)
    ledger_steps.accept("other", processDefinitionKey="k1")
    at = ledger_steps.clock.now()
    times = [at - seconds * SECOND for seconds in (50, 40, 30, 20, 10)]
    found = read(ledger_steps, undecided_ends.find_undecided_ends, times[3])
    assert [issue[:3] for issue in found] == [("hr", times[2], times[2]), ("oa", times[0], times[3])]
    assert [ledger_steps.flow.events(flow_instance_id=name)[0] for name in ("i2", "i3")] == [
        issue.event_id for issue in found
    ]
    assert [read(ledger_steps, undecided_ends.count_undecided_ends, times[3], ends.source) for ends in found] == [1, 3]
    assert read(ledger_steps, undecided_ends.count_undecided_ends, times[3], "crm") == 0
    assert [ends.source for ends in read(ledger_steps, undecided_ends.find_undecided_ends, at)] == ["crm", "hr", "oa"]
    assert read(ledger_steps, alert_queries.count_parked, at, "", "k1") == 1


GROUPS = [("", None), ("", "k1"), ("A", None), ("A", "k1"), ("A", "k2"), ("B", "k1")]


def test_parked_events_by_class_and_key(ledger_steps):
    """Parked events are grouped by class and key, also without a key, with the oldest event."""
    oldest = {}
    for number in range(3):
        for place, body in enumerate(PARKED):
            event_id, _ = ledger_steps.accept(f"i{number}-{place}", **body)
            oldest.setdefault((body.get("callBackProcessClass", ""), body.get("processDefinitionKey")), event_id)
        ledger_steps.clock.advance(10)
    ledger_steps.accept("routed", "p:a", processDefinitionKey="k9")
    now = ledger_steps.clock.now()
    found, complete = read(ledger_steps, alert_queries.parked_backlogs, now, limit=99)
    assert complete
    assert [group[:2] for group in found] == GROUPS
    assert {group[:2]: group.event_id for group in found} == oldest
    assert {group.since for group in found} == {now - 30 * SECOND}
    counts = [read(ledger_steps, alert_queries.count_parked, now - 20 * SECOND, *group[:2]) for group in found]
    assert counts == [2] * len(GROUPS)
    assert read(ledger_steps, alert_queries.parked_backlogs, now - 30 * SECOND - 1, limit=99) == ([], True)


def test_the_number_of_class_and_key_groups_is_limited(ledger_steps):
    """The number of groups has a limit against invented classes; the result says whether some were left out."""
    for place, body in enumerate(PARKED):
        ledger_steps.accept(f"i{place}", **body)
    now = ledger_steps.clock.now()
    for most in (1, 5, 6, 7):
        found, complete = read(ledger_steps, alert_queries.parked_backlogs, now, limit=most)
        assert [group[:2] for group in found] == GROUPS[:most]
        assert complete is (most >= len(GROUPS))


def new(ledger_steps, subject="p:h", **changes):
    """An alert that can be opened."""
    members = {
        "id": ledger_steps.clock.new_id(),
        "cause": AlertCause.DEAD,
        "subject": subject,
        "message": "1 delivery is dead.",
        "started_at": ledger_steps.clock.now(),
        "count": 1,
        "event_id": "00000000-0000-7000-8000-000000000001",
    }
    return alert_queries.OpenAlert(**members | changes)


def opened(ledger_steps, *several):
    """Open these alerts; return the ids of those that were opened."""
    return ledger_steps.ledger.write(
        lambda transaction: alert_queries.insert_alerts(transaction, several, ledger_steps.clock.now())
    )


def close(ledger_steps, *ids):
    """Close these alerts."""
    ledger_steps.ledger.write(
        lambda transaction: alert_resolutions.close_alerts(
            transaction, dict.fromkeys(ids, ()), ledger_steps.clock.now()
        )
    )


def test_one_alert_is_open_for_each_cause_and_subject(ledger_steps):
    """A second alert for the same cause and subject is not opened; one for another cause or subject is."""
    first, second, other, third = (
        new(ledger_steps),
        new(ledger_steps),
        new(ledger_steps, "p:i"),
        new(ledger_steps, cause=AlertCause.UNKNOWN),
    )
    assert opened(ledger_steps, first, second) == {first.id}
    assert opened(ledger_steps, second, other, third) == {other.id, third.id}
    assert read(ledger_steps, alert_queries.open_alerts) == [first, other, third]


def test_a_closed_alert_stays_stored_and_can_be_opened_again(ledger_steps):
    """A closed alert stays stored with its time, and the same cause opens another alert."""
    first = new(ledger_steps)
    opened(ledger_steps, first)
    ledger_steps.clock.advance(60)
    close(ledger_steps, first.id)
    assert read(ledger_steps, alert_queries.open_alerts) == []
    at = ledger_steps.clock.now()
    ledger_steps.clock.advance(60)
    close(ledger_steps, first.id)
    again = new(ledger_steps)
    assert opened(ledger_steps, again) == {again.id}
    assert ledger_steps.sql("SELECT id, opened_at, closed_at FROM alerts ORDER BY id") == [
        (first.id, at - 60 * SECOND, at),
        (again.id, at + 60 * SECOND, None),
    ]


def test_an_accepted_notification_is_recorded(ledger_steps):
    """Recording an accepted notification changes nothing else, and nothing at all for an older notification."""
    first = new(ledger_steps, message="it's 'quoted', 合同 {x}")
    opened(ledger_steps, first)
    told = replace(
        first,
        notified_plugins=("mail", "chat"),
        count=7,
        message="7",
        event_id=ANOTHER,
        started_at=EARLIEST,
        subject="other",
    )
    ledger_steps.ledger.write(lambda transaction: alert_queries.mark_notified(transaction, told))
    assert read(ledger_steps, alert_queries.open_alerts) == [replace(first, notified_plugins=told.notified_plugins)]
    late = replace(first, notified_plugins=("late",), notifications=2)
    ledger_steps.ledger.write(lambda transaction: alert_queries.mark_notified(transaction, late))
    assert read(ledger_steps, alert_queries.open_alerts) == [replace(first, notified_plugins=told.notified_plugins)]


def test_changes_of_an_alert_are_stored(ledger_steps):
    """Everything except subject and start is updated; growth is then measured from the lowest count."""
    first = new(ledger_steps, count=7, notified_count=7)
    opened(ledger_steps, first)
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
    update(ledger_steps, after, subject="other")
    assert read(ledger_steps, alert_queries.open_alerts) == [after]
    update(ledger_steps, after, count=6, notified_count=6)
    assert read(ledger_steps, alert_queries.open_alerts) == [replace(after, count=6)]
    grown = replace(
        after,
        count=50,
        notified_count=50,
        grown_from=5,
        notifications=2,
        notified_at=EARLIEST + 11,
        notified_plugins=(),
    )
    update(ledger_steps, grown)
    assert read(ledger_steps, alert_queries.open_alerts) == [grown]


def update(ledger_steps, alert, **changes):
    """Store an alert with changes."""
    ledger_steps.ledger.write(lambda transaction: alert_queries.update_alert(transaction, replace(alert, **changes)))


def test_growth_is_measured_from_the_acknowledgement(ledger_steps):
    """A check that read the alert before the acknowledgement does not undo it."""
    first = new(ledger_steps, count=7, notified_count=1)
    opened(ledger_steps, first)
    ledger_steps.ledger.write(
        lambda transaction: alert_queries.acknowledge(transaction, [first.id], "ann", EARLIEST + 5)
    )
    assert read(ledger_steps, alert_queries.open_alerts)[0].notified_count == 7


@pytest.mark.parametrize("state", [State.DEAD, State.UNKNOWN])
def test_the_newest_failed_delivery_of_a_handler(ledger_steps, state):
    """The handler's delivery that entered the state last is returned with its last error."""
    assert read(ledger_steps, alert_queries.latest_failed, state, "p:a") is None
    put(ledger_steps, "first", state)
    ledger_steps.clock.advance(10)
    put(ledger_steps, "second", state)
    at = ledger_steps.clock.now()
    ledger_steps.clock.advance(10)
    put(ledger_steps, "other", state, "p:b")
    ledger_steps.sql("UPDATE attempts SET error = 'Broken: ' || delivery_id")
    (second,) = ledger_steps.sql("SELECT id FROM deliveries WHERE handler = 'p:a' AND changed_at = ?", at)
    assert read(ledger_steps, alert_queries.latest_failed, state, "p:a") == (at, f"Broken: {second[0]}")


def test_the_newest_parked_event_of_a_class_and_key(ledger_steps):
    """The newest event of a class and key that was parked up to a time is returned."""
    ledger_steps.accept("i1", callBackProcessClass="A")
    at = ledger_steps.clock.now()
    ledger_steps.clock.advance(10)
    ledger_steps.accept("i2", callBackProcessClass="A")
    assert read(ledger_steps, alert_queries.latest_parked, at, "A", None) == (at, "")
    assert read(ledger_steps, alert_queries.latest_parked, ledger_steps.clock.now(), "A", None) == (
        ledger_steps.clock.now(),
        "",
    )
    assert read(ledger_steps, alert_queries.latest_parked, at, "A", "k1") is None


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
def asked(ledger_steps):
    """The executed statements with their values; the ledger has data for each of them."""
    for number, state in enumerate((State.DEAD, State.UNKNOWN, State.WAITING, State.SUCCEEDED)):
        put(ledger_steps, f"i{number}", state)
    ledger_steps.accept("away", "q:away", absent=["q:away"])
    for place, body in enumerate(PARKED):
        ledger_steps.accept(f"p{place}", **body)
    ledger_steps.flow.take_in("ended", key="k1", end_undecided=True)
    statements = []
    event.listen(ledger_steps.ledger._engine, "before_cursor_execute", lambda *given: statements.append(given[2:4]))
    return statements


@pytest.mark.sqlite
@pytest.mark.parametrize("place", range(len(LOOKING)))
def test_alert_queries_use_indexes_only(ledger_steps, asked, place):
    """No query scans a table or a whole index or sorts, for any amount of data."""
    read(ledger_steps, LOOKING[place], ledger_steps.clock.now())
    assert asked
    for statement, values in asked:
        plan = [row[-1] for row in ledger_steps.sql(f"EXPLAIN QUERY PLAN {statement}", *values)]
        of_tables = [line for line in plan if any(f" {table}" in line for table in ("deliveries", "events", "facts"))]
        for line in of_tables:
            # The first step may read the first entry of a partial index.
            assert any(name in line for name in INDEXES), plan
        assert not any("TEMP B-TREE" in line for line in plan), plan


@pytest.mark.sqlite
@pytest.mark.parametrize("look", [routing_issues.undecided, routing_issues.conflicts])
def test_routing_issues_are_read_from_the_end_of_an_index(ledger_steps, asked, look):
    """A query reads no row of another event. It sorts its groups, because it reads a bounded number of rows."""
    read(ledger_steps, look, since=ledger_steps.clock.now())
    for statement, values in asked:
        plan = [row[-1] for row in ledger_steps.sql(f"EXPLAIN QUERY PLAN {statement}", *values)]
        of_tables = [line for line in plan if any(f" {table} " in line for table in ("events", "conflicts"))]
        assert of_tables
        assert all(
            any(f"{name} " in f"{line} " for name in (*INDEXES, "sqlite_autoindex_events_1")) for line in of_tables
        ), plan


@pytest.mark.sqlite
@pytest.mark.parametrize("place", [7, 8, 10, 11, 12])
def test_counting_reads_only_an_index(ledger_steps, asked, place):
    """Counting dead or parked rows reads only an index."""
    read(ledger_steps, LOOKING[place], ledger_steps.clock.now())
    ((statement, values),) = asked
    tables = {row[0] for row in ledger_steps.sql("SELECT rootpage FROM sqlite_master WHERE type = 'table'")}
    steps = ledger_steps.sql(f"EXPLAIN {statement}", *values)
    of_tables = {first for _, step, first, second, *_ in steps if step == "OpenRead" and second in tables}
    assert {first for _, step, first, *_ in steps if step == "Column"}.isdisjoint(of_tables)


@pytest.mark.sqlite
def test_a_repeated_check_costs_the_same_for_any_number_of_deliveries(ledger_steps, asked, harness):
    """A repeated check takes as many database steps with 20,000 shared deliveries as with one.

    This includes routed events of yesterday for which a condition was undecided.
    """
    harness.check_at_end = False
    ledger_steps.sql("UPDATE events SET no_match = '{}' WHERE state = 'routed'")

    def steps():
        counted = 0

        def count():
            nonlocal counted
            counted += 1
            return 0

        with ledger_steps.ledger.connection() as connection:
            driver = connection.connection.dbapi_connection
            driver.set_progress_handler(count, 1)
            now = ledger_steps.clock.now() + HOUR
            for look in LOOKING[:6]:
                look(connection, now)
            routing_issues.undecided(connection, since=now)
            driver.set_progress_handler(None, 0)
        return counted

    few = steps()
    _multiply(ledger_steps, 20_000)
    assert steps() <= 1.5 * few


def _multiply(ledger_steps, times):
    """Copy each delivery and each parked event this many times."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    columns = [row[1] for row in ledger_steps.sql("PRAGMA table_info(events)")]
    picked = [{"id": "e.id || '-' || i", "identity_sha256": "e.id || '-' || i"}.get(c, c) for c in columns]
    ledger_steps.sql(
        f"{numbers} INSERT INTO events SELECT {', '.join(picked)} FROM events e, n WHERE e.state = 'parked'", times // 6
    )
    for state, due in (("dead", ""), ("unknown", ""), ("waiting", "NOT NULL"), ("waiting", "NULL")):
        ledger_steps.sql(
            f"""{numbers} INSERT INTO events SELECT {", ".join(picked)} FROM events e, n WHERE e.id =
            (SELECT event_id FROM deliveries d WHERE d.state = '{state}' {due and "AND due_at IS " + due} LIMIT 1)""",
            times,
        )
    columns = [row[1] for row in ledger_steps.sql("PRAGMA table_info(deliveries)")]
    picked = [{"id": "d.id || '-' || e.id", "event_id": "e.id"}.get(c, f"d.{c}") for c in columns]
    ledger_steps.sql(
        f"""INSERT INTO deliveries SELECT {", ".join(picked)} FROM deliveries d, events e
        WHERE e.id > d.event_id || '-' AND e.id < d.event_id || '.'"""
    )
