"""The documentation is true: its lists match the code, and its examples work."""

from __future__ import annotations

import ast
import html
import http.client
import inspect
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from functools import cache
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import click
import generate
import pytest

from flowhooks import OutcomeKind, State, hookspecs
from flowhooks.cli.main import COMMANDS, main
from flowhooks.errors import InvalidCallback
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.upgrade import upgrade
from flowhooks.model.delivery import TRANSITIONS
from flowhooks.plugins.registration import HOOKS
from flowhooks.schema.schemas import Schemas
from flowhooks.settings import describe, load
from flowhooks.web.callback.openapi import openapi
from support.code_blocks import DOCS, PAGES, ROOT, blocks, name_of, prose

EXAMPLES = {
    *("leave.py", "rooms.py", "archive.py", "handlers/leave.py", "src/acme_leave/__init__.py"),
    "src/flowhooks_expenses/__init__.py",
}
"""Python files that only exist in examples of the pages."""
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def rows(text):
    """The rows of all tables of a text as cells, without code marks and escapes."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            yield tuple(cell.strip().replace("`", "").replace("\\|", "|") for cell in cells)


def reference(name):
    """The text of a page of the reference."""
    return (DOCS / "reference" / name).read_text("utf-8")


# Lists match the code


@pytest.mark.parametrize("page", generate.pages(), ids=name_of)
def test_generated_parts_are_up_to_date(page):
    """`python docs/_build/generate.py` would change nothing in a page."""
    assert page.read_text("utf-8") == generate.render(page.read_text("utf-8")), "run `python docs/_build/generate.py`"


@pytest.mark.parametrize("name", generate.FILES)
def test_generated_files_are_up_to_date(name):
    """`python docs/_build/generate.py` would change no file that it makes as a whole."""
    assert (DOCS / name).read_text("utf-8") == generate.FILES[name](), "run `python docs/_build/generate.py`"


def test_everything_that_can_be_generated_is_used():
    """Each generated part is used by a page, and each part that a page uses exists."""
    asked = [match[2] for page in generate.pages() for match in generate.PART.finditer(page.read_text("utf-8"))]
    assert sorted(asked) == sorted(generate.PARTS)


def test_the_generator_names_outdated_pages(monkeypatch, tmp_path, capsys):
    """With --check it names the page, changes nothing and exits with 1; without, it renews the page."""
    page = tmp_path / "docs/states.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- generated: transitions -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "DOCS", tmp_path / "docs")
    (tmp_path / "docs/explanation").mkdir()
    assert generate.run(["--check"]) == 1
    files = "".join(f"docs/{name}\n" for name in generate.FILES)
    assert capsys.readouterr().out == "docs/states.md\n" + files
    assert "old" in page.read_text()
    assert generate.run([]) == 0
    assert "old" not in page.read_text()
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("<!-- end -->\nafter\n")
    assert all((tmp_path / "docs" / name).read_text() == make() for name, make in generate.FILES.items())
    assert generate.run(["--check"]) == 0


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook):
    """The reference has each hook with its exact signature and its complete docstring."""
    (node,) = [
        node
        for node in ast.parse(inspect.getsource(hookspecs)).body
        if isinstance(node, ast.FunctionDef) and node.name == hook
    ]
    text = reference("hooks.md")
    assert f"\n## {hook}\n" in text
    assert f"def {hook}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}: ..." in text
    for paragraph in (inspect.getdoc(getattr(hookspecs, hook)) or "").split("\n\n"):
        assert paragraph in text


def test_every_setting_is_documented():
    """The reference has exactly the settings, with variable, default, values and description."""
    documented = {row[0]: row for row in rows(reference("settings.md")) if row[0] != "setting"}
    expected = {}
    for setting in describe():
        name = f"{setting.name}<br>{setting.variable}" if setting.variable else setting.name
        expected[name] = (name, setting.default or "none", generate.with_separators(setting.type), setting.doc)
    assert documented == expected


@pytest.mark.parametrize(
    ("allowed", "text"),
    [
        ("a whole number, 1 to 1000", "a whole number, 1 to 1,000"),
        ("a number of seconds, 0 to 31622400", "a number of seconds, 0 to 31,622,400 (366 days)"),
        ("a number of seconds, 0 to 86400", "a number of seconds, 0 to 86,400"),
        ('a URL such as "http://oa:8080/"', 'a URL such as "http://oa:8080/"'),
    ],
)
def test_large_numbers_in_the_settings_can_be_read(allowed, text):
    """Large numbers have separators, long times also have their days, and ports stay as they are."""
    assert generate.with_separators(allowed) == text


def commands():
    """Every command and group as the words that call it."""
    yield ("flowhooks",), main
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        yield ("flowhooks", name), command
        for inner in command.commands.values() if isinstance(command, click.Group) else ():
            yield ("flowhooks", name, inner.name), inner


@pytest.mark.parametrize("words", dict(commands()), ids=" ".join)
def test_every_command_and_option_is_documented(words):
    """Each command has a section, in which each of its options has a row with its help."""
    command = dict(commands())[words]
    text = reference("commands.md")
    heading = f"\n## {' '.join(words)}\n"
    assert text.count(heading) == 1
    section = text.partition(heading)[2].partition("\n## ")[0]
    shared = text.partition("\n## Options of the settings\n")[2].partition("\n## ")[0]
    listed = list(rows(section))
    if "#options-of-the-settings" in section:
        listed += rows(shared)
    described = {row[0].partition(" ")[0].rstrip(","): row for row in listed}
    for option in (param for param in command.params if isinstance(param, click.Option)):
        row = described.pop(option.opts[0])
        assert set(option.opts) <= set(re.findall(r"--?[\w-]+", row[0]))
        assert row[1].startswith(option.help)
        assert option.is_flag or row[0].split()[-1] not in option.opts  # the value has a name
    assert set(described) <= {"option"}


def test_every_transition_is_documented():
    """The table of states equals the code's row by row; the drawing has each transition."""
    text = (DOCS / "explanation/states.md").read_text("utf-8")
    expected = [(row.source or "-", row.target, row.by) for row in TRANSITIONS]
    listed = list(rows(text))
    assert listed[1 : len(expected) + 1] == expected
    drawn = (DOCS / "explanation/states.svg").read_text("utf-8")
    arrows = [(row.source or "start", row.target) for row in TRANSITIONS]
    assert re.findall(r'data-arrow="(\S+) (\w+)"', drawn) == arrows
    assert re.findall(r'data-by="(\S+) (\w+)"', drawn) == arrows
    said = [
        html.unescape("".join(re.findall(r"<tspan[^>]*>(.*?)</tspan>", part))) for part in drawn.split("data-by=")[1:]
    ]
    assert said == [row.by for row in TRANSITIONS]


