"""Delete the files that pip compiled from the template when it installed it."""

# ruff: noqa: INP001 (cookiecutter runs it as a file)
from __future__ import annotations

import shutil
from pathlib import Path

for folder in list(Path().rglob("__pycache__")):
    shutil.rmtree(folder)
