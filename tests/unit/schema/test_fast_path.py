"""The fast path: it accepts nothing that jsonschema refuses, and what engines send is accepted without jsonschema."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flowhooks.schema.ecma_regex import translate
from flowhooks.schema.fast_path import FastPathValidator
from flowhooks.schema.schemas import FLOW_INSTANCE_ID, SHARED_SCHEMA, Schemas

NAMES = ("a", "b", "businessKey", "processDefinitionVersion")
NUMBERS = (
    st.sampled_from((0, 1, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**53 + 1, 10**30, 0.5, 1.5, 1e15, 1e300))
    | st.integers(-3, 3)
    | st.floats(-3, 3).map(lambda number: round(number, 1))
    | st.integers(-3, 3).map(float)
)
TEXTS = st.text("a\0\n😀中", max_size=4) | st.sampled_from(("a" * 512, "😀" * 512, "a" * 513, "a\n", "1", "true"))
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
TYPES = st.sampled_from(("array", "boolean", "integer", "null", "number", "object", "string"))
LENGTHS = st.sampled_from((0, 1, 2, 3, 512))
PATTERNS = st.sampled_from(("^a", "a$", "^[^\\u0000]*$", "😀"))


def described(subschemas):
    """Schemas of the keywords that have a fast path, whose members match `subschemas`."""
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
            "properties": st.dictionaries(st.sampled_from(NAMES), subschemas, max_size=3),
            "required": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
            "additionalProperties": st.booleans(),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "const": VALUES,
            "minLength": LENGTHS,
            "maxLength": LENGTHS,
            "minimum": NUMBERS,
            "maximum": NUMBERS,
            "pattern": PATTERNS,
            "title": st.just("a title"),
            "format": st.just("int32"),
        },
    )


SCHEMAS = st.recursive(st.booleans() | described(st.booleans()), described, max_leaves=6).filter(
    lambda schema: isinstance(schema, dict)
)
SHIPPED = translate(Schemas.load().documents[SHARED_SCHEMA])
VALIDATOR = Draft202012Validator(SHIPPED)


class NoFallback:
    """A validator of a schema that refuses each value, so that only the fast path accepts any."""

    def __init__(self, schema):
        self.schema = schema

    def is_valid(self, _value):
        """Refuse."""
        return False


def accepts(schema, value):
    """Whether the fast path alone accepts a value."""
    return FastPathValidator(NoFallback(schema)).is_valid(value)


@settings(deadline=None)
@given(SCHEMAS, VALUES)
def test_random_schemas(schema, value):
    """A value that the fast path accepts is valid, and the two together decide as jsonschema does."""
    translated = translate(schema)
    validator = Draft202012Validator(translated)
    is_valid = validator.is_valid(value)
    assert FastPathValidator(validator).is_valid(value) == is_valid
    assert is_valid or not accepts(translated, value)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            (
                "businessKey",
                "callBackProcessClass",
                "processDefinitionId",
                "processDefinitionKey",
                "processDefinitionVersion",
                "conclusion",
                "other",
            )
        ),
        SCALARS | st.just([]) | st.just({"a": 1}),
        max_size=7,
    )
)
def test_random_bodies(body):
    """The fast path of the shipped schema accepts exactly the bodies that are valid."""
    assert accepts(SHIPPED, body) == VALIDATOR.is_valid(body)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 1.0),
        ({"type": "integer", "maximum": 10**30}, 10**30),
        ({"type": "number", "minimum": 0.5}, 2**53 + 1),
        ({"type": ["string", "null"], "enum": ["a", None]}, None),
        ({"properties": {"a": False}}, {"b": 1}),
        ({"additionalProperties": False, "properties": {"a": True}, "required": ["a"]}, {"a": [1]}),
    ],
)
def test_values_accepted_without_jsonschema(schema, value):
    """Each of these values is accepted without jsonschema."""
    assert accepts(translate(schema), value)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 1}, 1.0),
        ({"enum": [[1]]}, [1]),
        ({"items": {"type": "string"}}, []),
        ({"properties": {"a": {"$ref": "#"}}}, {}),
        ({"additionalProperties": {"type": "string"}}, {}),
    ],
)
def test_values_that_need_jsonschema(schema, value):
    """These values are valid, but need jsonschema: another spelling of a number, or a keyword without a fast path."""
    translated = translate(schema)
    assert not accepts(translated, value)
    assert FastPathValidator(Draft202012Validator(translated)).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "value"), [({"const": True}, 1), ({"enum": [0]}, False), ({"type": "integer"}, True)]
)
def test_true_is_not_one(schema, value):
    """Python's `True == 1` does not reach JSON."""
    assert not FastPathValidator(Draft202012Validator(translate(schema))).is_valid(value)


def test_shipped_schemas():
    """All examples of the shipped schemas of callbacks are accepted without jsonschema."""
    documents = Schemas.load().documents
    assert all(accepts(SHIPPED, body) for body in documents["call-back/complete.schema.json"]["examples"])
    flow_instance_id = documents[FLOW_INSTANCE_ID]
    assert all(accepts(translate(flow_instance_id), example) for example in flow_instance_id["examples"])
