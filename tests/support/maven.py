"""Java projects of tests, built with Maven. A test is skipped where Maven cannot have what it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from pathlib import Path

JAVA: Final = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"]
"""The command of a short-lived JVM: no long compilation, and no parallel garbage collection."""
BUILD_TIMEOUT: Final = 400.0
"""Timeout of Maven in seconds, including the first downloads."""
_MISSING_DEPENDENCY: Final = re.compile(
    r"Could not (?:resolve|transfer|find)|could not be resolved|Failed to (?:read artifact|collect)|"
    r"Failure to transfer|Unknown host|Non-resolvable"
)
"""Maven's messages about missing downloads, which are not errors of the compiled code."""


def skip_without_maven() -> None:
    """Skip the test if Java or Maven is not installed."""
    if missing := [program for program in ("java", "mvn") if shutil.which(program) is None]:
        pytest.skip(f"{' and '.join(missing)} not found")


class Build:
    """A run of Maven that compiles all projects of a folder.

    Args:
        folder: the folder, outside of the checkout.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            completed = subprocess.run(
                ["mvn", "--batch-mode", "--fail-at-end", "-T", "2", "compile", "dependency:build-classpath"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=BUILD_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"Maven was still running after {BUILD_TIMEOUT:.0f} s")
        self._output = completed.stdout

    def class_path(self, project: str = ".") -> str:
        """Return the class path of one project. Skip the test if downloads are missing, and fail at other errors."""
        target = self._folder / project / "target"
        if (target / "classpath").exists():  # Maven writes this file last
            return f"{target / 'classes'}:{(target / 'classpath').read_text()}"
        lines = self._output.splitlines()
        errors = [line for line in lines if line.startswith("[ERROR]")] or lines[-20:]
        missing = [line for line in errors if _MISSING_DEPENDENCY.search(line)]
        if missing and "COMPILATION ERROR" not in self._output:
            pytest.skip(missing[0])
        return pytest.fail("\n".join(errors), pytrace=False)
