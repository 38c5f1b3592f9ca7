"""What the tests of the commands share."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import warnings

import pytest
import structlog

from flowhooks.cli import logs


@pytest.fixture
def stream():
    """A stream to log to; everything that `logs.configure` changes in this process is put back afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    levels = {name: logging.getLogger(name).level for name in logs.QUIETED}
    hooks = threading.excepthook, sys.excepthook, sys.unraisablehook
    showwarning = warnings.showwarning
    yield io.StringIO()
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
    for name, one in levels.items():
        logging.getLogger(name).setLevel(one)
    threading.excepthook, sys.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)
    warnings.showwarning = showwarning
    structlog.reset_defaults()


@pytest.fixture
def configure(stream):
    """Configures logging, and keeps pytest's own handlers out: what is hostile to one would break in the other."""

    def do(level: str, form: str, to: io.StringIO = stream) -> None:
        logs.configure(level, form, to)
        root = logging.getLogger()
        root.handlers[:] = [handler for handler in root.handlers if handler.__class__.__module__ == logs.__name__]

    return do


@pytest.fixture
def records(stream):
    """Reads what was logged as JSON: each line an object, in ASCII without control characters."""

    def read() -> list[dict]:
        lines = stream.getvalue().splitlines()
        assert stream.getvalue() == "".join(f"{line}\n" for line in lines)
        assert all(re.fullmatch(r"[ -~]+", line) for line in lines)
        return [json.loads(line, parse_constant=pytest.fail) for line in lines]

    return read
