"""The inspection of plugins in a new process: what a plugin does at its import does not make it wait in silence."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from flowhooks.cli import output
from flowhooks.cli.options import SettingsSource
from flowhooks.cli.plugins.inspection import inspect_in_subprocess

HOOK = """
from flowhooks import hookimpl

@hookimpl
def handlers():
    return []
"""
FORKS = """
import os, signal
from pathlib import Path

child = os.fork()
if child == 0:
    signal.pause()
Path(__file__).with_suffix(".pid").write_text(str(child))
"""
SLOW = """
import time
from pathlib import Path
from flowhooks.plugins import slow_loading

slow_loading.REPORT_INTERVAL = 0.02
while not Path(__file__).with_suffix(".reported").exists():
    time.sleep(0.01)
"""


@pytest.fixture
def inspect(tmp_path, monkeypatch):
    """A function that inspects a plugin of one file in a new process, and returns the plugins."""
    monkeypatch.setenv("FLOWHOOKS_PLUGINS_ALLOW", "odd")

    def run(source):
        (tmp_path / "odd.py").write_text(source + HOOK)
        options = {"database": str(tmp_path / "flowhooks.db"), "plugins_dirs": [str(tmp_path)]}
        plugins = inspect_in_subprocess(SettingsSource(config=None, options=options))["plugins"]
        return [plugin["state"] for plugin in plugins if plugin["name"] == "odd"]

    return run


def test_a_process_that_a_plugin_forks_keeps_no_command_waiting(inspect, tmp_path):
    """The output ends with the process that was started, although a child of it continues."""
    assert inspect(FORKS) == ["loaded"]
    os.kill(int((tmp_path / "odd.pid").read_text()), signal.SIGKILL)


def test_a_plugin_that_is_slow_to_load_is_named(inspect, tmp_path, monkeypatch):
    """The command that waits for the new process prints which plugin that one waits for."""
    printed = []

    def print_line(text, *, err=False):
        printed.append((text, err))
        Path(tmp_path / "odd.reported").touch()

    monkeypatch.setattr(output, "print_line", print_line)
    assert inspect(SLOW) == ["loaded"]
    assert printed[0][0].startswith(f"Waiting for plugin odd (file {tmp_path}/odd.py), which has been loading for ")
    assert printed[0][1]
