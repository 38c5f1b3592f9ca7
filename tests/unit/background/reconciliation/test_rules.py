"""The pure functions of reconciliation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flowhooks.background.reconciliation import rules
from flowhooks.background.reconciliation.context import first_position
from flowhooks.background.reconciliation.rules import OVERLAP, Candidates, Known, Window
from flowhooks.clock import DAY, SECOND
from flowhooks.ledger.engine_book import EventOfInstance
from flowhooks.model.engine import EndState, FinishedInstance
from flowhooks.schema.schemas import Schemas
from flowhooks.settings import EngineSettings, Source

NOW = 1_767_225_600 * SECOND
TIME = datetime(2026, 1, 1, tzinfo=UTC)
AT = first_position("oa", NOW - 10 * DAY)


@pytest.fixture(scope="module")
def schemas():
    """The shipped schemas."""
    return Schemas.load()


@pytest.fixture
def row(schemas):
    """A function that makes the row of an instance without an event."""

    def make(settings=None, source=None, **fields):
        engine = EngineSettings(**({"client": "fake", "url": "http://x"} | (settings or {})))
        candidates = Candidates("oa", Source(engine=engine, **(source or {})), engine, schemas)
        given = {"id": "i1", "ended_at": TIME, "end_state": EndState.COMPLETED} | fields
        return candidates.to_row(FinishedInstance(**given), NOW)

    return make


@pytest.mark.parametrize(
    ("read_until", "since", "sweeps", "earliest", "asked", "start"),
    [
        (NOW - 300 * SECOND, 0, False, 0, None, NOW - 300 * SECOND - OVERLAP),
        (NOW - 300 * SECOND, NOW - 400 * SECOND, False, 0, None, NOW - 400 * SECOND),
        (NOW - 300 * SECOND, 0, True, 0, None, NOW - DAY),
        (NOW - 300 * SECOND, NOW - 400 * SECOND, True, 0, None, NOW - 400 * SECOND),
        (NOW - 3 * DAY, 0, True, 0, None, NOW - 3 * DAY - OVERLAP),
        (NOW - 3 * DAY, 0, False, NOW - DAY, None, NOW - DAY),
        (NOW, NOW, False, 0, NOW - 5 * DAY, NOW - 5 * DAY),
        (NOW, NOW, False, NOW - DAY, NOW - 5 * DAY, NOW - DAY),
        (NOW - 3 * DAY, 0, False, 0, NOW - DAY, NOW - 3 * DAY - OVERLAP),
    ],
)
def test_start_of_a_window(read_until, since, sweeps, earliest, asked, start):  # noqa: PLR0917 (one column each)
    """A window begins before the last one ended, never before the first contact unless an operator asks for it."""
    position = replace(AT, read_until=read_until, since=since)
    window = rules.next_window(position, NOW, sweeps=sweeps, earliest=earliest, since=asked)
    assert window == Window(start, NOW)


def test_a_window_has_whole_milliseconds():
    """The window is rounded outwards to what engines can compare, and is never empty."""
    position = replace(AT, read_until=NOW + 1234, since=0)
    assert rules.next_window(position, NOW + 5678, sweeps=False, earliest=0) == Window(NOW - OVERLAP + 1000, NOW + 6000)
    behind = replace(AT, read_until=NOW, since=NOW)
    assert rules.next_window(behind, NOW - DAY, sweeps=False, earliest=0) == Window(NOW, NOW)


def test_the_last_ended_instance_of_each_id_remains():
    """Of several instances with one id the one that ended last remains."""
    made = [
        FinishedInstance(id=name, ended_at=TIME + timedelta(seconds=at), end_state=EndState.COMPLETED)
        for name, at in (("a", 2), ("b", 1), ("a", 3), ("a", 1))
    ]
    assert [(instance.id, instance.ended_at.second) for instance in rules.last_of_each(made)] == [("a", 3), ("b", 1)]


def test_order_of_the_skip_rules(row):
    """The id is looked at first, then tenant, parent, end state and data."""
    everything = {"parent_id": "p", "tenant_id": "t", "end_state": EndState.ERROR, "conclusion": "x" * 200}
    tenants = {"tenants": ("other",)}
    assert row(tenants, id=" ", **everything).rule == "invalid_id"
    assert row(tenants, **everything).rule == "tenant"
    assert row(**everything).rule == "child"
    assert row({"children": True}, **everything).rule == "end_state"
    assert row({"children": True, "kinds": ("error",)}, **everything).rule == "invalid"
    assert row(id="").rule == "invalid_id"


def test_key_and_version_default_to_the_definition_id(row):
    """The book has the same key and version as the event."""
    made = row(process_definition_id="leave:3:4711")
    assert (made.process_definition_key, made.process_definition_version) == ("leave", 3)


def test_the_body_has_no_nulls_and_only_named_variables(row):
    """Members without a value are left out; a variable keeps its own name."""
    made = row({"variables": ("a", "b")}, variables={"a": 1, "b": None, "c": 3}, conclusion="x")
    assert made.body == '{"conclusion": "x", "endTime": "2026-01-01T00:00:00.000Z", "endState": "completed", "a": 1}'


@pytest.mark.parametrize(
    ("started_at", "received", "skew", "found"),
    [
        (None, [NOW - 10 * DAY], 0, True),
        (NOW, [NOW - 59 * SECOND], 0, True),
        (NOW, [NOW - 61 * SECOND], 0, False),
        (NOW, [NOW - 61 * SECOND], 3600 * SECOND, True),
        (NOW, [NOW + SECOND], -3600 * SECOND, True),
        (NOW, [NOW - 61 * SECOND], -3600 * SECOND, False),
        (NOW, [], 0, False),
    ],
)
def test_event_of_an_instance(row, started_at, received, skew, found):
    """An event counts if it was received after the start, with or without the skew, with a tolerance of a minute."""
    candidate = replace(row(), started_at=started_at)
    known = Known(None, [EventOfInstance(f"e{number}", "complete", at) for number, at in enumerate(received)])
    decided = rules.decide(candidate, known, since=0, skew=skew)
    assert (decided.disposition, decided.event_id) == (("has_event", "e0") if found else ("in_grace", None))
    purged = rules.decide(candidate, Known(None, (), max(received, default=None)), since=0, skew=skew)
    assert purged.rule == ("purged" if found else "")


@pytest.mark.parametrize(
    ("kind", "received", "skew", "found"),
    [
        ("finished", NOW - 60 * SECOND, 0, True),
        ("finished", NOW - 61 * SECOND, 0, False),
        ("finished", NOW - 61 * SECOND, 3600 * SECOND, True),
        ("finished", NOW - 61 * SECOND, -3600 * SECOND, False),
        ("finished", NOW + 3600 * SECOND, -3600 * SECOND, True),
        ("cancel", NOW - DAY, 0, True),
    ],
)
def test_event_of_an_end(row, kind, received, skew, found):
    """A kind that reports no end counts only if it came at the end, with or without the skew, or later."""
    candidate = replace(row(), started_at=NOW - 2 * DAY)
    events = [EventOfInstance("e0", kind, received), EventOfInstance("e1", "suspend", NOW - DAY + SECOND)]
    decided = rules.decide(candidate, Known(None, events), since=0, skew=skew)
    assert decided.event_id == ("e0" if found else None)


def test_an_event_has_precedence_over_every_rule(row):
    """An instance that a rule would skip, and that has an event, has an event."""
    child = row(parent_id="p")
    assert child.rule == "child"
    decided = rules.decide(child, Known(None, [EventOfInstance("e1", "complete", NOW)]), since=NOW + DAY, skew=0)
    assert (decided.disposition, decided.rule, decided.detail) == ("has_event", "", "")


def test_an_instance_ended_before_the_first_contact_is_skipped(row):
    """An instance that ended before the first contact is skipped by that rule."""
    assert rules.decide(row(), Known(None), since=NOW + 1, skew=0).rule == "before_first_contact"
    assert rules.decide(row(), Known(None), since=NOW, skew=0).rule == ""


def test_decided_rows_change_only_on_a_new_end_or_by_an_operator(row):
    """Rows stay as they are until the instance ends again or an operator asks."""
    new = row()
    event, skipped = replace(new, disposition="has_event", body=None), row(parent_id="p")
    declined = replace(new, disposition="skipped", rule="declined")
    ended_again = replace(new, ended_at=NOW + 1)
    none, skipped_ones, all_of_them = rules.Again(), rules.Again(skipped=True), rules.Again(skipped=True, declined=True)
    assert rules.is_decided(new, event, again=all_of_them)
    assert rules.is_decided(new, new, again=all_of_them)
    assert rules.is_decided(new, skipped, again=none)
    assert not rules.is_decided(new, skipped, again=skipped_ones)
    assert rules.is_decided(new, declined, again=skipped_ones)
    assert not rules.is_decided(new, declined, again=all_of_them)
    assert not rules.is_decided(ended_again, event, again=none)
    assert not rules.is_decided(ended_again, skipped, again=none)
    assert not rules.is_decided(ended_again, declined, again=none)
    assert not rules.is_decided(replace(new, body="{}"), new, again=none)


def test_callback_of_an_instance(row):
    """The kind follows from the end; the start is by our clock; an undecided end is marked."""
    made = replace(row({"kinds": ("error",)}, end_state=EndState.ERROR), started_at=NOW)
    callback = rules.to_callback(made, 5 * SECOND)
    assert (callback.kind, callback.origin, callback.started_at, callback.end_undecided) == (
        "error",
        "reconciled",
        NOW - 5 * SECOND,
        False,
    )
    assert callback.body == {"endTime": "2026-01-01T00:00:00.000Z", "endState": "error"}
    undecided = rules.to_callback(row(end_state=EndState.UNDECIDED), 0)
    assert (undecided.kind, undecided.end_undecided, undecided.started_at) == ("complete", True, None)
