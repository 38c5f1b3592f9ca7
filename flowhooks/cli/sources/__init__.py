"""`flowhooks sources`, one command per file."""

from __future__ import annotations

from flowhooks.cli.sources.group import command

__all__ = ["command"]
