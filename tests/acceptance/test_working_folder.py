"""Relative paths start at the folder in which a process was started, although plugins change the working folder."""

from __future__ import annotations

import subprocess
import sys

from support.waiting import WAIT_TIMEOUT

MOVES_AT_IMPORT = """
import os
from flowhooks import handler, hookimpl

os.chdir(os.path.dirname(os.path.abspath(__file__)))

@handler(process_key="a")
def work(event):
    return os.getcwd()

@hookimpl
def handlers():
    return [work]
"""
"""A plugin that changes the folder when it is imported, to find its files by relative paths."""
REMOVES_ITS_FOLDER = """
import os, tempfile
from flowhooks import handler, hookimpl

@handler(process_key="a")
def work(event):
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)

@hookimpl
def handlers():
    return [work]
"""
"""A plugin that works in a temporary folder and removes it."""
BODY = {"processDefinitionKey": "a"}
OK = 200


def test_the_ledger_is_beside_its_lock(site):
    """A plugin that changes the working folder at its import does not change where the ledger is."""
    site.plugin("p", MOVES_AT_IMPORT)
    words = ("--database", "flowhooks.db", "--plugins-dir", "plugins")
    server = site.start(*words)
    assert server.post("one", BODY, Prefer="wait=60").status == OK
    refused = site.run("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *words)
    assert "is in use by process" in refused.stderr
    server.stop()
    checked = site.run("verify", "--database", "flowhooks.db")
    assert checked.returncode == 0, checked.stderr
    assert site.balance().accepted == 1
    assert not list(site.plugins.glob("*.db*"))


def test_a_working_folder_that_a_plugin_removed(site):
    """The server is ready, and its console shows pages."""
    site.plugin("p", REMOVES_ITS_FOLDER)
    server = site.start("--database", "flowhooks.db")
    assert server.post("one", BODY, Prefer="wait=60").status == OK
    assert server.ask("GET", "/readyz", admin=True).status == OK
    assert server.ask("GET", "/console/", admin=True).status == OK
    assert server.reload()["changed"] == []
    server.stop()


def test_a_start_in_a_removed_folder(site):
    """One line says why relative paths cannot be used. A command with absolute paths works."""
    folder = site.folder / "removed"

    def run(*words):
        folder.mkdir()
        script = 'rmdir "$1" && shift && exec "$@"'
        command = ["sh", "-c", script, "sh", folder, sys.executable, "-P", "-m", "flowhooks", *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WAIT_TIMEOUT, check=False)

    refused = run("serve")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("Error: the working folder cannot be used: ")
    assert run("verify").stderr.startswith("Error: the working folder cannot be used: ")
    created = run("db", "upgrade", "--database", site.database)
    assert created.returncode == 0, created.stderr
