"""The published contract: valid OpenAPI 3.1 that describes bodies exactly as the schema files."""

from __future__ import annotations

import copy
import json
import re
from urllib.parse import unquote

import pytest
from jsonschema import Draft202012Validator

from flowhooks import __version__
from flowhooks.errors import InvalidCallback
from flowhooks.schema import parse
from flowhooks.schema.schemas import Schemas
from flowhooks.web.callback.openapi import openapi
from flowhooks.web.errors import envelope

COMPLETE = "/flow/{flowInstanceId}/call-back/complete"
INGRESS = "/in/{source}"
SHIPPED = [f"/flow/{{flowInstanceId}}/call-back/{kind}" for kind in ("cancel", "complete", "error", "terminate")]


@pytest.fixture(scope="module")
def document():
    """The contract as shipped, as a client reads it."""
    return json.loads(json.dumps(openapi(Schemas.load())))


@pytest.fixture
def foreign(tmp_path):
    """The contract with a kind from another folder, whose files refer to each other in every way."""
    files = {
        "call-back/revoke.schema.json": {
            "$anchor": "top",
            "title": "Revoked",
            "$ref": "../process-end-call-back-ro.schema.json",
            "properties": {
                "why": {"$ref": "../common.schema.json#/$defs/a%20b~1c"},
                "by": {"$ref": "../common.schema.json#person"},
                "before": {"$ref": "#"},
                "top": {"$ref": "#top"},
                "const": {"const": {"$ref": "stays"}},
            },
        },
        "common.schema.json": {
            "$id": "https://flowhooks.example/schemas/common.schema.json",
            "$defs": {"a b/c": {"maxLength": 9}, "person": {"$anchor": "person", "$ref": "more.schema.json"}},
        },
        "more.schema.json": {"type": "string"},
        "unused.schema.json": {"type": "string"},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content), "utf-8")
    return openapi(Schemas.load([tmp_path]))


def everything(value, path=()):
    """Every object in a JSON value with its path."""
    if isinstance(value, dict):
        yield path, value
    for name, child in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from everything(child, (*path, name))


def resolve(document, reference):
    """The target of a reference within the document."""
    assert reference.startswith("#/")
    for part in unquote(reference[2:]).split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def resolved(document, values):
    """The target of each of these references."""
    return [resolve(document, value["$ref"]) for value in values]


def references(document):
    """Every reference, except those in constants and examples."""
    for path, value in everything(document):
        if isinstance(value.get("$ref"), str) and not {"const", "examples", "properties"} & set(path[-1:]):
            yield value["$ref"]


def component(document, name):
    """A validator of a component."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document["components"]})


def test_version_dialect_and_paths_of_the_document(document):
    """The document has its OpenAPI version, its dialect, flowhooks' version and the shipped paths."""
    assert document["openapi"] == "3.1.0"
    assert document["jsonSchemaDialect"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["info"]["version"] == __version__
    assert list(document["paths"]) == [*SHIPPED, INGRESS]


def test_operation(document):
    """A callback is a POST with an id in its path, two optional headers, and a required body."""
    path = document["paths"][COMPLETE]
    [identity] = resolved(document, path["parameters"])
    assert (identity["name"], identity["in"], identity["required"]) == ("flowInstanceId", "path", True)
    assert identity["schema"] == {"$ref": "#/components/schemas/flow-instance-id"}
    operation = path["post"]
    parameters = resolved(document, operation["parameters"])
    assert [(parameter["name"], parameter["in"], parameter.get("required", False)) for parameter in parameters] == [
        ("Prefer", "header", False),
        ("Accept-Language", "header", False),
    ]
    assert operation["requestBody"]["required"] is True
    content = operation["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/call-back.complete"}
    assert content["examples"]["example-1"]["value"]["callBackProcessClass"] == "com.cnooc.test.CallbackHandler"
    assert operation["security"] == [{}, {"bearer": []}, {"signature": []}]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        ("200", "answer", ["Flowhooks-Event", "Preference-Applied"]),
        ("202", "answer", ["Flowhooks-Event", "Preference-Applied"]),
        ("400", "error", []),
        ("401", "error", ["WWW-Authenticate"]),
        ("403", "error", []),
        ("404", "error", []),
        ("405", "error", ["Allow"]),
        ("408", "error", []),
        ("409", "error", ["Flowhooks-Event"]),
        ("413", "error", []),
        ("415", "error", []),
        ("422", "error", []),
        ("429", "error", ["Retry-After"]),
        ("431", "error", []),
        ("500", "error", ["Flowhooks-Event", "Preference-Applied"]),
        ("501", "error", []),
        ("503", "error", ["Retry-After"]),
        ("505", "error", []),
    ],
)
def test_responses(document, status, body, headers):
    """Each status has its body and its headers."""
    [response] = resolved(document, [document["paths"][COMPLETE]["post"]["responses"][status]])
    assert response["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{body}"}
    assert list(response["headers"]) == headers


