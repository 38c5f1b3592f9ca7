"""`docs/reference/ingress.md`: each mapping of the page turns the request beside it into what the page says."""

from __future__ import annotations

import json
import re

import pytest

from flowhooks import settings
from flowhooks.errors import InvalidCallback
from flowhooks.intake.mapping import IgnoredRequest, map_request
from flowhooks.schema import parse
from flowhooks.schema.cloud_events import MAX_BATCH, parse_structured
from flowhooks.schema.flow_instance_id import MAX_BYTES
from flowhooks.schema.form import MAX_FIELDS, parse_form
from flowhooks.schema.strict_json import MAX_DEPTH
from flowhooks.settings.ingress import MAX_ANSWER_CHARS, MAX_POINTERS, MAX_TABLE_VALUES
from support.code_blocks import DOCS, ROOT, blocks

PAGE = DOCS / "reference/ingress.md"
PARSERS = {"json": parse, "form": parse_form, "cloudevent": parse_structured}
SOURCE = '[sources.oa]\ntoken_file = "token"\n[sources.oa.ingress]\n'
ROW = re.compile(
    r"\| `(?P<mapping>[^`]+ = [^`]+)` \| `(?P<request>\{[^`]*\})` \| (?P<word>[^`]*)`(?P<result>[^`]+)` \|"
)
ROWS = [match.groupdict() for line in PAGE.read_text("utf-8").split("\n") if (match := ROW.fullmatch(line))]
BLOCKS = blocks(PAGE)


def ingress(text, tmp_path):
    """The mapping of a settings file."""
    file = tmp_path / "flowhooks.toml"
    file.write_text(text, "utf-8")
    (source,) = settings.load(file, {}, {}).sources.values()
    return source.ingress


def callback(result):
    """The members of a callback with its kind and its id."""
    return {**result.data, "kind": result.kind, "flowInstanceId": result.flow_instance_id}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['mapping']} {row['request']}")
def test_rows(row, tmp_path):
    """Each row of the tables with a mapping and a request has the result that it shows."""
    text = SOURCE + 'format = "json"\n' + row["mapping"]
    if "flow_instance_id" not in text:
        text += '\nflow_instance_id = "/id"'
    mapping, request = ingress(text, tmp_path), parse(row["request"].encode())
    if row["word"] == "422: ":
        with pytest.raises(InvalidCallback) as caught:
            map_request(mapping, request)
        assert caught.value.text("en").endswith(f" {row['result']}")
    elif row["word"] == "ignored: ":
        assert map_request(mapping, request) == IgnoredRequest(rule=row["result"])
    else:
        assert row["word"] == ""
        members = callback(map_request(mapping, request))
        expected = json.loads(row["result"])
        assert {name: members.get(name) for name in expected} == expected


def test_every_row_is_read():
    """No row with a result is left out because of how it is written."""
    lines = [line for line in PAGE.read_text("utf-8").split("\n") if line.startswith("| `") and line.count("|") == 4]
    others = [line for line in lines if not ROW.fullmatch(line)]
    assert len(ROWS) > 25
    assert all(re.fullmatch(r"\| `[a-z_]+` \| [^{]* \|", line) for line in others), others


EXAMPLES = [number for number, block in enumerate(BLOCKS) if block.language == "toml"]


@pytest.mark.parametrize("number", EXAMPLES)
def test_examples(number, tmp_path):
    """The request after each settings file is the callback that is shown after it."""
    mapping = ingress(BLOCKS[number].text, tmp_path)
    request, data = BLOCKS[number + 1], BLOCKS[number + 2]
    result = map_request(mapping, PARSERS[mapping.format](request.text.strip().encode()))
    assert result.data == json.loads(data.text)
    lines = PAGE.read_text("utf-8").split("\n")
    assert lines[data.line - 3] == (
        f"is the callback `{result.kind}` of the process instance `{result.flow_instance_id}`, with this data:"
    )


def test_every_block_belongs_to_an_example():
    """The page has no block that no test reads."""
    assert [block.language for block in BLOCKS] == ["toml", "text", "json", "toml", "json", "json"]


def test_limits():
    """The limits are those of the code and the schema of the id."""
    text = PAGE.read_text("utf-8")
    max_chars = json.loads((ROOT / "schemas/flow-instance-id.schema.json").read_text("utf-8"))["maxLength"]
    for row in (
        f"| events in a batch | 1 to {MAX_BATCH} |",
        f"| fields of a form | {MAX_FIELDS:,} |",
        f"| process instance id, after joining | {max_chars} characters, {MAX_BYTES} bytes in UTF-8 |",
        f"| pointers of one id | {MAX_POINTERS} |",
        f"| values of a table | 1 to {MAX_TABLE_VALUES} |",
        f"| `answer` | {MAX_ANSWER_CHARS:,} characters |",
        f"| nesting of JSON | {MAX_DEPTH} levels |",
    ):
        assert row in text


def test_every_member_is_listed(tmp_path):
    """The table of mapped members has each of them."""
    names = [field for field in settings.IngressSettings.__dataclass_fields__ if field in PAGE.read_text("utf-8")]
    rows = re.findall(r"\| `([a-z_]+)` \| `([A-Za-z]+)` \|", PAGE.read_text("utf-8"))
    assert set(settings.IngressSettings.__dataclass_fields__) - set(names) <= {"location"}
    text = "".join(f'{name} = "/{member}"\n' for name, member in rows)
    mapping = ingress(f'{SOURCE}format = "json"\nflow_instance_id = "/id"\n{text}', tmp_path)
    assert mapping.members == {member: f"/{member}" for _, member in rows}
    assert len(rows) == 5
