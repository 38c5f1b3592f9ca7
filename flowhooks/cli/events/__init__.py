"""`flowhooks events`: each of its commands is in a file of its own."""

from __future__ import annotations

from flowhooks.cli.events.group import command

__all__ = ["command"]
