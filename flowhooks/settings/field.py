"""Declare one setting in its section."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowhooks.settings.types import SettingType


def setting(default: Any, kind: SettingType, doc: str, *, live: bool = False) -> Any:
    """Declare a setting. With `live`, a running process applies a new value when it reloads its settings."""
    return field(default=default, metadata={"doc": doc, "kind": kind, "live": live})