def test_ingress(document):
    """A fixed URL takes bodies of any format; its statuses are 200 and errors, without 202, 404 and 409."""
    path = document["paths"][INGRESS]
    [source] = resolved(document, path["parameters"])
    assert (source["name"], source["in"], source["required"]) == ("source", "path", True)
    for method in ("post", "get"):
        statuses = path[method]["responses"]
        assert not {"202", "404", "409"} & statuses.keys()
        assert {"200", "400", "401", "403", "413", "415", "422", "429", "503"} <= statuses.keys()
        [success] = resolved(document, [statuses["200"]])
        assert list(success["content"]) == ["*/*"]
        [internal] = resolved(document, [statuses["500"]])
        assert internal["description"].startswith("Internal server error")
        assert "headers" not in internal
        assert "body of its own" in path[method]["description"]
    assert len(path["post"]["requestBody"]["content"]) == 4
    assert "requestBody" not in path["get"]


def test_no_other_responses(document):
    """The statuses above are all."""
    [own] = [mark for mark in test_responses.pytestmark if mark.name == "parametrize"]
    assert list(document["paths"][COMPLETE]["post"]["responses"]) == [row[0] for row in own.args[1]]


def test_shared_parts_of_kinds_are_published_once(document):
    """A kind adds its path, its title and its body; parameters and responses are shared."""
    shared = ("parameters", "responses")
    first, *others = (document["paths"][path]["post"] for path in SHIPPED)
    for operation in others:
        assert {name: operation[name] for name in shared} == {name: first[name] for name in shared}
        assert operation["description"] != first["description"]
    assert len(json.dumps([document["paths"][path] for path in SHIPPED])) < 10_000


def test_components_are_the_files(document):
    """A component is its file, except for references, unneeded names, and null for absent members."""

    def without_targets(schema):
        text = re.sub(r'"\$ref": "[^"]*"', '"$ref"', json.dumps(schema))
        text = re.sub(r'"type": \["(\w+)", "null"\]', r'"type": "\1"', text)
        return re.sub(r'"type": \[("\w+", "\w+"), "null"\]', r'"type": [\1]', text)

    for name, file in Schemas.load().documents.items():
        expected = {keyword: value for keyword, value in file.items() if keyword not in {"$schema", "$id"}}
        published = document["components"]["schemas"][name.removesuffix(".schema.json").replace("/", ".")]
        assert without_targets(published) == without_targets(expected)


def test_the_document_is_valid_openapi(document, foreign):
    """The document follows OpenAPI's rules: references resolve, names are valid, ids are unique."""
    for openapi_document in (document, foreign):
        assert all(resolve(openapi_document, reference) is not None for reference in references(openapi_document))
        operations = [
            path[method] for path in openapi_document["paths"].values() for method in ("post", "get") if method in path
        ]
        assert len({operation["operationId"] for operation in operations}) == len(operations)
        for components in openapi_document["components"].values():
            assert all(re.fullmatch(r"[a-zA-Z0-9._-]+", name) for name in components)
        for path, item in openapi_document["paths"].items():
            parameters = resolved(openapi_document, item["parameters"])
            declared = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
            assert declared == set(re.findall(r"\{(\w+)\}", path))
        for name, schema in openapi_document["components"]["schemas"].items():
            Draft202012Validator.check_schema(schema)
            assert component(openapi_document, name).is_valid({}) in (True, False)  # every reference is followed
            assert not {"$id", "$schema", "$anchor"} & schema.keys()
        for operation in operations:
            assert all(
                response["description"] for response in resolved(openapi_document, operation["responses"].values())
            )
        assert all(
            set(header) == {"description", "schema"} for header in openapi_document["components"]["headers"].values()
        )


