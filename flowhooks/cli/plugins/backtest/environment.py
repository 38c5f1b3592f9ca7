"""A temporary environment: the packages of this one, and packages that are installed over them.

Nothing is installed into this environment. In the temporary one, its own packages come first on `sys.path`, so that
they hide other versions of the same packages, and those of this environment come after them.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
import tempfile
import venv
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flowhooks.cli.plugins import pip
from flowhooks.hookspecs import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_PATH_VARIABLES: Final = ("PYTHONPATH", "PYTHONHOME")
"""Variables that put folders before the packages of an environment. The temporary one has these folders after them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnvironment:
    """A temporary environment.

    Attributes:
        python: its interpreter.
        packages: the folder of the packages that were installed into it.
        environ: environment variables for its processes.
    """

    python: Path
    packages: Path
    environ: Mapping[str, str]

    def plugins(self) -> dict[str, str]:
        """Return the plugins of the packages that were installed into it, each with its package and version."""
        return {
            entry_point.name: f"{distribution.name} {distribution.version}"
            for distribution in metadata.distributions(path=[str(self.packages)])
            for entry_point in distribution.entry_points.select(group=PROJECT)
        }


@contextmanager
def trial_environment(targets: Sequence[str], pip_options: Sequence[str]) -> Iterator[TrialEnvironment]:
    """Create a temporary environment with the packages of this one, and install packages over them.

    Args:
        targets: what to install: requirements of pip, such as wheels and folders.
        pip_options: further arguments for pip.

    Raises:
        click.ClickException: pip failed.
    """
    with tempfile.TemporaryDirectory(prefix="flowhooks-try-") as folder:
        environment = _create(Path(folder))
        _pip_install(environment, "--no-deps", "--force-reinstall", *pip_options, *targets)
        missing = missing_requirements(environment)
        if missing and "--no-deps" not in pip_options:
            _pip_install(environment, *pip_options, *missing)
        yield environment


def _create(folder: Path) -> TrialEnvironment:
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder), "platbase": str(folder)}))
    (packages / "flowhooks-try.pth").write_text(_path_file(), "utf-8", "surrogateescape")
    environ = {name: value for name, value in os.environ.items() if name not in _PATH_VARIABLES}
    return TrialEnvironment(python=python, packages=packages, environ=environ)


def _path_file() -> str:
    """Return a `.pth` file that appends the packages of this environment to `sys.path`."""
    # As site folders, so that their own .pth files take effect, such as those of editable packages.
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    add_folders = [f"import site; site.addsitedir({json.dumps(folder)})" for folder in folders]
    # Without the standard library: pip removes all that a .pth file adds from the path of an isolated build.
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    standard |= {str(Path(folder, "lib-dynload")) for folder in standard}
    others = [entry for entry in sys.path if entry not in standard and "\n" not in entry and Path(entry).is_absolute()]
    return "\n".join([*add_folders, *others, ""])


def _pip_install(environment: TrialEnvironment, *arguments: str) -> None:
    command = pip.command("--python", str(environment.python), "install", "--quiet", "--no-compile", *arguments)
    # Standard output belongs to the result of the command.
    code = subprocess.run(command, check=False, stdout=2, env=environment.environ).returncode  # noqa: S603 (the operator gives the arguments)
    if code:
        raise click.ClickException(f"pip failed with exit code {code}; its output is above")


def missing_requirements(environment: TrialEnvironment) -> list[str]:
    """Return the requirements of the packages that were installed, without those that are met.

    A requirement of flowhooks is left out: another version of it would be tried instead of this one. If this version
    does not meet it, the plugin is quarantined.
    """
    requirements = [
        requirement
        for distribution in metadata.distributions(path=[str(environment.packages)])
        for requirement in distribution.requires or ()
    ]
    return [text for text in dict.fromkeys(requirements) if _is_missing(text, environment)]


def _is_missing(text: str, environment: TrialEnvironment) -> bool:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return True  # pip names the problem
    if canonicalize_name(requirement.name) == PROJECT:
        return False
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return False
    if requirement.extras or requirement.url:
        return True
    path = [str(environment.packages), *sys.path]
    installed = next(iter(metadata.distributions(name=requirement.name, path=path)), None)
    return installed is None or not requirement.specifier.contains(installed.version, prereleases=True)
