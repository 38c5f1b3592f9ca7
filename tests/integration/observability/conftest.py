"""Fixtures shared by the tests of log records."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from flowhooks.observability import logging as logs
from support.logging_state import restore_logging  # noqa: F401 (a fixture)


@pytest.fixture
def configure(stream):
    """A function that configures logging without pytest's own handlers, which hostile values would break."""

    def do(level: str, form: str, to: io.StringIO = stream, **more: Any) -> None:
        logs.configure(level, form, to, **more)
        root = logging.getLogger()
        root.handlers[:] = [handler for handler in root.handlers if handler.__class__.__module__ == logs.__name__]

    return do


@pytest.fixture
def stream():
    """A stream for the log."""
    return io.StringIO()


@pytest.fixture
def records(stream):
    """A function that parses the log as JSON: each line is an object of printable characters."""

    def read() -> list[dict]:
        lines = stream.getvalue().splitlines()
        assert stream.getvalue() == "".join(f"{line}\n" for line in lines)
        assert all(line and line.isprintable() for line in lines)
        return [json.loads(line, parse_constant=pytest.fail) for line in lines]

    return read
