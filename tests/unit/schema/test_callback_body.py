"""The body of a callback: a whole number as a business key is text."""

from __future__ import annotations

import pytest

from flowhooks.errors import InvalidCallback
from flowhooks.schema import parse_callback
from flowhooks.schema.schemas import Schemas


@pytest.fixture(scope="module")
def schemas():
    """The shipped schema files."""
    return Schemas.load()


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("1024", "1024"),
        ("0", "0"),
        ("-7", "-7"),
        ("1024.0", "1024"),
        ("1e3", "1000"),
        ("12345678901234567890", "12345678901234567890"),
        ("9007199254740991.0", "9007199254740991"),
        ('"1024"', "1024"),
        ('"1024.0"', "1024.0"),
        ('""', ""),
    ],
)
def test_a_whole_number_is_its_decimal_text(schemas, written, key):
    """Each way to write the number is the same text; text stays as it is."""
    body = parse_callback(f'{{"businessKey": {written}}}'.encode())
    assert body == {"businessKey": key}
    schemas.check_body("complete", body)


@pytest.mark.parametrize("written", ["1.5", "9007199254740993.0", "1e23", "true", "[1]", "{}", "1" * 513])
def test_other_values_are_rejected(schemas, written):
    """A fraction, a double beyond 2**53 that may be another number, a truth value, and a number of 513 digits."""
    with pytest.raises(InvalidCallback) as caught:
        schemas.check_body("complete", parse_callback(f'{{"businessKey": {written}}}'.encode()))
    assert [pointer for pointer, *_ in caught.value.violations] == ["/businessKey"]


def test_without_a_business_key():
    """An absent key and a null stay absent; members with other names stay numbers."""
    assert parse_callback(b'{"businessKey": null, "amount": 12, "more": {"businessKey": 1}}') == {
        "amount": 12,
        "more": {"businessKey": 1},
    }
