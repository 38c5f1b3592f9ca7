"""Every Python or shell example of the documentation is run, or this file lists the reason why not."""

from __future__ import annotations
import __future__

import re
import signal
import subprocess
import sys
from types import ModuleType

import pytest

from support.code_blocks import DOCS, PAGES, ROOT, blocks, name_of
from support.docs_stage import Stage, commands
from support.nested_pytest import pytest_words

RUN = {"python", "sh", "bash", "console"}
"""Languages whose blocks are run."""
READ = {"json", "toml", "http", "text"}
"""Languages whose blocks `test_docs.py` reads, or that show output."""

COMPARED = {
    "java": "tests/engines/test_payloads.py",
    "js": "tests/engines/test_applications.py",
    "sql": "tests/engines/test_payloads.py",
    "xml": "tests/engines/test_payloads.py",
    "yaml": "tests/integration/docs/test_monitoring.py",
}
"""Languages whose blocks are parts of files that a test elsewhere compares them with."""

NOT_RUN = {
    ("docs/how-to/use-the-console.md", "ssh "): "it goes to the reader's own server",
    ("*", "make "): "continuous integration runs `make test`; that each target is there is tested",
    ("*", "/opt/flowhooks/bin/pip install"): "it would change a folder that the whole machine uses",
    ("*", "pip install"): "it would change the environment that the tests run in",
    (
        "*",
        "flowhooks plugins install",
    ): "it would change the environment; `tests/integration/cli/plugins/test_install.py` runs it in another",
    ("*", "flowhooks plugins uninstall"): "the same, and the same test",
    ("CONTRIBUTING.md", ".venv/bin/"): "the tools themselves are what runs this",
    ("docs/contributing/testing.md", ".venv/bin/"): "the same",
    ("docs/contributing/testing.md", "FLOWHOOKS_MODEL_SEED="): "the same",
    (
        "docs/how-to/engines/operaton-and-cib-seven.md",
        "sed -i",
    ): "`tests/engines/conftest.py` runs it on the code of the page about Camunda 7",
    ("README.md", ".venv/bin/flowhooks"): "run by `test_the_last_command_of_the_readme_shows_the_result`",
    ("README.md", "curl"): "run by `test_answers_are_as_shown`, which compares the answer",
    ("docs/reference/http.md", "curl"): "run by `test_answers_are_as_shown`, which compares the answer",
    ("docs/reference/http.zh-CN.md", "curl"): "run by `test_answers_are_as_shown`, which compares the answer",
    ("docs/how-to/use-postgresql.md", "flowhooks db upgrade"): "run by `test_tables_are_created_by_command_only`",
    ("docs/how-to/use-postgresql.md", "flowhooks worker"): "run by `test_workers.py`",
    ("docs/how-to/use-postgresql.md", "flowhooks db copy"): "run both ways by `test_copy.py`",
    ("docs/how-to/use-postgresql.md", "flowhooks serve"): "run by the tests of servers that share a database",
    (
        "docs/how-to/test-a-plugin.md",
        "import os\n\nimport acme_booking",
    ): "it needs a PostgreSQL, and tables in it; `tests/integration/testing/test_postgres_schema.py` does the same",
    (
        "docs/how-to/test-a-plugin.md",
        '"""Start a PostgreSQL',
    ): "as root it would add a user to this machine; `tests/support/postgresql.py` starts a server of the same package",
    ("docs/how-to/install-and-run.md", "python3 -m venv /opt"): "it would install into this machine",
    ("docs/how-to/install-and-run.md", "/opt/flowhooks-0.1.0/bin/pip"): "it would install into this machine",
    ("docs/how-to/install-and-run.md", "ln -s /opt"): "it would install into this machine",
    ("docs/how-to/install-and-run.md", "sudo"): "there is no user `flowhooks`; the same command is run without",
    (
        "docs/how-to/use-postgresql.md",
        "[Service]",
    ): "a part of a unit of systemd; `test_supervisor.py` sends the signal",
    ("*", "flowhooks operators new"): "it would ask for a password; `tests/acceptance/test_operators.py` runs it",
    (
        "docs/how-to/let-engines-in.md",
        "flowhooks sources test",
    ): "run by `tests/integration/cli/test_sources.py`, beside a server",
    (
        "docs/how-to/engines/python.md",
        "from SpiffWorkflow",
    ): "SpiffWorkflow is not installed here; `tests/engines/test_applications.py` installs it and runs the code",
    (
        "docs/how-to/troubleshooting.md",
        "flowhooks engines reconcile",
    ): "it needs an engine; `test_connect_without_code.py` runs the command with one",
    **{
        ("docs/how-to/troubleshooting.md", f"flowhooks engines {command}"): (
            "it needs an engine; `tests/integration/cli/test_engines.py` runs the command with one"
        )
        for command in ("close-gaps", "decline")
    },
    **{
        ("docs/how-to/operate.md", f"flowhooks operations {command}"): (
            "it needs an operation that is not finished; `tests/integration/cli/test_operations.py` has a slow one"
        )
        for command in ("pause", "rate", "resume", "cancel")
    },
    ("docs/how-to/operate.md", "flowhooks sources show"): (
        "it needs ignored requests; `tests/integration/cli/sources/test_show.py` runs both commands with some"
    ),
    ("docs/how-to/operate.md", "flowhooks sources test"): "the same, and the same test",
    ("docs/deploy/helm/flowhooks/README.md", "helm"): "it needs a cluster; `test_helm.py` renders the chart",
    ("docs/deploy/helm/flowhooks/README.md", "kubectl"): "the same",
    ("docs/how-to/run-it.md", "useradd"): "it would change this machine",
    ("docs/how-to/run-it.md", "systemctl"): "it needs systemd as the first process; `test_deploy.py` checks the units",
    ("docs/how-to/run-it.md", "podman"): "it needs podman; `test_container.py` runs what it would run",
}
"""The blocks and commands that are not run, with the reason: by page (`*` is any) and by their first words."""

