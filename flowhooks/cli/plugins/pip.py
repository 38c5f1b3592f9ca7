"""pip, run in this environment for somebody at a terminal."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

_BREAK_SYSTEM_PACKAGES: Final = "--break-system-packages"


def check_available(arguments: Sequence[str]) -> None:
    """See that pip can be run here, before anything else is done.

    Args:
        arguments: what it will be given; with `--break-system-packages` an environment of the system's is no reason.

    Raises:
        click.ClickException: there is no pip, or the system manages this environment.
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
    """Run pip, what it says passed through; its exit code.

    Args:
        arguments: after `pip`.
        to_stderr: keep the standard output free: what it says goes to the standard error.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    return subprocess.run(_command(arguments), check=False, stdout=2 if to_stderr else None).returncode  # noqa: S603 (what pip is given is the operator's)


def uninstall(name: str) -> tuple[int, str]:
    """Uninstall a package; pip's exit code, and what it said."""
    completed = subprocess.run(  # noqa: S603 (the name is that of a package which is installed)
        _command(("uninstall", "--yes", name)),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return completed.returncode, completed.stdout


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", *arguments]
