"""Folders of schema files: their place, the refused files, and the effect of one folder on another."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowhooks.errors import SettingsError
from flowhooks.schema.files import shipped_dir
from flowhooks.schema.schemas import Schemas

CHECKOUT = Path(__file__).resolve().parents[3]
KIND = "call-back/special.schema.json"
SHIPPED = ("cancel", "complete", "error", "terminate")
ID = "https://flowhooks.example/schemas/"


def refusal(load):
    """The reason why `load` refuses, on one line."""
    with pytest.raises(SettingsError) as caught:
        load()
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_shipped_files_of_a_checkout():
    """An editable install uses the files of the checkout."""
    assert shipped_dir() == CHECKOUT / "schemas"


def test_every_shipped_file_has_id_title_and_description():
    """Each shipped file has its dialect, its id, and a title and description in English and Chinese."""
    for name, document in Schemas.load().documents.items():
        assert list(document)[:4] == ["$schema", "$id", "title", "description"]
        assert document["$id"] == ID + name
        for text in (document["title"], document["description"]):
            english, slash, chinese = text.partition(" / ")
            assert english.isascii()
            assert slash
            assert not chinese.isascii()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (KIND, b"", "not JSON: Expecting value: line 1 column 1"),
        (KIND, b'{\n "a": }', "not JSON: Expecting value: line 2 column 7"),
        (KIND, b'{"a": "\xff"}', "not UTF-8 at byte 8"),
        (KIND, b'{"maximum": NaN}', "NaN is not JSON"),
        (KIND, b'{"maximum": 1e999}', "Out of range float values are not JSON compliant"),
        (KIND, rb'{"description": "\ud800"}', r"it has '\ud800', half of a surrogate pair"),
        (KIND, b'{"const":' * 100_000, "nested too deep"),
        (KIND, '{"not":' * 500 + "{}" + "}" * 500, "nested too deep"),
        (KIND, [], "it is not an object"),
        (KIND, b"true", "it is not an object"),
        (KIND, {"type": "text"}, "not a JSON Schema of 2020-12, at /type: 'text' is not valid"),
        (KIND, {"properties": {"x": {"maxLength": -1}}}, "at /properties/x/maxLength: -1 is less than"),
        (
            KIND,
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            "its $schema is not https://json-schema.org/draft",
        ),
        (KIND, {"$id": "https://example.com/special"}, f"its $id is not {ID}{KIND}; leave it out or write this"),
        (KIND, {"pattern": "["}, "at /pattern: '[' is not a 'regex'"),
        (KIND, {"patternProperties": {"(": {}}}, "'(' is not a 'regex'"),
        (KIND, {"pattern": r"^\p{L}+$"}, "is not a 'regex'"),
        (KIND, {"pattern": "a{99999999999999}"}, "the repetition number is too large"),
        (KIND, {"pattern": "a{99999999999999}"}, "at /pattern cannot be used: "),
        (KIND, {"pattern": f"a{{{'9' * 5000}}}"}, "at /pattern cannot be used: "),
        (
            KIND,
            {"properties": {"x": {"pattern": "(" * 1000 + "a" + ")" * 1000}}},
            "…' at /properties/x/pattern cannot be used: it is nested too deeply",
        ),
        (KIND, {"pattern": "(?:" * 350 + "a" + "b)+" * 350}, "at /pattern cannot be used: it is nested too deeply"),
        (KIND, {"pattern": "^(?x:(?:a+#b\n)+)$"}, "at /pattern cannot be used: the flag x is not supported"),
        (KIND, {"pattern": "^(?:[a-z]*(?>[a-z])|-)+!$"}, "at /pattern cannot be used: the group (?>...) is not"),
        (KIND, {"pattern": "^(?:a*+a)+$"}, "at /pattern cannot be used: the quantifier *+ is not supported"),
        (KIND, {"pattern": "^a{1,3}+$"}, "at /pattern cannot be used: the quantifier {1,3}+ is not supported"),
        (KIND, {"pattern": r"^(?:\N{LATIN SMALL LETTER A}|a)+$"}, r"at /pattern cannot be used: \N{...} is not"),
        (KIND, {"pattern": r"^[\N{GREEK SMALL LETTER SIGMA}]$"}, r"at /pattern cannot be used: \N{...} is not"),
        (KIND, {"pattern": "(?i)a"}, "the regular expression '(?i)a' at /pattern cannot be used: "),
        (
            KIND,
            {"properties": {"x": {"pattern": "^([a-z]+-?)+$"}}},
            (
                "the regular expression '^([a-z]+-?)+$' at /properties/x/pattern could take hours: the repeated part "
                "of '([a-z]+-?)+' can match one text in several ways; separate its repetitions by"
            ),
        ),
        (KIND, {"patternProperties": {"(a|a)*": {}}}, "'(a|a)*' at /patternProperties could take hours"),
        (KIND, {"$defs": {"a": {"$id": "a"}}}, "$id at /$defs/a is not supported"),
        (KIND, {"$defs": {"a": {"$schema": "x"}}}, "$schema at /$defs/a is not supported"),
        (KIND, {"$dynamicRef": "#a", "$dynamicAnchor": "a"}, "$dynamicRef at / is not supported"),
        ("call-back/Special.schema.json", {}, "its name must be NAME.schema.json"),
        ("call-back/1.schema.json", {}, "its name must be NAME.schema.json"),
        ("call-back/a_b.schema.json", {}, "its name must be NAME.schema.json"),
        (f"call-back/{'k' * 65}.schema.json", {}, "its name must be NAME.schema.json"),
        ("call-back/special.json", {}, "its name must be NAME.schema.json"),
        ("Common/x.schema.json", {}, "its name must be NAME.schema.json"),
        ("call-back/more/special.schema.json", {}, "kinds of callback must be files directly in the folder call-back"),
    ],
)
def test_unusable_file(folder, name, content, why):
    """An unusable file is named with the reason on one line."""
    where = folder({name: content})
    message = refusal(lambda: Schemas.load([where]))
    assert message.startswith(f"schema file {where / name}: ")
    assert why in message


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "nonesuch.schema.json"}, "$ref nonesuch.schema.json at / does not resolve to a schema"),
        ({"$ref": "https://example.com/x.json"}, "$ref https://example.com/x.json at / does not resolve to a schema"),
        ({"$ref": "http://["}, "$ref http://[ at / does not resolve to a schema"),
        ({"$ref": "#/$defs/a"}, "$ref #/$defs/a at / does not resolve to a schema"),
        ({"$ref": "#nonesuch"}, "$ref #nonesuch at / does not resolve to a schema"),
        ({"$ref": "#/title", "title": "x"}, "$ref #/title at / does not resolve to a schema"),
        ({"$ref": "#/properties", "properties": {}}, "$ref #/properties at / does not resolve to a schema"),
        ({"properties": {"x": {"items": {"$ref": "x"}}}}, "$ref x at /properties/x/items does not resolve to a schema"),
        ({"properties": {"w": True, "x": {"$ref": "x"}}}, "$ref x at /properties/x does not resolve to a schema"),
        ({"$ref": "#"}, "the schema at / refers to itself endlessly"),
        ({"properties": {"x": {"anyOf": [{}, {"$ref": "#/properties/x"}]}}}, "refers to itself endlessly"),
        ({"if": {"not": {"$ref": "#"}}}, "refers to itself endlessly"),
        ({"dependentSchemas": {"x": {"$ref": "#"}}}, "refers to itself endlessly"),
    ],
)
def test_unusable_reference(folder, schema, why):
    """A reference to nothing, or to itself without a step into the value, is refused at the start."""
    message = refusal(lambda: Schemas.load([folder({KIND: schema})]))
    assert message.startswith(f"schema file {KIND}: ")
    assert why in message


def test_references_in_a_circle(folder):
    """Two files that refer to each other endlessly are refused."""
    files = {KIND: {"allOf": [{"$ref": "../other.schema.json"}]}, "other.schema.json": {"$ref": KIND}}
    assert "refers to itself endlessly" in refusal(lambda: Schemas.load([folder(files)]))


def test_usable_references(folder):
    """References lead to files, pointers and anchors, escaped if necessary."""
    files = {
        KIND: {
            "properties": {
                "a": {"$ref": "../other.schema.json#/$defs/a%20b~1c"},
                "b": {"$ref": "../other.schema.json#here"},
                "c": {"$ref": "#"},
                "d": {"$ref": "#/definitions/x"},
                "e": {"$ref": f"{ID}other.schema.json#/$defs/no"},
                "f": {"$ref": "#/definitions/~0tilde"},
            },
            "definitions": {"x": {"type": "null"}, "~tilde": {"type": "null"}},
        },
        "other.schema.json": {
            "$defs": {"a b/c": {"type": "null"}, "y": {"$anchor": "here", "type": "null"}, "no": False}
        },
    }
    schemas = Schemas.load([folder(files)])
    assert schemas.check_body("special", {"a": None, "b": None, "c": {"a": None}, "d": None}) is None
    with pytest.raises(Exception, match=r"/a: .*/b: .*/c/a: .*/d: .*/e: .*/f: "):
        schemas.check_body("special", {"a": 1, "b": 1, "c": {"a": 1}, "d": 1, "e": 1, "f": 1})


def test_no_folder(tmp_path):
    """A missing folder is named."""
    assert refusal(lambda: Schemas.load([tmp_path / "none"])) == (
        f"the folder of schema files {tmp_path / 'none'} does not exist"
    )
    (tmp_path / "file").write_text("{}")
    assert refusal(lambda: Schemas.load([tmp_path / "file"])) == (
        f"the folder of schema files {tmp_path / 'file'} does not exist"
    )


def test_unreadable_file(folder):
    """An unreadable file is named."""
    where = folder({})
    (where / "call-back").mkdir(parents=True)
    (where / KIND).symlink_to("nonesuch")
    assert refusal(lambda: Schemas.load([where])) == f"schema file {where / KIND}: No such file or directory"


def test_other_files_are_ignored(folder):
    """Hidden files and folders and files without a JSON name are ignored; a byte order mark is skipped."""
    files = {
        ".git/x.json": "?",
        ".x.json": "?",
        "call-back/.schema.json": "?",
        "README.md": "?",
        KIND: b"\xef\xbb\xbf{}",
    }
    assert Schemas.load([folder(files)]).kinds == ("cancel", "complete", "error", "special", "terminate")


def test_links(folder):
    """Links are followed, as Kubernetes mounts files; a circular link does no harm."""
    where = folder({"..data/call-back/special.schema.json": "{}"})
    (where / "call-back").symlink_to("..data/call-back")
    (where / "again").symlink_to(".")
    assert Schemas.load([where]).kinds == ("cancel", "complete", "error", "special", "terminate")


def test_later_folders_replace_files(folder):
    """A file of a later folder replaces one of an earlier folder."""
    one = folder({KIND: {"required": ["a"]}, "other.schema.json": {"title": "one"}}, "one")
    two = folder({KIND: {"required": ["b"]}}, "two")
    schemas = Schemas.load([one, two])
    assert schemas.documents[KIND] == {"required": ["b"]}
    assert schemas.documents["other.schema.json"] == {"title": "one"}
    assert "answer.schema.json" in schemas.documents


def test_a_plugin_adds_kinds(folder):
    """A plugin's folder may add kinds that refer to existing schemas, which do not change."""
    before = Schemas.load()
    after = before.with_folder(folder({KIND: {"$ref": "complete.schema.json"}}))
    assert (before.kinds, after.kinds) == (SHIPPED, tuple(sorted([*SHIPPED, "special"])))


def test_a_plugin_cannot_replace_files(folder):
    """A plugin's folder cannot change an existing file, but may repeat it."""
    schemas = Schemas.load([folder({KIND: {"title": "x"}}, "settings")])
    where = folder({KIND: {"title": "y"}}, "plugin")
    message = refusal(lambda: schemas.with_folder(where))
    assert message == f"schema file {where / KIND}: this file exists already and must not be replaced"
    assert schemas.with_folder(folder({KIND: {"title": "x"}}, "same")).documents == schemas.documents
    assert schemas.with_folder(where, replace=True).documents[KIND] == {"title": "y"}


def test_documents_cannot_be_changed():
    """The schemas in force are immutable."""
    with pytest.raises(TypeError):
        Schemas.load().documents["x"] = {}
