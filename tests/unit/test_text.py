"""Text from outside is escaped, replaced or cut for a line, a page or a database."""

from __future__ import annotations

import pytest

from flowhooks.text import (
    MAX_LINE_CHARS,
    escape_control,
    escape_invisible,
    one_line,
    printable_line,
    to_storable,
    truncate,
    truncate_middle,
)


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("", ""),
        ("中文", "中文"),
        ("0123456789", "0123456789"),
        ("0123456789a", "012345678…"),
        ("a\r\nb", "a\\r\\nb"),
        ("\u202ea", "\\u202ea"),
        ("\x1b[31m", "\\u001b[31m"),
        ("\ud800", "\\ud800"),
        ("\0\0", "\\u0000\\u0…"),
        ("\U000e0001", "\\udb40\\ud…"),
    ],
)
def test_a_callers_text_is_escaped_and_cut(given, seen):
    """A caller's text is shown on one line, with visible characters only, up to a maximum length."""
    assert escape_control(given, 10) == seen
    assert len(escape_control(given * 100, 10)) <= 10


def test_an_escaped_text_is_whole_without_a_limit():
    """Without a limit nothing is cut, however long the escapes; a replacement replaces one character by one."""
    assert escape_control("\U000e0001" * 100) == "\\udb40\\udc01" * 100
    assert escape_control("a\x1b\nb", replacement="?") == "a??b"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("业务 key\tand\nlines", "业务 key\tand\nlines"),
        ("a\x00b", "a\\u0000b"),
        ("\x1b[31mred\r", "\\u001b[31mred\\u000d"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\ud800", "\\ud800"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("line\u2028end", "line\\u2028end"),
        ("emoji 👍 שלום", "emoji 👍 שלום"),
    ],
)
def test_invisible_characters_are_escaped(given, shown):
    """Controls, direction marks and characters without a width are escaped; letters are not."""
    assert escape_invisible(given) == shown


def test_a_line_is_bounded_and_printable():
    """White space is collapsed, a control is replaced, and a long line ends with an ellipsis."""
    assert one_line(" a\r\n\tb\u2028c ") == "a b c"
    assert printable_line("one\ntwo\x1b[31m") == "one two\N{REPLACEMENT CHARACTER}[31m"
    assert printable_line("x" * 1000) == "x" * (MAX_LINE_CHARS - 1) + "…"


def test_truncation_of_long_texts():
    """A short text does not change; of a long one the beginning is kept, or the beginning and the end."""
    assert truncate("abcd", 4) == truncate_middle("abcd", 4) == "abcd"
    assert truncate("abcde", 4) == "abc…"
    assert truncate("abcde", 4, count_ellipsis=False) == "abcd…"
    assert truncate_middle("abcdef", 4) == "ab … ef"
    assert truncate_middle("abcdef", 4, "|") == "ab|ef"


def test_characters_that_no_database_can_store_are_escaped():
    """NUL and lone surrogates, which no database can store as text, are escaped."""
    assert to_storable("a\0b\ud800", 10) == "a\\0b\\ud800"
    assert to_storable("x" * 100, 10) == "xxxxx … xxxxx"
