"""`flowhooks plugins`, one command per file."""

from __future__ import annotations

from flowhooks.cli.plugins.group import command

__all__ = ["command"]
