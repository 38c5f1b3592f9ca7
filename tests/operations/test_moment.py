"""Moments as people write them."""

from __future__ import annotations

import time

import pytest

from flowhooks.operations.moment import moment


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
    """Without a zone it is UTC."""
    assert moment(text) == seconds * 1_000_000


@pytest.mark.parametrize(("text", "ago"), [("2h", 7200), ("3 d ago", 259200), ("0s", 0)])
def test_so_long_ago(text, ago):
    """A number with a unit is so long ago."""
    assert abs(moment(text) / 1_000_000 - (time.time() - ago)) < 5


@pytest.mark.parametrize("text", ["", "tomorrow", "2h3", "2026-13-01", "999999999w", "9h\x00", "1 year"])
def test_anything_else(text):
    """What is no moment says what may be written."""
    with pytest.raises(ValueError, match="write 2026-11-24"):
        moment(text)
