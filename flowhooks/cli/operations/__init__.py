"""`flowhooks operations`, one file for each kind of command."""

from __future__ import annotations

from flowhooks.cli.operations.group import command

__all__ = ["command"]
