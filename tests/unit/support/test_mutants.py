"""The counts of `make mutants`; a run takes minutes and is not tested."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest

from support import mutants

TESTS = Path(__file__).parents[2]


def test_each_module_has_its_tests():
    """The test files exist, and mutmut gets a file or a folder."""
    for module, files in mutants.MODULES.items():
        assert all((TESTS / file).is_file() for file in files)
        (pattern,) = mutants.settings(module)["only_mutate"]
        assert list(TESTS.parent.glob(pattern))


def test_settings_for_mutmut(tmp_path, monkeypatch):
    """Settings for mutmut are added to the project's own, in a folder that looks like the checkout."""
    monkeypatch.setattr(mutants, "FOLDER", tmp_path)
    folder = mutants.prepare("retry")
    told = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]
    assert told["mutmut"] == mutants.settings("retry")
    assert told["pytest"]["ini_options"]["filterwarnings"] == ["error"]
    assert (folder / "flowhooks" / "model" / "retry.py").is_file()
    assert mutants.prepare("retry") == folder


LISTING = """
    flowhooks.model.retry.x_a__mutmut_1: killed
    flowhooks.model.retry.x_a__mutmut_2: survived
    flowhooks.model.retry.x_a__mutmut_3: no tests
    flowhooks.model.retry.x_a__mutmut_4: timeout
    flowhooks.model.retry.x_a__mutmut_5: not checked
"""


def test_each_mutant_is_counted_once():
    """Each mutant is counted once by its result."""
    assert mutants.count_results(LISTING) == Counter(
        {"killed": 1, "survived": 1, "no tests": 1, "timeout": 1, "not checked": 1}
    )


@pytest.mark.parametrize(
    ("module", "statuses", "figures", "complaint"),
    [
        ("retry", {"killed": 80, "timeout": 5, "survived": 15}, ["100", "85", "85.0", "5"], ""),
        ("retry", {"killed": 84, "survived": 16}, ["100", "84", "84.0", "0"], "fewer than 85 in 100"),
        ("retry", {"killed": 84, "not checked": 8, "no tests": 8}, ["100", "84", "84.0", "0"], "fewer than 85 in 100"),
        ("retry", {}, ["0", "0", "0.0", "0"], "fewer than 85 in 100"),
    ],
)
def test_too_few_killed_mutants_fail(module, statuses, figures, complaint):
    """A mutant without tests counts as not killed; a module without mutants fails."""
    line, passed = mutants.row(module, Counter(statuses))
    assert line.split()[:5] == [module, *figures]
    assert " ".join(line.split()[5:]) == complaint
    assert passed is (complaint == "")


@pytest.mark.parametrize("module", ["conditions", "router", "index", "selectors"])
def test_modules_that_select_handlers_need_95_in_100(module):
    """A wrong choice of handlers loses work without an error, so their tests must kill more."""
    line, passed = mutants.row(module, Counter({"killed": 94, "survived": 6}))
    assert line.endswith("fewer than 95 in 100")
    assert not passed
    assert mutants.row(module, Counter({"killed": 95, "survived": 5}))[1]
