"""Fixtures shared by the tests of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowhooks import settings
from flowhooks.errors import SettingsError


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Each test runs in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write_settings():
    """A function that writes a settings file into the working folder."""

    def write(text: str | bytes, name: str = "flowhooks.toml") -> Path:
        path = Path(name)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def load_errors(write_settings):
    """A function that loads invalid settings, and returns the lines of the error."""

    def load_invalid(text: str | bytes = "", environ=(), options=()) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            settings.load(write_settings(text), dict(environ), dict(options))
        lines = str(caught.value).split("\n")
        assert all(line.isprintable() and line for line in lines), lines
        return lines

    return load_invalid
