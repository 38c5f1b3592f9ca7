"""The order of the folders in which test processes collect, each beginning with a different one, and of the tests.

All processes collect all tests. Before it imports a test file for the first time after a change, pytest rewrites it for
its assertions, which takes 10 s of processor time for all files, and stores the result. Processes that collected in the
same order would rewrite each file at the same time, all of them.
"""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
DIVIDED_FOLDERS = ("tests", "tests/integration")
"""Folders that are divided into their files and folders."""
SLOW_FILES = frozenset(
    ROOT / "tests/acceptance" / f"test_{name}.py"
    for name in ("checklists", "container", "demo_cluster", "openapi", "plugin_wheels", "tutorial")
)
"""Files whose tests take up to a minute each. They run first: at the end, all other processes would wait for them."""
ORIGINAL_ORDER = pytest.StashKey[list[str]]()
"""The folders in their usual order, if this process collects in another order."""


def rotate_folders(config: pytest.Config) -> None:
    """Make this process start with its own folder, if it is one of several processes that collect all tests."""
    worker = getattr(config, "workerinput", None)
    if worker is not None and config.args == config.getini("testpaths"):
        config.stash[ORIGINAL_ORDER] = list(config.args)
        number = int(worker["workerid"].removeprefix("gw"))
        config.args[:] = rotate(_count_files(config.args), number, worker["workercount"])


def sort(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort tests as a process that collects alone does: all processes must have them in the same order.

    The longest tests come first.
    """
    if folders := config.stash.get(ORIGINAL_ORDER, None):
        parts = {item.path: item.path.relative_to(ROOT).parts for item in items}
        items.sort(key=lambda item: (folders.index(parts[item.path][0]), parts[item.path]))
    items.sort(key=lambda item: item.path not in SLOW_FILES)


def rotate(paths: Sequence[tuple[str, int]], number: int, count: int) -> list[str]:
    """Return the paths in the order of a process: the path at which it starts comes first.

    Args:
        paths: paths, each with its number of test files.
        number: the number of the process, from 0; a process that replaces a crashed one has the next free number.
        count: the number of processes.
    """
    names = [path for path, _ in paths]
    before = [0, *accumulate(files for _, files in paths)]
    first = next(index for index, files in enumerate(before) if files >= before[-1] * (number % count) / count)
    return names[first:] + names[:first]


def _count_files(folders: Sequence[str]) -> list[tuple[str, int]]:
    counts = []
    for path in folders:
        if path in DIVIDED_FOLDERS:
            inside = sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / path).iterdir() if _has_tests(file))
            counts += _count_files(inside)
        else:
            counts.append((path, _file_count(ROOT / path)))
    return counts


def _has_tests(path: Path) -> bool:
    return path.match("test_*.py") if path.is_file() else _file_count(path) > 0


def _file_count(path: Path) -> int:
    return sum(1 for _ in path.rglob("test_*.py")) if path.is_dir() else 1
