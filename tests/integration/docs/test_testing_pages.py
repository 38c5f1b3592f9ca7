"""The pages on testing are true: every public name is explained, and the examples pass unchanged."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from flowhooks import testing
from flowhooks.testing import fixtures
from support.nested_pytest import pytest_words

DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = (DOCS / "reference/testing.md").read_text("utf-8")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(name):
    """The text of the reference under a heading."""
    found = REFERENCE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert found, name
    return found


def marked(text):
    """Every name in code marks."""
    return {name for piece in re.findall(r"`([^`]+)`", text) for name in re.findall(r"\w+", piece)}


def test_every_name_is_documented():
    """The reference has a section for exactly the public names, and both fixtures."""
    headings = re.findall(r"^## (.+)$", REFERENCE, re.MULTILINE)
    assert sorted(headings) == sorted([*testing.__all__, "Fixtures"])
    made = {name for name in vars(fixtures) if name.startswith("flowhooks_")}
    assert made == {"flowhooks_app", "flowhooks_clock"}
    assert made <= marked(section("Fixtures"))


@pytest.mark.parametrize("name", testing.__all__)
def test_every_member_and_argument_is_documented(name):
    """Each public member and argument is in the section of its name and has a docstring."""
    thing = getattr(testing, name)
    assert inspect.getdoc(thing)
    members = {member for member in vars(thing) if not member.startswith("_")} if inspect.isclass(thing) else set()
    for member in members:
        value = inspect.getattr_static(thing, member)
        if inspect.isfunction(value) or isinstance(value, property):
            assert inspect.getdoc(value), f"{name}.{member}"
    if dataclasses.is_dataclass(thing):
        members |= {field.name for field in dataclasses.fields(thing)}
    else:
        called = thing.__call__ if getattr(thing, "_is_protocol", False) else thing
        members |= set(inspect.signature(called).parameters) - {"self"}
    text = section(name)
    known = marked(PYTHON.sub("", TEXT.sub("", text))) | {
        word for block in TEXT.findall(text) for word in re.findall(r"\w+", block)
    }
    assert members <= known


def arguments(function):
    """The arguments of a function: their names, whether they are given by position or by name, and their defaults."""
    by_position = inspect.Parameter.POSITIONAL_ONLY
    return [
        (
            parameter.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD if parameter.kind is by_position else parameter.kind,
            dict(parameter.default) if isinstance(parameter.default, Mapping) else parameter.default,
        )
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self" and not parameter.name.startswith("_")
    ]


def shown_arguments(text):
    """The arguments in a signature that the reference shows."""
    shown = {}
    exec(f"from __future__ import annotations\ndef shown{text[text.index('(') :].strip()}: ...", shown)
    return arguments(shown["shown"])


@pytest.mark.parametrize("name", ["make_event", "stored_events", "exactly_once", "AppHarness", "AppFactory"])
def test_signatures_are_as_shown(name):
    """The arguments in the reference are those of the code, with the same defaults."""
    (text,) = TEXT.findall(section(name))
    thing = getattr(testing, name)
    assert shown_arguments(text) == arguments(thing.__call__ if name == "AppFactory" else thing)


@pytest.mark.parametrize("name", ["AppHarness", "ManualClock"])
def test_methods_are_as_shown(name):
    """The arguments of each method in a table of the reference are those of the code, with the same defaults."""
    cells = re.findall(r"^\| (`\w+\(.*?`) \|", section(name), re.MULTILINE)
    methods = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]
    assert methods
    for text in methods:
        method = getattr(getattr(testing, name), text.partition("(")[0])
        assert shown_arguments(text) == arguments(method), text


def test_the_plugin_and_tests_of_the_page_pass(tmp_path):
    """The page's plugin and tests, copied unchanged into files, pass with every warning an error."""
    plugin, *tests = PYTHON.findall((DOCS / "how-to/test-a-plugin.md").read_text("utf-8"))
    tests = [text for text in tests if not re.search("acme_booking|embedded_postgres", text)]  # which need PostgreSQL
    (tmp_path / "acme_leave").mkdir()
    (tmp_path / "acme_leave/__init__.py").write_text(plugin)
    (tmp_path / "test_shown.py").write_text("\n\n".join(tests))
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\npythonpath = .\n")
    done = subprocess.run(
        [sys.executable, *pytest_words(tmp_path, "-q", "test_shown.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{sum(text.count('def test_') for text in tests)} passed" in done.stdout


def test_the_page_about_engine_clients_passes(tmp_path):
    """Its driver passes the suite, except tests that it skips with a reason, and its test of a fake engine passes."""
    _, *tests = PYTHON.findall((DOCS / "how-to/write-an-engine-client.md").read_text("utf-8"))
    for number, text in enumerate(tests):
        (tmp_path / f"test_shown_{number}.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = subprocess.run(
        [sys.executable, *pytest_words(tmp_path, "-q", "-rs", str(tmp_path))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "the driver cannot delete the history" in done.stdout
    assert "Acme has no tenants" in done.stdout


def test_the_report_that_is_shown(tmp_path):
    """Without the delivery's id the page's plugin is reported as the page says, line by line."""
    page = (DOCS / "how-to/test-a-plugin.md").read_text("utf-8")
    plugin, *tests = PYTHON.findall(page)
    (test,) = [text for text in tests if "exactly_once(" in text and "acme_booking" not in text]
    (shown,) = [text for text in TEXT.findall(page) if "done  delivery" in text]
    worse = plugin.replace(" ON CONFLICT DO NOTHING", "").replace("delivery_id PRIMARY KEY", "delivery_id")
    (tmp_path / "acme_leave").mkdir()
    (tmp_path / "acme_leave/__init__.py").write_text(worse)
    (tmp_path / "test_shown.py").write_text(test.replace("delivery_id PRIMARY KEY", "delivery_id"))
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    done = subprocess.run(
        [sys.executable, *pytest_words(tmp_path, "-q", "--show-capture=no", "test_shown.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    def without_places(line):
        return re.sub(r" at __init__\.py:\d+.*", "", line.strip())  # the lines differ between Python versions

    said = [without_places(line.removeprefix("E")) for line in done.stdout.split("\n") if line.startswith("E ")]
    for line in shown.strip().split("\n"):
        wanted = without_places(line.strip().removesuffix("…"))
        assert any(wanted in report_line for report_line in said), (wanted, done.stdout)
