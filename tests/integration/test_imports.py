"""Which modules a process imports, because imports are most of the processor time of a start."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from flowhooks.cli.main import COMMANDS
from flowhooks.ledger.upgrade import upgrade

RUN = """
import json, os, sys
stdout = os.dup(1)  # a command that loads plugins keeps the standard output for itself
from flowhooks.cli.main import main
try:
    main({arguments!r}, prog_name="flowhooks")
finally:
    os.write(stdout, b"\\n" + json.dumps(sorted(sys.modules)).encode())
"""
FIRST_CALLBACK = """
import json, sys
import flowhooks.cli.serve
from flowhooks import handler
from flowhooks.testing import AppHarness

@handler(callback_class="acme.Paid")
def succeeds(event):
    "Succeed."

@handler(callback_class="acme.Failed")
def fails(event):
    "Fail."
    raise ValueError

with AppHarness(succeeds, fails) as app:
    before = set(sys.modules)
    answers = [app.post(name, callBackProcessClass=f"acme.{name}") for name in ("Paid", "Failed", "Unknown")]
    assert [answer.status for answer in answers] == [200, 500, 202]
    imported = sorted(set(sys.modules) - before)
print(json.dumps(imported))  # after all log lines
"""
LIBRARIES_OF_A_SERVER = {"alembic", "falcon", "jinja2", "jsonschema", "prometheus_client", "structlog", "waitress"}
DATABASE = {"sqlalchemy", "sqlite3"}
DRIVERS = {"sqlalchemy.dialects.postgresql", "psycopg", "procrastinate", "sqlalchemy.orm"}
OTHERS = {"argon2", "cookiecutter", "importlib.metadata", "rich"}


def imported(code, *, folder):
    """The names that a new process prints as JSON at its end."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True, check=True, timeout=120
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (
            ["--help"],
            LIBRARIES_OF_A_SERVER | DATABASE | DRIVERS | OTHERS | {f"flowhooks.cli.{name}" for name in COMMANDS},
        ),
        (["send", "--help"], LIBRARIES_OF_A_SERVER | DATABASE | DRIVERS | OTHERS),
        (["events", "list", "--json"], LIBRARIES_OF_A_SERVER | DRIVERS | {"flowhooks.app", "rich"}),
        (["events", "replay", "--help"], LIBRARIES_OF_A_SERVER | DRIVERS | {"flowhooks.app", "rich"}),
        (["check", "--json"], DRIVERS | {"alembic", "falcon", "prometheus_client", "waitress", "flowhooks.app"}),
    ],
    ids=["help", "send", "list", "replay", "check"],
)
def test_a_command_imports_no_server_or_database_libraries(tmp_path, arguments, unneeded):
    """Commands import no library that only servers or other databases need."""
    upgrade(f"sqlite:///{tmp_path / 'flowhooks.db'}")
    (tmp_path / "flowhooks.toml").write_text("safe_mode = true\n")
    modules = imported(RUN.format(arguments=arguments), folder=tmp_path)
    assert "flowhooks.cli.main" in modules
    assert modules & unneeded == set()


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "existing"])
def test_a_sqlite_server_imports_no_alembic_or_postgresql_drivers(tmp_path, is_new):
    """A server on SQLite does without Alembic and the dialect of PostgreSQL, unless tables have to be migrated."""
    url = f"sqlite:///{tmp_path / 'flowhooks.db'}"
    if not is_new:
        upgrade(url)
    code = (
        "import json, sys; import flowhooks.cli.serve; from flowhooks.app import App; "
        f"from flowhooks.settings import Settings; App(Settings(database={url!r}, safe_mode=True)).close(); "
        "print(json.dumps(sorted(sys.modules)))"
    )
    modules = imported(code, folder=tmp_path)
    assert "sqlalchemy" in modules
    assert modules & (DRIVERS | {"alembic"}) == set()


def test_callbacks_import_nothing(tmp_path):
    """A server imports all modules for callbacks at its start, so the first callback is as fast as later ones."""
    assert imported(FIRST_CALLBACK, folder=tmp_path) == set()
