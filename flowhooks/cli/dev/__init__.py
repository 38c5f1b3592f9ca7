"""`flowhooks dev`: a server for the development of plugins."""

from __future__ import annotations

from flowhooks.cli.dev.command import command

__all__ = ["command"]
