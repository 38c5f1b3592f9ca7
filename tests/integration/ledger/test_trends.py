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


def add(hands, counts):
    """Add counts in one transaction."""
    hands.ledger.write(lambda transaction: trends.add(transaction, counts))


def read(hands, kind="handler", subject="p:h", *, since=-60, until=60, step=60):
    """The points from some minutes before noon to some after it, with their starts in minutes from noon."""
    with hands.ledger.connection() as connection:
        points = read_trend(
            connection,
            kind,
            subject,
            since=NOON + since * MINUTE * SECOND,
            until=NOON + until * MINUTE * SECOND,
            step=step,
        )
    return {(point.started_at - NOON) / (MINUTE * SECOND): point.counts for point in points}


def combine(hands, before, limit=500):
    """Combine the minutes before a time, in minutes from noon, of all subjects."""
    with hands.ledger.connection() as connection:
        subjects = list(trends.subjects(connection))
    return [
        hands.ledger.write(
            lambda transaction, kind=kind, subject=subject: trends.combine(
                transaction, kind=kind, subject=subject, before=NOON + before * MINUTE * SECOND, limit=limit
            )
        )
        for kind, subject in subjects
    ]


def test_counts_are_added(hands):
    """A count is added to that of its key; other subjects, outcomes, buckets and minutes are apart."""
    add(hands, {key(0): 2, key(0, bucket=10): 1, key(1): 1, key(0, subject="p:other"): 7})
    add(hands, {key(0): 3, key(0, "failed"): 1, key(0, "200", kind="source", subject="p:h"): 9})
    assert read(hands) == {
        0: {("succeeded", 5): 5, ("succeeded", 10): 1, ("failed", 5): 1},
        1: {("succeeded", 5): 1},
    }
    assert read(hands, "source") == {0: {("200", 5): 9}}
    assert read(hands, subject="nobody") == {}
    add(hands, {})


def test_a_rolled_back_transaction_counts_nothing(hands):
    """Nothing is counted if the transaction fails."""

    def fail(transaction):
        trends.add(transaction, {key(0): 1})
        raise LookupError

    with pytest.raises(LookupError):
        hands.ledger.write(fail)
    assert read(hands) == {}


def test_steps_start_at_the_minute_of_the_start(hands):
    """Steps start at the given time, rounded down to a minute, and end before the other; empty ones have no point."""
    add(hands, {key(minutes): 1 for minutes in (-1, 0, 1, 2, 7, 10)})
    with hands.ledger.connection() as connection:
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
def test_a_step_is_a_multiple_of_a_minute(hands, step):
    """Another step is refused, because the counts of a minute cannot be divided."""
    with pytest.raises(ValueError, match="positive multiple of 60"):
        read(hands, step=step)


def test_combined_counts_are_read_once(hands):
    """Whatever is combined, each count is in the step in which its hour starts, and none is lost or counted twice."""
    counts = {
        key(minutes, outcome): 1 + minutes % 3
        for minutes in range(-120, 60)
        for outcome in ("succeeded", "failed")
        if minutes % 7
    }
    add(hands, counts)
    total = sum(counts.values())
    by_hour = read(hands, since=-120, until=60, step=HOUR)
    assert len(by_hour) == 3
    for before, limit, moved in ((0, 10, 10), (-60, 1_000, 92), (0, 1_000, 104), (60, 7, 7)):
        assert combine(hands, before, limit) == [moved]
        assert read(hands, since=-120, until=60, step=HOUR) == by_hour
        assert sum(sum(point.values()) for point in read(hands, since=-120, until=60).values()) == total
    assert combine(hands, 0) == [0]
    assert set(read(hands, since=-120, until=0)) == {-120, -60}


def test_a_late_count_of_a_combined_minute_is_included(hands):
    """A count that arrives after its minute was combined is read at once, and joins its hour at the next run."""
    add(hands, {key(-30): 2})
    assert combine(hands, 0) == [1]
    add(hands, {key(-30): 1})
    assert read(hands) == {-60: {("succeeded", 5): 2}, -30: {("succeeded", 5): 1}}
    assert combine(hands, 0) == [1]
    assert read(hands) == {-60: {("succeeded", 5): 3}}


