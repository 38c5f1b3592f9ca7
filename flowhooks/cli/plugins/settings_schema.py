"""Describe a plugin's settings and data from its schema folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from flowhooks.schema.files import CLASS_FOLDER, KEY_FOLDER, SETTINGS_FILE, SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_DATA_FOLDERS: Final = {"class": CLASS_FOLDER, "key": KEY_FOLDER}
_MAX_DEPTH: Final = 5
"""Maximum nesting of sections that is described."""


def describe_settings(folders: Sequence[Path], section: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Describe the settings in the plugin's schema, then those set without being in the schema; values are left out.

    Args:
        folders: schema folders of the plugin.
        section: the plugin's section of the current settings.

    Returns:
        For each setting its dotted `name`, its `type` in words, its `default` (None if there is none), its
        `description`, whether it is `required`, whether it is currently `set`, and whether the schema has it
        (`described`).
    """
    described: list[dict[str, Any]] = []
    document = _read_first(folders, SETTINGS_FILE)
    if document is not None:
        described = list(_properties(document, section, document))
    names = {setting["name"].partition(".")[0].removesuffix("[]") for setting in described}
    described += [
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
    return described


def data_schemas(folders: Sequence[Path]) -> list[dict[str, str]]:
    """Return the schemas of the data that handlers accept: `by` class or key, the `value`, and the `file`."""
    return [
        {"by": by, "value": file.name.removesuffix(SUFFIX), "file": str(file)}
        for by, place in _DATA_FOLDERS.items()
        for folder in folders
        for file in sorted((folder / place).glob(f"*{SUFFIX}"))
    ]


def kind_schemas(folders: Sequence[Path]) -> list[dict[str, str]]:
    """Return the kinds of callback that the plugin opens: `kind` and `file`."""
    return [
        {"kind": file.name.removesuffix(SUFFIX), "file": str(file)}
        for folder in folders
        for file in sorted((folder / "call-back").glob(f"*{SUFFIX}"))
    ]


def _read_first(folders: Sequence[Path], name: str) -> dict[str, Any] | None:
    for folder in folders:
        try:
            document = json.loads((folder / name).read_text("utf-8-sig"))
        except (OSError, ValueError):  # an unusable file quarantines the plugin, and that error is shown
            continue
        if isinstance(document, dict):
            return document
    return None


def _properties(
    schema: Mapping[str, Any], section: Mapping[str, Any], root: Mapping[str, Any], prefix: str = "", depth: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield the settings of an object with their paths, such as `mail.from` and `endpoints[].url`."""
    properties = schema.get("properties")
    required = schema.get("required")
    for name, subschema in properties.items() if isinstance(properties, dict) else ():
        setting_schema = _resolve_reference(subschema, root)
        value = section.get(name)
        items = _resolve_reference(setting_schema.get("items"), root)
        has_parts = isinstance(setting_schema.get("properties"), dict) and depth < _MAX_DEPTH
        if not has_parts:
            yield {
                "name": prefix + name,
                "type": _type_text(setting_schema, items),
                "default": setting_schema.get("default"),
                "description": str(setting_schema.get("description") or setting_schema.get("title") or ""),
                "required": isinstance(required, list) and name in required,
                "set": name in section,
                "described": True,
            }
        if has_parts:
            yield from _properties(setting_schema, _merge([value]), root, f"{prefix}{name}.", depth + 1)
        elif isinstance(items.get("properties"), dict) and depth < _MAX_DEPTH:
            sections = value if isinstance(value, list | tuple) else []
            yield from _properties(items, _merge(sections), root, f"{prefix}{name}[].", depth + 1)


def _resolve_reference(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Merge a schema with the target of its `$ref` if that is in the same file."""
    if not isinstance(schema, dict):
        return {}
    reference = schema.get("$ref")
    target: Any = root if isinstance(reference, str) and reference.startswith("#/") else None
    for step in str(reference).split("/")[1:] if target is not None else ():
        target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
    return {**target, **schema} if isinstance(target, dict) else schema


def _merge(sections: Sequence[Any]) -> dict[str, Any]:
    return {name: value for section in sections if isinstance(section, Mapping) for name, value in section.items()}


def _type_text(schema: Mapping[str, Any], items: Mapping[str, Any]) -> str:
    if isinstance(values := schema.get("enum"), list):
        return f"one of {', '.join(json.dumps(value, ensure_ascii=False) for value in values)}"
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    declared = schema.get("type")
    text = " or ".join(map(str, declared)) if isinstance(declared, list) else str(declared or "any")
    return f"array of {items['type']}" if text == "array" and isinstance(items.get("type"), str) else text
