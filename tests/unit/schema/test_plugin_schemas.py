"""A plugin's own schemas of its settings and its events' data: file names, and refused files."""

from __future__ import annotations

from functools import reduce

import pytest

from flowhooks.errors import SettingsError
from flowhooks.schema.plugin_schemas import load_plugin_schemas
from flowhooks.schema.schemas import Schemas

SECRET = "S3CRET"


@pytest.fixture
def own(folder):
    """A function that loads schema files given by path, and returns the plugin's own schemas."""
    return lambda files: load_plugin_schemas(Schemas.load(), [folder(files)])[1]


def data(own, body, *, callback_class=None, process_key=None):
    """The reason why the data of an event is refused."""
    said = own.why_data_invalid(body, callback_class=callback_class, process_key=process_key)
    assert said is None or (said.isprintable() and SECRET not in said)
    return said


@pytest.mark.parametrize(
    "name",
    ["com.example.ContractSigned", "合同审批", "com#x", "a b%20?", "CON", "..x", "A:1:b", "x" * 230],
)
def test_files_are_named_after_a_class_or_key_exactly(name, own):
    """Case, script and marks are kept; a name is only used for look-ups."""
    if name.startswith("."):
        assert own({f"data/class/{name}.schema.json": {}}).classes == ()  # hidden files are ignored
        return
    schemas = own({f"data/class/{name}.schema.json": {"required": ["a"]}, f"data/key/{name}.schema.json": {}})
    assert (schemas.classes, schemas.keys, schemas.has_data_schemas) == ((name,), (name,), True)
    assert "/: must have the member" in data(schemas, {}, callback_class=name)
    assert data(schemas, {"a": 1}, callback_class=name) is None
    assert data(schemas, {}, callback_class=name.swapcase() + "2") is None
    assert data(schemas, {}, process_key=name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("data/class/com/Example.schema.json", "with a / cannot have a schema"),
        (
            "data/key/a/b/c.schema.json",
            "a processDefinitionKey must be the name of a file directly in the folder data/key/",
        ),
        ("data/class/com.Example.json", "its name must be NAME.schema.json, where NAME is a callBackProcessClass"),
        ("data/key/a\tb.schema.json", "its name is not a printable processDefinitionKey"),
        ("data/key/\udcff.schema.json", "its name is not a printable processDefinitionKey"),
        ("data/classes/leave.schema.json", "the folder data may only have the folders data/class/ and data/key/"),
        ("data/Class/Leave.schema.json", "its name must be NAME.schema.json"),
        ("Settings.schema.json", "its name must be NAME.schema.json"),
    ],
)
def test_impossible_file_names_are_rejected(name, why, folder, tmp_path):
    """A name that no class, key or schema file can have is refused, on one line with the file."""
    with pytest.raises(SettingsError) as raised:
        load_plugin_schemas(Schemas.load(), [folder({name: "{}"})])
    message = str(raised.value)
    assert message.isprintable()
    assert message.startswith(f"schema file {tmp_path}/schemas/")
    assert why in message


@pytest.mark.parametrize("name", ["settings.schema.json", "data/class/C.schema.json", "data/key/K.schema.json"])
@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "text"}, "not a JSON Schema of 2020-12, at /type: "),
        ({"$ref": "none.schema.json"}, "does not resolve to a schema"),
        (b"{", "not JSON: "),
    ],
)
def test_a_file_that_is_no_schema(name, schema, why, folder):
    """An invalid schema is refused like any schema file, and named."""
    with pytest.raises(SettingsError) as raised:
        load_plugin_schemas(Schemas.load(), [folder({name: schema})])
    assert name in str(raised.value)
    assert why in str(raised.value)


