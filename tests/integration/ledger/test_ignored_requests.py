"""Ignored requests: counted durably by source and rule, with the last request of each rule."""

from __future__ import annotations

import pytest

from flowhooks.clock import SECOND
from flowhooks.ledger.ignored_requests import (
    MAX_BODY_BYTES,
    MAX_RULES,
    OTHER_RULES,
    IgnoredRequestRecord,
    IgnoredRule,
    record,
)
from flowhooks.ledger.value_checks import EARLIEST
from flowhooks.model.receiver import MAX_RULE_CHARS


def count(ledger_steps, *records):
    """Count ignored requests in one transaction."""
    ledger_steps.ledger.write(lambda transaction: record(transaction, records))


def ignored(ledger_steps, rule="r", source="oa", *, body="{}", media_type=None, seconds=0):
    """An ignored request, received some seconds from now."""
    return IgnoredRequestRecord(source, rule, body, media_type, ledger_steps.clock.now() + seconds * SECOND)


def test_requests_are_counted_by_source_and_rule(ledger_steps):
    """Requests are counted by source and rule, with the first and last time and the last body."""
    at = ledger_steps.clock.now()
    count(ledger_steps, ignored(ledger_steps, body="a", media_type="text/a"))
    count(
        ledger_steps,
        ignored(ledger_steps, body="c", seconds=2),
        ignored(ledger_steps, body="b", media_type="text/b", seconds=1),
    )
    count(ledger_steps, ignored(ledger_steps, "s", body="d", seconds=3), ignored(ledger_steps, "r", "erp", seconds=4))
    assert ledger_steps.ledger.ignored_rules() == [
        IgnoredRule("erp", "r", 1, at + 4 * SECOND, at + 4 * SECOND, "{}", None),
        IgnoredRule("oa", "s", 1, at + 3 * SECOND, at + 3 * SECOND, "d", None),
        IgnoredRule("oa", "r", 3, at, at + 2 * SECOND, "c", None),
    ]
    assert [rule.rule for rule in ledger_steps.ledger.ignored_rules("oa")] == ["s", "r"]
    assert ledger_steps.ledger.ignored_rules("crm") == []
    assert ledger_steps.ledger.ignored_counts() == {("oa", "r"): 3, ("oa", "s"): 1, ("erp", "r"): 1}


def test_an_earlier_request_that_is_counted_later(ledger_steps):
    """The times and the body of a rule are those of its requests, in whatever order they are counted."""
    at = ledger_steps.clock.now()
    count(ledger_steps, ignored(ledger_steps, body="later", seconds=5))
    count(ledger_steps, ignored(ledger_steps, body="earlier", seconds=1))
    assert ledger_steps.ledger.ignored_rules() == [
        IgnoredRule("oa", "r", 2, at + SECOND, at + 5 * SECOND, "later", None),
    ]


def test_a_rolled_back_transaction_counts_nothing(ledger_steps):
    """Nothing is counted if the transaction fails."""

    def fail(transaction):
        record(transaction, [ignored(ledger_steps)])
        raise LookupError

    with pytest.raises(LookupError):
        ledger_steps.ledger.write(fail)
    assert ledger_steps.ledger.ignored_counts() == {}


def test_rules_above_the_limit_are_counted_together(ledger_steps):
    """A source has at most 200 rules; the requests of all others are counted together. Known rules go on."""
    count(
        ledger_steps,
        *[ignored(ledger_steps, f"r{number}") for number in range(MAX_RULES - 1)],
        ignored(ledger_steps, source="erp"),
    )
    count(ledger_steps, *[ignored(ledger_steps, f"n{number}", body=f"{number}") for number in range(10)])
    count(ledger_steps, ignored(ledger_steps, "r0"), ignored(ledger_steps, "another", body="last", seconds=1))
    found = {rule.rule: rule for rule in ledger_steps.ledger.ignored_rules("oa")}
    assert len(found) == MAX_RULES + 1
    assert (found[OTHER_RULES].count, found[OTHER_RULES].body) == (10, "last")
    assert (found["n0"].count, found["r0"].count) == (1, 2)
    assert ledger_steps.ledger.ignored_counts()["erp", "r"] == 1


def test_the_number_of_rules_of_a_metric_is_limited(ledger_steps):
    """A metric has a bounded number of rules, whatever is in the table."""
    ledger_steps.sql("DELETE FROM ignored_requests")
    for number in range(MAX_RULES + 50):
        ledger_steps.sql(
            "INSERT INTO ignored_requests VALUES ('oa', ?, 1, ?, ?, '', NULL)", f"{number:03}", *[EARLIEST] * 2
        )
    counts = ledger_steps.ledger.ignored_counts()
    assert len(counts) == MAX_RULES + 1
    assert counts["oa", OTHER_RULES] == 50


def test_texts_are_truncated_and_cleaned_for_storage(ledger_steps):
    """Bodies and names are cut, and characters that PostgreSQL does not store are replaced."""
    count(
        ledger_steps, ignored(ledger_steps, "r" * 200, body="\0\ud800" + "é" * MAX_BODY_BYTES, media_type="x" * 5_000)
    )
    (rule,) = ledger_steps.ledger.ignored_rules()
    assert len(rule.rule) == MAX_RULE_CHARS
    assert rule.body.startswith("\\0\\ud800é")
    assert MAX_BODY_BYTES - 2 < len(rule.body.encode()) <= MAX_BODY_BYTES
    assert len(rule.media_type) < 300
    count(ledger_steps, ignored(ledger_steps, "r" * 200))
    assert [rule.count for rule in ledger_steps.ledger.ignored_rules()] == [2]


@pytest.mark.postgresql
@pytest.mark.usefixtures("long_timeouts")
def test_several_writers_lose_no_count(harness, ledger_steps_of, together):
    """No count of several writers is lost, and together they add no more rules than allowed."""
    writers = [ledger_steps_of(harness.open(start=False)) for _ in range(3)]
    for turn in range(20):
        given = [
            [ignored(writer), *[ignored(writer, f"{place}-{turn}-{number}") for number in range(8)]]
            for place, writer in enumerate(writers)
        ]
        together(
            *[
                lambda writer=writer, records=records: count(writer, *records)
                for writer, records in zip(writers, given, strict=True)
            ]
        )
    counts = writers[0].ledger.ignored_counts()
    assert counts["oa", "r"] == 60
    assert sum(counts.values()) == 60 * 9
    assert len(counts) == MAX_RULES + 1
