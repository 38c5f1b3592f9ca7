"""The differences of two bodies: exact values, any size, members in one order."""

from __future__ import annotations

import json

import pytest

from flowhooks.operations import body_diff
from flowhooks.operations.body_diff import MAX_BODY_CHARS, DiffLine, diff_bodies, pretty


def changed(first, second):
    """The lines that differ, as (mark, text)."""
    return [(line.mark, line.text.strip()) for line in diff_bodies(first, second) or () if line.mark in {"-", "+"}]


def test_values_are_exact_and_members_are_in_the_order_of_the_first_body():
    """Large integers keep their digits, and another order or white space is no difference."""
    first = '{"b": 12345678901234567890123, "a": {"x": 1, "y": [1, 2]}}'
    second = '{ "a": {"y": [1, 3], "x": 1},\n"b": 12345678901234567890124, "c": "new" }'
    assert changed(first, second) == [
        ("-", '"b": 12345678901234567890123,'),
        ("+", '"b": 12345678901234567890124,'),
        ("-", "2"),
        ("+", "3"),
        ("-", "}"),
        ("+", "},"),
        ("+", '"c": "new"'),
    ]
    assert changed(first, json.dumps(json.loads(first), sort_keys=True)) == []
    assert pretty(first).splitlines()[1] == '  "b": 12345678901234567890123,'


def test_lines_far_from_a_difference_are_omitted():
    """Three equal lines stay before and after each difference."""
    first = {f"m{number:02}": number for number in range(40)}
    lines = diff_bodies(json.dumps(first), json.dumps(first | {"m20": -1}))
    assert [line.left_out for line in lines] == [18, *[0] * 8, 17]
    assert lines[4:6] == [DiffLine("-", '  "m20": 20,'), DiffLine("+", '  "m20": -1,')]


@pytest.mark.parametrize("body", ["no JSON", '"' + "x" * MAX_BODY_CHARS + '"', "[" * 30_000])
def test_no_difference_for_bodies_that_cannot_be_indented(body):
    """A damaged, a too long and a too deep body."""
    assert diff_bodies("{}", body) is None
    assert diff_bodies(body, "{}") is None
    assert pretty(body) == ""


def test_a_hostile_pair_of_bodies_is_compared_quickly(monkeypatch):
    """Thousands of equal and different lines are listed without a comparison of each pair."""
    monkeypatch.setattr(body_diff, "SequenceMatcher", None)
    lines = diff_bodies(json.dumps({"m": [0, 1] * 8_000}), json.dumps({"m": [1, 0] * 8_000}))
    assert {line.mark for line in lines} == {" ", "-", "+"}
