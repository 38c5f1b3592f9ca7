"""`flowhooks sources`: each of its commands is in a file of its own."""

from __future__ import annotations

from flowhooks.cli.sources.group import command

__all__ = ["command"]
