"""`flowhooks operators`: sections to add to the settings, and the descriptions of existing ones."""

from __future__ import annotations

import hashlib
import json
import tomllib

import pytest
from click.testing import CliRunner

from flowhooks.cli.main import main
from flowhooks.settings import load
from flowhooks.web.admin.passwords import PasswordVerifier

PASSWORD = "correct horse battery staple"


def run(*words, given=""):
    """Run the command."""
    return CliRunner().invoke(main, ["operators", *words], input=given)


def test_a_password(tmp_path):
    """The password is read from standard input, and only its hash is printed, in the form of the settings."""
    ran = run("new", "li.wei", "--role", "operate", given=f"{PASSWORD}\n")
    assert ran.exit_code == 0, ran.output
    assert PASSWORD not in ran.output
    (tmp_path / "f.toml").write_text(ran.stdout)
    operator = load(tmp_path / "f.toml", {}, {}).operators["li.wei"]
    assert operator.role == "operate"
    assert PasswordVerifier().verify(PASSWORD, operator.password)


def test_a_terminal_prompts_again_for_an_invalid_password(monkeypatch):
    """Different or short passwords are requested again, and are not shown."""
    monkeypatch.setattr("flowhooks.cli.operators._is_terminal", lambda: True)
    answers = ["short", "short", PASSWORD, "another one", PASSWORD, PASSWORD]
    ran = run("new", "li", "--role", "view", given="".join(f"{answer}\n" for answer in answers))
    assert ran.exit_code == 0, ran.output
    assert "12 to 256 characters" in ran.stderr
    assert PASSWORD not in ran.output
    assert tomllib.loads(ran.stdout)["operators"]["li"]["role"] == "view"


def test_a_token():
    """The token has 32 random bytes, and is shown once beside the section, not in it."""
    ran = run("new", "prometheus", "--role", "view", "--token")
    token = ran.stderr.splitlines()[-1]
    assert len(token) == 43
    assert token not in ran.stdout
    (digest,) = tomllib.loads(ran.stdout)["operators"]["prometheus"]["token_sha256"]
    assert digest == hashlib.sha256(token.encode()).hexdigest()


def test_a_role_without_a_section_is_named():
    """A role that is not built in needs a section, which the command says beside the section of the operator."""
    ran = run("new", "li", "--role", "operat", "--token")
    assert ran.exit_code == 0
    assert ran.stderr.startswith("The role operat needs a section [roles.operat]; did you mean operate?\n")
    assert "needs a section" not in run("new", "li", "--role", "operate", "--token").stderr


@pytest.mark.parametrize(
    ("words", "given", "says"),
    [
        (("new", "li"), PASSWORD, "Missing option '--role'"),
        (("new", "li", "--role", "ad min"), PASSWORD, "a name must have 1 to 100 letters"),
        (("new", "li wei", "--role", "view"), PASSWORD, "a name must have 1 to 100 letters"),
        (("new", "", "--role", "view"), PASSWORD, "a name must have 1 to 100 letters"),
        (("new", "li", "--role", "view"), "", "the standard input holds no password"),
        (("new", "li", "--role", "view"), b"p\xe4ssword-123456\n", "the password on the standard input is not UTF-8"),
        (("new", "li", "--role", "view"), "short\n", "12 to 256 characters"),
        (("new", "li", "--role", "view"), "x" * 300, "12 to 256 characters"),
        (("new", "li", "--role", "view", PASSWORD), "", "unexpected extra argument"),
    ],
)
def test_wrong_usage(words, given, says):
    """Wrong usage exits with 2 and a remedy."""
    ran = run(*words, given=given)
    assert ran.exit_code == 2
    assert says in ran.stderr


def test_the_list(tmp_path):
    """The list has names, roles and kinds of credential, as text and as JSON, without hashes."""
    file = tmp_path / "f.toml"
    file.write_text(run("new", "li", "--role", "operate", given=f"{PASSWORD}\n").stdout)
    with file.open("a") as more:
        more.write('[operators.robot]\nrole = "view"\ntoken_file = "/run/token"\n')
    listed = run("list", "--json", "--config", str(file))
    assert json.loads(listed.stdout) == {
        "operators": [
            {"name": "li", "role": "operate", "known_by": ["password"], "token_file": None},
            {"name": "robot", "role": "view", "known_by": ["token file"], "token_file": "/run/token"},
        ]
    }
    assert "argon2" not in listed.stdout + run("list", "--config", str(file)).stdout
    file.write_text("")
    assert "The settings have no operator" in run("list", "--config", str(file)).stdout


def test_a_proxy_that_logs_operators_in(tmp_path):
    """Without operators, the list says whether a proxy logs them in."""
    file = tmp_path / "flowhooks.toml"
    file.write_text('[login]\nproxy = "10.0.0.5"\ngroups = {ops = "operate"}\n')
    assert "the proxy 10.0.0.5 logs operators in" in run("list", "--config", str(file)).stdout