def test_old_counts_are_deleted(hands):
    """At most the given number of the oldest rows of a subject is deleted; newer ones and other subjects stay."""
    add(hands, {key(minutes): 1 for minutes in range(10)} | {key(0, subject="p:other"): 1})

    def delete(before, limit):
        return hands.ledger.write(
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
    assert list(read(hands)) == [8, 9]
    assert list(read(hands, subject="p:other")) == [0]
    with hands.ledger.connection() as connection:
        assert list(trends.subjects(connection)) == [("handler", "p:h"), ("handler", "p:other")]
        for before, expected in ((8, False), (9, True)):
            assert expected is trends.has_older(
                connection, "handler", "p:h", resolution=MINUTE, before=NOON + before * MINUTE * SECOND
            )


def test_errors_are_counted_in_their_error_groups(hands):
    """An error whose group is not stored is in the group for all other errors of its handler."""
    stored, other = identify("p:h", "E", "m"), identify("p:h", "F", "m")
    hands.sql(
        "INSERT INTO error_groups VALUES (?, 'p:h', 'E', 'm', '', ?, ?, 1, 'd1', 1, '[]')",
        *(stored.fingerprint, NOON, NOON),
    )
    with hands.ledger.connection() as connection:
        found = trends.group_fingerprints(connection, [stored, other])
    assert found == {stored: stored.fingerprint, other: other_errors("p:h").fingerprint}
    hands.sql("DELETE FROM error_groups")


def test_attempts_of_a_killed_process_are_counted_as_lost(harness, hands_of):
    """The next start counts them as lost, without a duration, for the handler and for its error group; once."""
    hands = hands_of(harness.open(start=False))
    for number in range(2):
        _, (queued,) = hands.accept(f"i{number}", "p:h")
        hands.ledger.claim(queued)
    harness.crash(hands.flow)
    for _ in range(2):
        hands.clock.advance(60)
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
def test_several_writers_lose_no_count(harness, hands_of, together):
    """No count of several writers is lost, and they do not deadlock."""
    writers = [hands_of(harness.open(start=False)) for _ in range(3)]
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


def test_damaged_counts_are_left_out(hands):
    """A reader leaves out what it cannot read, and a run of the retention does not fail at it."""
    if hands.flow.url:
        return  # PostgreSQL stores no value of another type
    hands.flow.changed = True
    add(hands, {key(-3): 2, key(-2): 2, key(-1): 2})
    hands.sql("UPDATE trends SET outcome = CAST(X'61' AS BLOB) WHERE started_at = ?", key(-3).started_at)
    hands.sql("UPDATE trends SET count = 'many' WHERE started_at = ?", key(-2).started_at)
    assert read(hands)[-1] == {("succeeded", 5): 2}
    assert -3 not in read(hands)
    assert combine(hands, 0) == [3]
    assert read(hands) == {-60: {("succeeded", 5): 2}}


def started(hands, at, kind, plugins=(), changed=()):
    """A start of a process at a time after noon, in seconds, with its entry of the audit log."""
    hands.clock.advance((NOON - hands.clock.now()) / SECOND + at)
    now = hands.clock.now()
    hands.sql(
        "INSERT INTO processes (id, host, pid, started_at, stopped_at, kind) VALUES (?, 'host', 1, ?, ?, ?)",
        *(hands.clock.new_id(), now, now, kind),
    )
    detail = {"kind": kind, "plugins": dict(plugins)} | ({"plugins_changed": dict(changed)} if changed else {})
    entry = audit.AuditEntry(
        id=hands.clock.new_id(),
        at=now,
        actor="flowhooks",
        interface="server",
        action="start",
        target="",
        detail=json.loads(json.dumps(detail)),
    )
    hands.ledger.write(lambda transaction: audit.record(transaction, entry))


def marks(hands, since=0, until=3_600):
    """The marks between two times after noon, in seconds, with their times."""
    with hands.ledger.connection() as connection:
        found = trend_marks(connection, since=NOON + since * SECOND, until=NOON + until * SECOND)
    return [((mark.at - NOON) // SECOND, mark.kind, mark.text) for mark in found]


def test_starts_and_new_plugin_versions_are_marked(hands):
    """Starts in one minute are one mark; another version of a plugin has a mark, once; commands have none."""
    old, new, patched = f"1.0 {'a' * 16}", f"2.0.0 {'b' * 16}", f"2.0.0 {'c' * 16}"
    started(hands, 10, "server", {"payments": old})
    started(hands, 100, "command")
    started(hands, 600, "server", {"payments": new, "mail": "x"}, {"payments": f"{old} -> {new}", "gone": "1 -> -"})
    started(hands, 602, "server", {"payments": new, "mail": "x"})
    started(hands, 605, "worker", {"payments": new}, {"payments": f"{old} -> {new}"})
    started(hands, 900, "server", {"payments": patched}, {"payments": f"{new} -> {patched}"})
    assert marks(hands) == [
        (10, "start", "server"),
        (600, "plugin", "payments 2.0.0"),
        (600, "start", "server"),
        (605, "start", "worker"),
        (900, "plugin", f"payments {patched}"),
        (900, "start", "server"),
    ]
    assert marks(hands, 601, 900) == [
        (602, "start", "server"),
        (605, "plugin", "payments 2.0.0"),
        (605, "start", "worker"),
    ]
    assert marks(hands, 1_000) == []


def test_the_number_of_marks_is_bounded(hands):
    """Only the newest marks are returned."""
    hands.flow.changed = True
    for number in range(MAX_MARKS + 5):
        started(hands, number * 60, "worker")
    found = marks(hands, until=DAY // SECOND)
    assert len(found) == MAX_MARKS
    assert found[-1] == ((MAX_MARKS + 4) * 60, "start", "worker")
    assert TrendMark(0, "start", "server") == TrendMark(at=0, kind="start", text="server")
