"""Environments in which pip may not be run."""

from __future__ import annotations

import subprocess
import sys
import sysconfig

import click
import pytest

from flowhooks.cli.plugins import pip


@pytest.fixture
def of_the_system(tmp_path, monkeypatch):
    """The marker file of an externally managed Python."""
    marker = tmp_path / "EXTERNALLY-MANAGED"
    marker.write_text("[externally-managed]\nError=Use apt.\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    return marker


def test_an_externally_managed_environment_is_rejected(of_the_system):
    """An externally managed environment is refused in one line with the remedy, unless a pip option overrides that."""
    with pytest.raises(click.ClickException, match="belongs to the system's own package manager") as raised:
        pip.check_available(["acme-leave"])
    assert str(of_the_system) in raised.value.message
    assert "python3 -m venv" in raised.value.message
    pip.check_available(["acme-leave", "--break-system-packages"])
    of_the_system.unlink()
    pip.check_available(["acme-leave"])


def test_an_interrupted_pip_is_reported():
    """Ctrl-C while pip runs is passed on, with a note that packages may be incomplete."""
    interrupts = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"
    script = (
        # A background job of a shell ignores the signal.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from flowhooks.cli.plugins import pip; "
        f"pip.command = lambda *_: [sys.executable, '-c', {interrupts!r}]; pip.uninstall('acme-leave')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip was interrupted: packages may be incomplete" in " ".join(done.stderr.split())
    assert "KeyboardInterrupt" in done.stderr


def test_a_virtual_environment_ignores_the_marker_of_its_base(of_the_system, monkeypatch):
    """In a virtual environment the marker of its base Python does not count."""
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    pip.check_available(["acme-leave"])