OUTCOMES = {"no attempt": "", "still running": None, **{str(kind): str(kind) for kind in OutcomeKind}}


@pytest.mark.parametrize("state", State)
def test_the_table_of_states_and_last_outcomes(state, tmp_path):
    """The table of states and last outcomes is the one that `flowhooks verify` uses."""
    text = (DOCS / "explanation/states.md").read_text("utf-8")
    table = list(rows(text.partition("## Which last outcome fits which state")[2].partition("\n## ")[0]))
    said = {row[0]: dict(zip(table[0][1:], row[1:], strict=True)) for row in table[1:]}[state]
    assert set(said) == set(OUTCOMES)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    upgrade(url)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection, connection:
        connection.execute(
            "INSERT INTO events (id, source, kind, flow_instance_id, callback_class, body, digest, state, route, "
            "route_size, repeats, received_at, identity_sha256) VALUES "
            "('e', 'default', 'complete', '1', '', '{}', '', 'routed', '{}', 0, 0, 0, 'x')"
        )
        for column, outcome in OUTCOMES.items():
            for again in (0, 1):
                delivery, attempt = f"{column}/{again}", int(outcome != "")
                connection.execute(
                    "INSERT INTO deliveries VALUES (?, 'e', ?, ?, ?, ?, NULL, '', 0, 0, NULL, 0, NULL, NULL, NULL)",
                    (delivery, delivery, state, attempt, again * attempt),
                )
                if attempt:
                    connection.execute(
                        "INSERT INTO attempts (delivery_id, number, process, started_at, finished_at, outcome, error, "
                        "traceback) VALUES (?, 1, 'p', 0, 0, ?, '', '')",
                        (delivery, outcome),
                    )
    with closing(Reader(url)) as reader:
        problems = reader.verify().problems
    odd = {line.removeprefix("delivery ").partition(" does not agree")[0] for line in problems if " agree" in line}
    for column, word in said.items():
        fits = {again: f"{column}/{again}" not in odd for again in (0, 1)}
        assert fits == {"yes": {0: True, 1: True}, "no": {0: False, 1: False}, "again": {0: False, 1: True}}[word], (
            column
        )


