"""`flowhooks plugins new`: a package out of the template."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

import pytest

from flowhooks.cli.plugins import template

KEY = ("--key", "leave_request")


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """A home folder of the test's own."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    return home


def test_the_template_is_found():
    """In an editable install, in the checkout."""
    assert (template.template_dir() / "cookiecutter.json").is_file()


def test_nothing_is_asked_with_no_input(run, tmp_path, home):
    """A package is made of what is given and of defaults; nothing is written but its folder."""
    result = run("plugins", "new", "--domain", "Expenses", "--class", "com.example.Paid", "--no-input")
    assert result.exit_code == 0, result.output
    assert [one.name for one in tmp_path.iterdir()] == ["flowhooks-expenses"]
    assert list(home.iterdir()) == []
    project = tomllib.loads((tmp_path / "flowhooks-expenses/pyproject.toml").read_text())["project"]
    assert project["name"] == "flowhooks-expenses"
    assert list(project["entry-points"]["flowhooks"]) == ["expenses"]
    assert result.stdout.splitlines() == [
        "Made flowhooks-expenses: the plugin expenses.",
        "",
        "Next:",
        "  cd flowhooks-expenses",
        "  pip install -e '.[test]'",
        "  pytest",
        "  flowhooks serve",
        "and in another terminal:",
        "  flowhooks send 1 --business-key K-1 --class com.example.Paid --conclusion approved",
    ]


def test_what_is_made_can_be_loaded(run, asked, tmp_path):
    """The plugin is taken, and listens to what was said."""
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


def test_what_is_not_given_is_asked_for(run, tmp_path):
    """Domain, class, key, package, each with a default; in Chinese too, of which the package's name is made."""
    result = run("plugins", "new", given="\u5408\u540c\n\nleave_request\n\n\n")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "flowhooks-he-tong").is_dir()
    assert "What is it about [Contracts]" in result.stderr
    assert "The package's name [flowhooks-he-tong]" in result.stderr
    assert (
        "  flowhooks send 1 --business-key K-1 --key leave_request --conclusion approved" in result.stdout.splitlines()
    )


def test_an_answer_that_cannot_be_used_is_asked_for_again(run, tmp_path):
    """And neither class nor key is asked for again too."""
    result = run(
        "plugins", "new", given="a{{b\nLeave\n\n\nwith blank\ncom.example.Leave\n\nit's\n \nJSON\nacme-leave\n"
    )
    assert result.exit_code == 0, result.output
    assert "domain has a character that cannot be used: {" in result.stderr
    assert "One of the two is needed" in result.stderr
    assert "the call-back class has a blank in it" in result.stderr
    assert "conclusion has a character that cannot be used: '" in result.stderr
    assert (tmp_path / "acme-leave").is_dir()
    (source,) = tmp_path.glob("acme-leave/src/*/__init__.py")
    assert "conclusion=" not in source.read_text()


def test_nobody_is_there_to_answer(run, tmp_path):
    """Where the answers end too early, as without a terminal: what to give instead, and nothing is made."""
    result = run("plugins", "new", given="Leave\n")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "Error: nobody answers: say it with --domain, --package and --class or --key, and give --no-input"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--domain", "Leave"), "it would listen to nothing: give --class or --key"),
        (("--key", ""), "it would listen to nothing"),
        (("--domain", "{{ 7 * 7 }}", *KEY), "domain has a character that cannot be used: {"),
        (("--domain", " x", *KEY), "domain has a blank at its beginning or end"),
        (("--domain", "", *KEY), "domain is empty"),
        (("--domain", "...", *KEY), "domain has neither a letter nor a digit"),
        (("--domain", "x" * 41, *KEY), "domain has more than 40 characters"),
        (("--domain", "x\ny", *KEY), "domain has a character that cannot be printed"),
        (("--key", "a b"), "the process key has a blank in it"),
        (("--class", "a'b"), "the call-back class has a character that cannot be used: '"),
        (("--conclusion", "a'b", *KEY), "conclusion has a character that cannot be used: '"),
        (("--conclusion", "x" * 129, *KEY), "conclusion has more than 128 characters"),
        (("--conclusion", " x", *KEY), "conclusion has a blank at its beginning or end"),
        (("--package", "Acme", *KEY), "package is 1 to 60 of a-z, 0-9 and single dashes"),
        (("--package", "acme_leave", *KEY), "package is 1 to 60"),
        (("--package", "../x", *KEY), "package is 1 to 60"),
        (("--package", "json", *KEY), "would make a module json, and Python has that name already"),
        (("--package", "class", *KEY), "would make a module class"),
        (("--package", "flowhooks", *KEY), "would make a module flowhooks"),
        (("--package", "flowhooks-flowhooks", *KEY), "would make a plugin called flowhooks"),
        (("--author", "a<b", *KEY), "author has a character that cannot be used: <"),
        (("there", "--output-dir", "there", *KEY), "are the same: give one of them"),
    ],
)
def test_what_cannot_be_used_is_refused(run, tmp_path, arguments, said):
    """Exit code 2, one line that says which and why, and nothing is made."""
    result = run("plugins", "new", *arguments, "--no-input")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_classes_and_keys_are_spelt_as_everywhere_else(run):
    """`--class` and `--key` in every command that takes them, and no other names beside."""
    for command in (("plugins", "new"), ("routes",), ("send",), ("events", "list")):
        said = run(*command, "--help").stdout
        assert "--class" in said
        assert "--key" in said
        assert "--callback-class" not in said
        assert "--process-key" not in said


def test_a_folder_that_is_there_is_left_alone(run, tmp_path):
    """Exit code 2, and what is in it stays."""
    (tmp_path / "acme-leave").mkdir()
    (tmp_path / "acme-leave/mine").touch()
    result = run("plugins", "new", "--package", "acme-leave", *KEY, "--no-input")
    assert result.exit_code == 2
    assert "there is a folder acme-leave already" in result.stderr
    assert [one.name for one in (tmp_path / "acme-leave").iterdir()] == ["mine"]


def test_a_place_that_cannot_be_written(run, tmp_path):
    """A file where a folder should be: one line, exit code 2."""
    (tmp_path / "file").touch()
    result = run("plugins", "new", "file/in", "--package", "acme-leave", *KEY, "--no-input")
    assert result.exit_code == 2
    assert "the package cannot be written to file/in" in result.stderr


def test_without_cookiecutter(run, tmp_path, monkeypatch):
    """One line that says what to install, before anything is asked."""
    monkeypatch.setitem(sys.modules, "cookiecutter.main", None)
    result = run("plugins", "new")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: flowhooks plugins new needs cookiecutter, which is not installed: pip install 'flowhooks[new]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_configuration_does_not_count(run, tmp_path, home):
    """What `~/.cookiecutterrc` says of other templates is not read."""
    (home / ".cookiecutterrc").write_text('default_context:\n  author: "Somebody Else"\n')
    result = run("plugins", "new", "--package", "acme-leave", *KEY, "--no-input")
    assert result.exit_code == 0, result.output
    assert not [
        one for one in (tmp_path / "acme-leave").rglob("*") if one.is_file() and "Somebody Else" in one.read_text()
    ]
    assert [one.name for one in home.iterdir()] == [".cookiecutterrc"]


def test_a_name_that_is_installed_already_is_told(run):
    """Of two plugins of one name only the first is loaded, so who makes one should know."""
    from importlib.metadata import entry_points

    name = next(iter(entry_points(group="flowhooks"))).name
    result = run("plugins", "new", "--package", f"flowhooks-{name}", *KEY, "--no-input")
    assert f"A plugin {name} is installed here already" in result.stdout
