"""Trends: counts that are added, read by steps, combined by the hour and deleted, each counted once."""

from __future__ import annotations

import json

import pytest

from flowhooks.clock import DAY, SECOND
from flowhooks.ledger import audit, trends
from flowhooks.ledger.trend_queries import MAX_MARKS, read_trend, trend_marks
from flowhooks.model.error_group import identify, other_errors
from flowhooks.model.trend import HOUR, MINUTE, NO_DURATION, TrendKey, TrendMark, TrendPoint

NOON = 1_767_268_800 * SECOND
"""2026-01-01 12:00 UTC."""


def key(minutes, outcome="succeeded", bucket=5, *, kind="handler", subject="p:h", resolution=MINUTE):
    """The key of an interval that starts some minutes after noon."""
    return TrendKey(kind, subject, resolution, NOON + minutes * MINUTE * SECOND, outcome, bucket)


def add(ledger_steps, counts):
    """Add counts in one transaction."""
    ledger_steps.ledger.write(lambda transaction: trends.add(transaction, counts))


def read(ledger_steps, kind="handler", subject="p:h", *, since=-60, until=60, step=60):
    """The points from some minutes before noon to some after it, with their starts in minutes from noon."""
    with ledger_steps.ledger.connection() as connection:
        points = read_trend(
            connection,
            kind,
            subject,
            since=NOON + since * MINUTE * SECOND,
            until=NOON + until * MINUTE * SECOND,
            step=step,
        )
    return {(point.started_at - NOON) / (MINUTE * SECOND): point.counts for point in points}


def combine(ledger_steps, before, limit=500):
    """Combine the minutes before a time, in minutes from noon, of all subjects."""
    with ledger_steps.ledger.connection() as connection:
        subjects = list(trends.subjects(connection))
    return [
        ledger_steps.ledger.write(
            lambda transaction, kind=kind, subject=subject: trends.combine(
                transaction, kind=kind, subject=subject, before=NOON + before * MINUTE * SECOND, limit=limit
            )
        )
        for kind, subject in subjects
    ]


def test_counts_are_added(ledger_steps):
    """A count is added to that of its key; other subjects, outcomes, buckets and minutes are apart."""
    add(ledger_steps, {key(0): 2, key(0, bucket=10): 1, key(1): 1, key(0, subject="p:other"): 7})
    add(ledger_steps, {key(0): 3, key(0, "failed"): 1, key(0, "200", kind="source", subject="p:h"): 9})
    assert read(ledger_steps) == {
        0: {("succeeded", 5): 5, ("succeeded", 10): 1, ("failed", 5): 1},
        1: {("succeeded", 5): 1},
    }
    assert read(ledger_steps, "source") == {0: {("200", 5): 9}}
    assert read(ledger_steps, subject="nobody") == {}
    add(ledger_steps, {})


def test_a_rolled_back_transaction_counts_nothing(ledger_steps):
    """Nothing is counted if the transaction fails."""

    def fail(transaction):
        trends.add(transaction, {key(0): 1})
        raise LookupError

    with pytest.raises(LookupError):
        ledger_steps.ledger.write(fail)
    assert read(ledger_steps) == {}


def test_steps_start_at_the_minute_of_the_start(ledger_steps):
    """Steps start at the given time, rounded down to a minute, and end before the other; empty ones have no point."""
    add(ledger_steps, {key(minutes): 1 for minutes in (-1, 0, 1, 2, 7, 10)})
    with ledger_steps.ledger.connection() as connection:
        points = read_trend(
            connection,
            "handler",
            "p:h",
            since=NOON + 59 * SECOND,
            until=NOON + 10 * MINUTE * SECOND,
            step=3 * MINUTE,
        )
    assert points == [
        TrendPoint(NOON, {("succeeded", 5): 3}),
        TrendPoint(NOON + 6 * MINUTE * SECOND, {("succeeded", 5): 1}),
    ]


@pytest.mark.parametrize("step", [0, -60, 30, 90])
def test_a_step_is_a_multiple_of_a_minute(ledger_steps, step):
    """Another step is refused, because the counts of a minute cannot be divided."""
    with pytest.raises(ValueError, match="positive multiple of 60"):
        read(ledger_steps, step=step)


