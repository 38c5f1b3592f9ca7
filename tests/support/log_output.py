"""The output of log records while no test configures logging."""

from __future__ import annotations

import sys

import structlog


def print_to_stdout() -> None:
    """Print records to the standard output of the process.

    By default structlog prints to `sys.stdout`, which tests of commands replace. A thread of an earlier test could then
    log into the output of a command that a later test reads.
    """
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.__stdout__))
