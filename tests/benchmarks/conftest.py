"""The fixture that imports the modules of the benchmarks."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def part(monkeypatch):
    """A function that returns a module of the harness, which is a folder of scripts and not a package."""
    monkeypatch.syspath_prepend(HERE)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent == HERE:
            del sys.modules[name]
