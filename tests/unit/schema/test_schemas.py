"""Checking callbacks: the effect, place and text of each schema keyword, and impossible requirements."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from flowhooks.errors import InvalidCallback
from flowhooks.schema import parse
from flowhooks.schema.ecma_regex import Pattern
from flowhooks.schema.files import DIALECT
from flowhooks.schema.flow_instance_id import find_violations
from flowhooks.schema.schemas import Schemas
from flowhooks.schema.violations import violations

SHARED = "../process-end-call-back-ro.schema.json"
SECRET = "S3CRET"


@pytest.fixture(scope="module")
def schemas():
    """The shipped schema files."""
    return Schemas.load()


@pytest.fixture
def kind(folder):
    """A function that adds a kind of callback with the given schema, and returns its refusal of a body."""

    def open_kind(schema, body):
        schemas = Schemas.load([folder({"call-back/special.schema.json": schema})])
        return refusal(lambda: schemas.check_body("special", body))

    return open_kind


def refusal(check):
    """The reason why `check` refuses."""
    with pytest.raises(InvalidCallback) as caught:
        check()
    return caught.value


def found(error):
    """Pointer and sentence of each violation."""
    return [(pointer, key) for pointer, key, _ in error.violations]


def member(schema):
    """A schema whose member `x` must match `schema`."""
    return {"properties": {"x": schema}}


def test_shipped_kinds_and_examples(schemas):
    """One kind is shipped, and each example in the shipped files is valid for its own file."""
    assert schemas.kinds == ("cancel", "complete", "error", "terminate")
    example = schemas.documents["call-back/complete.schema.json"]["examples"][0]
    assert schemas.check_body("complete", example) is None
    assert schemas.check_flow_instance_id(schemas.documents["flow-instance-id.schema.json"]["examples"][0]) is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"businessKey": ""},
        {"businessKey": "x" * 512, "callBackProcessClass": "中" * 512},
        {"processDefinitionVersion": 2**31 - 1},
        {"processDefinitionVersion": -(2**31)},
        {"unknown": {"nested": [None, 1, "x" * 1000]}},
    ],
)
def test_accepted_bodies(schemas, body):
    """Each of the five is optional, up to its bounds, and other members are accepted."""
    assert schemas.check_body("complete", body) is None


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("businessKey", 1.5, "type"),
        ("businessKey", True, "type"),
        ("businessKey", "x" * 513, "maxLength"),
        ("callBackProcessClass", ["x"], "type"),
        ("callBackProcessClass", "x" * 513, "maxLength"),
        ("processDefinitionId", {"x": 1}, "type"),
        ("processDefinitionId", "x" * 513, "maxLength"),
        ("processDefinitionKey", False, "type"),
        ("processDefinitionKey", 2251799813685249, "type_process_key"),
        ("processDefinitionKey", "x" * 513, "maxLength"),
        ("processDefinitionVersion", "1", "type"),
        ("processDefinitionVersion", 1.5, "type"),
        ("processDefinitionVersion", True, "type"),
        ("processDefinitionVersion", 2**31, "maximum"),
        ("processDefinitionVersion", -(2**31) - 1, "minimum"),
    ],
)
def test_types_and_bounds_of_shared_members(schemas, name, value, key):
    """Each of the six names has its type and its bounds."""
    assert found(refusal(lambda: schemas.check_body("complete", {name: value}))) == [(f"/{name}", f"schema.{key}")]


def test_version_written_as_a_fraction(schemas):
    """A version of `1.0` is the integer 1."""
    assert schemas.check_body("complete", parse(b'{"processDefinitionVersion": 1.0}')) is None


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "6e8c3b52-5d0b-11ee-9a3f-0242ac120002",
        "A.z_0:~-",
        "scheduled__2026-11-27T00:00:00+00:00",
        "order/2026/17",
        ".",
        "..",
        "../../etc",
        "a b",
        "approval@example.com",
        "{x}",
        "%31",
        "流程 17",
        "a\u3000b",
        "e\u0301",
        "\u0661",
        "\u06a9\u200c\u06af",  # Persian needs U+200C
        "👩\u200d🚒",
        "a" * 255,
        "é" * 255,
        "流" * 170,
        "😀" * 128,
    ],
)
def test_flow_instance_id(schemas, text):
    """Ids of all engines are accepted, in any language, up to 255 characters and 512 bytes."""
    assert schemas.check_flow_instance_id(text) is None


NO_IDS = {
    "": "must not be shorter than 1 characters",
    "a" * 256: "must not be longer than 255 characters",
    "流" * 171: "must not be longer than 512 bytes in UTF-8",
    "😀" * 129: "must not be longer than 512 bytes in UTF-8",
    " a": "must not begin or end with white space",
    "a\u3000": "must not begin or end with white space",
    " ": "must not begin or end with white space",
    **{
        text: f"must not contain the character {code}: control characters, line separators and direction marks are "
        "refused"
        for text, code in {
            "1\n": "U+000A",
            "\n1": "U+000A",
            "1\r\n": "U+000D",
            "1\0": "U+0000",
            "a\tb": "U+0009",
            "a\x7f": "U+007F",
            "a\x85b": "U+0085",
            "a\u2028b": "U+2028",
            "a\u2029b": "U+2029",
            "a\u200eb": "U+200E",
            "a\u061cb": "U+061C",
            "a\u202eb": "U+202E",
            "a\u2066b": "U+2066",
            "\ud800": "U+D800",
        }.items()
    },
}


@pytest.mark.parametrize("text", NO_IDS)
def test_invalid_flow_instance_ids(schemas, text):
    """A text that is no id is refused with the rule that it breaks, and not repeated."""
    error = refusal(lambda: schemas.check_flow_instance_id(text))
    assert error.text("en") == f"The flowInstanceId in the path is not valid. flowInstanceId: {NO_IDS[text]}"
    assert error.text("zh").startswith("路径中的 flowInstanceId 不合法。 flowInstanceId: ")


def test_the_published_pattern_agrees_with_the_code(schemas):
    """For each character, at the end and inside of an id, the published pattern agrees with the code."""
    document = schemas.documents["flow-instance-id.schema.json"]
    pattern = re.compile(Pattern(document["pattern"], "/pattern"))
    for code in (*range(0xD800), *range(0xE000, 0x10000), 0x10000, 0x1F600, 0x10FFFF):
        for text in (chr(code), f"{chr(code)}a", f"a{chr(code)}", f"a{chr(code)}a"):
            assert bool(pattern.search(text)) is not any(find_violations(text)), ascii(text)


def test_a_schema_file_restricts_ids(folder):
    """A schema file of the settings can restrict ids further; it cannot allow control characters or longer ids."""
    schemas = Schemas.load([folder({"flow-instance-id.schema.json": {"type": "string", "pattern": "^[0-9\\n]+$"}})])
    assert schemas.check_flow_instance_id("17") is None
    assert found(refusal(lambda: schemas.check_flow_instance_id("a"))) == [("flowInstanceId", "schema.pattern")]
    assert found(refusal(lambda: schemas.check_flow_instance_id("1\n2"))) == [("flowInstanceId", "schema.id_character")]
    assert found(refusal(lambda: schemas.check_flow_instance_id("1" * 513))) == [("flowInstanceId", "schema.id_bytes")]


KEYWORDS = [
    ("type", member({"type": ["integer", "object"]}), {"x": SECRET}, "/x", "type"),
    ("enum", member({"enum": ["a", 1]}), {"x": SECRET}, "/x", "enum"),
    ("const", member({"const": {"a": 1}}), {"x": SECRET}, "/x", "const"),
    ("multipleOf", member({"multipleOf": 5}), {"x": 98765431}, "/x", "multipleOf"),
    ("maximum", member({"maximum": 5}), {"x": 98765431}, "/x", "maximum"),
    ("exclusiveMaximum", member({"exclusiveMaximum": 5}), {"x": 98765431}, "/x", "exclusiveMaximum"),
    ("minimum", member({"minimum": 5}), {"x": -98765431}, "/x", "minimum"),
    ("exclusiveMinimum", member({"exclusiveMinimum": 5}), {"x": -98765431}, "/x", "exclusiveMinimum"),
    ("maxLength", member({"maxLength": 2}), {"x": SECRET}, "/x", "maxLength"),
    ("minLength", member({"minLength": 99}), {"x": SECRET}, "/x", "minLength"),
    ("pattern", member({"pattern": "^[0-9]+$"}), {"x": SECRET}, "/x", "pattern"),
    ("maxItems", member({"maxItems": 1}), {"x": [SECRET, 2]}, "/x", "maxItems"),
    ("minItems", member({"minItems": 2}), {"x": [SECRET]}, "/x", "minItems"),
    ("uniqueItems", member({"uniqueItems": True}), {"x": [SECRET, SECRET]}, "/x", "uniqueItems"),
    ("contains", member({"contains": {"type": "null"}}), {"x": [SECRET]}, "/x", "contains"),
    (
        "contains",
        member({"contains": {"type": "string"}, "maxContains": 1}),
        {"x": [SECRET, SECRET]},
        "/x",
        "maxContains",
    ),
    ("contains", member({"contains": {"type": "string"}, "minContains": 2}), {"x": [SECRET]}, "/x", "minContains"),
    ("maxProperties", member({"maxProperties": 1}), {"x": {"a": SECRET, "b": 1}}, "/x", "maxProperties"),
    ("minProperties", member({"minProperties": 2}), {"x": {"a": SECRET}}, "/x", "minProperties"),
    ("required", member({"required": ["a", "b"]}), {"x": {"a": SECRET}}, "/x", "required"),
    ("dependentRequired", member({"dependentRequired": {"a": ["b"]}}), {"x": {"a": SECRET}}, "/x", "dependentRequired"),
    ("anyOf", member({"anyOf": [{"type": "null"}, {"maxLength": 1}]}), {"x": SECRET}, "/x", "anyOf"),
    ("oneOf", member({"oneOf": [{"type": "null"}, {"maxLength": 1}]}), {"x": SECRET}, "/x", "oneOf"),
    ("oneOf", member({"oneOf": [{"type": "string"}, {"minLength": 1}]}), {"x": SECRET}, "/x", "oneOf_several"),
    ("not", member({"not": {"type": "string"}}), {"x": SECRET}, "/x", "not"),
    ("properties", member(False), {"x": SECRET}, "/x", "nothing"),
    ("patternProperties", {"patternProperties": {"^x": False}}, {"xy": SECRET}, "/xy", "nothing"),
    ("additionalProperties", {**member({}), "additionalProperties": False}, {"y": SECRET}, "/y", "nothing"),
    ("additionalProperties", {"additionalProperties": {"type": "null"}}, {"y": SECRET}, "/y", "type"),
    ("items", member({"prefixItems": [True], "items": False}), {"x": [1, SECRET]}, "/x/1", "nothing"),
    ("prefixItems", member({"prefixItems": [{}, {"type": "null"}]}), {"x": [1, SECRET]}, "/x/1", "type"),
    ("propertyNames", member({"propertyNames": {"maxLength": 1}}), {"x": {"ab": SECRET}}, "/x/ab", "name"),
    ("propertyNames", member({"propertyNames": False}), {"x": {"ab": SECRET}}, "/x/ab", "name"),
    ("unevaluatedItems", member({"unevaluatedItems": False}), {"x": [SECRET]}, "/x", "unevaluatedItems"),
    (
        "unevaluatedProperties",
        member({"properties": {"a": {}}, "unevaluatedProperties": False}),
        {"x": {"b": SECRET}},
        "/x",
        "unevaluatedProperties",
    ),
    (
        "unevaluatedProperties",
        member({"unevaluatedProperties": {"type": "null"}}),
        {"x": {"b": SECRET}},
        "/x",
        "unevaluatedProperties",
    ),
    ("if", member({"if": {"type": "string"}, "then": {"maxLength": 1}}), {"x": SECRET}, "/x", "maxLength"),
    (
        "dependentSchemas",
        member({"dependentSchemas": {"a": {"required": ["b"]}}}),
        {"x": {"a": SECRET}},
        "/x",
        "required",
    ),
    ("allOf", member({"allOf": [{"maxLength": 1}]}), {"x": SECRET}, "/x", "maxLength"),
    ("$ref", {**member({"$ref": "#/$defs/a"}), "$defs": {"a": {"maxLength": 1}}}, {"x": SECRET}, "/x", "maxLength"),
]


@pytest.mark.parametrize(("keyword", "schema", "body", "pointer", "key"), KEYWORDS)
def test_keywords(kind, keyword, schema, body, pointer, key):  # noqa: PLR0917 (the columns of the table)
    """Each keyword refuses at the right place, with a sentence of its own that does not repeat the value."""
    error = kind(schema, body)
    assert found(error) == [(pointer, f"schema.{key}")]
    for language in ("en", "zh"):
        text = error.text(language)
        assert f"{pointer}: " in text
        assert SECRET not in text
        assert "98765431" not in text


def test_every_keyword_is_covered():
    """The table above has every keyword that jsonschema checks, except refused and unchecked ones."""
    assert {row[0] for row in KEYWORDS} == set(Draft202012Validator.VALIDATORS) - {"$dynamicRef", "format"}


def test_errors_at_the_root_of_the_body(kind):
    """Errors of the body as a whole are reported at its root."""
    error = kind({"required": ["approvedBy", "reason"], "$ref": SHARED}, {"businessKey": SECRET})
    assert error.text("en") == (
        'The body is JSON, but is not valid for this callback. /: must have the member "approvedBy" (null counts as '
        'absent); /: must have the member "reason" (null counts as absent)'
    )


def test_sentences_show_the_values_of_the_schema(kind):
    """Sentences name the schema's own values as JSON, cut if they are long."""
    error = kind(member({"enum": ["é", 1, {"a": None}]}), {"x": SECRET})
    assert error.violations[0][2] == {"allowed": '"é", 1, {"a": null}'}
    assert len(kind(member({"enum": ["long" * 20] * 9}), {"x": SECRET}).violations[0][2]["allowed"]) == 200
    assert kind(member({"pattern": "^a$|b$"}), {"x": SECRET}).violations[0][2] == {"pattern": "^a$|b$"}
    assert kind(member({"type": ["null", "array"]}), {"x": SECRET}).violations[0][2] == {"types": "null, array"}


