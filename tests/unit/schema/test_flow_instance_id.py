"""The flowInstanceId of a path: decoded once, as strict UTF-8."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from flowhooks.errors import InvalidCallback
from flowhooks.schema.flow_instance_id import decode


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        ("4711", "4711"),
        ("a+b", "a+b"),
        ("a%2Bb", "a+b"),
        ("a%20b", "a b"),
        ("order%2F2026%2f17", "order/2026/17"),
        ("a%2561", "a%61"),
        ("%E6%B5%81%e7%a8%8b", "流程"),
        ("e%CC%81", "e\u0301"),
        ("%C3%A9", "\u00e9"),
        (quote("a?b#c&d=e;f,g'h\"i", safe=""), "a?b#c&d=e;f,g'h\"i"),
    ],
)
def test_the_id_is_decoded_once(segment, text):
    """Each escape is one byte of UTF-8; a plus is a plus, and no Unicode form is changed into another."""
    assert decode(segment) == text


@pytest.mark.parametrize(
    "segment", ["%", "a%", "a%4", "a%zz", "%%41", "%ff", "%c0%af", "%e6%b5", "%ed%a0%80", "%f4%90%80%80", "%u0041"]
)
def test_invalid_percent_encoding_is_rejected(segment):
    """A malformed escape, invalid UTF-8 and a lone surrogate are refused."""
    with pytest.raises(InvalidCallback) as caught:
        decode(segment)
    assert caught.value.text("en") == "The flowInstanceId in the path is not percent-encoded UTF-8."
