"""Strict JSON: accepted and refused texts, and the place of a fault, for any bytes."""

from __future__ import annotations

import json
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.errors import MalformedRequest
from flowhooks.schema import parse
from flowhooks.schema.strict_json import MAX_DEPTH

API_PAGE = b"""{
   "businessKey": "1",
   "callBackProcessClass": "com.cnooc.test.CallbackHandler",
   "processDefinitionId": "1",
   "processDefinitionKey": "test_flow_key",
   "processDefinitionVersion": 1
}"""
"""The example of the API page, its JSON repaired."""

KEPT = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(KEPT)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(KEPT), inner), max_leaves=8)
PIECES = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b'"', b'"a"', b":", b",", b" ", b"\n", b"null", b"1.0", b"-0", b"9" * 5000),
        *(b"NaN", b"-Infinity", b"1e400", b"\\", b"\\u0000", b"\\ud83d", b"\\udc00", b"\\u4e2d"),
        *(b"\0", b"\xff", b"\xe4\xb8\xad", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
    ]
)
"""Texts that are JSON, and texts that are not."""


def refusal(body: bytes) -> MalformedRequest:
    """The reason why `body` is refused."""
    with pytest.raises(MalformedRequest) as caught:
        parse(body)
    return caught.value


def without_nulls(value):
    """The expected result of `parse` for a value of `json.loads`."""
    if isinstance(value, dict):
        return {name: without_nulls(member_value) for name, member_value in value.items() if member_value is not None}
    if isinstance(value, list):
        return [without_nulls(element) for element in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def in_small_stack(function):
    """The result of `function` in a thread with a stack as small as in small containers."""
    answers = []
    before = threading.stack_size(128 * 1024)
    try:
        thread = threading.Thread(target=lambda: answers.append(function()))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    return answers[0]


def test_api_page():
    """The API page's example is accepted unchanged."""
    assert parse(API_PAGE) == {
        "businessKey": "1",
        "callBackProcessClass": "com.cnooc.test.CallbackHandler",
        "processDefinitionId": "1",
        "processDefinitionKey": "test_flow_key",
        "processDefinitionVersion": 1,
    }


def test_null_is_absent():
    """Null members are left out of objects at every level; null in an array stays."""
    body = b'{"a": null, "b": {"c": null, "d": 1}, "e": [null, {"f": null}], "g": false, "h": 0, "i": ""}'
    assert parse(body) == {"b": {"d": 1}, "e": [None, {}], "g": False, "h": 0, "i": ""}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1.0", 1),
        ("-1.0", -1),
        ("1e3", 1000),
        ("0.0", 0),
        ("-0.0", 0),
        ("1e-400", 0),
        ("1.5", 1.5),
        ("9007199254740991.0", 9007199254740991),
        ("-9007199254740991.0", -9007199254740991),
        ("9007199254740992.0", 9007199254740992.0),
        ("9007199254740993", 9007199254740993),
        ("1e308", 1e308),
    ],
)
def test_whole_numbers(written, read):
    """A whole number below 2**53 is an int in any notation; larger ones do not change."""
    number = parse(b'{"n": [%s]}' % written.encode())["n"][0]
    assert (number, type(number)) == (read, type(read))


