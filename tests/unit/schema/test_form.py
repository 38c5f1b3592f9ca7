"""Forms: as the URL Standard of WHATWG reads them, but for what is no UTF-8."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.errors import MalformedRequest
from flowhooks.schema.form import MAX_FIELDS, parse_form


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"id=7&status=2", {"id": "7", "status": "2"}),
        (b"a", {"a": ""}),
        (b"X", {"X": ""}),
        (b"\x0b", {"\x0b": ""}),
        (b"a=", {"a": ""}),
        (b"=a", {"": "a"}),
        (b"=", {"": ""}),
        (b"a=b=c", {"a": "b=c"}),
        (b"a=b&&c=d&", {"a": "b", "c": "d"}),
        (b"&", {}),
        (b"a=1;b=2", {"a": "1;b=2"}),
        (b"a=%26%3D%2B%25", {"a": "&=+%"}),
        (b"a+b=c+d%20e%2Bf", {"a b": "c d e+f"}),
        (b"a%3Db=c", {"a=b": "c"}),
        (b"a=%e4%BD%a0&%E5%A5%BD=1", {"a": "你", "好": "1"}),
        ("a=你好".encode(), {"a": "你好"}),
        (b"a=%F0%9F%98%80", {"a": "😀"}),
        (b"a=100%&b=%zz&c=%4", {"a": "100%", "b": "%zz", "c": "%4"}),
        (b"a=%2525", {"a": "%25"}),
        (b"a=1\r\n", {"a": "1\r\n"}),
        (b"a=%EF%BB%BF1", {"a": "\ufeff1"}),
        (b"a[]=1&a[]=2", {"a[]": ["1", "2"]}),
        (b"a=1&b=2&a=&a=3", {"a": ["1", "", "3"], "b": "2"}),
        (b"a=1&%61=1", {"a": ["1", "1"]}),
        (b"A=1&a=2", {"A": "1", "a": "2"}),
        (b"a=null&b=true&c=1", {"a": "null", "b": "true", "c": "1"}),
    ],
)
def test_fields(body, fields):
    """Names and values are decoded as a browser encodes them; a repeated field is a list."""
    assert parse_form(body) == fields


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b"", "form_empty"),
        (b" \r\n", "form_empty"),
        (b"\xef\xbb\xbfa=1", "body_bom"),
        (b"a=\xc4\xe3", "body_not_utf8"),  # GBK
        (b"a=%C4%E3", "form_not_utf8"),
        (b"%C4%E3=a", "form_not_utf8"),
        (b"a=%C0%A0", "form_not_utf8"),  # an overlong space
        (b"a=%ED%A0%80", "form_not_utf8"),  # half of a surrogate pair
        (b"a=%E4%BD", "form_not_utf8"),
        (b"a=%00", "form_nul"),
        (b"%00=a", "form_nul"),
        (b"a=\x00", "form_nul"),
    ],
)
def test_invalid_forms_are_rejected(body, key):
    """A form that cannot be stored as it was sent is refused."""
    with pytest.raises(MalformedRequest) as caught:
        parse_form(body)
    assert caught.value.key == key
    assert caught.value.text("en")


def test_the_message_names_the_invalid_byte():
    """The message names the first byte that is not UTF-8."""
    with pytest.raises(MalformedRequest, match="byte 3 cannot"):
        parse_form(b"a=\xff")


def test_the_number_of_fields():
    """A form may have 1,000 fields; separators without a field do not count."""
    body = b"&".join(b"a=1" for _ in range(MAX_FIELDS))
    assert len(parse_form(b"&&" + body + b"&" * MAX_FIELDS)["a"]) == MAX_FIELDS
    with pytest.raises(MalformedRequest, match="more than 1000 fields"):
        parse_form(body + b"&a=1")


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=10)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1))
def test_encoded_fields_are_decoded(fields):
    """Any fields come back as they were, repeated ones in their order."""
    expected = {}
    for name, value in fields:
        expected.setdefault(name, []).append(value)
    parsed = parse_form(urlencode(fields).encode())
    assert {name: [value] if isinstance(value, str) else value for name, value in parsed.items()} == expected


@given(st.binary(max_size=50))
def test_any_bytes(body):
    """Any bytes are a form or are refused."""
    try:
        parsed = parse_form(body)
    except MalformedRequest:
        return
    assert all(isinstance(value, str | list) for value in parsed.values())
