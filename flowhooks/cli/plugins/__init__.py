"""`flowhooks plugins`: each of its commands is in a file of its own."""

from __future__ import annotations

from flowhooks.cli.plugins.group import command

__all__ = ["command"]
