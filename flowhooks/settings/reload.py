"""What differs between two settings, and what of it a process can go by while it runs.

A setting says itself, where it is declared, that it is `live`. Every other one is read at the start only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from flowhooks.settings.model import Settings, iter_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsDiff:
    """Settings that were read again, beside those that a process goes by.

    Attributes:
        settings: what it can go by from now on: as before, but for the live ones.
        changed: names of the live settings that differ; `sources.NAME` for a section that the user has named.
        needs_restart: names of all others that differ.
    """

    settings: Settings
    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]


def diff(before: Settings, after: Settings) -> SettingsDiff:
    """What becomes of the settings `before` when `after` has been read.

    Args:
        before: what a process goes by.
        after: what has been read by now.
    """
    changed: list[str] = []
    kept: list[str] = []
    settings = _merge(before, after, "", changed, kept)
    return SettingsDiff(settings=settings, changed=tuple(changed), needs_restart=tuple(kept))


def live_names() -> Iterator[str]:
    """The names of the settings that a running process goes by anew; NAME stands for a part that the user chooses."""
    yield from (name for name, field in iter_settings() if field.metadata["live"])
    yield from (f"{field.name}.NAME" for field in fields(Settings) if "kind" not in field.metadata and _is_live(field))


def _merge(before: Any, after: Any, prefix: str, changed: list[str], kept: list[str]) -> Any:
    new: dict[str, Any] = {}
    for field in fields(before):
        name, old, now = prefix + field.name, getattr(before, field.name), getattr(after, field.name)
        if is_dataclass(field.default_factory):
            new[field.name] = _merge(old, now, f"{name}.", changed, kept)
        elif old != now:
            (changed if _is_live(field) else kept).extend(_names(name, old, now))
            new[field.name] = now if _is_live(field) else old
    return replace(before, **new)


def _is_live(field: Any) -> bool:
    return bool(field.metadata.get("live", False))


def _names(name: str, old: Any, now: Any) -> Iterator[str]:
    if not isinstance(old, Mapping):
        yield name
        return
    yield from (f"{name}.{key}" for key in sorted({**old, **now}) if old.get(key) != now.get(key))
