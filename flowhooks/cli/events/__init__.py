"""`flowhooks events`, one command per file."""

from __future__ import annotations

from flowhooks.cli.events.group import command

__all__ = ["command"]
