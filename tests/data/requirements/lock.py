"""Lock the requirements of the project and its plugins into the files beside this.

Locked versions stay as they are, as far as pyproject.toml allows; with `--upgrade` everything becomes the newest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
OLDEST, NEWEST = "3.11", "3.14"
"""The oldest and the newest Python for which everything is locked."""
MACHINES: Final = ("x86_64", "aarch64")
"""Machines for which each package needs a wheel, so that nothing is built while it is installed."""
APART: Final = "upkeep"
"""The group that has an environment of its own."""


def project(folder: Path) -> dict[str, Any]:
    """The content of a folder's project file."""
    return tomllib.loads((folder / "pyproject.toml").read_text())


def run_time(told: dict[str, Any]) -> list[str]:
    """The requirements at run time, with every extra."""
    extras = told["project"].get("optional-dependencies", {})
    return [
        *told["project"].get("dependencies", []),
        *(requirement for extra in extras.values() for requirement in extra),
    ]


def requirements() -> dict[str, list[str]]:
    """The requirements of each of the files; the project itself and its plugins are built here, not downloaded."""
    mine = project(ROOT)
    groups = mine["dependency-groups"]
    dev = [requirement for name, group in groups.items() if name != APART for requirement in group] + ["pip"]
    for told in (mine, *map(project, sorted((ROOT / "plugins").glob("flowhooks-*")))):
        dev += run_time(told) + told["build-system"]["requires"]
    ours = ("flowhooks>", "flowhooks[", "flowhooks-")
    return {
        "dev": sorted(
            {requirement for requirement in dev if not requirement.startswith(ours) and requirement != "flowhooks"}
        ),
        "run": sorted(set(run_time(mine))),
        APART: sorted(groups[APART]),
    }


def uv(*words: str, given: list[str]) -> None:
    """Run uv with the requirements in a file of its own, and without user configuration."""
    with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
        file.write("".join(f"{requirement}\n" for requirement in given))
        file.flush()
        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", file.name, "--quiet", *words]
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"UV_NO_CONFIG": "1"})


def main() -> None:
    """Write the files, and check that each can be installed without building anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="the newest of everything")
    more = ["--upgrade"] if parser.parse_args().upgrade else []
    for name, asked in requirements().items():
        file = HERE / f"{name}.txt"
        same = ["--constraint", str(HERE / "dev.txt")] if name == "run" else []
        uv(
            *("--universal", "--python-version", OLDEST, "--generate-hashes", "--no-annotate"),
            *("--custom-compile-command", "make lock"),
            *("--output-file", str(file), *same, *more),
            given=asked,
        )
        for python in (OLDEST, NEWEST):
            for machine in MACHINES:
                platform = ("--python-version", python, "--python-platform", f"{machine}-manylinux_2_28")
                uv("--only-binary", ":all:", *platform, "--output-file", os.devnull, given=[file.read_text()])
        packages = sum("==" in line for line in file.read_text().splitlines())
        print(f"tests/data/requirements/{name}.txt: {packages} packages")


if __name__ == "__main__":
    main()