ELSEWHERE: dict[str, str] = {
    "docs/how-to/backtest-a-plugin.md": "tests/integration/docs/test_backtest_page.py",
    "docs/how-to/connect-a-sender-with-one-url.md": "tests/integration/docs/test_recipes.py",
    "docs/how-to/connect-an-engine-without-code.md": "tests/integration/docs/test_connect_without_code.py",
    "docs/how-to/plugin-recipes.md": "tests/integration/docs/test_plugin_recipes.py",
    "docs/tutorial.md": "tests/acceptance/test_tutorial.py",
    "docs/tutorial.zh-CN.md": "tests/acceptance/test_tutorial.py",
}
"""Pages that another test runs from top to bottom, and its file."""

FILES = {
    "docs/how-to/write-a-plugin.md": {"acme_leave.py": "PAYROLL = "},
}
"""Modules that a page's other examples import: the block with these words. (A block is also a file if the
paragraph before it ends with that file's name and a colon.)"""

PLUGINS = {"docs/how-to/add-a-kind-of-call-back.md": ("suspend", "hold_contract")}
"""Pages whose own plugin is on the server of their commands: its name, and words of its block."""

SETTINGS = {"docs/how-to/find-events.md": 'search.fields = ["/amount", "/vendor"]'}
"""Pages whose commands need settings of the server: lines at the top of its file."""

LONG = {"docs/how-to/test-a-plugin.md": pytest.mark.long}
"""Pages whose tests take half a minute. `test_testing_pages.py` runs these in the short set, too."""

LONG_CALL_TIMEOUT = """\
from flowhooks.web.callback import receivers

receivers.CALL_TIMEOUT = 60.0
"""
"""A plugin of pytest for the tests of pages: a busy machine may take longer than a second to run a receiver."""

EXITS = {
    ("docs/how-to/operate.md", "flowhooks routes --key travel_request"): 1,
    ("docs/how-to/operate.md", "flowhooks alerts acknowledge ALERT_ID"): 1,
}
"""Commands whose expected exit code is not 0."""


def excuse(block, text):
    """The entry of `NOT_RUN` that matches a command or a block, or None."""
    for page, start in NOT_RUN:
        if page in {"*", name_of(block.page)} and text.startswith(start):
            return page, start
    return None


def is_test(block):
    """Whether a Python block is for pytest."""
    return "def test_" in block.text or "@pytest.fixture" in block.text


def chosen(page):
    """The blocks of a page that are run, each with its commands without the excused ones."""
    for block in blocks(page, *RUN):
        if block.language == "python":
            if not excuse(block, block.text):
                yield block, []
        elif todo := [command for command in commands(block) if not excuse(block, command.text)]:
            yield block, todo


def is_run_in_english(page):
    """Whether this is a Chinese page with the same code as its English page, whose code is run."""
    english = page.with_name(page.name.replace(".zh-CN", ""))
    return english != page and [block.text for block in blocks(page, *RUN)] == [
        block.text for block in blocks(english, *RUN)
    ]


