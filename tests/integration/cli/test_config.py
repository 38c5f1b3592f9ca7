"""`flowhooks init` writes a settings file; `flowhooks config show` prints the settings in force and their origins."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest

from flowhooks.cli import init
from flowhooks.settings import describe, load

TOKEN_SHA256 = "a" * 64
FILE = f"""\
database = "postgresql://flow:correct-horse@db/flows"
answer_wait = 3

[http]
threads = 4

[sources."erp.main"]
token_sha256 = ["{TOKEN_SHA256}"]
rate = 5

[sources."erp.main".conclusion]
agree = "approved"

[plugins.notice]
password = {{env = "NOTICE_PASSWORD"}}
smtp = "battery-staple"
"line\\nfeed \\"x\\"" = 1

[plugins.notice.worker]
env = {{SMTP_PASSWORD = "battery-staple"}}
"""


@pytest.fixture
def shown(run_json):
    """A function that returns the settings of `config show --json` by name."""

    def show(*options, **env):
        return {setting["name"]: setting for setting in run_json("config", "show", *options, **env)["settings"]}

    return show


def test_each_origin(shown, tmp_path):
    """A value comes from an option, a variable, a line of the file, or is the default; later ones win."""
    Path("flowhooks.toml").write_text(FILE)
    found = shown("--plugins-dir", "more", FLOWHOOKS_ANSWER_WAIT="7")
    assert found["answer_wait"] == {
        "name": "answer_wait",
        "value": 7.0,
        "origin": "environment",
        "location": "FLOWHOOKS_ANSWER_WAIT",
    }
    assert (found["http.threads"]["value"], found["http.threads"]["location"]) == (4, "flowhooks.toml:5")
    assert (found["plugins_dirs"]["origin"], found["plugins_dirs"]["value"]) == (
        "option",
        [str(tmp_path / "more")],
    )
    assert (found["listen"]["origin"], found["listen"]["location"]) == ("default", "")
    assert found['sources."erp.main".rate']["location"] == "flowhooks.toml:9"
    assert found['sources."erp.main".conclusion']["value"] == {"agree": "approved"}
    assert found["database"]["location"] == "flowhooks.toml:1"
    assert found[r'plugins.notice."line\nfeed \"x\""']["location"] == "flowhooks.toml:17"


def test_no_secret_is_shown(run):
    """Passwords in URLs, digests of tokens, and values of plugins are hidden; the location of a secret is not."""
    Path("flowhooks.toml").write_text(FILE)
    for options in ((), ("--all",), ("--json",)):
        output = run("config", "show", *options).output
        assert not [secret for secret in ("correct-horse", TOKEN_SHA256, "battery-staple") if secret in output]
        assert "NOTICE_PASSWORD" in output
        assert "(hidden)" in output


def test_defaults_are_left_out_without_all(run):
    """Without --all, defaults are left out."""
    assert "All settings have their defaults" in run("config", "show", FLOWHOOKS_PLUGINS_ALLOW=None).output
    Path("flowhooks.toml").write_text("[http]\nthreads = 4\n")
    output = run("config", "show", FLOWHOOKS_PLUGINS_ALLOW=None).output
    assert re.search(r"http\.threads +4 +flowhooks\.toml:2", output)
    assert "listen" not in output
    assert re.search(r'listen +"127\.0\.0\.1:8080" +default', run("config", "show", "--all").output)


def test_settings_that_cannot_be_used(run):
    """The problems are printed as by every command."""
    Path("flowhooks.toml").write_text("nonsense = 1\n")
    result = run("config", "show")
    assert result.exit_code == 2
    assert "nonsense is not a setting" in result.output


def test_init_writes_a_file_that_changes_nothing(run, shown):
    """The file names every setting, is valid, and has the defaults."""
    result = run("init")
    assert result.exit_code == 0, result.output
    text = Path("flowhooks.toml").read_text()
    assert load(Path("flowhooks.toml"), {}, {}) == load(None, {"FLOWHOOKS_CONFIG": "/dev/null"}, {})
    for setting in describe():
        key = setting.name.rpartition(".")[2]
        assert re.search(rf"^# {re.escape(key)} =", text, re.MULTILINE) or setting.name == "plugins.NAME"
    assert not [setting for setting in shown().values() if setting["origin"] == "file"]


def test_uncommented_values_of_the_file_are_the_defaults(run):
    """With the comment marks of its values removed, the file still has the defaults."""
    run("init", "settings.toml")
    text = Path("settings.toml").read_text().partition("\n# [")[0]
    uncommented = re.sub(r"^# (\w+ = .+)$", r"\1", text, flags=re.MULTILINE)
    assert uncommented != text
    uncommented = re.sub(r'^schemas_dir = ""\n', "", uncommented, flags=re.MULTILINE)
    Path("settings.toml").write_text(uncommented)
    assert load(Path("settings.toml"), {}, {}) == load(None, {"FLOWHOOKS_CONFIG": "/dev/null"}, {})


def test_init_changes_no_file(run):
    """An existing file, a link to nothing and a folder are refused."""
    Path("flowhooks.toml").write_text("mine")
    Path("link.toml").symlink_to("missing.toml")
    for name in ("flowhooks.toml", "link.toml", "missing/flowhooks.toml"):
        result = run("init", name)
        assert result.exit_code == 2, result.output
        assert "exists already" in result.output or "cannot be written" in result.output
    assert Path("flowhooks.toml").read_text() == "mine"
    assert not Path("missing.toml").exists()


def test_init_leaves_no_part_of_a_file(run, monkeypatch):
    """If the file cannot be written completely, it is removed, so that the command can be repeated."""

    def template():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(init, "template", template)
    result = run("init")
    assert (result.exit_code, "No space left on device" in result.output) == (2, True)
    assert not Path("flowhooks.toml").exists()


def test_json_is_one_document(run):
    """`--json` names the file."""
    Path("flowhooks.toml").write_text("")
    assert json.loads(run("config", "show", "--json").stdout)["file"] == "flowhooks.toml"
