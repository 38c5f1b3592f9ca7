"""`flowhooks engines`: list engines, reconcile with them, compare their definitions with handlers."""

from __future__ import annotations

from flowhooks.cli.engines.group import command

__all__ = ["command"]
