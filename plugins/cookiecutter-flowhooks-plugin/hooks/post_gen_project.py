"""Take away what pip has compiled of the template's files when it installed them; it must not know what they say."""

# ruff: noqa: INP001 (cookiecutter runs it as a file)
from __future__ import annotations

import shutil
from pathlib import Path

for folder in list(Path().rglob("__pycache__")):
    shutil.rmtree(folder)
