"""Moments as people write them."""

from __future__ import annotations

import time
from zoneinfo import ZoneInfo

import pytest

from flowhooks.operations.time_parsing import NonexistentTime, TimeZoneRequired, is_ambiguous, parse_time

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-24", 1795478400),
        (" 2026-11-24T09:30 ", 1795512600),
        ("2026-11-24T09:30+08:00", 1795483800),
        ("2026-11-24T09:30Z", 1795512600),
    ],
)
def test_dates_and_times(text, seconds):
    """Without a zone a time is UTC."""
    assert parse_time(text) == seconds * 1_000_000


@pytest.mark.parametrize(("text", "ago"), [("2h", 7200), ("3 d ago", 259200), ("0s", 0)])
def test_relative_times(text, ago):
    """A number with a unit means this long ago."""
    before = time.time_ns() // 1000
    found = parse_time(text)
    assert before <= found + ago * 1_000_000 <= time.time_ns() // 1000 + 1


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        ("2026-11-27T09:09", "Asia/Shanghai", "2026-11-27T01:09Z"),
        ("2026-11-27T10:00", "America/New_York", "2026-11-27T15:00Z"),
        ("2026-07-27", "Europe/Berlin", "2026-07-26T22:00Z"),
        ("2026-11-27T09:09Z", "Asia/Shanghai", "2026-11-27T09:09Z"),
    ],
)
def test_times_in_a_time_zone(text, zone, utc):
    """Without an offset the time is read in the zone; with one the zone does not matter."""
    assert parse_time(text, ZoneInfo(zone)) == parse_time(utc)


def test_a_nonexistent_local_time():
    """A local time that does not exist is refused."""
    with pytest.raises(NonexistentTime):
        parse_time("2026-03-29T02:30", BERLIN)
    assert parse_time("2026-03-29T03:00", BERLIN) == parse_time("2026-03-29T01:00Z")


def test_an_ambiguous_local_time():
    """The earlier of two is used, or the later one on request."""
    assert parse_time("2026-10-25T02:30", BERLIN) == parse_time("2026-10-25T00:30Z")
    assert parse_time("2026-10-25T02:30", BERLIN, later=True) == parse_time("2026-10-25T01:30Z")
    assert parse_time("2026-10-25T02:30+01:00", BERLIN) == parse_time("2026-10-25T01:30Z")
    ambiguous = ("2026-10-25T02:30", "2026-10-25T03:00", "2026-03-29T02:30", "2026-10-25T02:30+01:00", "2h", "soon")
    assert [text for text in ambiguous if is_ambiguous(text, BERLIN)] == ["2026-10-25T02:30"]


def test_times_without_a_known_zone():
    """Without a known zone only a time with an offset is accepted."""
    with pytest.raises(TimeZoneRequired):
        parse_time("2026-11-24T09:30", None)
    assert parse_time("2026-11-24T09:30Z", None) == parse_time("2026-11-24T09:30")


@pytest.mark.parametrize("text", ["", "tomorrow", "09:09", "2h3", "2026-13-01", "999999999w", "9h\x00", "1 year"])
def test_invalid_times(text):
    """The error for an invalid text names the permitted forms."""
    with pytest.raises(ValueError, match="write 2026-11-24"):
        parse_time(text)