def test_every_status_is_documented():
    """The statuses of the contract's page are those of /openapi.json."""
    statuses = [name for name in openapi(Schemas.load())["components"]["responses"] if name.isdecimal()]
    for page, heading in (("http.md", "The answer"), ("http.zh-CN.md", "响应")):
        answers = reference(page).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        assert [row[0] for row in rows(answers) if row[0].isdecimal()] == sorted(statuses)


def test_every_field_is_documented():
    """The tables of both languages have each member of a callback with its type and meaning."""
    documents = Schemas.load().documents
    fields = documents["process-end-call-back-ro.schema.json"]["properties"]
    fields = {"flowInstanceId": documents["flow-instance-id.schema.json"], **fields}
    for page, column, half in (("http.md", 4, 0), ("http.zh-CN.md", 4, 1)):
        listed = {row[0]: row for row in rows(reference(page))}
        for name, field in fields.items():
            assert listed[name][1] == ("path" if name == "flowInstanceId" else "body")
            types = [field["type"]] if isinstance(field["type"], str) else field["type"]
            assert listed[name][3].startswith(" or ".join(types))
            assert listed[name][column] == field["description"].split(" / ")[half]


def test_both_contract_pages_have_the_same_sections():
    """The Chinese page has the English sections in order, and the same generated tables."""
    english, chinese = (prose(DOCS / "reference" / name) for name in ("http.md", "http.zh-CN.md"))
    headings = [len(re.findall(r"^## ", text, re.MULTILINE)) for text in (english, chinese)]
    assert headings[0] == headings[1] + 1  # only the English page has the administration listener
    parts = [re.findall(r"<!-- generated: ([a-z]+)-", text) for text in (english, chinese)]
    assert parts[0] == parts[1]


def logged():
    """Every log event of the code: its levels, its fields, and whether it has more fields than can be read."""
    found = {}
    for file in (ROOT / "flowhooks").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
                continue
            if ast.unparse(node.func.value).partition("(")[0] not in {"log", "_log", "structlog.get_logger"}:
                continue
            given = {keyword.arg for keyword in node.keywords}
            fields = {name for name in given if name} - {"exc_info"}
            if node.func.attr == "exception" or "exc_info" in given:
                fields.add("traceback")
            level = "error" if node.func.attr == "exception" else node.func.attr
            levels, known, more = found.setdefault(ast.literal_eval(node.args[0]), (set(), set(), set()))
            levels.add(level)
            known.update(fields)
            more.update({None} & given)
    return found


def test_every_log_event_is_documented():
    """The page of logs has each event with its level and its fields, and no other."""
    listed = {row[0]: row for row in rows(reference("logs.md")) if len(row) == 4 and row[0] != "event"}
    assert listed.pop("log_record_unreadable")  # not logged, but used in place of a record
    assert listed.pop("log_handler_failed")  # written without the handlers that fail
    known = logged()
    assert set(listed) == set(known)
    for event, (levels, fields, more) in known.items():
        assert set(listed[event][1].split(" or ")) == levels, event
        documented = set(re.findall(r"\w+", listed[event][2]))
        assert documented >= fields if more else documented == fields, event


# Shown examples work


def test_both_readmes_have_the_same_content():
    """Both READMEs have the same code, headings and links, and are short."""
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    assert code(english) == code(chinese)
    texts = [page.read_text("utf-8") for page in (english, chinese)]
    assert all(len(text.splitlines()) <= 120 for text in texts)
    said = [prose(page) for page in (english, chinese)]
    assert len({len(re.findall(r"^#+ ", text, re.MULTILINE)) for text in said}) == 1
    links = [{target for target in re.findall(r"\]\(([^)]+)\)", text) if "README" not in target} for text in said]
    assert links[0] <= {target.replace(".zh-CN", "") for target in links[1]} | links[1]


@pytest.mark.parametrize(
    ("page", "box"),
    [
        (page.with_suffix(suffix), box)
        for page in (
            *(ROOT / "README.md", DOCS / "tutorial.md"),
            *(DOCS / "how-to/connect-an-engine.md", DOCS / "how-to/write-a-plugin.md"),
        )
        for suffix, box in ((".md", "**Completed is not approved.**"), (".zh-CN.md", "**流程完成不等于审批通过。**"))
    ],
    ids=lambda value: name_of(value) if isinstance(value, Path) else "",
)
def test_the_completed_is_not_approved_box_is_at_the_top(page, box):
    """The first pages that a reader opens have the box before their first heading and drawing."""
    top = re.split(r"^## |^\[?!\[", page.read_text("utf-8"), flags=re.MULTILINE)[0]
    (quoted,) = [part for part in top.split("\n\n") if part.startswith(f"> {box}")]
    assert 'conclusion="approved"' in quoted
    assert all(line.startswith("> ") for line in quoted.splitlines())