def test_plugin_schemas_are_separate_and_not_published(folder):
    """Two plugins may have different schemas of one class; neither adds a path or is published."""
    schemas = Schemas.load()
    one = folder(
        {
            "data/class/C.schema.json": {"$ref": "../money.schema.json"},
            "data/money.schema.json": {"required": ["euro"]},
            "settings.schema.json": {"required": ["url"]},
        },
        "one",
    )
    two = folder(
        {
            "data/class/C.schema.json": {"$ref": "../money.schema.json"},
            "data/money.schema.json": {"required": ["yuan"]},
            "settings.schema.json": {},
        },
        "two",
    )
    after, first = load_plugin_schemas(schemas, [one])
    after, second = load_plugin_schemas(after, [two])
    assert (after.documents, after.kinds) == (schemas.documents, schemas.kinds)
    assert '"euro"' in data(first, {}, callback_class="C")
    assert '"yuan"' in data(second, {}, callback_class="C")


def test_plugin_schemas_may_refer_to_shared_files(folder):
    """References may lead to shipped files, the plugin's other files and each other, also by escaped names."""
    where = folder(
        {
            "call-back/revoke.schema.json": {"$ref": "../reason.schema.json"},
            "reason.schema.json": {"required": ["why"]},
            "data/class/C.schema.json": {
                "allOf": [
                    {"$ref": "../../process-end-call-back-ro.schema.json"},
                    {"$ref": "../../reason.schema.json"},
                    {"$ref": "../key/%E5%90%88%20%E5%90%8C.schema.json"},
                    {"$ref": "../key/合 同.schema.json#/$defs/x"},
                ]
            },
            "data/key/合 同.schema.json": {"required": ["amount"], "$defs": {"x": {"required": ["x"]}}},
        }
    )
    after, own = load_plugin_schemas(Schemas.load(), [where])
    assert after.kinds == ("cancel", "complete", "error", "revoke", "terminate")
    said = data(own, {"processDefinitionKey": True}, callback_class="C")
    assert [clause.split(" (")[0] for clause in said.split(": ", 1)[1].split("; ")] == [
        '/: must have the member "amount"',
        '/: must have the member "why"',
        '/: must have the member "x"',
        "/processDefinitionKey: must be of type string",
    ]


def test_shared_files_cannot_refer_to_plugin_schemas(folder):
    """A published kind cannot refer to a plugin's own schema."""
    where = folder(
        {
            "call-back/revoke.schema.json": {"$ref": "../data/class/C.schema.json"},
            "data/class/C.schema.json": {},
        }
    )
    with pytest.raises(SettingsError, match="does not resolve to a schema"):
        load_plugin_schemas(Schemas.load(), [where])


def test_plugin_schemas_in_the_settings_folder_are_rejected(folder):
    """Such a file in the settings' schema folder is refused, because it would have no effect."""
    for name in ("settings.schema.json", "data/key/K.schema.json", "data/x.schema.json"):
        with pytest.raises(SettingsError, match=r"belong in the plugin's own folder"):
            Schemas.load([folder({name: {}}, name.replace("/", "-"))])


def test_several_folders_of_one_plugin(folder):
    """The folders are merged; two different files are refused, two equal ones are not."""
    one = folder({"settings.schema.json": {"required": ["a"]}}, "one")
    same = folder({"settings.schema.json": {"required": ["a"]}, "data/key/K.schema.json": {}}, "same")
    other = folder({"settings.schema.json": {"required": ["b"]}}, "other")
    own = load_plugin_schemas(Schemas.load(), [one, same])[1]
    assert (own.has_settings_schema, own.keys) == (True, ("K",))
    with pytest.raises(
        SettingsError, match=r"other/settings.schema.json: another folder of the plugin already has this file"
    ):
        load_plugin_schemas(Schemas.load(), [one, other])
    shipped = folder({"answer.schema.json": {}}, "shipped")
    with pytest.raises(
        SettingsError, match=r"shipped/answer.schema.json: this file exists already and must not be repl"
    ):
        load_plugin_schemas(Schemas.load(), [one, shipped])