@pytest.mark.parametrize(
    ("body", "key", "params"),
    [
        (b"", "body_empty", {}),
        (b" \r\n\t", "body_empty", {}),
        (b'{"a": "\xff"}', "body_not_utf8", {"byte": 8}),
        (b'{"a": "\xed\xa0\x80"}', "body_not_utf8", {"byte": 8}),
        (b"\xff\xfe{\x00}\x00", "body_not_utf8", {"byte": 1}),
        (b"\xef\xbb\xbf{}", "body_bom", {}),
        (b"{'a': 1}", "body_not_json", {"line": 1, "column": 2}),
        (b'{\n  "a": 1,\n  b: 2\n}', "body_not_json", {"line": 3, "column": 3}),
        (b'{"a": 1} x', "body_not_json", {"line": 1, "column": 10}),
        (b'{"a": "\n"}', "body_not_json", {"line": 1, "column": 8}),
        (b'{"a": "\0"}', "body_not_json", {"line": 1, "column": 8}),
        (b'{"a": "\\x"}', "body_not_json", {"line": 1, "column": 8}),
        (b'{"a": 01}', "body_not_json", {"line": 1, "column": 8}),
        ('{"a": \u0661}'.encode(), "body_not_json", {"line": 1, "column": 7}),
        (b'{"a": 1', "body_not_json", {"line": 1, "column": 8}),
        (b"\x00", "body_not_json", {"line": 1, "column": 1}),
        (b"\x0b", "body_not_json", {"line": 1, "column": 1}),
        (b"[]", "body_not_object", {}),
        (b"null", "body_not_object", {}),
        (b'"{}"', "body_not_object", {}),
        (b'{"a": 1, "b": 2, "a": 1}', "duplicate_member", {"name": '"a"'}),
        (b'{"x": [{"a": null, "a": null}]}', "duplicate_member", {"name": '"a"'}),
        (b'{"a": 1, "\\u0061": 1}', "duplicate_member", {"name": '"a"'}),
        ('{"合": 1, "合": 1}'.encode(), "duplicate_member", {"name": '"合"'}),
        (b'{"a": NaN}', "number_constant", {"constant": "NaN"}),
        (b'{"a": [Infinity]}', "number_constant", {"constant": "Infinity"}),
        (b'{"a": -Infinity}', "number_constant", {"constant": "-Infinity"}),
        (b'{"a": 1e400}', "number_not_finite", {}),
        (b'{"a": -1e400}', "number_not_finite", {}),
        (b'{"a": 1%s.0}' % (b"0" * 400), "number_not_finite", {}),
        (b'{"a": %s}' % (b"9" * 4301), "number_too_long", {"limit": 4300}),
        (b'{"a": "x\\u0000"}', "string_nul", {"line": 1, "column": 9}),
        (b'{\n"\\u0000": 1}', "string_nul", {"line": 2, "column": 2}),
        (b'{\n"a": 1,\n"b": "\\u0000",\n"c": 1\n}', "string_nul", {"line": 3, "column": 7}),
        (b'{"a": "\\\\\\u0000"}', "string_nul", {"line": 1, "column": 10}),
        (b'{"a": "\\ud83d"}', "string_surrogate", {"line": 1, "column": 8}),
        (b'{"a": "\\uD83d"}', "string_surrogate", {"line": 1, "column": 8}),
        (b'{"a": "\\uDC00\\ud83d"}', "string_surrogate", {"line": 1, "column": 8}),
        (b'{"a": "\\ud83d\\ud83d\\udc00"}', "string_surrogate", {"line": 1, "column": 8}),
        (b'{"a": "\\ud83d\\udc00\\udc00"}', "string_surrogate", {"line": 1, "column": 20}),
        (b'{"a": "\\ud83dx\\udc00"}', "string_surrogate", {"line": 1, "column": 8}),
        (b'{"\\udfff": 1}', "string_surrogate", {"line": 1, "column": 3}),
    ],
)
def test_rejected_texts(body, key, params):
    """Each refused text has its own sentence, with the place if possible."""
    error = refusal(body)
    assert (error.key, error.params) == (key, params)
    assert error.text("en").isprintable()
    assert error.text("zh").isprintable()


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b'{"a": "\\\\u0000"}', "\\u0000"),
        (b'{"a": "\\\\ud83d"}', "\\ud83d"),
        (b'{"a": "\\ud83d\\uDC00 \\u4e2d \\ud7ff \\ue000"}', "\U0001f400 中 \ud7ff \ue000"),
        (b'{"a": "\\u0001\\u007f"}', "\x01\x7f"),
        (b'{"a": "\xe4\xb8\xad"}', "中"),
    ],
)
def test_accepted_strings(body, read):
    """Text that only looks like NUL or half a pair is accepted, as are other controls and whole pairs."""
    assert parse(body)["a"] == read


def test_duplicate_name_is_escaped_and_cut():
    """The name of a duplicate member is escaped and cut, because it is the caller's text."""
    name = refusal('{"\u202e\\n\\ud800": 1, "\u202e\\n\\ud800": 2}'.encode()).params["name"]
    assert name == '"\\u202e\\n\\ud800"'
    long = refusal(b'{"%s": 1, "%s": 2}' % (b"k" * 5000, b"k" * 5000)).params["name"]
    assert len(long) == 100
    assert long.endswith("…")


