"""Conditions on indexed fields, and which values of a body are indexed."""

from __future__ import annotations

import pytest

from flowhooks import schema
from flowhooks.errors import SettingsError
from flowhooks.model.search_fields import (
    MAX_VALUE_CHARS,
    FieldCondition,
    IndexedValue,
    check_fields,
    indexed_values,
    parse_field_condition,
)


@pytest.mark.parametrize(
    ("text", "field", "operator", "value"),
    [
        ("/vendor=ACME", "/vendor", "=", "ACME"),
        ("/amount>=1000", "/amount", ">=", "1000"),
        ("/amount<=-99.5", "/amount", "<=", "-99.5"),
        ("/a/0/b~1c=x=y>=2", "/a/0/b~1c", "=", "x=y>=2"),
        ("/供应商=中国\n第二行", "/供应商", "=", "中国\n第二行"),
        ("/empty=", "/empty", "=", ""),
    ],
)
def test_a_condition_is_parsed_and_formatted_alike(text, field, operator, value):
    """The operator is the first one in the text, and the rest is the value."""
    condition = parse_field_condition(text)
    assert condition == FieldCondition(field, operator, value)
    assert str(condition) == text


@pytest.mark.parametrize("text", ["", "vendor=ACME", "/vendor", "=1", "/a~2=1", "/=1=", "/a>1", "/a<1"])
def test_text_without_a_pointer_or_operator_is_rejected(text):
    """Text without a pointer or an operator is refused, with examples."""
    if text == "/=1=":  # the member with the empty name
        assert parse_field_condition(text).field == "/"
        return
    with pytest.raises(SettingsError, match="/vendor=ACME, /amount>=1000 or /amount<=1000"):
        parse_field_condition(text)


@pytest.mark.parametrize(
    "value", ["", "x", "1 000", "0x10", "01", "+1", "1.", ".5", "NaN", "Infinity", "1e999", "9" * 500]
)
def test_a_range_needs_a_number(value):
    """`>=` and `<=` take only numbers that a double can hold."""
    for operator in (">=", "<="):
        with pytest.raises(SettingsError, match=r"needs a number such as 1000 or 99\.5"):
            FieldCondition("/amount", operator, value)
    assert FieldCondition("/amount", "=", value).number is None


def test_a_condition_built_without_parsing_is_checked():
    """A pointer or an operator of another form is refused."""
    with pytest.raises(SettingsError, match="JSON Pointer such as /amount"):
        FieldCondition("amount", "=", "1")
    with pytest.raises(SettingsError, match="must be =, >= or <=, not '>'"):
        FieldCondition("/amount", ">", "1")


@pytest.mark.parametrize(
    ("value", "text", "number_text"),
    [
        ("ACME", "ACME", None),
        ("1000", "1000", None),
        ("1000.0", "1000.0", "1000"),
        ("1e3", "1e3", "1000"),
        ("-0", "-0", "0"),
        ("0.10", "0.10", "0.1"),
        ("true", "true", None),
        ("长" * 300, "长" * MAX_VALUE_CHARS, None),
    ],
)
def test_a_number_is_found_in_any_notation(value, text, number_text):
    """A string is compared as it is written, and a number as the ledger stores it."""
    condition = FieldCondition("/x", "=", value)
    assert (condition.text, condition.number_text) == (text, number_text)


def test_indexed_values_of_a_body():
    """Strings, numbers and booleans are indexed; null, objects, arrays and missing members are not."""
    body = schema.parse_callback(
        b'{"s": "ACME", "i": 1000, "f": 12.50, "w": 1e3, "t": true, "n": null, "o": {"x": [1, "two"]}, "a/b": "",'
        b'"big": 1' + b"0" * 400 + b', "long": "' + "长".encode() * 300 + b'"}'
    )
    fields = ["/s", "/i", "/f", "/w", "/t", "/n", "/o", "/o/x", "/o/x/1", "/o/x/2", "/a~1b", "/none", "/big", "/long"]
    assert indexed_values(body, [*fields, "/s"]) == (
        IndexedValue("/s", "ACME", None),
        IndexedValue("/i", "1000", 1000.0),
        IndexedValue("/f", "12.5", 12.5),
        IndexedValue("/w", "1000", 1000.0),
        IndexedValue("/t", "true", None),
        IndexedValue("/o/x/1", "two", None),
        IndexedValue("/a~1b", "", None),
        IndexedValue("/big", f"1{'0' * 255}", None),
        IndexedValue("/long", "长" * MAX_VALUE_CHARS, None),
    )
    assert indexed_values(body, ()) == ()


def test_a_field_that_is_not_indexed_is_rejected():
    """The error names the fields that are indexed."""
    amount = parse_field_condition("/amount>=1")
    check_fields([amount], ("/vendor", "/amount"))
    with pytest.raises(SettingsError, match=r"by /amount: search\.fields names /vendor, /total"):
        check_fields([amount], ("/vendor", "/total"))
    with pytest.raises(SettingsError, match=r"by /amount: search\.fields names no field"):
        check_fields([amount], ())
