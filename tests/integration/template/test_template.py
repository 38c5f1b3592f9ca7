"""The template makes complete packages whose checks pass, or refuses in one line with the reason."""

from __future__ import annotations

import ast
import compileall
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from flowhooks.cli.main import main
from support.nested_pytest import pytest_words

CHECKOUT = Path(__file__).parents[3]
TEMPLATE = CHECKOUT / "plugins/cookiecutter-flowhooks-plugin"
LONG = "com.example." + "x" * 188
ANSWERS = {
    "class only": {"domain": "Expenses", "callback_class": "com.example.ExpensesApproved"},
    "key only": {"domain": "R&D", "process_key": "research_request", "conclusion": "", "author": "O'Brien & Söhne"},
    "both": {"domain": "Leave", "package": "acme-leave", "callback_class": "a.B$C", "process_key": "leave:request"},
    "Chinese": {"domain": "合同", "process_key": "合同审批", "conclusion": "审批 通过", "author": "王小明"},
    "odd": {
        "domain": "It's #1, 100% (a|b) $HOME %s ''' ;",
        "package": "flowhooks-2024",
        "callback_class": "x#%s|$(id)",
        "conclusion": "rejected",
    },
    "long": {
        "domain": "长" * 40,
        "package": "p" + "2" * 59,
        "callback_class": LONG,
        "process_key": LONG,
        "author": "长" * 80,
    },
}
FILES = {
    ".github/workflows/test.yml",
    ".gitignore",
    "README.md",
    "pyproject.toml",
    "src/{module}/__init__.py",
    "src/{module}/py.typed",
    "src/{module}/register.py",
    "src/{module}/schemas/settings.schema.json",
    "tests/test_handler.py",
}


@pytest.fixture(scope="module", params=ANSWERS.values(), ids=ANSWERS)
def baked(request, bake, tmp_path_factory):
    """A package for each set of answers."""
    return bake(tmp_path_factory.mktemp("baked"), **request.param)


def run(*command, cwd, code=0, **environ):
    """Run a command, and print its output if it ended with another exit code."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("FLOWHOOKS_", "PYTHON", "PYTEST"))
    }
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=kept | {"COLUMNS": "120"} | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code, ran.stdout[-4000:] + ran.stderr[-4000:]
    return ran.stdout


# Created packages are complete


def test_every_file_of_the_readme_exists_and_parses(baked):
    """The files are those that the README lists; each parses as TOML, JSON, YAML or Python, as named."""
    files = baked.files
    assert set(files) == {name.format(module=baked.module) for name in FILES}
    for name, text in files.items():
        assert "cookiecutter" not in text, name
        assert text == "" or (text.endswith("\n") and not text.endswith("\n\n")), name
        if name.endswith(".py"):
            ast.parse(text)
    json.loads(files[f"src/{baked.module}/schemas/settings.schema.json"])
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["name"] == baked.folder.name
    assert project["entry-points"]["flowhooks"] == {baked.plugin: baked.module}


def test_the_workflow_runs_the_commands_of_the_readme(baked):
    """The workflow is YAML, names each Python version, and runs the commands of the README."""
    workflow = yaml.safe_load(baked.files[".github/workflows/test.yml"])
    steps = workflow["jobs"]["test"]["steps"]
    assert {"python-version": "${{ matrix.python }}"} in [step.get("with") for step in steps]
    commands = {step["run"] for step in steps if "run" in step}
    assert {"ruff check", "ruff format --check", "mypy", "pytest"} <= commands


def test_the_workflow_can_install_flowhooks_from_another_place(baked):
    """With the variable that the README names, the workflow installs flowhooks from there before the package."""
    workflow = yaml.safe_load(baked.files[".github/workflows/test.yml"])
    steps = workflow["jobs"]["test"]["steps"]
    (step,) = [step for step in steps if "vars." in str(step)]
    assert step["if"] == "vars.FLOWHOOKS_URL != ''"
    assert step["env"] == {"FLOWHOOKS_URL": "${{ vars.FLOWHOOKS_URL }}"}
    assert step["run"] == 'pip install "flowhooks @ $FLOWHOOKS_URL"'
    (install,) = [step for step in steps if "pip install -e" in step.get("run", "")]
    assert steps.index(step) < steps.index(install)
    assert "`FLOWHOOKS_URL`" in baked.files["README.md"]


def test_generated_files_contain_the_answers_unchanged(baked):
    """Domain, author, class and key with any characters are read from the files unchanged."""
    given = baked.given
    project = tomllib.loads(baked.files["pyproject.toml"])["project"]
    assert project["description"] == f"{given['domain']}: a flowhooks plugin."
    assert project.get("authors", []) == ([{"name": given["author"]}] if "author" in given else [])
    tree = ast.parse(baked.files[f"src/{baked.module}/__init__.py"])
    assert ast.get_docstring(tree).startswith(f"{given['domain']}, as a flowhooks plugin")
    (decorator,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "handler"
    ]
    listens = {keyword.arg: ast.literal_eval(keyword.value) for keyword in decorator.keywords if keyword.arg != "retry"}
    expected = {"conclusion": "approved"} | given
    assert listens == {
        name: expected[name] for name in ("callback_class", "process_key", "conclusion") if expected.get(name)
    }


def test_ruff_finds_nothing(baked):
    """With any length of names, the package's own rules find nothing and the formatter changes nothing."""
    run(sys.executable, "-m", "ruff", "check", "--no-cache", cwd=baked.folder)
    run(sys.executable, "-m", "ruff", "format", "--check", "--no-cache", cwd=baked.folder)