def test_format_is_an_annotation(folder):
    """`format` is published, not checked."""
    schemas = Schemas.load([folder({"call-back/special.schema.json": member({"format": "date-time"})})])
    assert schemas.check_body("special", {"x": "tomorrow"}) is None


def test_the_first_twenty_violations_are_listed(kind):
    """Twenty violations are listed, sorted by place, with the total."""
    schema = member({"items": {"type": "string"}})
    assert len(kind(schema, {"x": [1] * 20}).violations) == 20
    assert kind(schema, {"x": [1] * 20}).key == "body_refused"
    error = kind(schema, {"x": [1] * 21})
    assert found(error) == [(f"/x/{index}", "schema.type") for index in range(20)]
    assert error.text("en").startswith(
        "The body is JSON, but is not valid for this callback: 21 violations; the first 20 are shown. /x/0: "
    )
    assert "共 21 处错误，仅列出前 20 处" in error.text("zh")  # noqa: RUF001 (Chinese punctuation)


def test_total_of_very_many_violations(kind):
    """Above a limit the total is given as "very many"."""
    error = kind(member({"items": {"type": "string"}}), {"x": [1] * 100_000})
    assert (error.key, error.params) == ("body_refused_many", {"total": 1000, "shown": 20})
    assert len(error.violations) == 20
    error = kind(member({"items": {"type": "string"}}), {"x": [1] * 1000})
    assert (error.key, error.params) == ("body_refused_more", {"total": 1000, "shown": 20})