@pytest.mark.parametrize(("opening", "closing"), [(b'{"a":', b"}"), (b"[", b"]")])
def test_depth(opening, closing):
    """64 levels are accepted, the 65th is refused; brackets in strings do not count."""

    def nested(levels):
        return b'{"a":' + opening * (levels - 1) + b"1" + closing * (levels - 1) + b"}"

    assert parse(nested(MAX_DEPTH))
    assert (error := refusal(nested(MAX_DEPTH + 1))).key == "body_too_deep"
    assert error.params == {"limit": 64}
    assert parse(b'{"a": "%s", "b\\\\": "%s"}' % (b'\\"[{' * 100, b"[" * 100))
    assert parse(b'{"a": [%s[]]}' % (b"[]," * 1000))
    assert refusal(b'{"a": ' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1)).key == "body_too_deep"
    assert refusal(b'"%s"' % (b"[" * 1000)).key == "body_not_object"
    assert parse(b'{"b": [], "a": ' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}")


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"]
)
def test_depth_beyond_any_stack(body):
    """100,000 levels are refused, also in a thread with a small stack, where 64 levels are accepted."""
    assert in_small_stack(lambda: refusal(body).key) == "body_too_deep"
    assert in_small_stack(lambda: parse(b'{"a":' * 64 + b"1" + b"}" * 64))


def test_stack_nearly_used_up():
    """A caller with little stack left gets a result, not a RecursionError."""
    body = b'{"a":' * 64 + b"1" + b"}" * 64
    depth = 0
    frame = sys._getframe()
    while frame := frame.f_back:
        depth += 1
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 40)
    try:
        answer = parse(body)
    except MalformedRequest as error:
        answer = error.key
    finally:
        sys.setrecursionlimit(limit)
    assert answer in ("body_too_deep", json.loads(body))


def test_large_bodies_are_parsed_in_linear_time():
    """Input that would be slow with repeated scans is parsed in time."""
    assert refusal(b'"' + b'\\"' * 500_000).key == "body_not_json"
    assert parse(b'{"a": "%s"}' % (b"\\\\" * 500_000))
    assert refusal(b'{"a": "%s\\ud800"}' % (b"\\n" * 300_000)).key == "string_surrogate"
    assert refusal(b'{"a": %s}' % (b"1" * 1_000_000)).key == "number_too_long"


@given(st.dictionaries(st.text(KEPT), VALUES), st.booleans(), st.sampled_from([None, 1]))
def test_the_result_agrees_with_json_loads(value, ascii_only, indent):
    """For acceptable texts, the result equals `json.loads` without the nulls."""
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert json.dumps(parse(body)) == json.dumps(without_nulls(json.loads(body)))


@given(
    st.binary() | st.lists(PIECES).map(b"".join) | st.lists(PIECES).map(lambda pieces: b'{"a":%s}' % b"".join(pieces))
)
def test_any_bytes(body):
    """Any bytes give an object that every database can store, or Malformed."""
    try:
        value = parse(body)
    except MalformedRequest as error:
        assert error.text("zh").encode()  # noqa: PT017 (says that the refusal itself can be sent)
    else:
        assert isinstance(value, dict)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        assert text.encode()
        assert "\\u0000" not in text.replace("\\\\", "")


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b'[{"a": null, "b": 1.0}, null]', list, [{"b": 1}, None]),
        (b"[]", list, []),
        (b'{"a": 1}', object, {"a": 1}),
        (b"[1]", object, [1]),
        (b" 1.0 ", object, 1),
        (b'"a"', object, "a"),
        (b"null", object, None),
    ],
)
def test_an_array_or_any_value_can_be_required(body, kind, value):
    """An array or any value can be required instead of an object, under the same rules."""
    assert parse(body, kind=kind) == value


@pytest.mark.parametrize("body", [b"{}", b"1", b'"a"', b"null"])
def test_a_value_that_is_no_array_is_rejected(body):
    """Where an array is required, another value is refused."""
    with pytest.raises(MalformedRequest, match="not an array"):
        parse(body, kind=list)


@pytest.mark.parametrize(
    "body", [b"\xef\xbb\xbf[]", b'["\\u0000"]', b'[{"a": 1, "a": 2}]', b"[1e999]", b"[" * 65, b"[NaN]"]
)
def test_an_array_is_as_strict(body):
    """An array is refused for the same reasons as an object."""
    with pytest.raises(MalformedRequest):
        parse(body, kind=list)
