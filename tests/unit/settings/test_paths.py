"""Relative paths of settings start at one folder, whatever the working folder of the process is later."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from flowhooks import settings
from flowhooks.errors import SettingsError
from flowhooks.settings.definitions import iter_settings
from flowhooks.settings.reference import USER_NAMED

FILE = """
database = "data/flowhooks.db"
plugins_dirs = ["plugins", "/absolute/plugins"]
schemas_dir = "schemas"
[operators.li]
role = "view"
token_file = "li.token"
[sources.erp]
token_file = "erp.token"
secrets = [{file = "new.key"}, {env = "OLD"}]
[sources.erp.engine]
client = "flowable"
url = "http://erp"
username = "u"
password = {file = "password"}
[sources.crm.engine]
client = "flowable"
url = "http://crm"
token = {file = "~/token"}
[plugins.hooks]
file = "not a secret"
hooks = [{url = "https://a", secret = {file = "hook.key"}}, {secret = {env = "HOOK"}}]
"""
FOLDER = Path("/srv/flow hooks")


def test_each_path_is_absolute(write_settings):
    """A path that is absolute, or starts in the home folder, is kept."""
    folder = Path.cwd()
    write_settings(FILE)
    loaded = settings.load(None, {"HOOK": "x"}, {}, folder)
    assert loaded.database == str(folder / "data/flowhooks.db")
    assert loaded.plugins_dirs == (str(folder / "plugins"), "/absolute/plugins")
    assert loaded.schemas_dir == str(folder / "schemas")
    assert loaded.operators["li"].token_file == str(folder / "li.token")
    erp = loaded.sources["erp"]
    assert erp.token_file == str(folder / "erp.token")
    assert [(secret.file, secret.env) for secret in erp.secrets] == [(str(folder / "new.key"), ""), ("", "OLD")]
    assert erp.engine.password.file == str(folder / "password")
    assert loaded.sources["crm"].engine.token.file == str(Path.home() / "token")
    assert loaded.plugins["hooks"] == {
        "file": "not a secret",
        "hooks": [
            {"url": "https://a", "secret": {"file": str(folder / "hook.key")}},
            {"secret": {"env": "HOOK"}},
        ],
    }


def test_no_setting_with_a_path_is_forgotten(write_settings):
    """The file above has each setting whose type is a path: extend it, and the function, with a new one."""
    kinds = {name: spec.metadata["kind"] for name, spec in iter_settings()}
    for pattern, kind in USER_NAMED.items():
        kinds |= {f"{pattern}.{spec.name}": spec.metadata["kind"] for spec in fields(kind) if "kind" in spec.metadata}
    paths = {name.rpartition(".")[2] for name, kind in kinds.items() if "path" in kind.allowed.lower()}
    assert {"database", "token_file", "secrets", "password"} <= paths
    for name in paths:
        assert f"{name} = " in FILE, name


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ("flowhooks.db", "/srv/flow hooks/flowhooks.db"),
        ("/var/flowhooks.db", "/var/flowhooks.db"),
        ("sqlite:///a%20b.db", "sqlite:////srv/flow%20hooks/a%20b.db"),
        ("sqlite:////var/a%20b.db", "sqlite:////var/a%20b.db"),
        ("postgresql://db/flows", "postgresql://db/flows"),
        (
            "postgresql://db/flows?sslkey=pkcs11:token%3Dx&sslcert=c.pem",
            "postgresql://db/flows?sslkey=pkcs11:token%3Dx&sslcert=/srv/flow%20hooks/c.pem",
        ),
        (
            "postgresql://u:p?w@db/flows?sslmode=verify-full&sslrootcert=ca%201.pem&sslkey=/etc/key",
            "postgresql://u:p?w@db/flows?sslmode=verify-full&sslrootcert=/srv/flow%20hooks/ca%201.pem&sslkey=/etc/key",
        ),
        ("postgresql:///flows?sslrootcert=system&passfile=", "postgresql:///flows?sslrootcert=system&passfile="),
    ],
)
def test_a_database(database, expected):
    """The path of a file, and the files of a PostgreSQL URL, are absolute."""
    assert settings.load(None, {}, {"database": database}, FOLDER).database == expected


def test_paths_without_a_working_folder():
    """Absolute paths can be used, and the default file is not searched elsewhere. A relative path is an error."""
    Path("flowhooks.toml").write_text("answer_wait = 1")
    loaded = settings.load(None, {}, {"database": "/var/flowhooks.db"}, None)
    assert loaded.answer_wait == settings.Settings().answer_wait
    for config, options in ((None, {}), (Path("flowhooks.toml"), {"database": "/var/flowhooks.db"})):
        with pytest.raises(SettingsError, match="the working folder cannot be used: it was removed"):
            settings.load(config, {}, options, None)