def test_order_does_not_depend_on_the_body(kind):
    """The same violations are reported in the same order, for any form of the body."""
    schema = {"additionalProperties": False, "required": ["z", "y"]}
    names = [f"m{number}" for number in range(12)]
    first = kind(schema, dict.fromkeys(names, 1))
    second = kind(schema, dict.fromkeys(reversed(names), 1))
    assert first.violations == second.violations
    assert [pointer for pointer, _ in found(first)] == ["", "", *(f"/{name}" for name in sorted(names))]


@pytest.mark.parametrize(
    ("name", "pointer"),
    [
        ("a/b~c", "/a~1b~0c"),
        ("", "/"),
        ("a\r\nb\x1b\x7f\u2028\u202e", "/a\\r\\nb\\u001b\\u007f\\u2028\\u202e"),
        ("中文", "/中文"),
        ("k" * 1000, "/" + "k" * 198 + "…"),
    ],
)
def test_pointers(kind, name, pointer):
    """A pointer is escaped according to RFC 6901, has visible characters only, and is cut."""
    assert found(kind({"additionalProperties": False}, {name: 1})) == [(pointer, "schema.nothing")]


@pytest.mark.parametrize("text", ["1\n", "\u0661", "a1"])
def test_regular_expressions_follow_the_standard(kind, text):
    r"""`$` is the very end and `\d` an ASCII digit, for values and for names."""
    assert found(kind(member({"pattern": r"^\d$"}), {"x": text})) == [("/x", "schema.pattern")]
    assert found(kind({"patternProperties": {r"^\d$": {}}, "additionalProperties": False}, {text: 1, "1": 1})) == [
        (f"/{json.dumps(text, ensure_ascii=False)[1:-1]}", "schema.nothing")
    ]