@pytest.mark.parametrize("name", ["both", "Chinese"])
def test_mypy_finds_nothing(name, bake, tmp_path, request):
    """Strict mypy with the package's settings finds nothing in the code or the tests."""
    baked = bake(tmp_path, **ANSWERS[name])
    cache = request.config.cache.mkdir("mypy-of-the-template")
    run(sys.executable, "-m", "mypy", "--cache-dir", cache, cwd=baked.folder)


def test_compiled_files_are_not_copied_into_a_package(bake, tmp_path):
    """Compiled files of an installed template are not copied into a package."""
    template = shutil.copytree(TEMPLATE, tmp_path / "template")
    compileall.compile_dir(template, quiet=2)
    assert list(template.rglob("*.pyc"))
    baked = bake(tmp_path, template=template, **ANSWERS["both"])
    assert {path for path in baked.folder.rglob("*") if "__pycache__" in path.parts} == set()


# Created packages work


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment that sees this environment's packages and flowhooks."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "shared.pth").write_text(f"{CHECKOUT}\n{sysconfig.get_path('purelib')}\n")
    return home / "bin/python"


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        # tests/acceptance/test_template_from_wheel.py also runs the test with crashes in the short set.
        pytest.param("both", ["-k", "not exactly_once"], id="both"),
        pytest.param("Chinese", [], id="Chinese", marks=pytest.mark.long),
    ],
)
def test_every_test_of_a_new_package_passes(name, chosen, bake, tmp_path, environment):
    """Every test of the installed package passes with only flowhooks' requirements and pytest."""
    baked = bake(tmp_path, **ANSWERS[name])
    pip = (sys.executable, "-m", "pip", "--python", environment)
    run(*pip, "install", "--no-deps", "--no-build-isolation", "--no-index", "-e", ".", cwd=baked.folder)
    said = run(environment, *pytest_words(baked.folder, *chosen), cwd=baked.folder)
    assert " passed" in said
    assert "skipped" not in said
    allowed = {"FLOWHOOKS_PLUGINS_ALLOW": baked.plugin}
    said = run(environment, "-m", "flowhooks", "routes", cwd=tmp_path, **allowed)
    assert f"{baked.plugin}:record_flow" in said
    (tmp_path / "flowhooks.toml").write_text(f'[plugins.{baked.plugin}]\ndatabase = "elsewhere.db"\n')
    run(environment, "-m", "flowhooks", "check", cwd=tmp_path, **allowed)
    (tmp_path / "flowhooks.toml").write_text(f'[plugins.{baked.plugin}]\ndatabse = "elsewhere.db"\n')
    said = run(environment, "-m", "flowhooks", "check", cwd=tmp_path, code=1, **allowed)
    assert "databse" in said


