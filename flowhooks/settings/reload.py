"""Compare two settings, and tell which differences a running process can apply.

A setting is declared `live` if it can be changed at run time. All other settings are read at start only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from flowhooks.settings.definitions import Settings, iter_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsDiff:
    """Reloaded settings compared with the current settings of a process.

    Attributes:
        settings: new current settings: the old ones with the new live values.
        changed: names of changed live settings; `sources.NAME` for a section named by the user.
        needs_restart: names of all other changed settings.
    """

    settings: Settings
    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]


def diff(before: Settings, after: Settings) -> SettingsDiff:
    """Compare the current settings with reloaded ones.

    Args:
        before: the current settings of a process.
        after: the settings that were read.
    """
    changed: list[str] = []
    kept: list[str] = []
    settings = _merge(before, after, "", changed, kept)
    return SettingsDiff(settings=settings, changed=tuple(changed), needs_restart=tuple(kept))


def live_names() -> Iterator[str]:
    """Yield the names of the live settings; NAME is a part chosen by the user."""
    yield from (name for name, field in iter_settings() if field.metadata["live"])
    yield from (f"{field.name}.NAME" for field in fields(Settings) if "kind" not in field.metadata and _is_live(field))


def _merge(before: Any, after: Any, prefix: str, changed: list[str], kept: list[str]) -> Any:
    new: dict[str, Any] = {}
    for field in fields(before):
        name, old, now = prefix + field.name, getattr(before, field.name), getattr(after, field.name)
        if is_dataclass(field.default_factory):
            new[field.name] = _merge(old, now, f"{name}.", changed, kept)
        elif old != now or _is_reordered(field, old, now):
            (changed if _is_live(field) else kept).extend(_names(name, old, now))
            new[field.name] = now if _is_live(field) else old
    return replace(before, **new)


def _is_live(field: Any) -> bool:
    return bool(field.metadata.get("live", False))


def _is_reordered(field: Any, old: Any, now: Any) -> bool:
    # Mappings are equal in any order, but of `login.groups` the first group decides. Sections have no order.
    return "kind" in field.metadata and isinstance(old, Mapping) and list(old) != list(now)


def _names(name: str, old: Any, now: Any) -> Iterator[str]:
    if not isinstance(old, Mapping) or old == now:
        yield name
        return
    yield from (f"{name}.{key}" for key in sorted({**old, **now}) if old.get(key) != now.get(key))
