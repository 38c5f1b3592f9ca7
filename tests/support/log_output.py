"""Where records go while no test configures logging."""

from __future__ import annotations

import sys

import structlog


def print_to_stderr() -> None:
    """Print records to the standard error of the process.

    By default structlog prints to standard output. A thread of an earlier test could then log into the output of a
    command that a later test reads.
    """
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.__stderr__))