@pytest.mark.parametrize(
    ("pattern", "text"), [(r"^[$]\$$", "$$"), (r"^[^\]$]$", "a"), (r"^a$|^b$", "b"), (r"a\\$", "a\\")]
)
def test_dollars_that_are_not_the_end(folder, pattern, text):
    """A dollar in a class or after a backslash is a dollar."""
    schemas = Schemas.load([folder({"call-back/special.schema.json": member({"pattern": pattern})})])
    assert schemas.check_body("special", {"x": text}) is None
    assert refusal(lambda: schemas.check_body("special", {"x": f"{text}\n"}))


@pytest.mark.parametrize("keywords", [("maxLength", "pattern"), ("pattern", "maxLength")])
def test_no_pattern_is_searched_in_a_text_that_is_too_long(kind, keywords):
    """A text beyond `maxLength` is refused for its length alone: the search would take minutes."""
    schema = {"maxLength": 100, "pattern": "^.*.*=$"}
    error = kind(member({keyword: schema[keyword] for keyword in keywords}), {"x": "a" * 200_000})
    assert found(error) == [("/x", "schema.maxLength")]
    assert found(kind(member(schema), {"x": "a" * 100})) == [("/x", "schema.pattern")]


def test_names_that_are_like_keywords(folder):
    """A member may be named like a keyword, and constants may look like schemas."""
    schema = {
        "properties": {"pattern": {"type": "string"}, "enum": {"pattern": "^a$"}, "not": False},
        "const": {"pattern": "$", "enum": "a"},
    }
    schemas = Schemas.load([folder({"call-back/special.schema.json": schema})])
    assert schemas.check_body("special", {"pattern": "$", "enum": "a"}) is None
    assert len(refusal(lambda: schemas.check_body("special", {"pattern": 1, "enum": "a\n", "not": 1})).violations) == 4


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$ref": SHARED},
        {"$ref": "complete.schema.json"},
        {"allOf": [{"$ref": SHARED}, {"required": ["reason"]}]},
        {"$ref": SHARED, "properties": {"reason": {"type": "string"}}, "unevaluatedProperties": False},
        {"properties": {"businessKey": {"type": "integer"}}},
    ],
)
def test_shared_members_are_the_same_in_every_kind(kind, schema):
    """The six names are the same in every kind, whatever a kind's file has."""
    error = kind(schema, {"businessKey": ["x"], "processDefinitionVersion": "x", "reason": "x"})
    assert {("/businessKey", "schema.type"), ("/processDefinitionVersion", "schema.type")} <= set(found(error))


