"""`flowhooks plugins new`: a package made from the template."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
import tomllib

import pytest

from flowhooks.cli.plugins import template
from support.waiting import WAIT_TIMEOUT

KEY = ("--key", "leave_request")
NOBODY = "Error: there is no terminal for questions: give --domain, --package, --class or --key, and --no-input"


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """An empty home folder for the test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def typed(tmp_path, program):
    """Runs `flowhooks` in an empty folder at a terminal with typed lines; returns exit code, output and terminal."""

    def run(*arguments, lines, term="dumb"):
        person, terminal = pty.openpty()
        env = os.environ | {"TERM": term, "COLUMNS": "200"}
        process = subprocess.Popen(
            [*program(env), *arguments],
            cwd=tmp_path,
            env=env,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
        )
        os.close(terminal)
        os.write(person, "".join(line if line == "\x04" else f"{line}\n" for line in lines).encode())
        screen = bytearray()

        def watch():
            try:
                while part := os.read(person, 65536):
                    screen.extend(part)
            except OSError:  # Linux reports this if the other end is closed
                pass

        watching = threading.Thread(target=watch)
        watching.start()
        stdout, _ = process.communicate(timeout=WAIT_TIMEOUT)
        watching.join()
        os.close(person)
        return process.returncode, stdout, screen.decode().replace("\r\n", "\n")

    return run


def test_the_template_is_found():
    """An editable install uses the template of the checkout."""
    assert (template.template_dir() / "cookiecutter.json").is_file()


def test_no_prompt_with_no_input(run, tmp_path, home):
    """The package is made from options and defaults; no other folder is written."""
    result = run("plugins", "new", "--domain", "Expenses", "--class", "com.example.Paid", "--no-input")
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["flowhooks-expenses"]
    assert list(home.iterdir()) == []
    project = tomllib.loads((tmp_path / "flowhooks-expenses/pyproject.toml").read_text())["project"]
    assert project["name"] == "flowhooks-expenses"
    assert list(project["entry-points"]["flowhooks"]) == ["expenses"]
    assert result.stdout.splitlines() == [
        "Created flowhooks-expenses: the plugin expenses.",
        "",
        "Next:",
        "  cd flowhooks-expenses",
        "  pip install -e '.[test]'",
        "  pytest",
        "  flowhooks serve",
        "and in another terminal:",
        "  flowhooks send 1 --business-key K-1 --class com.example.Paid --conclusion approved",
    ]


