"""Error groups: two messages that differ only in values have one fingerprint."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.model.error_group import (
    MAX_MESSAGE_CHARS,
    ErrorIdentity,
    identify,
    normalize_message,
    other_errors,
)

PLAIN = st.text(alphabet="abg xyz ,;()订单失败é", max_size=20).map(str.strip)
"""Text of messages that no rule changes: no digits, quotes or words that are hexadecimal."""
VALUES = st.one_of(
    st.uuids().map(str),
    st.integers(-(10**20), 10**20).map(str),
    st.floats(0, 10**9, allow_subnormal=False).map(lambda number: f"{number:.3f}"),
    st.integers(0, 10**9).map(lambda number: f"{number:,}"),
    st.integers(2**40, 2**64).map(lambda number: f"0x{number:x}"),
    st.integers(0, 99_999).map(lambda number: f"C-2024-{number:05}"),
    st.integers(0, 9_999).map(lambda number: f"order_{number}"),
    st.binary(min_size=16, max_size=32).map(bytes.hex),
    st.datetimes(datetime(2000, 1, 1), datetime(2050, 1, 1)).map(datetime.isoformat),  # noqa: DTZ001
    st.datetimes(datetime(2000, 1, 1), datetime(2050, 1, 1), timezones=st.just(UTC)).map(str),  # noqa: DTZ001
    st.ip_addresses().map(str).filter(lambda address: any(map(str.isdigit, address))),
    st.text(alphabet=st.characters(exclude_characters="'", exclude_categories=["Cs"]), max_size=30).map(
        lambda text: f"'{text}'"
    ),
    st.text(alphabet=st.characters(exclude_characters='"', exclude_categories=["Cs"]), max_size=30).map(
        lambda text: f'"{text}"'
    ),
    st.from_regex(r"[a-z][a-z.+-]{0,9}@[a-z]{1,9}\.com", fullmatch=True),
    st.sampled_from(["http://erp/orders/7", "https://erp.example/a?b=c", "postgresql://u@db/x"]),
)


@given(st.lists(PLAIN, min_size=1, max_size=4), st.data())
def test_messages_that_differ_only_in_values_have_one_fingerprint(texts, data):
    """Ids, numbers, times, quoted values and addresses do not tell two errors apart."""

    def message():
        return "".join(f"{text} {data.draw(VALUES)} : " for text in texts)

    one, other = message(), message()
    if max(len(one), len(other)) <= 1_000:
        assert identify("p:h", "E", one).fingerprint == identify("p:h", "E", other).fingerprint


@given(st.text(), st.text(), st.text(), st.text())
def test_fingerprint_of_any_text_is_stable_and_bounded(handler, error_type, message, frame):
    """No text raises. The parts are short, and the same text always has the same fingerprint."""
    identity = identify(handler, error_type, message, frame)
    assert len(identity.message) <= MAX_MESSAGE_CHARS
    assert len(identity.fingerprint) == 64
    assert identity == identify(handler, error_type, message, frame)
    assert normalize_message(identity.message).count("\n") == 0


@pytest.mark.parametrize(
    ("message", "normalized"),
    [
        ("ERP answered 503 for order C-2024-0012 at 2026-11-28T02:30:21.123Z", "ERP answered # for order # at #"),
        ("can't find user's file 'x' in /var/lib/a12/b.txt", "can't find user's file # in /var/lib/#/b.txt"),
        ("Sat, 28 Nov 2026 02:30:11 GMT: no answer", "# GMT: no answer"),
        ("<Order object at 0x7f00aabb>", "<Order object at #>"),
        ("[Errno 111] connect to 10.0.0.1:5432 refused", "[Errno #] connect to # refused"),
        ("订单 12345 失败", "订单 # 失败"),
        ("订单12345失败", "订单#失败"),
        ("no user “Zoë” and \u2018X\u2019 and «Y» and 「张三」", "no user # and # and # and #"),
        ("ids [1, 2, 3] of ann@example.com", "ids [#] of #"),
        ("connect to 'http://erp/orders/7' timed out", "connect to # timed out"),
        ("user 'ann@example.com' is unknown", "user # is unknown"),
        ("see http://erp/?q='a' first", "see # first"),
        ("unclosed 'quote of a cut line", "unclosed #"),
        ("balance -5 is below +3", "balance # is below #"),
        ("two\n lines\t of text", "two lines of text"),
        ("no digits and nothing else", "no digits and nothing else"),
        ("", ""),
    ],
)
def test_words_of_a_message_remain_readable(message, normalized):
    """The words of a message remain readable."""
    assert normalize_message(message) == normalized


@pytest.mark.parametrize(
    "unit",
    [
        "'",
        '"',
        "“",
        "\\'",
        "a-",
        "1",
        "-1",
        "#",
        "# ",
        "a@",
        "@",
        "a.",
        "http://",
        "Jan ",
        "Sat, ",
        "a:/",
        "「",
        "+",
        "A",
    ],
)
def test_a_hostile_message_takes_no_longer_than_a_short_message(unit):
    """Of a message of a megabyte only the beginning is looked at, and no pattern reads it more than a few times."""
    whole = unit * (1_000_000 // len(unit))
    assert normalize_message(whole) == normalize_message(whole[:5_000])


def test_each_part_distinguishes_groups():
    """Errors of other handlers, types, messages and frames are other groups."""
    parts = ("p:h", "ValueError", "no amount", "p/sync.py:post")
    fingerprints = {identify(*parts).fingerprint, other_errors("p:h").fingerprint, other_errors("p:g").fingerprint}
    for number in range(4):
        fingerprints.add(
            ErrorIdentity(*(f"{part}x" if at == number else part for at, part in enumerate(parts))).fingerprint
        )
    assert len(fingerprints) == 7
