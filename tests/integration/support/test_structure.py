"""The figures of `make structure` on small sources; the limits are for the package and not tested here."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support import structure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def make_package(tmp_path, monkeypatch):
    """A function that writes a package of the given files, and makes it importable in this process."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, **sources: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for module, source in {"__init__": "", **sources}.items():
            (folder / f"{module}.py").write_text(source)
        return folder

    return make


def test_modules_that_import_each_other_are_a_cycle(make_package):
    """A cycle of three modules is one group; a module that only imports one of them is not in it."""
    make_package(
        "structure_cycle",
        first="from structure_cycle import second",
        second="from structure_cycle.third import name",
        third="from structure_cycle import first\nname = 1",
        outside="from structure_cycle import first",
    )
    assert structure.import_cycles("structure_cycle") == [
        ["structure_cycle.first", "structure_cycle.second", "structure_cycle.third"]
    ]


def test_imports_for_type_checking_count(make_package):
    """A module that imports another one for its types alone closes a cycle, too."""
    make_package(
        "structure_types",
        first="from structure_types import second",
        second="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from structure_types import first",
    )
    assert structure.import_cycles("structure_types") == [["structure_types.first", "structure_types.second"]]


def test_imports_in_one_direction_are_no_cycle(make_package):
    """Two paths of imports in one direction, without one back, are no cycle."""
    make_package(
        "structure_acyclic",
        first="from structure_acyclic import second, third",
        second="from structure_acyclic import third",
        third="",
    )
    assert structure.import_cycles("structure_acyclic") == []


def test_modules_and_packages_at_the_top_are_counted(make_package):
    """Each module and each package counts once; `__init__`, `__main__` and modules within a package do not."""
    folder = make_package("structure_top", alone="", __main__="")
    (folder / "inner").mkdir()
    (folder / "inner/__init__.py").touch()
    (folder / "inner/below.py").touch()
    (folder / "templates").mkdir()  # the folder has no module
    assert structure.siblings(folder) == ["alone", "inner"]


def test_a_class_name_used_twice_is_found():
    """A class name is found twice in two modules or one; inner and private classes count."""
    first = ast.parse("class Event: ...\nclass Once: ...\nclass _Line: ...")
    second = ast.parse("class Event: ...\ndef make():\n    class _Line: ...")
    assert structure.class_names_used_twice([first, second]) == ["Event", "_Line"]
    assert structure.class_names_used_twice([first]) == []


def test_a_vague_variable_is_found_at_its_binding():
    """A vague name counts as an assigned, loop or comprehension variable or a parameter, not where it is read."""
    source = """
one = 1
for told in ():
    print(told)
found = [wanted for wanted in ()]
def ask(several, *, said=one, events=()):
    return several
"""
    found = structure.vague_variables(ast.parse(source))
    assert sorted(found) == [(2, "one"), (3, "told"), (5, "wanted"), (6, "said"), (6, "several")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""A package."""\nfrom json import loads\n__all__ = ["loads"]', False),
        ("def __getattr__(name): ...\ndef __dir__(): ...", False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import json", False),
        ("def parse(text): ...", True),
        ("class Parser: ...", True),
        ("for name in names:\n    print(name)", True),
    ],
)
def test_an_init_with_logic_is_found(source, expected):
    """Functions, classes and loops are logic; imports, `__all__` and loading names on demand are not."""
    assert structure.has_logic(ast.parse(source)) is expected


def test_every_docstring_is_read():
    """The docstrings of a module, class, method and function are returned; `""` if there is none."""
    source = '"""M."""\nclass A:\n    """C."""\n    def f(self):\n        """F."""\ndef g(): ...'
    assert sorted(structure.docstrings(ast.parse(source))) == ["", "C.", "F.", "M."]


def test_lines_of_docstrings_and_comments_are_counted():
    """A docstring below an assignment counts; other strings and a `#` within a string do not."""
    source = '"""Of\ntwo lines."""\nLIMIT = 1  # why\n"""Of an attribute."""\n# why\nTEXT = "# no"\n'
    assert structure.docstring_and_comment_lines(source, ast.parse(source)) == (3, 2)


def test_the_program_prints_a_figure_for_each_limit():
    """Each figure with a limit is printed with it; the exit code says whether all are within."""
    done = subprocess.run([sys.executable, structure.__file__], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    lines = [line.split() for line in done.stdout.splitlines() if "(at most" in line]
    assert len(lines) == len(structure.REQUIRED)
    # Each line ends with: FIGURE (at most LIMIT)
    exceeded = [int(words[-4].replace(",", "")) > int(words[-1].rstrip(")")) for words in lines]
    assert done.returncode == int(any(exceeded))
