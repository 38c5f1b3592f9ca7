"""A handler's result is encoded as JSON, or the reason says where the problem is and what to do."""

from __future__ import annotations

import json

import pytest

from flowhooks.execution.result_encoding import MAX_RESULT_CHARS, MAX_RESULT_DEPTH, encode_result

CIRCLE: list = [1]
CIRCLE.append({"again": CIRCLE})
DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]


class Unwilling(dict):
    """A dict that cannot be read."""

    def items(self):
        """Fail."""
        raise RuntimeError("not now")


@pytest.mark.parametrize("value", [0, "", [], {"a": [1.5, None, True, "é"]}, (1, 2), "x" * (MAX_RESULT_CHARS - 2)])
def test_json_values_are_encoded(value):
    """Each value that JSON has is encoded."""
    encoded = encode_result(value)
    assert json.loads(encoded.text) == json.loads(json.dumps(value))
    assert encoded.dropped == ""


def test_text_is_stored_readably():
    """Text of any language is stored as it is; NUL and lone surrogates, which databases refuse, as their escapes."""
    assert encode_result({"状态": "已归档"}).text == '{"状态": "已归档"}'
    assert encode_result("é\0\ud800😀").text == '"é\\u0000\\ud800😀"'
    assert encode_result("归" * (MAX_RESULT_CHARS - 2)).text


def test_none_is_no_result():
    """A handler without a return value stores nothing and drops nothing."""
    assert encode_result(None) == (None, "")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({1, 2}, "a value of type set, which is not JSON; return text, "),
        (b"x", "a value of type bytes, which is not JSON; "),
        (float("nan"), "a value of type float, which is nan, a number that JSON does not have; "),
        ({"days": {1}}, "a value of type dict, whose member /days is of type set, which is not JSON; "),
        ([{"a": float("-inf")}], "a value of type list, whose member /0/a is -inf, a number that JSON does not have; "),
        ({"a": {(1, 2): 3}}, "a value of type dict, whose member /a has a key of type tuple; "),
        ({(1, 2): 3}, "a value of type dict, which has a key of type tuple; "),
        (CIRCLE, "a value of type list, whose member /1/again contains itself; "),
        (Unwilling(a=1), "a value of type Unwilling, which cannot be written as JSON (not now); "),
        (DEEP, "a value of type list, which cannot be written as JSON (it is nested too deeply); "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_reason_names_the_place(value, problem):
    """The reason says what was returned, which member is not JSON, and what to return."""
    encoded = encode_result(value)
    assert encoded.text is None
    assert encoded.dropped.startswith(f"returned {problem}")
    assert encoded.dropped.endswith("or lists and dicts of them with text as keys")


def test_reason_for_a_too_large_result():
    """The reason has the size, the limit and another way."""
    encoded = encode_result("x" * MAX_RESULT_CHARS)
    assert encoded.text is None
    assert encoded.dropped == (
        "returned 65,538 characters of JSON, and at most 65,536 are stored; return an id or a summary, and store the "
        "rest elsewhere"
    )
    assert encode_result("x" * MAX_RESULT_CHARS, max_chars=MAX_RESULT_CHARS + 2).text


@pytest.mark.parametrize("container", [lambda value: [value], lambda value: {'"}]': value}])
def test_reason_for_a_too_deeply_nested_result(container):
    """The number of lists and dicts is not limited, only how deep they are nested in each other."""
    value = ['\\"[[{', *[{}] * MAX_RESULT_DEPTH]
    for _ in range(MAX_RESULT_DEPTH - 2):
        value = container(value)
    assert json.loads(encode_result(value).text) == value
    encoded = encode_result(container(value))
    assert encoded.text is None
    assert encoded.dropped == (
        "returned lists and dicts nested more than 100 levels deep; return an id or a summary, and store the rest "
        "elsewhere"
    )


def test_a_long_key_is_cut_in_the_reason():
    """The name of a member is cut."""
    assert len(encode_result({"k" * 10_000: {1}}).dropped) < 600
