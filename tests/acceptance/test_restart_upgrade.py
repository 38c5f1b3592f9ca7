"""A symbolic link names the environment of a server: when the link is changed, a restart starts the new environment."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest

import flowhooks

SCRIPT = """\
#!{folder}/bin/python
import sys
from flowhooks.cli.main import main
sys.exit(main())
"""
"""The script that pip writes for `flowhooks`: its first line has the path of the environment, without the link."""
PLUGIN = """
import os, pathlib, sys
from flowhooks import handler, hookimpl

@handler(process_key="a")
def work(event):
    pathlib.Path(os.environ["JOURNAL"]).write_text(sys.prefix)

@hookimpl
def handlers():
    return [work]
"""


@pytest.fixture
def environment(site):
    """A function that makes an environment of a name, with the packages of this one, and returns its folder."""

    def make(name):
        folder = site.folder / name
        venv.create(folder, with_pip=False, symlinks=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        here = [str(Path(flowhooks.__file__).parents[1]), *(path for path in sys.path if path.endswith("-packages"))]
        (packages / "here.pth").write_text("\n".join(here))
        script = folder / "bin/flowhooks"
        script.write_text(SCRIPT.format(folder=folder))
        script.chmod(0o755)
        return folder

    return make


def test_a_restart_follows_the_link(site, environment):
    """Each restart runs the environment that the link names then, also if a supervisor starts the new process."""
    folders = [environment("v1"), environment("v2")]
    link = site.folder / "current"
    link.symlink_to(folders[0])
    site.flowhooks = [link / "bin/flowhooks"]
    site.plugin("p", PLUGIN)
    server = site.start()
    for number, folder in enumerate([folders[0], folders[1], folders[0]]):
        if number:
            link.unlink()
            link.symlink_to(folder)
            assert site.run("restart").returncode == 0
        assert server.post(f"i{number}", {"processDefinitionKey": "a"}).status == 200
        assert site.journal.read_text() == str(folder)
