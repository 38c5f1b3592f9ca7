"""What a plugin's schema folders say of its settings and of the data it takes; it must not know any setting's value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from flowhooks.schema.files import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SETTINGS: Final = f"settings{SUFFIX}"
"""The schema of a plugin's own section of the settings, at the root of one of its schema folders."""
_DATA: Final = {"class": "data/class", "key": "data/key"}
_DEEPEST: Final = 5
"""Sections within sections that are gone into."""


def settings(folders: Sequence[Path], section: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each setting that the plugin says it has, then those that are set and that it does not say; never a value.

    Args:
        folders: the plugin's schema folders.
        section: its section of the present settings.

    Returns:
        For each its dotted `name`, `type` in words, `default` (None where there is none), `description`,
        whether it is `required`, whether it is `set` just now, and whether it is in the schema (`described`).
    """
    found: list[dict[str, Any]] = []
    document = _first(folders, SETTINGS)
    if document is not None:
        found = list(_properties(document, section))
    names = {one["name"].partition(".")[0] for one in found}
    found += [
        {
            "name": name,
            "type": "",
            "default": None,
            "description": "",
            "required": False,
            "set": True,
            "described": False,
        }
        for name in section
        if name not in names
    ]
    return found


def data(folders: Sequence[Path]) -> list[dict[str, str]]:
    """The schemas of what the plugin's handlers are given: `by` class or key, the `value`, and the `file`."""
    return [
        {"by": by, "value": file.name.removesuffix(SUFFIX), "file": str(file)}
        for by, place in _DATA.items()
        for folder in folders
        for file in sorted((folder / place).glob(f"*{SUFFIX}"))
    ]


def kinds(folders: Sequence[Path]) -> list[dict[str, str]]:
    """The kinds of call-back that the plugin opens: `kind` and `file`."""
    return [
        {"kind": file.name.removesuffix(SUFFIX), "file": str(file)}
        for folder in folders
        for file in sorted((folder / "call-back").glob(f"*{SUFFIX}"))
    ]


def _first(folders: Sequence[Path], name: str) -> dict[str, Any] | None:
    for folder in folders:
        try:
            document = json.loads((folder / name).read_text("utf-8-sig"))
        except (OSError, ValueError):  # that it cannot be used is what quarantines the plugin, and is shown
            continue
        if isinstance(document, dict):
            return document
    return None


def _properties(
    schema: Mapping[str, Any], section: Mapping[str, Any], prefix: str = "", depth: int = 0
) -> Iterator[dict[str, Any]]:
    properties = schema.get("properties")
    required = schema.get("required")
    for name, one in properties.items() if isinstance(properties, dict) else ():
        inner = one if isinstance(one, dict) else {}
        value = section.get(name)
        if isinstance(inner.get("properties"), dict) and depth < _DEEPEST:
            within = value if isinstance(value, dict) else {}
            yield from _properties(inner, within, f"{prefix}{name}.", depth + 1)
            continue
        yield {
            "name": prefix + name,
            "type": _type(inner),
            "default": inner.get("default"),
            "description": str(inner.get("description") or inner.get("title") or ""),
            "required": isinstance(required, list) and name in required,
            "set": name in section,
            "described": True,
        }


def _type(schema: Mapping[str, Any]) -> str:
    """What a setting may be, in words."""
    if isinstance(values := schema.get("enum"), list):
        return f"one of {', '.join(json.dumps(one, ensure_ascii=False) for one in values)}"
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    given = schema.get("type")
    text = " or ".join(map(str, given)) if isinstance(given, list) else str(given or "any")
    items = schema.get("items")
    if text == "array" and isinstance(items, dict) and isinstance(items.get("type"), str):
        return f"array of {items['type']}"
    return text
