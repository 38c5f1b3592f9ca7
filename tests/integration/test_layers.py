"""Layers: a file imports only from lower layers, has one purpose, and states it in its first lines."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

import flowhooks

PACKAGE = Path(flowhooks.__file__).parent
ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
MAX_LINES = 500
"""A longer file has more than one purpose."""
SHORTER = {"app.py": 259, "execution/dispatcher.py": 239}
"""The most lines of files that only connect others: to add something there, move something out."""
CATALOGUES = {"web/admin/console/texts.py", "ledger/migrations/versions/0001_initial.py"}


def test_no_file_imports_from_a_higher_layer():
    """The contracts of import-linter hold, which a module without a layer violates too."""
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
def test_every_module_docstring_opens_with_one_sentence(file):
    """A module's docstring opens with one sentence."""
    text = ast.get_docstring(ast.parse((PACKAGE / file).read_text()))
    assert text
    assert text.partition("\n\n")[0].rstrip().endswith((".", ":"))


def test_no_file_is_longer_than_its_limit():
    """No file is longer than its limit; catalogues of texts and tables have none."""
    lengths = {str(file): len((PACKAGE / file).read_text().splitlines()) for file in FILES}
    assert {file for file, length in lengths.items() if length > SHORTER.get(file, MAX_LINES)} == CATALOGUES


@pytest.mark.parametrize("file", FILES, ids=str)
def test_docstrings_describe_only_existing_parameters(file):
    """Each name below `Args:` is a parameter of the function, or of the class's `__init__`."""
    described = {
        (node.name, name): name in _parameters(node)
        for node in ast.walk(ast.parse((PACKAGE / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        for name in _described(ast.get_docstring(node) or "")
    }
    assert [names for names, is_there in described.items() if not is_there] == []


def _described(text):
    block = re.search(r"^Args:\n((?: .*\n?|\n)+)", text, re.MULTILINE)
    return re.findall(r"^    (\w+):", block[1], re.MULTILINE) if block else []


def _parameters(node):
    """Parameter names; those of a class without an `__init__` are its fields."""
    if isinstance(node, ast.ClassDef):
        functions = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if not functions:
            return {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
        (node,) = functions
    return {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