def test_combined_counts_are_read_once(ledger_steps):
    """Whatever is combined, each count is in the step in which its hour starts, and none is lost or counted twice."""
    counts = {
        key(minutes, outcome): 1 + minutes % 3
        for minutes in range(-120, 60)
        for outcome in ("succeeded", "failed")
        if minutes % 7
    }
    add(ledger_steps, counts)
    total = sum(counts.values())
    by_hour = read(ledger_steps, since=-120, until=60, step=HOUR)
    assert len(by_hour) == 3
    for before, limit, moved in ((0, 10, 10), (-60, 1_000, 92), (0, 1_000, 104), (60, 7, 7)):
        assert combine(ledger_steps, before, limit) == [moved]
        assert read(ledger_steps, since=-120, until=60, step=HOUR) == by_hour
        assert sum(sum(point.values()) for point in read(ledger_steps, since=-120, until=60).values()) == total
    assert combine(ledger_steps, 0) == [0]
    assert set(read(ledger_steps, since=-120, until=0)) == {-120, -60}


def test_a_late_count_of_a_combined_minute_is_included(ledger_steps):
    """A count that arrives after its minute was combined is read at once, and joins its hour at the next run."""
    add(ledger_steps, {key(-30): 2})
    assert combine(ledger_steps, 0) == [1]
    add(ledger_steps, {key(-30): 1})
    assert read(ledger_steps) == {-60: {("succeeded", 5): 2}, -30: {("succeeded", 5): 1}}
    assert combine(ledger_steps, 0) == [1]
    assert read(ledger_steps) == {-60: {("succeeded", 5): 3}}


def test_old_counts_are_deleted(ledger_steps):
    """At most the given number of the oldest rows of a subject is deleted; newer ones and other subjects stay."""
    add(ledger_steps, {key(minutes): 1 for minutes in range(10)} | {key(0, subject="p:other"): 1})

    def delete(before, limit):
        return ledger_steps.ledger.write(
            lambda transaction: trends.delete_older(
                transaction,
                kind="handler",
                subject="p:h",
                resolution=MINUTE,
                before=NOON + before * MINUTE * SECOND,
                limit=limit,
            )
        )

    assert [delete(8, 5), delete(8, 5), delete(8, 5)] == [5, 3, 0]
    assert list(read(ledger_steps)) == [8, 9]
    assert list(read(ledger_steps, subject="p:other")) == [0]
    with ledger_steps.ledger.connection() as connection:
        assert list(trends.subjects(connection)) == [("handler", "p:h"), ("handler", "p:other")]
        for before, expected in ((8, False), (9, True)):
            assert expected is trends.has_older(
                connection, "handler", "p:h", resolution=MINUTE, before=NOON + before * MINUTE * SECOND
            )


def test_errors_are_counted_in_their_error_groups(ledger_steps):
    """An error whose group is not stored is in the group for all other errors of its handler."""
    stored, other = identify("p:h", "E", "m"), identify("p:h", "F", "m")
    ledger_steps.sql(
        "INSERT INTO error_groups VALUES (?, 'p:h', 'E', 'm', '', ?, ?, 1, 'd1', 1, '[]')",
        *(stored.fingerprint, NOON, NOON),
    )
    with ledger_steps.ledger.connection() as connection:
        found = trends.group_fingerprints(connection, [stored, other])
    assert found == {stored: stored.fingerprint, other: other_errors("p:h").fingerprint}
    ledger_steps.sql("DELETE FROM error_groups")


def test_attempts_of_a_killed_process_are_counted_as_lost(harness, ledger_steps_of):
    """The next start counts them as lost, without a duration, for the handler and for its error group; once."""
    ledger_steps = ledger_steps_of(harness.open(start=False))
    for number in range(2):
        _, (queued,) = ledger_steps.accept(f"i{number}", "p:h")
        ledger_steps.ledger.claim(queued)
    harness.crash(ledger_steps.flow)
    for _ in range(2):
        ledger_steps.clock.advance(60)
        flow = harness.open(start=False)
        rows = flow.sql("SELECT kind, subject, outcome, bucket, count FROM trends ORDER BY kind")
        ((group,),) = flow.sql("SELECT fingerprint FROM error_groups")
        assert [tuple(row) for row in rows] == [
            ("error_group", group, "lost", NO_DURATION, 2),
            ("handler", "p:h", "lost", NO_DURATION, 2),
        ]
        flow.close()


@pytest.mark.postgresql
@pytest.mark.usefixtures("long_timeouts")
def test_several_writers_lose_no_count(harness, ledger_steps_of, together):
    """No count of several writers is lost, and they do not deadlock."""
    writers = [ledger_steps_of(harness.open(start=False)) for _ in range(3)]
    rows = [key(minutes, bucket=bucket) for minutes in range(5) for bucket in (1, 2, 5, 10)]
    for turn in range(20):
        together(
            *[
                lambda writer=writer, place=place: add(writer, dict.fromkeys(rows[:: -1 if place % 2 else 1], 1))
                for place, writer in enumerate(writers, turn)
            ]
        )
    assert read(writers[0]) == {
        minutes: {("succeeded", bucket): 60 for bucket in (1, 2, 5, 10)} for minutes in range(5)
    }