def test_the_new_plugin_can_be_loaded(run, run_json, tmp_path):
    """The new plugin is loaded and has the given selectors."""
    run("plugins", "new", "out", "--package", "acme-leave", *KEY, "--no-input")
    (source,) = (tmp_path / "out/acme-leave/src").iterdir()
    code = (
        "import sys, flowhooks.cli.operations_client\n"
        "from flowhooks.plugins.plugins import Plugins\n"
        "import acme_leave\n"
        "loaded = Plugins.load(dirs=[], allow=['acme-leave'], deny=[], safe_mode=False, sections={}, entry_points=[],"
        " objects={'acme-leave': acme_leave})\n"
        "print(loaded.infos[0].error, [one.selectors.process_keys for one in loaded.handlers.values()])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(source.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[('leave_request',)]", done.stderr


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_missing_answers_are_prompted_for(typed, tmp_path, term):
    """The template's questions have defaults; a Chinese domain gives a valid package name."""
    code, stdout, screen = typed("plugins", "new", lines=["\u5408\u540c", "", "", "leave_request", "", ""], term=term)
    assert code == 0, screen
    assert (tmp_path / "flowhooks-he-tong").is_dir()
    assert "The business domain, in words of your own" in screen
    assert "(Contracts)" in screen
    assert "The package's name: lower-case letters, digits and dashes" in screen
    assert "(flowhooks-he-tong)" in screen
    assert "Name of the author; may be empty" in screen
    assert "  flowhooks send 1 --business-key K-1 --key leave_request --conclusion approved" in stdout.splitlines()


def test_given_answers_are_not_prompted_for(typed, tmp_path):
    """Given answers are not requested, and with a class no key is requested."""
    given = ("--domain", "Leave", "--class", "com.example.Leave", "--conclusion", "", "--author", "")
    code, _, screen = typed("plugins", "new", *given, lines=["acme-leave"])
    assert code == 0, screen
    assert screen.count("): ") == 1
    assert (tmp_path / "acme-leave").is_dir()


def test_an_unusable_answer_is_prompted_for_again(typed, tmp_path):
    """A refused answer is explained and proposed again; without class and key both are requested again."""
    first = ["a{{b", "", "", "with blank", "it's", ""]
    second = ["Leave", "acme-leave", "", "", "", ""]
    third = ["", "", "", "leave", "", ""]
    fourth = ["", "", "", "", " ", "Ann"]
    code, _, screen = typed("plugins", "new", lines=[*first, *second, *third, *fourth])
    assert code == 0, screen
    assert "domain has a character that cannot be used: {" in screen
    assert "--key has a character that cannot be used: ' '" in screen
    assert "conclusion has a character that cannot be used: '" in screen
    assert "(Leave): " in screen
    (source,) = tmp_path.glob("acme-leave/src/*/__init__.py")
    assert "conclusion=" not in source.read_text()
    assert "Ann" in (tmp_path / "acme-leave/pyproject.toml").read_text()


def test_an_unusable_option_is_prompted_for_at_a_terminal(typed, tmp_path):
    """At a terminal an unusable option is requested again; control characters are not proposed."""
    given = ("--domain", "a\x1b[31mb", "--key", "leave", "--package", "acme-leave", "--conclusion", "", "--author", "")
    code, _, screen = typed("plugins", "new", *given, lines=["Leave", "", "", "", "", ""])
    assert code == 0, screen
    assert "domain has a character that cannot be used: '\\x1b'" in screen
    assert "(Contracts): " in screen
    assert "\x1b[31mb" not in screen
    assert (tmp_path / "acme-leave").is_dir()


def test_answers_that_end_too_early(typed, tmp_path):
    """The message names the option to use instead, and nothing is created."""
    code, _, screen = typed("plugins", "new", lines=["Leave", "\x04"])
    assert code == 2
    assert screen.splitlines()[-1] == NOBODY
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("--domain", "Leave", *KEY)])
def test_missing_answers_without_a_terminal(run, tmp_path, arguments):
    """Without a terminal nothing is read, so nothing can hang, and nothing is created."""
    result = run("plugins", "new", *arguments, given="Leave\n\n\nleave\n\n\n")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == NOBODY
    assert list(tmp_path.iterdir()) == []


