"""Values on pages: visible, bounded, and never ambiguous."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from flowhooks.web.admin.console import rendering
from flowhooks.web.admin.console.rendering import (
    Templates,
    first_sentence,
    format_duration,
    format_number,
    format_percent,
    shorten,
    with_time_elements,
)

SOURCES = {file.name: file.read_text() for file in Path(rendering.__file__).with_name("templates").glob("*.html")}


def test_a_listing_is_brief():
    """A long value is cut, and its line breaks do not break the listing."""
    assert shorten("x" * 500, 10) == "x" * 9 + "…"
    assert shorten("one\ntwo") == "one\\ntwo"
    assert shorten(None) == ""


def test_the_first_sentence_of_a_message():
    """A full stop within a number ends no sentence."""
    assert first_sentence("Only 0.6 GiB are free. Free space.") == "Only 0.6 GiB are free."
    assert first_sentence("只剩 0.6 GiB。请清理磁盘。") == "只剩 0.6 GiB。"
    assert first_sentence("No end") == "No end"


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [
        (0, "0 s"),
        (1_500, "1.5 ms"),
        (999_499, "999 ms"),
        (999_600, "1 s"),
        (2_345_678, "2.35 s"),
        (3_600_000_000, "1 h"),
        (7_500_000_000, "2 h 5 min"),
        (90_061_000_000, "1 d 1 h"),
        (None, "\u2013"),
    ],
)
def test_lengths_of_time(microseconds, shown):
    """A duration has at most two units."""
    assert format_duration(microseconds) == shown


def test_lengths_of_time_in_chinese():
    """All units are Chinese."""
    lengths = (5, 1_500, 1_240_000, 848_000_000, 7_500_000_000, 90_061_000_000, None)
    assert [format_duration(length, "zh") for length in lengths] == [
        "5 微秒",
        "1.5 毫秒",
        "1.24 秒",
        "14 分钟 8 秒",
        "2 小时 5 分钟",
        "1 天 1 小时",
        "\u2013",
    ]


def test_numbers_and_shares():
    """Thousands are separated; a share below all is never shown as 100 %."""
    assert (format_number(1234567), format_number(2.05), format_number(1234.5)) == ("1,234,567", "2.0", "1,234")
    assert [format_percent(share) for share in (1, 0.99999, 0.5, 0, None)] == [
        "100 %",
        "99.9 %",
        "50 %",
        "0 %",
        "\u2013",
    ]


def test_forms_have_their_values_as_entered():
    """Each value of a form has the filter that changes nothing, so that a form sends the value that was entered."""
    for name, source in SOURCES.items():
        for value in re.findall(r'<(?:input|option|button)\b[^>]*? value="({{.*?}})"|<textarea[^>]*>({{.*?}})', source):
            assert "".join(value).endswith("| entered }}"), (name, value)


def test_templates_are_loaded_at_startup(tmp_path, monkeypatch):
    """A running server keeps its templates when another version is installed."""
    shutil.copytree(rendering._TEMPLATES, there := tmp_path / "templates")
    monkeypatch.setattr(rendering, "_TEMPLATES", there)
    templates = Templates()
    shutil.rmtree(there)
    values = dict.fromkeys(("operator", "logged_in", "named", "just_done", "place", "version", "database"))
    shown = {"status": 503, "what": "problem.ledger.what", "then": "problem.ledger.then"}
    page = templates.render("problem.html", "en", **values, **shown, in_language=lambda language: language)
    assert b"The ledger cannot be read at present" in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no time <b>", "no time &lt;b&gt;"),
        (
            "since 2026-11-24T09:30:00.123Z: <b>",
            'since <time datetime="2026-11-24T09:30:00.123Z">2026-11-24 09:30:00 UTC</time>: &lt;b&gt;',
        ),
        (
            "始于 2026-01-01T00:00:00.000Z。",
            '始于 <time datetime="2026-01-01T00:00:00.000Z">2026-01-01 00:00:00 UTC</time>。',
        ),
        (
            "run `flowhooks engines reconcile --since 2026-01-01T00:00:00.000Z` or `<b>`",
            "run <code>flowhooks engines reconcile --since 2026-01-01T00:00:00.000Z</code> or `&lt;b&gt;`",
        ),
        ("2026-13-24T09:30:00.123Z", "2026-13-24T09:30:00.123Z"),
        ("2026-11-24T09:30:00.12…", "2026-11-24T09:30:00.12…"),
        ("\x1b 2026-11-24", "\\u001b 2026-11-24"),
    ],
)
def test_times_in_a_text_are_time_elements(text, shown):
    """A time in a sentence is an element, which the page's script converts, but no time of a command is."""
    assert str(with_time_elements(text)) == shown
