"""The floors hold: a file imports only from below, and each says in its first lines what it must not know."""

from __future__ import annotations

import ast
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

import flowhooks

PACKAGE = Path(flowhooks.__file__).parent
ROOT = Path(__file__).parent.parent
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
WITHOUT = {Path("__init__.py"), Path("__main__.py")}
"""Files that hold nothing of their own. Migrations, a file each, say what they change."""
LONGEST = 450
"""Lines: about 300 are meant; what is longer than this holds more than one idea."""


def test_no_file_imports_from_above():
    """The contracts of import-linter are kept; a module without a floor breaks them too."""
    program = Path(sysconfig.get_path("scripts")) / "lint-imports"
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [program, "--config", "pyproject.toml", "--no-cache"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_says_what_it_must_not(file):
    """A module's docstring opens with one sentence on what it is, and says what it must not know or do."""
    text = ast.get_docstring(ast.parse((PACKAGE / file).read_text()))
    assert text
    if file not in WITHOUT and "versions" not in file.parts:
        assert "must not" in text


def test_no_file_has_grown_too_long():
    """One idea a file."""
    lengths = {str(file): len((PACKAGE / file).read_text().splitlines()) for file in FILES}
    assert {file: length for file, length in lengths.items() if length > LONGEST} == {}
