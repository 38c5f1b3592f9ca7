"""Environments of wheels, without a network."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import venv
from contextlib import contextmanager
from importlib.metadata import distribution, distributions
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OFFLINE = """
import sys

def refuse(event, args):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}:
        raise OSError(f"there is no network here: {event}")

sys.addaudithook(refuse)
"""
"""The code that each Python of an `Environment` runs first."""


class Environment:
    """An environment with wheels and their requirements only, and without a network.

    Requirements are not downloaded: each file is a link to the file in the environment of these tests.

    Args:
        folder: the folder of the environment, which is created.
        like: the folder of an environment to copy; default: an empty one is created.
    """

    def __init__(self, folder, *, like=None):
        if like is None:
            venv.create(folder, with_pip=False, symlinks=True)
        else:
            shutil.copytree(like, folder, symlinks=True, copy_function=os.link)
        self.folder = folder
        self.python = folder / "bin/python"
        (self.packages,) = folder.glob("lib/python*/site-packages")
        if like is None:  # a copy has the same file, which processes of other copies may be reading
            # Not `sitecustomize`: some distributions have their own one, which Python finds first.
            (self.packages / "no_network.py").write_text(OFFLINE)
            (self.packages / "no_network.pth").write_text("import no_network\n")

    def install(self, *wheels):
        """Install wheels, and link their requirements."""
        pip = [sys.executable, "-m", "pip", "--python", self.python]
        self.run(*wheels, command=[*pip, "install", "--quiet", "--no-deps", "--no-index"])
        self.link()

    def link(self, *requirements):
        """Link requirements, such as `"flowhooks[new]"`, and those of all installed packages."""
        installed = {
            canonicalize_name(distribution.name): distribution
            for distribution in distributions(path=[str(self.packages)])
        }
        pending, seen = [Requirement(name) for name in (*installed, *requirements)], set()
        while pending:
            requirement = pending.pop()
            name, extras = canonicalize_name(requirement.name), requirement.extras or {""}
            if (name, *extras) in seen:
                continue
            seen.add((name, *extras))
            package = installed.get(name) or self._link(name)
            required = map(Requirement, package.requires or ())
            pending += [
                dependency
                for dependency in required
                if not dependency.marker or any(dependency.marker.evaluate({"extra": extra}) for extra in extras)
            ]

    def _link(self, name):
        package = distribution(name)
        for file in package.files:
            if ".." in file.parts:
                continue
            _link_file(self.packages / file, file.locate())
            if file.suffix == ".py":  # otherwise each environment would compile it
                compiled = Path(cache_from_source(file.locate()))
                if compiled.exists():
                    _link_file(Path(cache_from_source(self.packages / file)), compiled)
        return package

    def run(self, *words, command=None, cwd=None, code=0, **environ):
        """Run a module or `command` in the environment and return its output; the exit code must be `code`."""
        inherited = {
            name: value for name, value in os.environ.items() if not re.match("FLOWHOOKS_|PYTHON|PYTEST", name)
        }
        completed = subprocess.run(
            [str(word) for word in (*(command or [self.python, "-P", "-m"]), *words)],
            cwd=cwd or self.folder,
            env=inherited | {"COLUMNS": "100", "PIP_CONFIG_FILE": os.devnull} | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert completed.returncode == code, completed.stdout[-3000:] + completed.stderr[-3000:]
        return completed.stdout + completed.stderr


def _link_file(link, file):
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)


def build_wheel(project, folder):
    """Build the wheel of a project without downloads."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, project]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout[-2000:] + completed.stderr[-2000:]


@contextmanager
def locked(path):
    """Hold a lock that all test processes share."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the lock is released when the file is closed
        yield