TRANSLATED = [
    DOCS / name
    for name in (
        *("concepts.md", "faq.md", "how-to/production-checklist.md", "how-to/security-checklist.md"),
        *("how-to/install-and-run.md", "how-to/let-engines-in.md", "how-to/upgrade.md", "how-to/write-a-plugin.md"),
        *("how-to/operate.md", "how-to/connect-an-engine.md", "how-to/connect-an-engine-without-code.md"),
        *("how-to/connect-a-sender-with-one-url.md", "how-to/find-events.md", "how-to/plugin-recipes.md"),
        *("how-to/backtest-a-plugin.md", "how-to/limit-access.md"),
    )
]
"""Pages whose Chinese page has the same parts in the same order."""


@pytest.mark.parametrize("page", TRANSLATED, ids=name_of)
def test_a_chinese_page_has_the_parts_of_the_english_one(page):
    """Both pages have the same headings, code, rows of tables, list items and linked files in order."""
    chinese = page.with_suffix(".zh-CN.md")
    drawing = "──▶"
    shown = [[block for block in code(each) if drawing not in block[1]] for each in (page, chinese)]
    assert shown[0] == shown[1]
    parts = []
    for text in (prose(page), prose(chinese)):
        lines = [re.match(r" *(#+ |\| |- |\d+\. )?", line)[0].strip() for line in text.splitlines()]
        parts.append([line for line in lines if line])
    assert parts[0] == parts[1]
    links = []
    for each in (page, chinese):
        targets = re.findall(r"\]\(([^)]+)\)", prose(each))[1:]  # the first leads to the other language
        links.append([english_target(each, target) for target in targets])
    assert links[0] == links[1]


def english_target(page, target):
    """The target of a link with a Chinese page and heading replaced by the English ones, if they exist."""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if ".zh-CN." not in file.name:
        return target
    english = file.with_name(file.name.replace(".zh-CN", ""))
    if anchor:
        anchor = "#" + headings(english)[headings(file).index(anchor)]
    return path.replace(".zh-CN", "") + anchor


def code(page):
    """The code blocks of a page with their languages."""
    return [(block.language, block.text) for block in blocks(page)]


TOML = [(page, block) for page in PAGES for block in blocks(page, "toml")]


@pytest.mark.parametrize(("page", "block"), TOML, ids=lambda value: name_of(value) if isinstance(value, Path) else "")
def test_every_toml_block_is_valid(page, block, tmp_path):
    """Every TOML block parses, and is a pyproject.toml or loadable settings."""
    table = tomllib.loads(block.text)
    if "project" not in table:
        file = tmp_path / "flowhooks.toml"
        file.write_text(block.text)
        load(file, {}, {})


JSON = [(page, block) for page in PAGES for block in blocks(page, "json")]


@pytest.mark.parametrize(("page", "block"), JSON, ids=lambda value: name_of(value) if isinstance(value, Path) else "")
def test_every_json_block_is_valid(page, block):
    """Every JSON block parses."""
    json.loads(block.text)


def test_the_kinds_of_callback_that_are_shown(tmp_path):
    """The page's schema files add a kind and extend an existing one, as the page says."""
    kind, stricter = blocks(DOCS / "how-to/add-a-kind-of-call-back.md", "json")
    folder = tmp_path / "call-back"
    folder.mkdir()
    (folder / "suspend.schema.json").write_text(kind.text)
    (folder / "complete.schema.json").write_text(stricter.text)
    schemas = Schemas.load([tmp_path])
    assert schemas.kinds == ("cancel", "complete", "error", "suspend", "terminate")
    for example in json.loads(kind.text)["examples"]:
        schemas.check_body("suspend", example)
    schemas.check_body("complete", {"businessKey": "1"})
    for name, body in (("suspend", {}), ("suspend", {"reason": "x", "businessKey": True}), ("complete", {})):
        with pytest.raises(InvalidCallback):
            schemas.check_body(name, body)


def test_the_callback_bodies_on_the_engines_page():
    """The contract accepts the bodies that the page on engines sends."""
    (body,) = blocks(DOCS / "how-to/connect-an-engine.md", "json")
    Schemas.load().check_body("complete", json.loads(body.text))


