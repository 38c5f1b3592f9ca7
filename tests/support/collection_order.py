"""The folders in which test processes collect: each process begins in another one. And the order of the tests.

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
LARGE = ("tests", "tests/integration")
"""Folders that are divided into their files and folders."""
LONGEST = frozenset(
    ROOT / "tests/acceptance" / f"test_{name}.py"
    for name in ("checklists", "container", "demo_cluster", "openapi", "plugin_wheels", "tutorial")
)
"""Files whose tests take up to a minute each. They begin first: the other processes would wait for one that is last."""
ROTATED = pytest.StashKey[list[str]]()
"""The folders in their usual order, if this process collects in another one."""


def begin_elsewhere(config: pytest.Config) -> None:
    """Let this process begin in its own folder, if it is one of several that collect everything."""
    worker = getattr(config, "workerinput", None)
    if worker is not None and config.args == config.getini("testpaths"):
        config.stash[ROTATED] = list(config.args)
        number = int(worker["workerid"].removeprefix("gw"))
        config.args[:] = rotated(_places(config.args), number, worker["workercount"])


def sort(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort tests as a process that collects alone does: all processes must have them in the same order.

    The longest tests come first.
    """
    if folders := config.stash.get(ROTATED, None):
        parts = {item.path: item.path.relative_to(ROOT).parts for item in items}
        items.sort(key=lambda item: (folders.index(parts[item.path][0]), parts[item.path]))
    items.sort(key=lambda item: item.path not in LONGEST)


def rotated(places: Sequence[tuple[str, int]], number: int, count: int) -> list[str]:
    """Return the places from the one on at which a process begins.

    Args:
        places: paths, each with its number of test files.
        number: the number of the process, from 0; one that replaces a crashed process has the next free number.
        count: the number of processes.
    """
    paths = [path for path, _ in places]
    before = [0, *accumulate(files for _, files in places)]
    first = next(place for place, files in enumerate(before) if files >= before[-1] * (number % count) / count)
    return paths[first:] + paths[:first]


def _places(folders: Sequence[str]) -> list[tuple[str, int]]:
    found = []
    for path in folders:
        if path in LARGE:
            inside = sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / path).iterdir() if _has_tests(file))
            found += _places(inside)
        else:
            found.append((path, _files(ROOT / path)))
    return found


def _has_tests(path: Path) -> bool:
    return path.match("test_*.py") if path.is_file() else _files(path) > 0


def _files(path: Path) -> int:
    return sum(1 for _ in path.rglob("test_*.py")) if path.is_dir() else 1