# Wrong answers are refused

NO_CHARACTER = "has a character that cannot be used: "
REFUSED = {
    "nothing to listen to": ({}, "callback_class and process_key are both empty: "),
    "no domain": ({"domain": " "}, "domain begins or ends with a space"),
    "no letter": ({"domain": "!?", "package": "flowhooks-x"}, "domain has neither a letter nor a digit: "),
    "a long domain": ({"domain": "x" * 41}, "domain has 41 characters, but at most 40 are allowed"),
    "a quote": ({"domain": 'say "x"'}, f'domain {NO_CHARACTER}"'),
    "a backslash": ({"domain": "a\\b"}, f"domain {NO_CHARACTER}\\"),
    "a line end": ({"domain": "a\nb"}, f"domain {NO_CHARACTER}'\\n'"),
    "an order that turns the text round": ({"domain": "a\u202eb"}, f"domain {NO_CHARACTER}'\\u202e'"),
    "a tag": ({"domain": "<b>"}, f"domain {NO_CHARACTER}<"),
    "a quote in a conclusion": ({"conclusion": "it's"}, f"conclusion {NO_CHARACTER}'"),
    "a long conclusion": ({"conclusion": "x" * 129}, "conclusion has 129 characters, but at most 128 are allowed"),
    "a quote in a class": ({"callback_class": "a'b"}, f"callback_class {NO_CHARACTER}'"),
    "a blank in a key": ({"process_key": "a b"}, f"process_key {NO_CHARACTER}' '"),
    "a long class": ({"callback_class": "x" * 201}, "callback_class has 201 characters, but at most 200 are allowed"),
    "code in an author": ({"author": '"]\nscripts = {x="y"}'}, f'author {NO_CHARACTER}"'),
    "capitals": ({"package": "Flowhooks-Leave"}, "package 'Flowhooks-Leave' is not a package name: "),
    "Chinese": ({"package": "合同"}, "package '合同' is not a package name: "),
    "two dashes": ({"package": "a--b"}, "package 'a--b' is not a package name: "),
    "no name": ({"package": ""}, "package '' is not a package name: "),
    "a way out": ({"package": "../up"}, "package '../up' is not a package name: "),
    "folders": ({"package": "a/b/c"}, "package 'a/b/c' is not a package name: "),
    "ours": ({"package": "flowhooks"}, "package 'flowhooks' would create a module flowhooks, which exists already"),
    "Python's": ({"package": "email"}, "package 'email' would create a module email, which exists already"),
    "a word of Python's": (
        {"package": "lambda"},
        "package 'lambda' would create a module lambda, which is a word of Python",
    ),
    "somebody else's": ({"package": "click"}, "package 'click' would create a module click, which exists already"),
    "a test by its end": (
        {"package": "flowhooks-drug-test"},
        "package 'flowhooks-drug-test' would create a module flowhooks_drug_test, which would count as a test",
    ),
    "a test by its beginning": (
        {"package": "test-leave"},
        "package 'test-leave' would create a module test_leave, which would count as a test in flowhooks.testing: ",
    ),
    "a domain that makes a test": (
        {"domain": "Test"},
        "package 'flowhooks-test' would create a module flowhooks_test, which would count as a test",
    ),
    "reserved": ({"package": "flowhooks-flowhooks"}, "package 'flowhooks-flowhooks' would create a plugin flowhooks"),
}


PACKAGES = {
    "Contracts": "flowhooks-contracts",
    "R&D": "flowhooks-r-d",
    "合同": "flowhooks-he-tong",
    "Ärzte (Köln)": "flowhooks-arzte-koln",
    "合同审批流程" * 6: "flowhooks-he-tong-shen-pi-liu-cheng-he-tong-shen-pi-liu-chen",
}