def test_sources_are_as_shown(tmp_path):
    """The settings of the page on sources load, with the secrets that its commands would make."""
    (settings,) = [block.text for block in blocks(DOCS / "how-to/let-engines-in.md", "toml")]
    file = tmp_path / "flowhooks.toml"
    file.write_text(settings)
    loaded = load(file, {}, {})
    assert [secret.file for secret in loaded.sources["erp"].secrets] == ["/etc/flowhooks/erp"]
    assert (loaded.sources["crm"].token_file, loaded.http.trusted_proxy) == ("/etc/flowhooks/crm", "10.0.0.5")


# Names in the pages exist


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_have_existing_targets(page):
    """Each link within the project has an existing file and heading."""
    text = prose(page)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if urlsplit(target).scheme:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_linked():
    """Each page of `docs/` is linked from a home page, or from the index of decisions."""
    listed = set()
    for index in (DOCS / "README.md", DOCS / "README.zh-CN.md", DOCS / "decisions/README.md"):
        listed |= {(index.parent / path).resolve() for path in re.findall(r"\]\(([^)#\s]+)", prose(index))}
    assert not set(DOCS.rglob("*.md")) - listed


def anchors(page):
    """The anchors of a page's headings."""
    return set(headings(page))


def headings(page):
    """The anchors in the order of the page."""
    texts = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts]


@cache
def ends_of_python_files():
    """The name of each Python file of the project, also with some or all of its folders."""
    paths = [path for folder in ("flowhooks", "plugins", "tests", "docs") for path in (ROOT / folder).rglob("*.py")]
    return {"/".join(path.parts[start:]) for path in paths for start in range(len(ROOT.parts), len(path.parts))}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_mentioned_files_exist(page):
    """Each path into the project and each Python file in code marks exists or belongs to an example."""
    text = page.read_text("utf-8")
    places = [ROOT, page.parent, *ROOT.glob("plugins/cookiecutter-*/{{*")]  # the last one: the files of a plugin
    if "File names are relative to `flowhooks/`." in text:
        places.append(ROOT / "flowhooks")
    for path in re.findall(r"(?<![\w/.~-])(?:flowhooks|docs|tests|plugins|schemas|\.ci)/[\w./-]*[\w/]", text):
        if re.search(r"NNNN|NAME|KIND|example", path):
            continue
        assert any((place / path).exists() for place in places), path
    shown = {block.file for block in blocks(page)}
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", text):
        assert name in EXAMPLES | shown or re.search(r"NAME|NNNN", name) or name in ends_of_python_files(), name


