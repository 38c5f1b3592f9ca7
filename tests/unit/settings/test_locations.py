"""The lines of the settings file that error messages name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.settings.locations import Locations, key_lines

FILE = Path("flowhooks.toml")


def line(text, *keys):
    """The number of the line that is named for these keys; None: only the file is named."""
    location = Locations(FILE, text).of(*keys)
    assert location.startswith("flowhooks.toml:")
    assert location.endswith(": ")
    number = location.removeprefix("flowhooks.toml:").removesuffix(": ").strip()
    return int(number) if number else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[sources.oa.ingress]\nformat = "json"\nkind = 5', 3),
        ("sources.oa.ingress.kind = 5", 1),
        ("[sources.oa]\n# ingress.kind = 4\ningress.kind = 5", 3),
        ("[sources]\noa.ingress.kind = 5", 2),
        ('[sources.oa]\ningress = {format = "json", kind = 5}', 2),
        ('[sources.oa.ingress]\nformat = "json"\n\n[sources.oa.ingress.kind]\npointer = "/a"', 4),
        ('[sources.oa.ingress]\nkind.pointer = "/a"\nkind.values = {}', 2),
        ('[sources.oa.ingress.kind.values]\na = "complete"', 1),
        ('[ sources . \'oa\' . "ingress" ] # of yudao\n  "kind"  = 5', 2),
        ('["sources"."o\\u0061"."ingress"]\n\n"\\u006bind" = 5', 3),
        ("[sources.oa.ingress]\r\n# a comment\r\n\r\nkind = 5\r\n", 4),
        ("[sources.oa.ingress]\n# \u2028 \x85 are no line ends of TOML\nkind = 5", 3),
        ('[sources.oa.ingress]\nanswer = """\n[plugins.x]\nkind = 4\n"\\"""" # """\nkind = 5', 6),
        ("[sources.oa.ingress]\nanswer = '''\n[plugins.x]\nkind = 4\n'''''\nkind = 5", 6),
        ('[sources.oa.ingress]\nanswer = "a \\" # ["\nkind = 5', 3),
        ("[sources.oa.ingress]\nanswer = 'a \\'\nkind = 5", 3),
        (
            '[sources.oa.ingress]\nflow_instance_id = [\n  "/id",  # [x]\n  "]",\n  # kind = 4\n]\nkind = 5',
            7,
        ),
        ("[sources.oa]\nsecrets = [\n  {env = 'A', kind = 4},\n  {env = 'B'}]\n[sources.oa.ingress]\nkind = 5", 6),
        (
            "[plugins.p]\nt = 1979-05-27 07:32:00.5\nn = [[1.5, -inf], [{a.b = [1]}]]\nsources.oa.ingress.kind = 4\n",
            None,
        ),
        ("[[plugins.x]]\nkind = 1\n[[plugins.x]]\nkind = 2\n[sources.oa.ingress]\nkind = 5", 6),
        ("[sources.oa.ingress]\n[[plugins.x]]\nkind = 2", 1),
        ('[sources.oa.ingress]\nformat = "json"', 1),
        ("[sources.oa]\nrate = 1", 1),
        ("[sources.oa.engine]\nkind = 2", 1),
        ("[sources.oa.engine]\nkind = 2\n[sources.oa]", 3),
        ("[sources.crm.ingress]\nkind = 2", 1),
        ("[plugins.p]\nkind = 2", None),
        ("", None),
    ],
)
def test_the_line_of_a_value(text, expected):
    """The line is that of the value, or of the innermost section around it; otherwise only the file is named."""
    tomllib.loads(text)
    assert line(text, "sources", "oa", "ingress", "kind") == expected


def test_without_a_file():
    """Settings that are read from no file have no location."""
    assert not Locations(None).of("sources", "oa")


def test_a_path_that_is_not_printable_stays_on_one_line():
    """A line feed in the file's name does not break the message."""
    assert Locations(Path("a\nb.toml"), "a = 1").of("a") == r"'a\nb.toml':1: "


def test_a_text_that_is_too_deep_for_the_scan():
    """If the scan cannot follow the nesting, the file is named alone."""
    text = "a = 1\nb = " + "[" * 100_000 + "]" * 100_000
    assert line(text, "a") is None


def paths(table):
    """The paths of all values and sections of a table that are in no array."""
    for key, value in table.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *path) for path in paths(value))


NAMES = st.one_of(st.sampled_from(["a", "b-1", "2", "kind", "true", "1979-05-27"]), st.text(max_size=5))
TEXTS = st.one_of(st.sampled_from(["#", "[a]", "a = 1", "\\", '"', "'", "}", "\n[b]\nb = 2\n"]), st.text(max_size=5))
SCALARS = st.one_of(TEXTS, st.integers(-9, 9), st.booleans(), st.just(1.5))
TABLES = st.recursive(
    st.dictionaries(NAMES, SCALARS, max_size=3),
    lambda tables: st.dictionaries(NAMES, st.one_of(SCALARS, tables, st.lists(st.one_of(SCALARS, tables))), max_size=3),
)


def quoted(text):
    """A basic string of TOML; those of JSON are the same but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def written_key(name, data):
    """A key, bare where it can be and the draw says so."""
    is_bare = name and all(char.isascii() and (char.isalnum() or char in "-_") for char in name)
    return name if is_bare and data.draw(st.booleans()) else quoted(name)


def inline(value, data):
    """A value on one line, or an array over several lines."""
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{written_key(name, data)} = {inline(item, data)}" for name, item in value.items()) + "}"
        )
    if isinstance(value, list):
        between = data.draw(st.sampled_from([", ", ",\n", ", # ] [b]\n"]))
        return "[" + "".join(f"{inline(item, data)}{between}" for item in value) + "]"
    if isinstance(value, str):
        return quoted(value)
    return str(value).lower()


def write_settings(table, prefix, data):
    """A table in lines: values and inline tables first, then its sections."""
    sections = {name: item for name, item in table.items() if isinstance(item, dict) and data.draw(st.booleans())}
    for name, value in table.items():
        if name not in sections:
            yield f"{written_key(name, data)} = {inline(value, data)}"
    for name, section in sections.items():
        path = f"{prefix}{written_key(name, data)}"
        yield f"[{path}]"
        yield from write_settings(section, f"{path}.", data)


@given(table=TABLES, data=st.data())
def test_every_key_has_a_line(table, data):
    """Of any table, however it is written, exactly its keys have lines, and each line has the key."""
    text = "\n".join(write_settings(table, "", data))
    assert tomllib.loads(text) == table
    lines = text.split("\n")
    found = key_lines(text)
    assert set(found) == set(paths(table))
    for path, number in found.items():
        assert quoted(path[-1]) in lines[number - 1] or path[-1] in lines[number - 1]
