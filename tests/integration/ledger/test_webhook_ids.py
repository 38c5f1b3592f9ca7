"""Ids of signed callbacks: each is valid for one path and one body, in a batch, in sequence, and between processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks.clock import SECOND
from flowhooks.ledger import webhook_ids

HOUR = 3600 * SECOND


def signed(ledger_steps, message, *given, **body):
    """A signed event."""
    return replace(ledger_steps.new(*given, **body), webhook_id=message)


def ids(ledger_steps):
    """The stored ids of signed callbacks."""
    return sorted(ledger_steps.sql("SELECT source, webhook_id FROM webhook_ids"))


def test_a_webhook_id_is_valid_for_one_path_and_body(ledger_steps):
    """The same callback is a repeat; the id with another flow, data or kind is not stored."""
    first = ledger_steps.store(signed(ledger_steps, "m1", "i1", a=1))
    assert first.new
    again = ledger_steps.store(signed(ledger_steps, "m1", "i1", a=1))
    assert (again.new, again.webhook_id_reused, again.event_id) == (False, False, first.event_id)
    for other in (
        signed(ledger_steps, "m1", "i2", a=1),
        signed(ledger_steps, "m1", "i1", a=2),
        signed(ledger_steps, "m1", "i1", kind="cancel", a=1),
    ):
        found = ledger_steps.store(other)
        assert (found.webhook_id_reused, found.new, found.event_id) == (True, False, "")
    assert ledger_steps.sql("SELECT count(*) FROM events") == [(1,)]
    assert ledger_steps.sql("SELECT count(*) FROM conflicts") == [(0,)]
    assert ledger_steps.sql("SELECT repeats FROM events") == [(1,)]
    assert ids(ledger_steps) == [("default", "m1")]


def test_the_same_data_in_another_json_encoding_is_a_repeat(ledger_steps):
    """The same data in another JSON encoding is a repeat, as for an engine that does not sign."""
    first = ledger_steps.store(signed(ledger_steps, "m1", "i1", a=1, b="x", ignore=["/at"], at=1))
    again = signed(ledger_steps, "m1", "i1", b="x", a=1, ignore=["/at"], at=2)
    found = ledger_steps.store(replace(again, body='{"b": "\\u0078", "a": 1.0, "at": 2}'))
    assert (found.webhook_id_reused, found.new, found.conflict, found.event_id) == (False, False, False, first.event_id)
    assert ledger_steps.sql("SELECT repeats FROM events") == [(1,)]


def test_the_same_id_of_another_source_is_another_message(ledger_steps):
    """The same id of another source is another message."""
    assert ledger_steps.store(signed(ledger_steps, "m1", "i1", source="erp")).new
    assert ledger_steps.store(signed(ledger_steps, "m1", "i2", source="crm")).new
    assert ids(ledger_steps) == [("crm", "m1"), ("erp", "m1")]


def test_a_repeat_with_a_new_id_gets_the_same_answer(ledger_steps):
    """A repeat with a new id is answered as before."""
    assert ledger_steps.store(signed(ledger_steps, "m1", "i1", a=1)).new
    assert not ledger_steps.store(signed(ledger_steps, "m2", "i1", a=1)).new
    assert ledger_steps.store(signed(ledger_steps, "m3", "i1", a=2)).conflict
    assert len(ids(ledger_steps)) == 3


def test_the_first_callback_with_an_id_in_a_batch_is_stored(ledger_steps):
    """Of several with one id in a batch the first counts; unsigned callbacks are not affected."""
    items = [signed(ledger_steps, "m1", instance, a=1) for instance in ("i1", "i2", "i1")]
    items.append(ledger_steps.new("i2", a=1))
    first, other, same, plain = ledger_steps.run_in_one_batch(
        *[lambda item=item: ledger_steps.store(item) for item in items]
    )
    assert (first.new, first.webhook_id_reused) == (True, False)
    assert other.webhook_id_reused
    assert (same.new, same.webhook_id_reused, same.event_id) == (False, False, first.event_id)
    assert plain.new
    assert ledger_steps.sql("SELECT count(*) FROM events") == [(2,)]


def test_a_reused_id_is_found_with_locked_instances(ledger_steps):
    """A reused id is found also for a source whose process instances are locked."""
    assert ledger_steps.store(replace(signed(ledger_steps, "m1", "i1", a=1), locks_instance=True)).new
    other = ledger_steps.store(replace(signed(ledger_steps, "m1", "i2", a=1), locks_instance=True))
    assert (other.webhook_id_reused, other.new, other.event_id) == (True, False, "")


def test_unsigned_callbacks_store_no_id(ledger_steps):
    """Nothing is stored for unsigned callbacks."""
    ledger_steps.accept("i1", a=1)
    assert ids(ledger_steps) == []


@pytest.mark.postgresql
@pytest.mark.usefixtures("long_timeouts")
def test_two_processes_with_one_id_at_the_same_time(harness, ledger_steps_of, together):
    """Of two flows with one id, one stores it; the other gets an error, and is not stored."""
    two = [ledger_steps_of(harness.open(start=False)) for _ in range(2)]
    for number in range(20):
        items = [
            signed(ledger_steps, f"m{number}", f"i{number}-{place}", a=1) for place, ledger_steps in enumerate(two)
        ]
        found = together(
            *[
                lambda ledger_steps=ledger_steps, item=item: ledger_steps.store(item)
                for ledger_steps, item in zip(two, items, strict=True)
            ]
        )
        assert sorted(result.webhook_id_reused for result in found) == [False, True]
    assert two[0].sql("SELECT count(*) FROM events") == [(20,)]
    assert len(ids(two[0])) == 20


def test_old_ids_are_deleted_in_small_batches(ledger_steps):
    """Ids last used before a time are deleted in small batches; later used ids stay."""
    for number in range(5):
        ledger_steps.store(signed(ledger_steps, f"m{number}", f"i{number}"))
    ledger_steps.clock.advance(hours=2)
    ledger_steps.store(signed(ledger_steps, "m4", "i4"))
    before = ledger_steps.clock.now() - HOUR
    gone = [
        ledger_steps.ledger.write(lambda transaction: webhook_ids.expire(transaction, before, limit=3))
        for _ in range(3)
    ]
    assert gone == [3, 1, 0]
    assert ids(ledger_steps) == [("default", "m4")]
