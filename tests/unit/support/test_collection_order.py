"""Test processes collect the same files, each beginning with its share of them."""

from __future__ import annotations

from types import SimpleNamespace

from support.collection_order import ROOT, SLOW_FILES, rotate, rotate_folders, sort

PLACES = [("a", 6), ("b", 1), ("c", 5), ("d", 4), ("e", 2)]


def test_each_process_starts_with_its_share():
    """A process begins after the share of those before it, and ends with what is before its own."""
    assert rotate(PLACES, 0, 3) == ["a", "b", "c", "d", "e"]
    assert rotate(PLACES, 1, 3) == ["b", "c", "d", "e", "a"]
    assert rotate(PLACES, 2, 3) == ["d", "e", "a", "b", "c"]
    assert rotate([("a", 9)], 3, 4) == ["a"]
    assert rotate(PLACES, 4, 3) == rotate(PLACES, 1, 3)  # it replaces one that has crashed


def test_each_process_collects_all_files():
    """The folders of each process have all test files; other runs keep their arguments."""
    config = SimpleNamespace(stash={}, args=["tests", "plugins"], getini=lambda _: ["tests", "plugins"])
    rotate_folders(config)
    assert config.args == ["tests", "plugins"]
    config.workerinput = {"workerid": "gw1", "workercount": 2}
    rotate_folders(config)
    assert "tests" not in config.args
    found = {file for path in config.args for file in files_of(ROOT / path)}
    assert found == {*files_of(ROOT / "tests"), *files_of(ROOT / "plugins")}
    config.args = before = ["tests/unit"]
    rotate_folders(config)
    assert config.args == before


def test_the_longest_tests_are_first():
    """A file with long tests, which exists, comes before the others, which keep their order."""
    assert all(file.is_file() for file in SLOW_FILES)
    paths = (min(SLOW_FILES), ROOT / "tests/b.py", ROOT / "tests/a.py")
    long, other, last = (SimpleNamespace(path=path) for path in paths)
    items = [other, long, last]
    sort(SimpleNamespace(stash={}), items)
    assert items == [long, other, last]


def files_of(path):
    """The test files in a folder, or the file itself."""
    return [path] if path.is_file() else list(path.rglob("test_*.py"))