@pytest.mark.parametrize(("domain", "package"), PACKAGES.items())
def test_the_default_package_name_is_ascii(domain, package, bake, tmp_path):
    """The default package name is ASCII, made from a domain in any script."""
    assert bake(tmp_path, domain=domain, process_key="k").folder.name == package


@pytest.mark.parametrize(("answers", "words"), REFUSED.values(), ids=REFUSED)
def test_wrong_answers_are_rejected_and_leave_no_file(answers, words, template_error, tmp_path):
    """One line names the wrong answer and the reason, and no file is left, neither there nor beside it."""
    into = tmp_path / "here/there"
    into.mkdir(parents=True)
    fit = {} if answers.keys() & {"callback_class", "process_key"} or not answers else {"process_key": "k"}
    (said,) = template_error(into, **answers | fit).splitlines()
    assert said.startswith(words)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["here", "here/there"]


def test_an_existing_folder_is_unchanged(template_error, bake, tmp_path):
    """An existing folder of the package's name does not change."""
    mine = tmp_path / "flowhooks-leave/pyproject.toml"
    mine.parent.mkdir()
    mine.write_text("mine")
    template_error(tmp_path, domain="Leave", process_key="k")
    assert [path.read_text() for path in mine.parent.iterdir()] == ["mine"]


def test_answers_typed_at_the_cookiecutter_prompts(tmp_path):
    """The cookiecutter command asks each question in words; answers that look like Jinja are refused, not run."""
    (tmp_path / "config.json").write_text(
        json.dumps({"replay_dir": str(tmp_path / "replay"), "cookiecutters_dir": str(tmp_path)})
    )
    command = [sys.executable, "-m", "cookiecutter", "--config-file", tmp_path / "config.json", TEMPLATE]
    into = tmp_path / "into"
    into.mkdir()

    def answer(*lines):
        return subprocess.run(
            command, cwd=into, input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, check=False
        )

    refused = answer("{{ 7 * 7 }}", "flowhooks-x", "", "k", "", "")
    assert refused.returncode != 0
    assert "domain has a character that cannot be used: {" in refused.stderr.splitlines()
    assert "The business domain" in refused.stdout
    assert not any(into.iterdir())
    made = answer("假期", "", "", "leave_request", " ", "")
    assert made.returncode == 0, made.stderr
    assert [path.name for path in into.iterdir()] == ["flowhooks-jia-qi"]
    (source,) = into.glob("flowhooks-jia-qi/src/*/__init__.py")
    assert "conclusion=" not in source.read_text()


# The command and the template agree

OPTIONS = {
    "domain": "--domain",
    "package": "--package",
    "callback_class": "--class",
    "process_key": "--key",
    "conclusion": "--conclusion",
    "author": "--author",
}


def new(into, answers):
    """The files that `flowhooks plugins new` makes from answers."""
    given = [word for name, option in OPTIONS.items() if name in answers for word in (option, answers[name])]
    return CliRunner().invoke(main, ["plugins", "new", str(into), "--no-input", *given])


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)
def test_the_command_and_the_template_create_the_same_files(answers, bake, tmp_path):
    """The command and the template accept the same answers and make the same files."""
    for name in ("command", "template"):
        (tmp_path / name).mkdir()
    result = new(tmp_path / "command", answers)
    assert result.exit_code == 0, result.output
    baked = bake(tmp_path / "template", **answers)
    assert baked._replace(folder=tmp_path / "command" / baked.folder.name).files == baked.files


@pytest.mark.parametrize("answers", [answers for answers, _ in REFUSED.values()], ids=REFUSED)
def test_the_command_refuses_the_same_answers_as_the_template(answers, tmp_path):
    """The command refuses the answers that the template refuses, and leaves no file."""
    fit = {} if answers.keys() & {"callback_class", "process_key"} or not answers else {"process_key": "k"}
    result = new(tmp_path, answers | fit)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert list(tmp_path.iterdir()) == []
