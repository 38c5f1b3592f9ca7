"""A fixture that restores a process's logging configuration."""

from __future__ import annotations

import logging
import sys
import threading
import warnings

import pytest
import structlog

from flowhooks.observability import logging as logs
from support.log_output import print_to_stdout


@pytest.fixture(autouse=True)
def restore_logging():
    """Restore everything that `logs.configure` changes in this process."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    levels = {name: logging.getLogger(name).level for name in logs.LIBRARY_LEVELS}
    hooks = threading.excepthook, sys.excepthook, sys.unraisablehook
    showwarning = warnings.showwarning
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
    for name, saved_level in levels.items():
        logging.getLogger(name).setLevel(saved_level)
    threading.excepthook, sys.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)
    warnings.showwarning = showwarning
    structlog.reset_defaults()
    print_to_stdout()