def test_the_command_does_not_wait_for_an_open_pipe(tmp_path, program):
    """The command does not wait for a silent process at the other end of a pipe."""
    done = subprocess.Popen(
        [*program(os.environ), "plugins", "new"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.stderr.read().splitlines()[-1] == NOBODY
    assert done.wait(WAIT_TIMEOUT) == 2
    done.stdin.close()
    done.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--domain", "Leave"),
            "--class and --key are both empty: give one, or no event would match the handler",
        ),
        (("--key", ""), "--class and --key are both empty"),
        (("--domain", "{{ 7 * 7 }}", *KEY), "domain has a character that cannot be used: {"),
        (("--domain", " x", *KEY), "domain begins or ends with a space"),
        (("--domain", "", *KEY), "domain has neither a letter nor a digit"),
        (("--domain", "...", *KEY), "domain has neither a letter nor a digit"),
        (("--domain", "x" * 41, *KEY), "domain has 41 characters, but at most 40 are allowed"),
        (("--domain", "x\ny", *KEY), "domain has a character that cannot be used: '\\n'"),
        (("--key", "a b"), "--key has a character that cannot be used: ' '"),
        (("--class", "a'b"), "--class has a character that cannot be used: '"),
        (("--conclusion", "a'b", *KEY), "conclusion has a character that cannot be used: '"),
        (("--conclusion", "x" * 129, *KEY), "conclusion has 129 characters, but at most 128 are allowed"),
        (("--conclusion", " x", *KEY), "conclusion begins or ends with a space"),
        (
            ("--package", "Acme", *KEY),
            "package 'Acme' is not a package name: use lower-case ASCII letters",
        ),
        (("--package", "acme_leave", *KEY), "package 'acme_leave' is not a package name"),
        (("--package", "../x", *KEY), "package '../x' is not a package name"),
        (("--package", "json", *KEY), "would create a module json, which exists already"),
        (("--package", "class", *KEY), "would create a module class"),
        (("--package", "flowhooks", *KEY), "would create a module flowhooks"),
        (("--package", "flowhooks-flowhooks", *KEY), "would create a plugin flowhooks, but that name is reserved"),
        (("--author", "a<b", *KEY), "author has a character that cannot be used: <"),
        (("there", "--output-dir", "there", *KEY), "are the same: give one of them"),
    ],
)
def test_unusable_values_are_refused(run, tmp_path, arguments, said):
    """Unusable values exit with 2 and one line that names the value and reason; nothing is created."""
    result = run("plugins", "new", *arguments, "--no-input")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_all_commands_use_the_options_class_and_key(run):
    """All commands use the names `--class` and `--key`, and no others."""
    for command in (("plugins", "new"), ("routes",), ("send",), ("events", "list")):
        said = run(*command, "--help").stdout
        assert "--class" in said
        assert "--key" in said
        assert "--callback-class" not in said
        assert "--process-key" not in said


def test_an_existing_folder_is_not_changed(run, tmp_path):
    """An existing folder exits with 2 and does not change."""
    (tmp_path / "acme-leave").mkdir()
    (tmp_path / "acme-leave/mine").touch()
    result = run("plugins", "new", "--package", "acme-leave", *KEY, "--no-input")
    assert result.exit_code == 2
    assert "the folder acme-leave exists already" in result.stderr
    assert [path.name for path in (tmp_path / "acme-leave").iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_written(run, tmp_path):
    """A file at the folder's path is one line and exit code 2."""
    (tmp_path / "file").touch()
    result = run("plugins", "new", "file/in", "--package", "acme-leave", *KEY, "--no-input")
    assert result.exit_code == 2
    assert "the package cannot be written to file/in" in result.stderr


def test_without_cookiecutter(run, tmp_path, monkeypatch):
    """Without cookiecutter one line names the extra to install, before any question."""
    monkeypatch.setitem(sys.modules, "cookiecutter.main", None)
    result = run("plugins", "new")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: flowhooks plugins new needs cookiecutter, which is not installed: pip install 'flowhooks[new]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_users_cookiecutter_configuration_is_not_read(run, tmp_path, home):
    """Settings for other templates in `~/.cookiecutterrc` are not read."""
    (home / ".cookiecutterrc").write_text('default_context:\n  author: "Somebody Else"\n')
    result = run("plugins", "new", "--package", "acme-leave", *KEY, "--no-input")
    assert result.exit_code == 0, result.output
    assert not [
        path for path in (tmp_path / "acme-leave").rglob("*") if path.is_file() and "Somebody Else" in path.read_text()
    ]
    assert [path.name for path in home.iterdir()] == [".cookiecutterrc"]


def test_a_name_that_is_already_installed_is_reported(run):
    """A name in use is reported, because only the first plugin of a name is loaded."""
    from importlib.metadata import entry_points

    name = next(iter(entry_points(group="flowhooks"))).name
    result = run("plugins", "new", "--package", f"flowhooks-{name}", *KEY, "--no-input")
    assert f"A plugin {name} is already installed here" in result.stdout
