"""Queries of error groups: their activity, and the events and deliveries whose last attempt has an error of a group."""

from __future__ import annotations

import pytest

from flowhooks import OutcomeKind, State
from flowhooks.errors import SettingsError
from flowhooks.ledger import error_group_queries as queries
from flowhooks.ledger import search
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.error_group import identify

HOUR = 3_600
DOWN = identify("p:a", "Failed", "down").fingerprint
WRONG = identify("p:a", "Failed", "wrong").fingerprint


def fail(ledger_steps, instance, *errors, handler="p:a", target=State.DEAD):
    """Record failed attempts of a new delivery, one for each error; return its event and the delivery."""
    event_id, (queued,) = ledger_steps.accept(instance, handler)
    for number, error in enumerate(errors, 1):
        ledger_steps.ledger.claim(ledger_steps.queued(queued.delivery_id))
        last = number == len(errors)
        state = target if last else State.WAITING
        due_at = ledger_steps.clock.now() if state is State.WAITING else None
        outcome = OutcomeKind.LOST if state is State.UNKNOWN else OutcomeKind.FAILED
        assert ledger_steps.settle(queued, number, outcome, state, due_at, error=error)
    return event_id, queued.delivery_id


def listed(ledger_steps, **given):
    """The messages of the listed groups."""
    with ledger_steps.ledger.connection() as connection:
        return [group.message for group in queries.list_groups(connection, **{"limit": 10, **given})]


def activity(ledger_steps, fingerprint, **given):
    """The activity of one group."""
    with ledger_steps.ledger.connection() as connection:
        groups = queries.list_groups(connection, limit=10)
        return queries.activities(connection, groups, now=ledger_steps.clock.now(), **given)[fingerprint]


def found(ledger_steps, **given):
    """The events of each way to find the events of a filter, oldest first."""
    event_filter = EventFilter(**given)
    with ledger_steps.ledger.connection() as connection:
        page = search.search_events(connection, event_filter, limit=100)
    assert page.searched_until is None
    ids = [stored.event.id for stored in ledger_steps.ledger.page(event_filter, limit=100)]
    assert [event.id for event in page.events][::-1] == ids
    assert ledger_steps.ledger.count_events(event_filter) == len(ids)
    return ids


@pytest.mark.either
def test_groups_are_listed_by_handler_and_time(ledger_steps):
    """The group that was seen last comes first; a handler and a time restrict the list."""
    fail(ledger_steps, "i1", "down")
    ledger_steps.clock.advance(60)
    at = ledger_steps.clock.now()
    fail(ledger_steps, "i2", "wrong", "wrong")
    fail(ledger_steps, "i3", "odd", handler="p:b")
    assert sorted(listed(ledger_steps)[:2]) == ["odd", "wrong"]
    assert listed(ledger_steps)[2:] == ["down"]
    assert listed(ledger_steps, handler="p:a") == ["wrong", "down"]
    assert listed(ledger_steps, handler="p:a", since=at) == ["wrong"]
    assert listed(ledger_steps, handler="p:a", limit=1, skip=1) == ["down"]
    with ledger_steps.ledger.connection() as connection:
        (group,) = queries.groups_with_prefix(connection, DOWN[:8], limit=2)
        assert (group.fingerprint, group.count, group.versions) == (DOWN, 1, ())
        assert queries.groups_with_prefix(connection, "0" * 64, limit=2) == []
        assert queries.newest_attempt(connection, group) == group.sample


def test_the_activity_of_a_group(ledger_steps):
    """Attempts count in the hour in which they ended, and deliveries only while their last attempt has the error."""
    fail(ledger_steps, "old", "down")
    ledger_steps.clock.advance(30 * HOUR)
    fail(ledger_steps, "i1", "down")
    ledger_steps.clock.advance(22 * HOUR)
    fail(ledger_steps, "i2", "down", "down", target=State.WAITING)
    fail(ledger_steps, "i3", "down", "wrong")
    fail(ledger_steps, "i4", "down", target=State.UNKNOWN)
    ledger_steps.clock.advance(HOUR // 2)
    now = activity(ledger_steps, DOWN)
    assert (now.dead, now.waiting, now.unknown, now.open) == (2, 1, 0, 3)
    assert {hour: count for hour, count in enumerate(now.hours) if count} == {1: 1, 23: 3}
    assert (now.counted, now.is_complete) == (5, True)
    assert activity(ledger_steps, WRONG).open == 1
    lost = activity(ledger_steps, identify("p:a", "Lost", "down").fingerprint)
    assert (lost.dead, lost.waiting, lost.unknown, lost.hours[-1]) == (0, 0, 1, 1)


@pytest.mark.either
def test_the_activity_reads_a_limited_number_of_attempts(ledger_steps):
    """Of a large group only the newest attempts are read; a small one leaves its share to it."""
    for number in range(6):
        fail(ledger_steps, f"i{number}", "down")
        ledger_steps.clock.advance(1)
    fail(ledger_steps, "other", "wrong")
    large, small = activity(ledger_steps, DOWN, max_counted=4), activity(ledger_steps, WRONG, max_counted=4)
    assert (large.counted, large.dead, large.is_complete) == (3, 3, False)
    assert (small.counted, small.dead, small.is_complete) == (1, 1, True)
    with ledger_steps.ledger.connection() as connection:
        assert queries.activities(connection, [], now=ledger_steps.clock.now()) == {}


def test_a_filter_finds_events_by_the_error_of_the_last_attempt(ledger_steps, monkeypatch):
    """An earlier attempt does not count; a state and a handler apply to the same delivery."""
    one, _ = fail(ledger_steps, "i1", "down")
    waits, _ = fail(ledger_steps, "i2", "wrong", "down", target=State.WAITING)
    other, _ = fail(ledger_steps, "i3", "down", "wrong")
    event_id, (first, second) = ledger_steps.accept("i4", "p:a", "p:b")
    ledger_steps.ledger.claim(first)
    ledger_steps.settle(first, 1, OutcomeKind.FAILED, State.DEAD, error="down")
    for limit in (search.MAX_GROUP_CANDIDATES, 0):
        monkeypatch.setattr(search, "MAX_GROUP_CANDIDATES", limit)
        assert found(ledger_steps, error_group=DOWN) == [one, waits, event_id]
        assert found(ledger_steps, error_group=WRONG) == [other]
        assert found(ledger_steps, error_group=DOWN, state="dead") == [one, event_id]
        assert found(ledger_steps, error_group=DOWN, state="waiting") == [waits]
        assert found(ledger_steps, error_group=DOWN, handler="p:b") == []
        assert found(ledger_steps, error_group=DOWN, flow_instance_id="i4") == [event_id]
        assert found(ledger_steps, error_group=DOWN, since=ledger_steps.clock.now() + 10) == []
        assert found(ledger_steps, error_group="0" * 64) == []
    statuses = {status.delivery_id: status.error_group for status in ledger_steps.ledger.delivery_statuses(event_id)}
    assert statuses == {first.delivery_id: DOWN, second.delivery_id: None}


@pytest.mark.parametrize("wrong", ["", "0123", "G" * 8, "0" * 65, "A" * 64])
def test_an_invalid_error_group_fingerprint_is_rejected(wrong):
    """A typing error must not select all events."""
    with pytest.raises(SettingsError, match="error_group must be 8 to 64"):
        EventFilter(error_group=wrong)
