"""Validation whose result can be undecided."""

from __future__ import annotations

import pytest

from flowhooks.schema.decision import EXPECTED_TYPES, DecidingValidator, decide

LARGE = {EXPECTED_TYPES: ["number"], "minimum": 3}
"""Accepts numbers from 3, and rejects smaller ones."""


@pytest.mark.parametrize(
    ("schema", "valid", "invalid", "undecided"),
    [
        (LARGE, [3], [2], ["3", True, None, []]),
        ({"not": LARGE}, [2], [3], ["3"]),
        ({"allOf": [LARGE, {"minLength": 2}]}, [3], [2], ["33"]),
        ({"allOf": [LARGE, {"minLength": 2}]}, [], ["3"], []),
        ({"anyOf": [LARGE, {"const": "a"}]}, [3, "a"], [2], ["b"]),
        ({"oneOf": [LARGE, {"maximum": 4}]}, [2, 5], [3, 4], ["3"]),
        ({"contains": LARGE}, [[3], ["3", 3]], [[], [2]], [["3"], [2, "3"]]),
        ({"contains": LARGE, "minContains": 2}, [[3, 4]], [[3], [3, 2], ["3"]], [[3, "4"], ["3", "4"]]),
        ({"contains": LARGE, "maxContains": 1}, [[3], [3, 2]], [[3, 4], ["3", 4, 5]], [[3, "4"], ["3"]]),
        ({"contains": LARGE, "minContains": 0, "maxContains": 0}, [[], [2]], [[3]], [["3"]]),
        ({"contains": LARGE}, ["3", {}], [], []),
        ({"if": LARGE, "then": {"maximum": 4}, "else": {"const": "a"}}, [3, "a"], [2, 5], ["b"]),
        ({"if": LARGE, "then": {"const": "a"}, "else": {"const": "a"}}, ["a"], [3, "b"], []),
        ({"if": LARGE}, [2, 3, "3"], [], []),
        ({"if": LARGE, "else": {"not": {}}}, [3], [2], ["3"]),
        ({"not": {"properties": {"a": LARGE}, "required": ["b"]}}, [{"a": "3"}, {"a": 2, "b": 1}], [{"b": 1}], []),
    ],
)
def test_results(schema, valid, invalid, undecided):
    """An undecided part makes the whole undecided, unless the other parts decide."""
    validator = DecidingValidator(schema)
    assert [decide(validator, value) for value in valid] == [True] * len(valid)
    assert [decide(validator, value) for value in invalid] == [False] * len(invalid)
    assert [decide(validator, value) for value in undecided] == [None] * len(undecided)


@pytest.mark.parametrize("schema", [True, {}])
def test_a_schema_without_keywords_accepts_each_value(schema):
    """A schema without keywords accepts each value, and its negation none."""
    assert decide(DecidingValidator(schema), 1) is True
    assert decide(DecidingValidator({"not": schema}), 1) is False