TO_RUN = {page: list(chosen(page)) for page in PAGES if name_of(page) not in ELSEWHERE and not is_run_in_english(page)}
PYTHON = [block for todo in TO_RUN.values() for block, _ in todo if block.language == "python"]
CODE = [block for block in PYTHON if not is_test(block)]
TESTED = sorted({block.page for block in PYTHON if "def test_" in block.text})
SHELL = [page for page, todo in TO_RUN.items() if any(block.language != "python" for block, _ in todo)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_has_a_language_that_is_known(page):
    """Each code block is run, parsed or excused, so that no block is missed."""
    for block in blocks(page):
        assert block.language in RUN | READ | COMPARED.keys() or excuse(block, block.text), (
            f"{block.where}: a block of `{block.language or 'no language'}` is neither run nor read; "
            f"give it one of {', '.join(sorted(RUN | READ))}, or a reason in NOT_RUN"
        )


def test_every_excuse_is_used():
    """Each entry of the lists of this file is used by an existing page."""
    used = set()
    for page in PAGES:
        for block in blocks(page):
            used.add(excuse(block, block.text))
            if block.language in RUN - {"python"}:
                used |= {excuse(block, command.text) for command in commands(block)}
    assert not set(NOT_RUN) - used
    pages = {name_of(page) for page in PAGES}
    assert {*ELSEWHERE, *FILES, *PLUGINS, *(page for page, _ in EXITS)} <= pages
    for page, test in ELSEWHERE.items():
        assert page.rpartition("/")[2] in (ROOT / test).read_text("utf-8"), f"{test} does not read {page}"


def held(page):
    """The modules that a page's examples import, by file name."""
    found = {block.file: block.text for block in blocks(page, "python") if block.file}
    for file, words in FILES.get(name_of(page), {}).items():
        (found[file],) = [block.text for block in blocks(page, "python") if words in block.text]
    return found


@pytest.mark.parametrize("block", CODE, ids=lambda block: block.where)
def test_python_runs(block, monkeypatch):
    """Each Python block runs unchanged; a signature in the reference is only compiled."""
    for file, text in held(block.page).items():
        name = file.removesuffix(".py")
        imports = rf"^(?:import|from) {name}\b"
        if "/" not in file and text != block.text and re.search(imports, block.text, re.MULTILINE):
            module = ModuleType(name)
            exec(text, module.__dict__)
            monkeypatch.setitem(sys.modules, module.__name__, module)
    lazy = __future__.annotations.compiler_flag if block.page.is_relative_to(DOCS / "reference") else 0
    code = compile("\n" * block.line + block.text, block.where, "exec", flags=lazy, dont_inherit=True)
    exec(code, {"__name__": "example", "__file__": str(block.page)})


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=LONG.get(name_of(page), ())) for page in TESTED], ids=name_of
)
def test_the_tests_that_are_shown_pass(page, tmp_path):
    """The tests that a page shows are found by pytest and pass, beside the files that the page names."""
    for file, text in held(page).items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    lines = [""] * len(page.read_text("utf-8").splitlines())
    for block in (block for block in PYTHON if block.page == page and is_test(block)):
        shown = block.text.splitlines()
        lines[block.line : block.line + len(shown)] = shown
    name = "test_" + re.sub(r"\W", "_", page.stem) + ".py"  # its lines keep their numbers of the page
    (tmp_path / name).write_text("\n".join(lines))
    (tmp_path / "long_call_timeout.py").write_text(LONG_CALL_TIMEOUT)
    done = subprocess.run(
        [sys.executable, *pytest_words(tmp_path, "-p", "long_call_timeout", "-q", "--rootdir", str(tmp_path), name)],
        cwd=tmp_path,
        env=Stage(tmp_path / "stage").environment | {"PYTHONPATH": f"{tmp_path}:{tmp_path / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, f"{name_of(page)}:\n{done.stdout}{done.stderr}"


@pytest.mark.timeout(600)  # a page with fifty commands takes over two minutes while other processes use both cores
@pytest.mark.parametrize("page", SHELL, ids=name_of)
def test_commands_run(page, tmp_path):
    """Each command of a page, in order, exits with 0 beside a server with the data that the page describes."""
    name = name_of(page)
    handlers, settings = {}, SETTINGS.get(name, "")
    if name in PLUGINS:
        plugin, words = PLUGINS[name]
        (handlers[plugin],) = [block.text for block in blocks(page, "python") if words in block.text]
        kinds = tmp_path / "schemas/call-back"
        kinds.mkdir(parents=True)
        (kinds / f"{plugin}.schema.json").write_text(blocks(page, "json")[0].text)
        settings = f'schemas_dir = "{kinds.parent}"'
    stage = Stage(tmp_path / "stage", handlers=handlers, settings=settings)
    stage.start()
    try:
        if "flowhooks send 4711" not in page.read_text("utf-8"):
            stage.seed()
        for command in (command for _, todo in TO_RUN[page] for command in todo):
            wanted = [
                code for (where, start), code in EXITS.items() if where == name and command.text.startswith(start)
            ]
            done = stage.run(command.text)
            assert [done.returncode] == (wanted or [0]), (
                f"{name}:{command.line}: exit code {done.returncode} of\n{command.text}\n{done.stdout}{done.stderr}"
            )
    finally:
        stage.stop(signal.SIGKILL)  # a hanging handler would be waited for
