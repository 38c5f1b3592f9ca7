"""Conditions: their results, undecided cases, and the declarations that are refused."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flowhooks.errors import HandlerError
from flowhooks.model.conditions import (
    MAX_CONDITIONS,
    MAX_CONDITIONS_CHARS,
    Condition,
    decide_all,
    parse_conditions,
)

ABSENT = object()
"""The value of an absent member."""


def nested(schema, levels):
    """A schema in as many negations."""
    for _ in range(levels):
        schema = {"not": schema}
    return schema


def decide(expected, value, pointer="/x"):
    """The result of a condition on the member x."""
    return Condition(pointer, expected).decide({} if value is ABSENT else {"x": value})


@pytest.mark.parametrize(
    ("expected", "true", "false", "undecided"),
    [
        ("agree", ["agree"], ["refuse", ""], [ABSENT, 1, True, ["agree"], {"a": "agree"}]),
        (1, [1, 1.0], [2, 0.5], [ABSENT, True, "1", [1]]),
        (1.0, [1, 1.0], [2], [ABSENT, True, "1"]),
        (True, [True], [False], [ABSENT, 1, "true"]),
        (None, [ABSENT], [1, "", False, []], []),
        (["north", "east"], ["north", "east"], ["south"], [ABSENT, 1, ["north"]]),
        (["north", None], ["north", ABSENT], ["south"], [1, True]),
        ([None], [ABSENT], [1, ""], []),
        ([1, "one"], [1, 1.0, "one"], [2, "two"], [ABSENT, True, [1]]),
        ([[1, True]], [[1, True], [1.0, True]], [[1, 1], [1], [True, True]], [ABSENT, 1, {"0": 1}]),
        ([{"a": 1}], [{"a": 1}, {"a": 1.0}], [{"a": True}, {"a": 1, "b": 1}, {}], [ABSENT, 1, [1]]),
        ({"minimum": 1000}, [1000, 1000.5], [999, -1], [ABSENT, "1000", True, [1000]]),
        ({"multipleOf": 5}, [10], [7], [ABSENT, "10"]),
        ({"multipleOf": 0.01}, [19.99, 4.35, 0.07, 10**400], [0.005], [ABSENT, "19.99"]),
        ({"minLength": 2}, ["ab", "合同"], ["a"], [ABSENT, 12]),
        ({"pattern": "^HT-[0-9]+$"}, ["HT-7"], ["ht-7", "HT-7\n", "HT-\u0667"], [ABSENT, 7]),
        ({"minItems": 1}, [[1]], [[]], [ABSENT, "x", {}]),
        ({"contains": {"const": 1}}, [[1, 2]], [[2]], [ABSENT, 1]),
        ({"contains": {"const": 1}, "minContains": 2}, [[1, 1]], [[1, 2]], [ABSENT, 1]),
        ({"contains": {"const": 1}, "maxContains": 1}, [[1, 2]], [[1, 1]], [ABSENT, 1]),
        ({"required": ["a"]}, [{"a": 1}], [{}], [ABSENT, []]),
        ({"properties": {"a": {"const": 1}}}, [{"a": 1}, {}], [{"a": 2}], [ABSENT, "a"]),
        ({"properties": {"a": {"minimum": 1}}}, [{"a": 1}, {}], [{"a": 0}], [ABSENT, {"a": "1"}, {"a": True}]),
        ({"items": {"enum": ["x"]}}, [["x"], []], [["y"]], [ABSENT, "x", [1], ["x", 1]]),
        ({"type": "string"}, ["", "x"], [], [ABSENT, 1]),
        ({"type": "integer"}, [1, 1.0], [1.5], [ABSENT, "1", True]),
        ({"type": ["integer", "string"]}, [1, "1"], [1.5], [ABSENT, True]),
        ({"const": "a"}, ["a"], ["b"], [ABSENT, 1]),
        ({"enum": ["a", 1]}, ["a", 1], ["b", 2], [ABSENT, True, []]),
        ({"not": {"const": "a"}}, ["b"], ["a"], [ABSENT, 1]),
        ({"anyOf": [{"const": "a"}, {"minimum": 3}]}, ["a", 3], [2], [ABSENT, True, [], "b"]),
        ({"anyOf": [{"const": "a"}, {}]}, ["a", "b", 1, True, []], [], [ABSENT]),
        ({"oneOf": [{"minimum": 3}, {"maximum": 5}]}, [1, 9], [4], [ABSENT, "4"]),
        ({"allOf": [{"minimum": 3}, {"maximum": 5}]}, [4], [1, 9], [ABSENT, "4"]),
        ({"allOf": [{"const": 4}, {}]}, [4], [5], [ABSENT, "4", True]),
        ({"anyOf": [{"const": "a"}, {"const": "b"}]}, ["a", "b"], ["c"], [ABSENT, 1]),
        ({"oneOf": [{"const": "a"}, {"const": 1}]}, ["a", 1], ["c", 2], [ABSENT, True]),
        ({"properties": {"a": {"enum": ["x", None]}}}, [{"a": "x"}, {"a": None}], [{"a": "y"}], [ABSENT, "x"]),
        ({"properties": {"a": {"not": {"type": "integer"}}}}, [{"a": 1.5}], [{"a": 1}], [ABSENT, {"a": "1"}]),
        ({"if": {"minimum": 3}, "then": {"maximum": 5}, "else": {"const": 0}}, [4, 0], [9, 1], [ABSENT]),
        ({"properties": {"a": {"not": {"minimum": 5}}}}, [{"a": 3}, {}], [{"a": 7}], [ABSENT, {"a": "3"}]),
        ({"not": {"properties": {"a": {"minimum": 5}}}}, [{"a": 3}], [{"a": 7}, {}], [ABSENT, {"a": "3"}]),
        ({"items": {"not": {"not": {"minimum": 5}}}}, [[7], []], [[3], ["7", 3]], [ABSENT, ["7"], ["3"], [7, "3"]]),
        ({"items": {"oneOf": [{"minimum": 3}, {"maximum": 5}]}}, [[1, 9]], [[4]], [ABSENT, ["4"], [True]]),
        ({"items": {"oneOf": [{"minimum": 3}, {"const": "a"}]}}, [[4]], [[2]], [ABSENT, ["a"], ["b"]]),
        ({"items": {"if": {"minimum": 3}, "then": {"maximum": 5}}}, [[4, 1]], [[9]], [ABSENT, ["4"]]),
        ({"items": {"if": {"minimum": 3}, "then": {"const": "a"}, "else": {"const": 0}}}, [[0]], [[4], ["b"]], [["a"]]),
        ({"contains": {"not": {"minimum": 3}}}, [[1], ["4", 1]], [[3], []], [["1"], [3, "1"]]),
        ({"propertyNames": {"not": {"maxLength": 1}}}, [{"ab": 1}, {}], [{"a": 1}], [ABSENT, "a"]),
        ({"propertyNames": {"not": {"minimum": 3}}}, [{}], [], [{"a": 1}]),
        ({"dependentSchemas": {"a": {"not": {"properties": {"b": {"minimum": 3}}}}}}, [{"b": 4}], [{"a": 1}], [ABSENT]),
        (
            {"anyOf": [{"properties": {"a": {"minimum": 3}}}], "unevaluatedProperties": False},
            [{"a": 4}],
            [{"a": 1}, {"a": 4, "b": 1}],
            [ABSENT, {"a": "4"}],
        ),
        ({"prefixItems": [{"not": {"minimum": 3}}], "unevaluatedItems": False}, [[1]], [[1, 2], [4]], [["1"], 1]),
        ({"properties": {"a": {"const": 1}}}, [{"a": 1.0}], [{"a": 2}], [{"a": "1"}, {"a": True}]),
        ({"properties": {"a": {"type": "number", "minimum": 9}}}, [{"a": 9}, {}], [{"a": 8}], [{"a": "9"}, {"a": []}]),
        ({"not": {"properties": {"a": {"type": "number", "minimum": 9}}}}, [{"a": 8}], [{"a": 9}, {}], [{"a": "9"}]),
        ({"properties": {"a": {"type": "integer"}}}, [{"a": 1.0}], [{"a": 1.5}], [{"a": "1"}, {"a": True}]),
        ({"properties": {"a": {"type": ["string", "integer"]}}}, [{"a": ""}], [{"a": 1.5}], [{"a": [1]}]),
        ({"properties": {"a": {"type": "number", "not": {"maxLength": 9}}}}, [{}], [], [{"a": 1}, {"a": "1"}]),
        ({"items": {"allOf": [{"type": "number"}, {"minimum": 9}]}}, [[9]], [[8]], [["9"], [None]]),
        ({"contains": {"const": 1}}, [["1", 1]], [[2]], [["1"], [2, "1"]]),
        ({"items": {"anyOf": [{"type": "string"}, {"type": "number", "minimum": 9}]}}, [["", 9]], [[8]], [[True]]),
        ({"items": {"oneOf": [{"enum": ["a"]}, {"const": 1}]}}, [["a", 1]], [["b"], [2]], [[True]]),
        ({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 9}}, ["ab", 9], ["a", 8], [True]),
        (
            {"anyOf": [{"properties": {"a": {"type": "number"}}}], "unevaluatedProperties": False},
            [{"a": 4}],
            [{"b": 1}],
            [{"a": "4"}],
        ),
        (
            {"unevaluatedProperties": {"maxItems": 3, "not": {"const": {}}}},
            [{"a": {"b": 1}}],
            [{"a": {}}],
            [{"a": [1]}, {"a": 1}],
        ),
        ({}, [1, "", False, [], {}], [], [ABSENT]),
        ({"title": "Anything"}, [1, ""], [], [ABSENT]),
    ],
)
def test_results_of_a_condition(expected, true, false, undecided):
    """The result is true, false, or None if the value is absent or of a type that the condition does not cover."""
    assert [decide(expected, value) for value in true] == [True] * len(true)
    assert [decide(expected, value) for value in false] == [False] * len(false)
    assert [decide(expected, value) for value in undecided] == [None] * len(undecided)


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/a", {"b": [10, {"c/d": 1, "e~f": 2, "": 3}]}),
        ("/a/b/0", 10),
        ("/a/b/1/c~1d", 1),
        ("/a/b/1/e~0f", 2),
        ("/a/b/1/", 3),
        ("/a/b/2", None),
        ("/a/b/-1", None),
        ("/a/b/x", None),
        ("/a/b/\u0660", None),
        ("/a/b/01/", None),
        ("/a/b/00", None),
        ("/a/b/99999999999999999999", None),
        ("/a/x", None),
        ("/n/0", None),
        ("/a/b/0/x", None),
        ("/s/0", None),
    ],
)
def test_values_selected_by_pointers(pointer, found):
    """A pointer selects a value in objects and arrays according to RFC 6901; null counts as absent."""
    data = {"a": {"b": [10, {"c/d": 1, "e~f": 2, "": 3}]}, "n": [None], "s": "text"}
    assert Condition(pointer, [found] if found is not None else None).decide(data) is True


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("amount", "when= is a dict of JSON Pointers"),
        ([], "when= is a dict of JSON Pointers"),
        ({1: 2}, "when= is a dict of JSON Pointers"),
        ({"amount": 1}, 'a JSON Pointer starts with "/"'),
        ({"": 1}, 'a JSON Pointer starts with "/"'),
        ({"/a~": 1}, 'writes "~" as "~0"'),
        ({"/a": []}, "when= at '/a': an empty list of constants never matches"),
        ({"/a": {"const": None}}, "when= at '/a': it decides no value, because null counts as absent: write None for"),
        ({"/a": {"type": "null"}}, "when= at '/a': it decides no value"),
        ({"/a": {"enum": []}}, "when= at '/a': it decides no value"),
        ({"/a": ()}, "when= at '/a': an empty list of constants never matches"),
        ({"/a": float("nan")}, "nan is not a JSON value"),
        ({"/a": [float("inf")]}, "inf is not a JSON value"),
        ({"/a": object()}, "is not a JSON value"),
        ({"/a": b"x"}, "is not a JSON value"),
        ({"/a": [(1, 2)]}, "is not a JSON value"),
        ({"/a": {1: 2}}, "is not a JSON value"),
        ({"/a": {"type": "objekt"}}, "it is not a JSON Schema: 'objekt'"),
        ({"/a": {"minimum": "1"}}, "it is not a JSON Schema"),
        ({"/a": {"minimun": 1}}, "the keyword 'minimun' is not supported"),
        ({"/a": {"$ref": "#"}}, "the keyword '$ref' is not supported"),
        ({"/a": {"$dynamicRef": "#"}}, "the keyword '$dynamicRef' is not supported"),
        ({"/a": {"format": "date"}}, "the keyword 'format' is not supported"),
        ({"/a": {"anyOf": [{}, {"$ref": "#"}]}}, "the keyword '$ref' at /anyOf/1 is not supported"),
        ({"/a": {"properties": {"b": {"mininum": 1}}}}, "the keyword 'mininum' at /properties/b is not supported"),
        ({"/a": {"properties": {"b": True, "c": {"mininum": 1}}}}, "the keyword 'mininum' at /properties/c is not"),
        ({"/a": {"pattern": "("}}, "it is not a JSON Schema"),
        ({"/a": {"pattern": "(?i)x"}}, "when= at '/a': the regular expression '(?i)x' at /pattern cannot be used: "),
        ({"/a": {"pattern": "(a+)+"}}, "the regular expression '(a+)+' at /pattern could take hours"),
        ({"/a": {"items": {"pattern": "^(x*)*$"}}}, "at /items/pattern could take hours: the repeated part of '(x*)*'"),
        ({"/a": {"patternProperties": {"(a+)+": {}}}}, "'(a+)+' at /patternProperties could take hours"),
        (
            {"/a": {"items": {"pattern": "(" * 1000 + "a" + ")" * 1000}}},
            "at /items/pattern cannot be used: it is nested too deeply",
        ),
        ({"/a": {"pattern": "(?:" * 350 + "a" + "b)+" * 350}}, "at /pattern cannot be used: it is nested too deeply"),
        ({"/a": {"pattern": "a{99999999999999}"}}, "at /pattern cannot be used: the repetition number is too large"),
        ({"/a": nested({}, 400)}, "when= at '/a': it is nested too deeply"),
        ({"/a": nested({}, 5000)}, "when= at '/a': it is nested too deeply"),
        ({f"/{number}": 1 for number in range(MAX_CONDITIONS + 1)}, "when= has 33 conditions; at most 32 are allowed"),
        ({"/a": "x" * MAX_CONDITIONS_CHARS}, "16384 are allowed"),
    ],
)
def test_invalid_conditions(when, why):
    """A condition that never holds, or checks nothing, is refused at its declaration with the reason."""
    with pytest.raises(HandlerError) as refused:
        parse_conditions(when)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("decisions", "together"),
    [
        ([], True),
        ([True, True], True),
        ([True, None], None),
        ([None, True], None),
        ([None, None], None),
        ([None, False], False),
        ([False, None], False),
        ([True, False], False),
    ],
)
def test_one_false_condition_makes_the_result_false(decisions, together):
    """One false condition decides, even if others are undecided."""
    assert decide_all(decisions) is together


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, '/x is absent, but the condition {"minimum": 1000} needs it'),
        ({"x": 5}, '/x is 5, but the condition is {"minimum": 1000}'),
        ({"x": "5"}, '/x is a string, which the condition {"minimum": 1000} cannot decide'),
        ({"x": [1]}, '/x is an array, which the condition {"minimum": 1000} cannot decide'),
        ({"x": True}, '/x is a boolean, which the condition {"minimum": 1000} cannot decide'),
        ({"x": {}}, '/x is an object, which the condition {"minimum": 1000} cannot decide'),
    ],
)
def test_content_of_a_reason(data, why):
    """A reason names the pointer, the value and the condition."""
    assert Condition("/x", {"minimum": 1000}).why_not(data) == why


def test_length_of_a_reason_is_limited():
    """A reason is short for any value and condition; a required value that is absent is named as absent."""
    why = Condition("/x", ["a" * 500]).why_not({"x": "b" * 10_000})
    assert len(why) < 300
    assert "…" in why
    assert Condition("/x", None).why_not({"x": 1}) == "/x is 1, but the condition is null"


@pytest.mark.parametrize(("characters", "is_cut"), [(97, False), (98, False), (99, True)])
def test_a_reason_shows_100_characters_of_a_value(characters, is_cut):
    """A reason shows 100 characters including quotes; letters of any language are not escaped."""
    why = Condition("/x", "同意").why_not({"x": "拒" * characters})
    shown = f'"{"拒" * characters}'[:100] + "…" if is_cut else f'"{"拒" * characters}"'
    assert why == f'/x is {shown}, but the condition is "同意"'


def test_number_and_length_of_conditions_are_limited():
    """The limit is 32 conditions with 16,384 characters in all."""
    assert len(parse_conditions({f"/{number}": 1 for number in range(MAX_CONDITIONS)})) == MAX_CONDITIONS
    longest = MAX_CONDITIONS_CHARS - len(json.dumps({"/a": ""}))
    parse_conditions({"/a": "合" * longest})
    with pytest.raises(HandlerError, match=f"has {MAX_CONDITIONS_CHARS + 1} characters"):
        parse_conditions({"/a": "合" * (longest + 1)})


def test_a_later_change_of_the_declared_dict_has_no_effect():
    """A later change of the declared dict does not change the condition; a tuple counts as a list."""
    schema = {"enum": ["a"]}
    (condition,) = parse_conditions({"/x": schema})
    schema["enum"].append("b")
    assert condition.expected == {"enum": ["a"]}
    assert condition.decide({"x": "b"}) is False
    (several,) = parse_conditions({"/x": ("a", "b")})
    assert several.expected == ["a", "b"]


@pytest.mark.parametrize("schema", [{"pattern": "^HT-[0-9]+$"}, {"not": {"pattern": "a+"}}])
def test_patterns_are_compiled_once(schema, monkeypatch):
    """A pattern stays compiled with its condition, even if there are more patterns than `re` keeps compiled."""
    condition = Condition("/x", schema)
    compiled = []
    compiler = re._compiler.compile
    monkeypatch.setattr(re._compiler, "compile", lambda *given: compiled.append(given) or compiler(*given))
    for value in ("HT-1", "a", 1, None):
        re.purge()
        condition.decide({"x": value})
    assert compiled == []


def test_no_pattern_is_searched_in_a_text_that_is_too_long():
    """A text beyond `maxLength` decides at once: the search would take longer than the time limit of tests."""
    assert decide({"pattern": "^.*.*=$", "maxLength": 100}, "a" * 2_000_000) is False


def test_a_check_beyond_the_jsonschema_nesting_limit_is_undecided():
    """A check that needs too many nested calls parks the event, and raises nothing."""
    condition = Condition("/x", nested({"const": 1}, 100))

    def decide_within(calls):
        return decide_within(calls - 1) if calls else condition.decide({"x": 1})

    assert (condition.decide({"x": 1}), decide_within(800)) == (True, None)


_LEAVES = st.sampled_from(
    [
        ("minimum", 2, "number"),
        ("maximum", 3, "number"),
        ("minLength", 2, "string"),
        ("const", 3, "number"),
        ("enum", ["abc", ""], "string"),
    ]
)


@st.composite
def _completed_schemas(draw, depth=3):
    """A schema, and the same one in which each keyword accepts or rejects the values of other types."""
    kind = draw(st.sampled_from(("leaf", "not", "allOf", "anyOf", "oneOf", "if", "items", "contains", "properties")))
    if kind == "leaf" or not depth:
        keyword, operand, expected = draw(_LEAVES)
        declared = {keyword: operand} | ({"type": expected} if draw(st.booleans()) else {})
        return declared, (declared | {"type": expected} if draw(st.booleans()) else declared)
    parts = [draw(_completed_schemas(depth - 1)) for _ in range(draw(st.integers(2, 3)))]
    return tuple(_combine(kind, [part[index] for part in parts]) for index in (0, 1))


def _combine(kind, parts):
    if kind in {"allOf", "anyOf", "oneOf"}:
        return {kind: parts}
    if kind == "if":
        return dict(zip(("if", "then", "else"), parts, strict=False))
    if kind == "properties":
        return {"type": "object", kind: dict(zip("abc", parts, strict=False))}
    return {kind: parts[0]} if kind == "not" else {"type": "array", kind: parts[0]}


_VALUES = st.recursive(
    st.integers(0, 5) | st.sampled_from(["", "2", "abc", True]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from("abc"), children, max_size=3),
    max_leaves=6,
)


@given(_completed_schemas(), _VALUES)
def test_a_result_does_not_depend_on_values_of_other_types(schemas, value):
    """A condition is true or false only if it is so whether keywords accept or reject values of other types."""
    declared, completed = schemas
    decided = decide(declared, value)
    assert decided in {None, Draft202012Validator(completed).is_valid(value)}


@given(_completed_schemas(), st.integers(0, 5))
def test_numbers_are_decided_as_json_schema_does(schemas, number):
    """A condition with keywords for numbers only decides each number as JSON Schema does."""
    text = json.dumps(schemas[0]).replace("minLength", "exclusiveMaximum").replace("string", "number")
    declared = json.loads(text)
    assume(not {"items", "contains", "properties", "enum"} & set(re.findall(r"[a-z]+", json.dumps(declared))))
    assert decide(declared, number) is Draft202012Validator(declared).is_valid(number)


_JSON = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=6,
)


@given(_JSON, _JSON)
def test_constants_compare_like_json_schema_const(left, right):
    """Constants compare like `const`, except that different types are undecided."""
    for value in (left, right):
        decided = decide([left], value)
        valid = Draft202012Validator({"const": left}).is_valid(value)
        assert decided is (valid if decided is not None else None)
        assert not (decided is None and valid)


def test_conditions_are_json():
    """Conditions read from the ledger's JSON are equal to the declared ones."""
    when = {"/a": {"minimum": 1}, "/b": ["x", 1, None, True], "/c": None}
    again = parse_conditions(
        json.loads(json.dumps({condition.pointer: condition.expected for condition in parse_conditions(when)}))
    )
    assert again == parse_conditions(when)
