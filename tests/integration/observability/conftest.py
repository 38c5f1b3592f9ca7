"""Fixtures that the tests of log records share."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from flowhooks.observability import logging as logs
from support.logging_state import logging_kept  # noqa: F401 (a fixture)


@pytest.fixture
def configure(stream):
    """Configures logging, and keeps pytest's own handlers out: what is hostile to one would break in the other."""

    def do(level: str, form: str, to: io.StringIO = stream, **more: Any) -> None:
        logs.configure(level, form, to, **more)
        root = logging.getLogger()
        root.handlers[:] = [handler for handler in root.handlers if handler.__class__.__module__ == logs.__name__]

    return do


@pytest.fixture
def stream():
    """A stream to log to."""
    return io.StringIO()


@pytest.fixture
def records(stream):
    """Reads what was logged as JSON: each line an object, of printable characters only."""

    def read() -> list[dict]:
        lines = stream.getvalue().splitlines()
        assert stream.getvalue() == "".join(f"{line}\n" for line in lines)
        assert all(line and line.isprintable() for line in lines)
        return [json.loads(line, parse_constant=pytest.fail) for line in lines]

    return read