def command_lines(page):
    """Every flowhooks command line in a page's code, as words without the surrounding shell."""
    pieces = [
        line
        for block in blocks(page)
        if block.language != "text"
        for line in block.text.replace("\\\n", "").split("\n")
    ]
    pieces += [line for line in prose(page).split("\n") if line.startswith("    ")]
    pieces += re.findall(r"`([^`]+)`", prose(page))
    for piece in pieces:
        if match := re.match(r"\s*(?:(?:\$|sudo -u \w+|\w+=\S+) +)*(?:\S*/)?flowhooks ((?:[a-z]|--).*)", piece):
            yield shlex.split(re.split(r" [|>#…] ?| \.\.\.", match[1])[0])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_mentioned_commands_exist(page):
    """Each command line in a page's code has an existing command and options."""
    known = dict(commands())
    for words in command_lines(page):
        called = ("flowhooks",)
        while words and isinstance(known[called], click.Group) and not words[0].startswith("-"):
            called = (*called, words.pop(0))
            assert called in known, " ".join(called)
        options = {name for param in known[called].params for name in param.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, (called, words)


def test_mentioned_make_targets_exist():
    """Each `make` target that a page names is in the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set()
    for page in PAGES:
        text = page.read_text("utf-8")
        named |= set(re.findall(r"`make ([a-z]+)`", text) + re.findall(r"^make ([a-z]+)", text, re.MULTILINE))
    assert named
    assert named <= targets


# Posted requests get the response that is shown


class Running(NamedTuple):
    """A server with the plugins that the pages show."""

    folder: Path
    call_backs: str
    admin: str

    def ask(self, command):
        """The server's response to a curl command of the documentation."""
        words = shlex.split(command.replace("\\\n", " "))
        assert words[0] == "curl"
        headers, body, url = {}, None, ""
        rest = iter(words[1:])
        for word in rest:
            if word == "-H":
                name, _, value = next(rest).partition(": ")
                headers[name] = value
            elif word == "-d":
                body = next(rest).encode()
            elif word != "-i":
                url = urlsplit(word)
        place = {8080: self.call_backs, 8081: self.admin}[url.port]
        with closing(http.client.HTTPConnection(urlsplit(place).netloc, timeout=30)) as connection:
            target = f"{url.path}?{url.query}" if url.query else url.path
            connection.request("GET" if body is None else "POST", target, body, headers)
            response = connection.getresponse()
            return response.status, response.reason, response.headers, json.loads(response.read())

    def run(self, *words):
        """Run a flowhooks command beside the server."""
        return subprocess.run(
            [sys.executable, "-m", "flowhooks", *words],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )


def environment():
    """This process's environment without flowhooks' settings and installed plugins."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    return kept | {
        "FLOWHOOKS_PLUGINS_DENY": ",".join(entry_point.name for entry_point in entry_points(group="flowhooks"))
    }


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """`flowhooks serve` as the README starts it, with its plugin and the plugin of the contract's page."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "handlers").mkdir()
    for page, name in ((ROOT / "README.md", "leave"), (DOCS / "reference/http.md", "archive")):
        (block,) = blocks(page, "python")
        (folder / f"handlers/{name}.py").write_text(block.text)
    (serve,) = [block.text for block in blocks(ROOT / "README.md", "sh") if " serve " in block.text]
    command = [sys.executable, "-m", "flowhooks", *shlex.split(serve)[1:]]
    process = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            said = ""
            for line in process.stderr:
                said += line
                record = json.loads(line)
                if record["event"] == "server_started":
                    break
            else:
                pytest.fail(said)
            yield Running(folder, record["call_backs"], record["admin"])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def exchanges(page):
    """Each curl command of a page with the response that follows it."""
    several = blocks(page)
    for this, following in pairwise(several):
        if this.text.startswith("curl ") and following.language == "http":
            yield this.text, following.text


def compare(running, command, answer):
    """Check that a command gets the status, headers and body that are shown."""
    head, _, body = answer.partition("\n\n")
    first, *lines = head.split("\n")
    status, reason, headers, said = running.ask(command)
    assert first == f"HTTP/1.1 {status} {reason}"
    for name, _, value in (line.partition(": ") for line in lines):
        assert headers[name] == (headers[name] or "?" if value == "…" else value)
    expected = json.loads(body)
    if expected.get("timestamp") == "…":
        expected["timestamp"] = said["timestamp"]
    assert said == expected


CONTRACT = [ROOT / "README.md", DOCS / "reference/http.md", DOCS / "reference/http.zh-CN.md"]


@pytest.mark.parametrize("page", CONTRACT, ids=name_of)
def test_answers_are_as_shown(page, running):
    """Each curl command of the page gets the status, headers and body shown below it."""
    shown = list(exchanges(page))
    assert len(shown) == sum(block.text.startswith("curl ") for block in blocks(page))
    for command, answer in shown:
        compare(running, command, answer)


def test_the_rejection_that_is_shown(running):
    """The administration API rejects an unknown parameter with the text on its page."""
    ((command, answer),) = exchanges(DOCS / "reference/administration.md")
    compare(running, command, answer)


def test_the_last_command_of_the_readme_shows_the_result(running):
    """After the README's callback, its last command shows the handler's result and a single run."""
    ((command, _),) = exchanges(ROOT / "README.md")
    for _ in range(2):
        assert running.ask(command)[3] == {"success": True}
    (show,) = [block.text for block in blocks(ROOT / "README.md", "sh") if "events show" in block.text]
    done = running.run(*shlex.split(show)[1:])
    assert done.returncode == 0, done.stderr
    assert 'returned "granted: leave-2026-0042"' in done.stdout
    assert "attempt 2" not in done.stdout


# Claims name their tests


def test_test_files_named_as_proof_exist():
    """Each file on the pages on proof and security exists, and all of `tests/acceptance` is listed."""
    named = {}
    for page in (DOCS / "explanation/proof.md", ROOT / "SECURITY.md"):
        named[page] = set(re.findall(r"`tests/((?:\w+/)*test_\w+\.py)`", page.read_text("utf-8")))
        assert len(named[page]) > 20
        assert {name for name in named[page] if not (ROOT / "tests" / name).is_file()} == set()
    every = {f"acceptance/{file.name}" for file in (ROOT / "tests/acceptance").glob("test_*.py")}
    assert every <= set.union(*named.values())