def test_damaged_counts_are_left_out(ledger_steps):
    """A reader leaves out what it cannot read, and a run of the retention does not fail at it."""
    if ledger_steps.flow.url:
        return  # PostgreSQL stores no value of another type
    ledger_steps.flow.changed = True
    add(ledger_steps, {key(-3): 2, key(-2): 2, key(-1): 2})
    ledger_steps.sql("UPDATE trends SET outcome = CAST(X'61' AS BLOB) WHERE started_at = ?", key(-3).started_at)
    ledger_steps.sql("UPDATE trends SET count = 'many' WHERE started_at = ?", key(-2).started_at)
    assert read(ledger_steps)[-1] == {("succeeded", 5): 2}
    assert -3 not in read(ledger_steps)
    assert combine(ledger_steps, 0) == [3]
    assert read(ledger_steps) == {-60: {("succeeded", 5): 2}}


def started(ledger_steps, at, kind, plugins=(), changed=()):
    """A start of a process at a time after noon, in seconds, with its entry of the audit log."""
    ledger_steps.clock.advance((NOON - ledger_steps.clock.now()) / SECOND + at)
    now = ledger_steps.clock.now()
    ledger_steps.sql(
        "INSERT INTO processes (id, host, pid, started_at, stopped_at, kind) VALUES (?, 'host', 1, ?, ?, ?)",
        *(ledger_steps.clock.new_id(), now, now, kind),
    )
    detail = {"kind": kind, "plugins": dict(plugins)} | ({"plugins_changed": dict(changed)} if changed else {})
    entry = audit.AuditEntry(
        id=ledger_steps.clock.new_id(),
        at=now,
        actor="flowhooks",
        interface="server",
        action="start",
        target="",
        detail=json.loads(json.dumps(detail)),
    )
    ledger_steps.ledger.write(lambda transaction: audit.record(transaction, entry))


def marks(ledger_steps, since=0, until=3_600):
    """The marks between two times after noon, in seconds, with their times."""
    with ledger_steps.ledger.connection() as connection:
        found = trend_marks(connection, since=NOON + since * SECOND, until=NOON + until * SECOND)
    return [((mark.at - NOON) // SECOND, mark.kind, mark.text) for mark in found]


def test_starts_and_new_plugin_versions_are_marked(ledger_steps):
    """Starts in one minute are one mark; another version of a plugin has a mark, once; commands have none."""
    old, new, patched = f"1.0 {'a' * 16}", f"2.0.0 {'b' * 16}", f"2.0.0 {'c' * 16}"
    started(ledger_steps, 10, "server", {"payments": old})
    started(ledger_steps, 100, "command")
    started(
        ledger_steps, 600, "server", {"payments": new, "mail": "x"}, {"payments": f"{old} -> {new}", "gone": "1 -> -"}
    )
    started(ledger_steps, 602, "server", {"payments": new, "mail": "x"})
    started(ledger_steps, 605, "worker", {"payments": new}, {"payments": f"{old} -> {new}"})
    started(ledger_steps, 900, "server", {"payments": patched}, {"payments": f"{new} -> {patched}"})
    assert marks(ledger_steps) == [
        (10, "start", "server"),
        (600, "plugin", "payments 2.0.0"),
        (600, "start", "server"),
        (605, "start", "worker"),
        (900, "plugin", f"payments {patched}"),
        (900, "start", "server"),
    ]
    assert marks(ledger_steps, 601, 900) == [
        (602, "start", "server"),
        (605, "plugin", "payments 2.0.0"),
        (605, "start", "worker"),
    ]
    assert marks(ledger_steps, 1_000) == []


def test_the_number_of_marks_is_bounded(ledger_steps):
    """Only the newest marks are returned."""
    ledger_steps.flow.changed = True
    for number in range(MAX_MARKS + 5):
        started(ledger_steps, number * 60, "worker")
    found = marks(ledger_steps, until=DAY // SECOND)
    assert len(found) == MAX_MARKS
    assert found[-1] == ((MAX_MARKS + 4) * 60, "start", "worker")
    assert TrendMark(0, "start", "server") == TrendMark(at=0, kind="start", text="server")
