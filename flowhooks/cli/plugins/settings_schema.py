"""What a plugin's schema folders say of its settings and of the data it takes; it must not know any setting's value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from flowhooks.schema.files import CLASSES, KEYS, SETTINGS, SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_DATA: Final = {"class": CLASSES, "key": KEYS}
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
        found = list(_properties(document, section, document))
    names = {one["name"].partition(".")[0].removesuffix("[]") for one in found}
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
    schema: Mapping[str, Any], section: Mapping[str, Any], root: Mapping[str, Any], prefix: str = "", depth: int = 0
) -> Iterator[dict[str, Any]]:
    """The settings of an object, sections and lists of sections gone into: `mail.from`, `endpoints[].url`."""
    properties = schema.get("properties")
    required = schema.get("required")
    for name, given in properties.items() if isinstance(properties, dict) else ():
        one = _whole(given, root)
        value = section.get(name)
        items = _whole(one.get("items"), root)
        has_parts = isinstance(one.get("properties"), dict) and depth < _DEEPEST
        if not has_parts:
            yield {
                "name": prefix + name,
                "type": _type(one, items),
                "default": one.get("default"),
                "description": str(one.get("description") or one.get("title") or ""),
                "required": isinstance(required, list) and name in required,
                "set": name in section,
                "described": True,
            }
        if has_parts:
            yield from _properties(one, _merged([value]), root, f"{prefix}{name}.", depth + 1)
        elif isinstance(items.get("properties"), dict) and depth < _DEEPEST:
            several = value if isinstance(value, list | tuple) else []
            yield from _properties(items, _merged(several), root, f"{prefix}{name}[].", depth + 1)


def _whole(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema with what it refers to within its own file put beside it; other files are not gone into."""
    if not isinstance(schema, dict):
        return {}
    reference = schema.get("$ref")
    target: Any = root if isinstance(reference, str) and reference.startswith("#/") else None
    for step in str(reference).split("/")[1:] if target is not None else ():
        target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
    return {**target, **schema} if isinstance(target, dict) else schema


def _merged(sections: Sequence[Any]) -> dict[str, Any]:
    """What is set in any of them."""
    return {name: value for one in sections if isinstance(one, Mapping) for name, value in one.items()}


def _type(schema: Mapping[str, Any], items: Mapping[str, Any]) -> str:
    """What a setting may be, in words."""
    if isinstance(values := schema.get("enum"), list):
        return f"one of {', '.join(json.dumps(one, ensure_ascii=False) for one in values)}"
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    given = schema.get("type")
    text = " or ".join(map(str, given)) if isinstance(given, list) else str(given or "any")
    return f"array of {items['type']}" if text == "array" and isinstance(items.get("type"), str) else text