def test_a_kind_with_its_own_requirements(folder):
    """A kind may require more than the six names, and refuse unknown members."""
    files = {
        "call-back/approve.schema.json": {
            "allOf": [{"$ref": SHARED}, {"$ref": "../common.schema.json#/$defs/approval"}],
            "unevaluatedProperties": False,
        },
        "call-back/revoke.schema.json": {"$ref": SHARED, "required": ["reason"]},
        "common.schema.json": {"$defs": {"approval": {"required": ["by"], "properties": {"by": {"type": "string"}}}}},
    }
    schemas = Schemas.load([folder(files)])
    assert schemas.kinds == ("approve", "cancel", "complete", "error", "revoke", "terminate")
    assert schemas.check_body("approve", {"by": "Li", "businessKey": "1"}) is None
    assert schemas.check_body("revoke", {"reason": "", "other": 1}) is None
    assert found(refusal(lambda: schemas.check_body("approve", {"by": "Li", "x": 1}))) == [
        ("", "schema.unevaluatedProperties")
    ]
    assert found(refusal(lambda: schemas.check_body("revoke", {"by": "Li"}))) == [("", "schema.required")]


def test_replaced_shared_file(folder):
    """A folder of the settings may require more of every kind."""
    shared = {"required": ["businessKey"], "properties": {"businessKey": {"type": "string"}}}
    schemas = Schemas.load([folder({"process-end-call-back-ro.schema.json": shared})])
    assert found(refusal(lambda: schemas.check_body("complete", {}))) == [("", "schema.required")]
    assert schemas.check_body("complete", {"businessKey": "1"}) is None
    files = {"process-end-call-back-ro.schema.json": {"$ref": "more.schema.json"}, "more.schema.json": shared}
    schemas = Schemas.load([folder(files, "referring")])
    assert found(refusal(lambda: schemas.check_body("complete", {}))) == [("", "schema.required")]


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("businessKey", 1.5, "type"),
        ("callBackProcessClass", ["x"], "type"),
        ("processDefinitionId", {"x": 1}, "type"),
        ("processDefinitionKey", 2251799813685249, "type_process_key"),
        ("processDefinitionKey", True, "type"),
        ("conclusion", 1, "type"),
        ("processDefinitionVersion", "1", "type"),
        ("processDefinitionVersion", True, "type"),
        ("processDefinitionVersion", 1e17, "type"),
        ("processDefinitionVersion", 2**31, "maximum"),
        ("processDefinitionVersion", -(2**31) - 1, "minimum"),
    ],
)
def test_a_replaced_shared_file_cannot_change_types(folder, name, value, key):
    """The members that become attributes of an event have their types, whatever the schema file allows."""
    schemas = Schemas.load([folder({"process-end-call-back-ro.schema.json": {"properties": {name: {}}}})])
    assert found(refusal(lambda: schemas.check_body("complete", {name: value}))) == [(f"/{name}", f"schema.{key}")]


