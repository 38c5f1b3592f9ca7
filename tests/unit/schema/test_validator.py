"""Keywords of JSON Schema that flowhooks checks itself."""

from __future__ import annotations

from datetime import date
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flowhooks.model.conditions import Condition
from flowhooks.schema.validator import Validator

UNIQUE = Validator({"uniqueItems": True})


@pytest.mark.parametrize(
    "items",
    [
        [],
        [1, True],
        [0, False, None, "", [], {}],
        [1, "1", "1.0"],
        [[1], [True]],
        [{"a": 1}, {"a": True}, {"a": "1"}, {"b": 1}],
        [2**53, 2**53 + 1],
        [10**400, 10**400 + 1],
        [1e300, 10**300],
        ["a", "A", "\ud800"],
        [[1, 2], [2, 1], [[1, 2]]],
        [date(2026, 1, 1), date(2026, 1, 2)],
    ],
)
def test_unique_items(items):
    """Values of different types differ, and numbers are compared exactly. A date is from a settings file."""
    assert UNIQUE.is_valid(items)


@pytest.mark.parametrize(
    "items",
    [
        [1, 2, 1.0],
        [0, -0.0],
        [0.0, -0.0],
        [[1], [1.0]],
        [[1], [True], [1]],
        [10**400, 10**400],
        [1e300, int(1e300)],
        [2**53, 2.0**53],
        [{"a": 1, "b": [2]}, {"b": [2.0], "a": 1.0}],
        [None, None],
        ["中", "\u4e2d"],
        [date(2026, 1, 1), date(2026, 1, 1)],
    ],
)
def test_repeated_items(items):
    """Equal values are equal in any spelling of their numbers, and with their members in any order."""
    assert not UNIQUE.is_valid(items)
    assert Validator({"uniqueItems": False}).is_valid(items)


def test_unique_items_of_other_types():
    """The keyword applies to arrays only."""
    assert UNIQUE.is_valid("aa")


NUMBERS = st.integers(-2, 2) | st.sampled_from((0.0, -0.0, 1.0, 1.5, 2**53, 2**53 + 1, 2.0**53, 1e300, int(1e300)))
ITEMS = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.sampled_from(("", "1", "a")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=3,
)


@given(st.lists(ITEMS, max_size=5))
def test_items_are_compared_like_constants(items):
    """Two items are equal if one is the `const` of a schema that accepts the other."""
    is_unique = not any(Draft202012Validator({"const": one}).is_valid(other) for one, other in combinations(items, 2))
    assert UNIQUE.is_valid(items) is is_unique


@pytest.mark.parametrize(
    "validate", [UNIQUE.is_valid, lambda items: Condition("/x", {"uniqueItems": True}).decide({"x": items})]
)
def test_many_items(validate):
    """The time grows with the number of items: comparing each pair would exceed the time limit of tests."""
    items = [{"id": number} for number in range(20_000)]
    assert validate(items)
    assert not validate([*items, items[0]])


def test_items_beyond_the_maximum_number():
    """Items of an array that is too long are compared, too."""
    too_many = Validator({"maxItems": 2, "uniqueItems": True})
    assert [error.validator for error in too_many.iter_errors([*range(20_000), "0", {}])] == ["maxItems"]
    assert [error.validator for error in too_many.iter_errors([1, {}, 1])] == ["maxItems", "uniqueItems"]