def test_violations_of_a_data_schema(own):
    """Each violation has its JSON Pointer and a sentence without the value; class and key are both checked."""
    schemas = own(
        {
            "data/class/C.schema.json": {
                "properties": {
                    "amount": {"type": "integer", "minimum": 5},
                    "items": {"items": {"enum": [1, 2]}},
                    "secret": {"pattern": "^[0-9]+$"},
                }
            },
            "data/key/K.schema.json": {"properties": {"by": {"type": "string"}}, "required": ["by"]},
        }
    )
    body = {"amount": 4, "items": [1, SECRET, 2], "secret": SECRET}
    of_class = (
        "the data does not match data/class/C.schema.json: /amount: must be at least 5; /items/1: must be one of 1, "
        "2; /secret: must match the regular expression ^[0-9]+$"
    )
    of_key = 'the data does not match data/key/K.schema.json: /: must have the member "by" (null counts as absent)'
    assert data(schemas, body, callback_class="C") == of_class
    assert data(schemas, body, process_key="K") == of_key
    assert data(schemas, body, callback_class="C", process_key="K") == f"{of_class}; {of_key}"
    assert data(schemas, body) is None


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (20, ".schema.json: /x/0: "),
        (21, ".schema.json (the first 20 of 21 violations): /x/0: "),
        (1000, ".schema.json (the first 20 of 1000 violations): /x/0: "),
        (1001, ".schema.json (the first 20 of more than 1000 violations): /x/0: "),
    ],
)
def test_the_first_twenty_violations_are_listed(count, said, own):
    """Twenty violations are listed, as in a response to an engine."""
    schemas = own({"data/class/C.schema.json": {"properties": {"x": {"items": {"type": "string"}}}}})
    refused = data(schemas, {"x": [1] * count}, callback_class="C")
    assert refused.count("must be of type string") == 20
    assert said in refused


def test_uncheckable_data_is_rejected(own):
    """Data beyond jsonschema's limits does not bypass a schema."""
    chain = {"$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}]} for n in range(40)}}
    chain["$defs"]["d40"] = {"additionalProperties": {"$ref": "#/$defs/d0"}}
    schemas = own({"data/class/C.schema.json": {**chain, "$ref": "#/$defs/d0"}})
    nested = reduce(lambda value, _: {"x": value}, range(64), 1)
    assert data(schemas, nested, callback_class="C") == (
        "the data could not be checked against data/class/C.schema.json"
    )


def test_violations_of_a_settings_schema(own):
    """Each violation has its place and a sentence for a settings file, without the value."""
    schemas = own(
        {
            "settings.schema.json": {
                "properties": {
                    "url": {"type": "string"},
                    "ends": {"items": {"required": ["secret"], "dependentRequired": {"a": ["b"]}}},
                },
                "required": ["url"],
                "additionalProperties": False,
            }
        }
    )
    assert schemas.settings_violations({"url": "x"}) == []
    assert schemas.settings_violations({"ends": [{"a": SECRET}], "urll": SECRET}) == [
        ((), 'must have "url"'),
        (("ends", 0), 'must have "b" too, because it has "a"'),
        (("ends", 0), 'must have "secret"'),
        (("urll",), "is not a setting; the settings are url, ends"),
    ]
    assert schemas.settings_violations({"url": 3}) == [(("url",), "must be of type string")]
    within = own({"settings.schema.json": {"properties": {"a": {"additionalProperties": False}}, "required": ["b"]}})
    assert within.settings_violations({"a": {"c": SECRET}}) == [
        ((), 'must have "b"'),
        (("a", "c"), "is not a setting"),
    ]


def test_settings_without_a_schema_are_accepted(own):
    """Without a schema of settings any section is accepted."""
    schemas = own({"call-back/revoke.schema.json": {}})
    assert (schemas.has_settings_schema, schemas.has_data_schemas) == (False, False)
    assert schemas.settings_violations({"anything": 1}) == []