def test_schema_that_refers_to_itself(kind, folder):
    """A recursive schema is followed to the maximum depth of bodies."""
    tree = {"properties": {"children": {"items": {"$ref": "#"}}, "name": {"type": "string"}}}

    def nested(name, levels):
        node = {"name": name}
        for _ in range(levels):
            node = {"name": "x", "children": [node]}
        return parse(json.dumps(node).encode())

    schemas = Schemas.load([folder({"call-back/tree.schema.json": tree})])
    assert schemas.check_body("tree", nested("x", 31)) is None
    assert found(kind(tree, nested(1, 10))) == [("/children/0" * 10 + "/name", "schema.type")]


def test_a_failure_of_jsonschema_rejects_the_callback(kind):
    """If jsonschema fails, the callback is refused, and the server keeps working."""
    chain = {"$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}]} for n in range(40)}}
    chain["$defs"]["d40"] = {"additionalProperties": {"$ref": "#/$defs/d0"}}
    body = parse(b'{"x":' * 64 + b"1" + b"}" * 64)
    error = kind({**chain, "$ref": "#/$defs/d0"}, body)
    assert (error.key, error.violations) == ("body_unchecked", ())


@pytest.mark.parametrize("schema", [{}, {"$schema": DIALECT}])
def test_decimals_are_exact(folder, schema):
    """An amount with cents is a multiple of 0.01, although no binary float is."""
    for step, multiples, others in (
        (0.01, ("19.99", "4.35", "0.07", "1234567.89", "-0.29", "1", "1e300", "1" * 4000), ("0.005", "19.999")),
        (5, ("10", "10.0", "0"), ("7", "10.5")),
    ):
        checked = {**schema, **member({"multipleOf": step})}
        schemas = Schemas.load([folder({"call-back/special.schema.json": checked})])
        for number in multiples:
            schemas.check_body("special", parse(b'{"x": %s}' % number.encode()))
        for number in others:
            refused = refusal(partial(schemas.check_body, "special", parse(b'{"x": %s}' % number.encode())))
            assert found(refused) == [("/x", "schema.multipleOf")]


def test_a_kind_that_adds_to_the_shared_schema(folder):
    """Its further requirements apply in any place; the six names are as in every kind."""
    files = {
        "call-back/approve.schema.json": {"allOf": [{"$ref": SHARED}, {"required": ["by"]}, {"required": ["at"]}]},
        "call-back/revoke.schema.json": {"$ref": "../common.schema.json", "allOf": [{"$ref": SHARED}]},
        "common.schema.json": {"required": ["by"]},
    }
    schemas = Schemas.load([folder(files)])
    for kind, missing in (("approve", 2), ("revoke", 1)):
        error = refusal(lambda kind=kind: schemas.check_body(kind, {"businessKey": True}))
        assert found(error) == [("", "schema.required")] * missing + [("/businessKey", "schema.type")]
        assert schemas.check_body(kind, {"by": "Li", "at": 1}) is None


@pytest.mark.parametrize(
    ("schema", "body", "violations"),
    [
        (
            {"allOf": [{"$ref": SHARED, "properties": {"by": {"type": "string"}}, "required": ["reason"]}]},
            {"by": 1},
            [("", "schema.required"), ("/by", "schema.type")],
        ),
        (
            {"allOf": [{"$ref": SHARED, "unevaluatedProperties": False}]},
            {"by": 1},
            [("", "schema.unevaluatedProperties")],
        ),
        ({"$ref": SHARED, "required": ["reason"]}, {"by": 1}, [("", "schema.required")]),
    ],
)
def test_keywords_beside_a_reference_to_the_shared_schema(kind, schema, body, violations):
    """Keywords beside the reference apply, at the root and in `allOf`."""
    assert found(kind(schema, body)) == violations


def test_a_kind_that_refers_to_a_part_of_its_file(kind, folder):
    """References into the kind's own file find the schemas at the places that the file has."""
    part = {
        "allOf": [{"$ref": SHARED}, {"properties": {"net": {"type": "number"}}}],
        "properties": {"gross": {"$ref": "#/allOf/1/properties/net"}},
    }
    schemas = Schemas.load([folder({"call-back/special.schema.json": part})])
    assert schemas.check_body("special", {"gross": 1}) is None
    assert found(kind(part, {"gross": "1"})) == [("/gross", "schema.type")]


def test_a_kind_whose_nested_values_are_of_the_same_kind(kind):
    """A reference to the file itself includes the shared schema."""
    tree = {"$ref": SHARED, "properties": {"children": {"items": {"$ref": "#"}}}}
    error = kind(tree, {"children": [{"businessKey": "x" * 600}]})
    assert found(error) == [("/children/0/businessKey", "schema.maxLength")]


def test_a_missing_member_that_another_member_requires(kind):
    """A violation is only a missing member whose other member is present."""
    schema = {"dependentRequired": {"a": ["b", "c"], "d": ["e"]}}
    error = kind(schema, {"a": 1, "c": 1})
    assert error.violations == (("", "schema.dependentRequired", {"name": '"b"', "given": '"a"'}),)


def test_a_pattern_beside_a_schema_that_is_true(kind):
    """A pattern beside schemas that are `true` or `false` is translated, too."""
    error = kind({"properties": {"w": True, "v": False, "x": {"pattern": "^a$"}}}, {"x": "a\n"})
    assert found(error) == [("/x", "schema.pattern")]


@pytest.mark.parametrize(
    ("schema", "params"),
    [
        ({"const": {"a": "é"}}, {"allowed": '{"a": "é"}'}),
        ({"maximum": 1.5}, {"limit": "1.5"}),
        ({"maxItems": 1}, {"limit": "1"}),
        ({"not": {"type": "array"}}, {}),
        ({"required": ["é"]}, None),
    ],
)
def test_the_schemas_own_values_are_named(kind, schema, params):
    """Values are named as JSON; keywords without a useful value name none."""
    body = {"x": {"a": 1} if "required" in schema else [1, 2] if {"maxItems", "not"} & schema.keys() else 9}
    ((_, _, named),) = kind(member(schema), body).violations
    assert named == ({"name": '"é"'} if params is None else params)


def test_a_keyword_of_a_later_jsonschema():
    """A keyword that a later jsonschema checks is named."""
    error = ValidationError("x", validator="max'Volume", validator_value=1, instance={}, schema={})
    (violation,) = violations({}, [error], 5)
    assert (violation.path, violation.key, dict(violation.params)) == ((), "schema.other", {"keyword": "max'Volume"})
    error = ValidationError("x", validator="k" * 300, validator_value=1, instance={}, schema={})
    (violation,) = violations({}, [error], 5)
    assert len(dict(violation.params)["keyword"]) == 200


def test_unknown_kind(schemas):
    """A missing kind is an error of the calling code."""
    with pytest.raises(KeyError):
        schemas.check_body("nonesuch", {})


def test_impossible_member_values(folder):
    """A member's value is impossible if its own schema refuses it; unchecked ones are not known to be."""
    schemas = Schemas.load(
        [
            folder(
                {
                    "call-back/special.schema.json": {
                        "required": ["by"],
                        "properties": {
                            "callBackProcessClass": {"pattern": "^com[.]"},
                            "list": {"items": {"type": "integer"}},
                            "number": {"multipleOf": 0.5},
                        },
                    }
                }
            )
        ]
    )
    said = {
        ("complete", "callBackProcessClass", "x" * 512): None,
        ("complete", "callBackProcessClass", "x" * 513): "must not be longer than 512 characters",
        ("special", "callBackProcessClass", "com.x"): None,
        ("special", "callBackProcessClass", "org.x"): "must match the regular expression ^com[.]",
        ("special", "businessKey", "1"): None,
        ("special", "number", 10**400): None,
    }
    assert {asked: schemas.why_member_invalid(*asked) for asked in said} == said
    assert schemas.why_member_invalid("special", "list", [1, "x"]) == "must be of type integer"
    with pytest.raises(KeyError):
        schemas.why_member_invalid("nonesuch", "businessKey", "1")
