"""The page on backtests is true: its commands run as they are shown, and print what is shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from flowhooks.app import App
from flowhooks.intake.callback import Callback
from flowhooks.settings import Settings
from support.code_blocks import DOCS, blocks
from support.docs_stage import commands

PAGE = DOCS / "how-to/backtest-a-plugin.md"
FILES = {block.file: block.text for block in blocks(PAGE, "toml", "python")}
(SHOWN,) = blocks(PAGE, "text")


@pytest.fixture
def shell(tmp_path, new_database):
    """A function that runs a command in a folder with the package of the page and a ledger of five events."""
    for file, text in FILES.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    database = tmp_path / "flowhooks.db"
    database.write_bytes(Path(new_database).read_bytes())
    install_the_first_version(tmp_path / "installed")
    with closing(App(Settings(database=str(database), safe_mode=True), run=(), kind="command")) as app:
        for number in range(5):
            app.intake.accept(callback(number), wait=0)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWHOOKS_", "PYTHON"))}
    env = kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path / "installed"),
        "FLOWHOOKS_PLUGINS_DENY": ",".join(
            sorted({entry_point.name for entry_point in entry_points(group="flowhooks")})
        ),
        "PIP_CONFIG_FILE": os.devnull,
        # No downloads: what builds the package is installed here.
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
    }

    def run(command):
        return subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def callback(number):
    """A callback of leave that was approved or rejected."""
    body = {
        "processDefinitionKey": "leave_request",
        "businessKey": f"L-{number}",
        "conclusion": "approved" if number % 2 == 0 else "rejected",
        "days": 3 + number,
        "employee": "Zhang Wei",
    }
    return Callback(source="default", kind="complete", flow_instance_id=str(number), body=body, text=json.dumps(body))


def install_the_first_version(folder):
    """Put version 1.0.0 of the package, which takes every conclusion, into a folder of packages."""
    folder.mkdir()
    source = FILES["acme-leave/acme_leave.py"]
    assert ', conclusion="approved"' in source
    (folder / "acme_leave.py").write_text(source.replace(', conclusion="approved"', ""))
    info = folder / "acme_leave-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-leave\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text("[flowhooks]\nleave = acme_leave\n")


def without_ids(text):
    """A report without its ids and times."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]*…?", "ID", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)


@pytest.mark.timeout(600)
def test_the_page_from_top_to_bottom(shell):
    """The two trials report what is shown; the exported events pass the tests of the page, without real values."""
    first, script, export, tests = [command.text for block in blocks(PAGE, "sh") for command in commands(block)]
    done = shell(first)
    assert done.returncode == 1, done.stderr
    assert without_ids(done.stdout) == without_ids(SHOWN.text)
    done = shell(script)
    assert done.returncode == 0
    assert done.stdout.endswith("\nLook at the report first.\n")

    done = shell(export)
    assert done.returncode == 0, done.stderr
    exported = shell("cat acme-leave/tests/events.jsonl").stdout
    assert exported.count("\n") == 5
    assert "Aaaaa Aaa" in exported
    assert "Zhang" not in exported
    done = shell(tests)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