def test_descriptions_are_in_both_languages(document):
    """All descriptions are in English and in Chinese."""
    for path, value in everything(document):
        if {"examples", "license"} & set(path):
            continue
        for keyword in ("title", "summary", "description"):
            if isinstance(value.get(keyword), str):
                english, chinese = value[keyword].split(" / ")
                assert english.isascii()
                assert not chinese.isascii()


def test_examples(document):
    """Every example is valid for its schema."""
    contents = [
        value for path, value in everything(document) if path[-1:] == ("application/json",) and INGRESS not in path
    ]
    checked = 0
    for content in contents:
        name = content["schema"]["$ref"].rpartition("/")[2]
        for example in content["examples"].values():
            assert component(document, name).is_valid(example["value"])
            checked += 1
    assert checked == len(contents) == len(SHIPPED) + 19


def test_errors_are_as_published(document):
    """The server's error matches the published one."""
    error = component(document, "error")
    made = envelope(status=422, message="no", path="/flow/1/call-back/complete")
    assert error.is_valid(made)
    for name in made:
        assert not error.is_valid({other: value for other, value in made.items() if other != name})
    assert not error.is_valid(made | {"success": True})


def test_kind_of_another_folder(foreign):
    """A new schema file is a new path, published with exactly the files that it needs."""
    assert list(foreign["paths"]) == sorted([*SHIPPED, "/flow/{flowInstanceId}/call-back/revoke", INGRESS])
    assert foreign["paths"]["/flow/{flowInstanceId}/call-back/revoke"]["post"]["summary"] == "Revoked"
    schemas = foreign["components"]["schemas"]
    assert {"call-back.revoke", "common", "more"} <= schemas.keys()
    assert "unused" not in schemas
    assert schemas["call-back.revoke"] == {
        "title": "Revoked",
        "$ref": "#/components/schemas/process-end-call-back-ro",
        "properties": {
            "why": {"$ref": "#/components/schemas/common/$defs/a%20b~1c"},
            "by": {"$ref": "#/components/schemas/common/$defs/person"},
            "before": {"$ref": "#/components/schemas/call-back.revoke"},
            "top": {"$ref": "#/components/schemas/call-back.revoke"},
            "const": {"const": {"$ref": "stays"}},
        },
    }
    assert component(foreign, "call-back.revoke").is_valid({"why": "x" * 9, "by": "Li", "before": {}})
    for body in ({"why": "x" * 10}, {"by": 1}, {"before": {"by": 1}}, {"top": {"by": 1}}, {"businessKey": True}):
        assert not component(foreign, "call-back.revoke").is_valid(body)


def test_null_for_an_absent_member_is_published(tmp_path):
    """The document permits null like the server, but not for required members or in responses."""
    (tmp_path / "call-back").mkdir()
    kind = {
        "$ref": "../process-end-call-back-ro.schema.json",
        "properties": {
            "why": {"enum": ["a", "b"], "type": "string"},
            "who": {"type": ["string", "integer"]},
            "within": {"type": "object", "properties": {"deep": {"type": "string"}}},
            "fixed": {"const": 1, "type": "integer"},
            "any": {},
        },
        "required": ["processDefinitionKey"],
    }
    (tmp_path / "call-back/revoke.schema.json").write_text(json.dumps(kind), "utf-8")
    schemas = Schemas.load([tmp_path])
    document = openapi(schemas)
    body = component(document, "call-back.revoke")
    key = {"processDefinitionKey": "k"}
    for given in ({"why": None}, {"who": None}, {"within": {"deep": None}}, {"any": None}, {"businessKey": None}, {}):
        assert body.is_valid(key | given), given
        schemas.check_body("revoke", parse(json.dumps(key | given).encode()))
    for given in (key | {"why": "c"}, {"processDefinitionKey": None}, {"businessKey": None}):
        assert not body.is_valid(given), given
        with pytest.raises(InvalidCallback):
            schemas.check_body("revoke", parse(json.dumps(given).encode()))
    answer = component(document, "answer")
    assert answer.is_valid({"success": True})
    assert not answer.is_valid({"success": True, "message": None})


def test_publishing_does_not_change_schemas():
    """Publishing does not change the schemas that check bodies."""
    schemas = Schemas.load()
    before = copy.deepcopy(dict(schemas.documents))
    openapi(schemas)
    assert dict(schemas.documents) == before
