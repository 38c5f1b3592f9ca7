"""How one setting is declared in its section."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowhooks.settings.types import SettingType


def setting(default: Any, kind: SettingType, doc: str, *, live: bool = False) -> Any:
    """A setting; with `live`, one that a process goes by anew when it is told to read its settings again."""
    return field(default=default, metadata={"doc": doc, "kind": kind, "live": live})
