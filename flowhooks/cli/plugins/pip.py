"""Run pip in this environment for an operator at a terminal."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from flowhooks.cli import output

if TYPE_CHECKING:
    from collections.abc import Sequence

_BREAK_SYSTEM_PACKAGES: Final = "--break-system-packages"


def check_available(arguments: Sequence[str]) -> None:
    """Check that pip can be run here, before anything is changed.

    Args:
        arguments: arguments for pip; with `--break-system-packages` an externally managed environment is accepted.

    Raises:
        click.ClickException: pip is missing, or the system's package manager manages this environment.
    """
    if find_spec("pip") is None:
        raise click.ClickException(
            f"the environment {sys.prefix} has no pip: `{sys.executable} -m ensurepip` puts one in, "
            "or use what made the environment, such as uv or pipx; then `flowhooks check`"
        )
    if _BREAK_SYSTEM_PACKAGES not in arguments and (marker := _externally_managed()) is not None:
        raise click.ClickException(
            f"{sys.prefix} belongs to the system's own package manager, which forbids pip there ({marker}): "
            "put flowhooks into an environment of its own (python3 -m venv DIR; DIR/bin/pip install flowhooks)"
        )


def _externally_managed() -> Path | None:
    """Return the marker file of an externally managed Python (PEP 668); None in a virtual environment."""
    if sys.prefix != sys.base_prefix:
        return None
    marker = Path(sysconfig.get_path("stdlib", sysconfig.get_default_scheme())) / "EXTERNALLY-MANAGED"
    return marker if marker.is_file() else None


def run(*arguments: str, to_stderr: bool = False) -> int:
    """Run pip with its output passed through, and return its exit code.

    Args:
        arguments: arguments after `pip`.
        to_stderr: whether to send pip's output to standard error, which keeps standard output free.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    return _run(*arguments, stdout=2 if to_stderr else None).returncode


def uninstall(name: str) -> tuple[int, str]:
    """Uninstall a package; return pip's exit code and output."""
    completed = _run("uninstall", "--yes", name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return completed.returncode, completed.stdout


def _run(*arguments: str, stdout: int | None = None, stderr: int | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 (the operator gives the arguments)
            command(*arguments), check=False, text=True, errors="replace", stdout=stdout, stderr=stderr
        )
    except KeyboardInterrupt:
        output.print_line(
            "pip was interrupted: packages may be incomplete, or old and new at once. Install or uninstall them again; "
            "`flowhooks check` names what is left.",
            err=True,
        )
        raise


def command(*arguments: str) -> list[str]:
    """Return the command that runs pip with these arguments."""
    return [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", *arguments]
