"""Strict pyright finds nothing in the template, the documentation's complete examples and the example plugin.

Pyright is a Node program. The test is skipped unless it is installed: `npm install --global pyright`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter

from support.code_blocks import DOCS, blocks

ROOT = DOCS.parent
PYRIGHT = shutil.which("pyright")
PAGES = ("plugin-recipes.md", "write-a-plugin.md", "write-a-receiver.md")
"""Pages of `docs/how-to` with modules that have annotations. Other blocks are left out."""

pytestmark = pytest.mark.skipif(PYRIGHT is None, reason="no pyright: npm install --global pyright")


def write_template(folder):
    """Make a package of the template."""
    config = folder / "config.json"
    config.write_text(json.dumps({"replay_dir": str(folder), "cookiecutters_dir": str(folder)}))
    answers = {"domain": "Leave", "package": "acme-leave", "process_key": "leave_request", "conclusion": "approved"}
    template = str(ROOT / "plugins/cookiecutter-flowhooks-plugin")
    cookiecutter(template, no_input=True, extra_context=answers, output_dir=str(folder), config_file=str(config))


def write_modules(folder):
    """Write the modules of the pages; blocks of pages with several plugins are modules of their own."""
    for page in PAGES:
        for number, block in enumerate(blocks(DOCS / "how-to" / page, "python")):
            if "def " not in block.text or "-> " not in block.text or "\nimport acme_" in block.text:
                continue
            name = block.file or f"block_{number}.py"
            file = folder / page.removesuffix(".md") / (name if name.endswith(".py") else f"block_{number}.py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)


def test_strict_pyright_reports_nothing(tmp_path):
    """No error and no warning, on the oldest Python that is supported."""
    write_template(tmp_path)
    write_modules(tmp_path)
    shutil.copytree(ROOT / "plugins/flowhooks-contracts/src", tmp_path / "contracts/src")
    folders = sorted({str(found.parent) for found in tmp_path.rglob("src")} | {str(tmp_path / "plugin-recipes")})
    environments = [{"root": root, "extraPaths": [root, f"{root}/src", str(ROOT)]} for root in folders]
    config = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "executionEnvironments": [*environments, {"root": str(tmp_path), "extraPaths": [str(ROOT)]}],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    command = [PYRIGHT, "--project", str(tmp_path), "--pythonpath", sys.executable, "--outputjson"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [
        f"{Path(error['file']).relative_to(tmp_path)}:{error['range']['start']['line'] + 1} {error['message']}"
        for error in json.loads(ran.stdout)["generalDiagnostics"]
    ]
    assert not found, "\n".join(found)
