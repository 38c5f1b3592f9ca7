"""Where the value of each setting in force comes from."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from flowhooks.settings.definitions import iter_settings, variable
from flowhooks.settings.loading import default_file
from flowhooks.settings.locations import Locations
from flowhooks.settings.reference import USER_NAMED
from flowhooks.settings.secrets import secret_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from dataclasses import Field
    from pathlib import Path

    from flowhooks.settings.definitions import Settings

HIDDEN: Final = "(hidden)"
"""Text that is shown instead of a value that may be a secret."""
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingInForce:
    """A setting that is in force.

    Attributes:
        name: dotted name, such as `http.threads` or `sources.erp.rate`.
        value: its value, as the program uses it; `HIDDEN` for a value that may be a secret.
        origin: `"option"`, `"environment"`, `"file"` or `"default"`.
        location: the option, the variable, or the file and the line; `""` for a default.
        doc: its description, one line; `""` for a setting of a plugin.
    """

    name: str
    value: Any
    origin: str
    location: str
    doc: str


def settings_in_force(
    settings: Settings, config: Path | None, environ: Mapping[str, str], options: Mapping[str, Any]
) -> Iterator[SettingInForce]:
    """Yield each setting with its value and where it comes from, in the order of a settings file.

    Settings of sources, operators, handlers, alert routes and plugins are yielded only if the file has them. Values of
    plugins are hidden, except the location of a secret.

    Args:
        settings: the result of `load` with the other arguments.
        config: as for `load`.
        environ: as for `load`.
        options: as for `load`.
    """
    path = default_file(environ) if config is None else config
    text = path.read_text("utf-8-sig") if path else ""
    table, locations = tomllib.loads(text), Locations(path, text)
    for name, spec in iter_settings():
        keys = name.split(".")
        value = _value(_at(settings, name), spec)
        if options.get(name) is not None:
            origin, location = "option", f"--{name}"
        elif variable(name) in environ:
            origin, location = "environment", variable(name)
        elif _has(table, keys):
            origin, location = "file", _location(locations, *keys)
        else:
            origin, location = "default", ""
        yield SettingInForce(name=name, value=value, origin=origin, location=location, doc=spec.metadata["doc"])
    yield from _named_sections(settings, table, locations)


def _named_sections(settings: Settings, table: Mapping[str, Any], locations: Locations) -> Iterator[SettingInForce]:
    for pattern, kind in USER_NAMED.items():
        specs = {spec.name: spec for spec in fields(kind) if "kind" in spec.metadata}
        for keys, values in _sections(table, pattern):
            section = _resolve(settings, keys)
            for key in values:
                if key in specs and section is not None:
                    yield SettingInForce(
                        name=dotted(*keys, key),
                        value=_value(getattr(section, key), specs[key]),
                        origin="file",
                        location=_location(locations, *keys, key),
                        doc=specs[key].metadata["doc"],
                    )
    for name, values in table.get("plugins", {}).items():
        for key, value in values.items():
            is_location = isinstance(value, dict) and secret_reference(value) is not None
            yield SettingInForce(
                name=dotted("plugins", name, key),
                value=value if is_location else HIDDEN,
                origin="file",
                location=_location(locations, "plugins", name, key),
                doc="",
            )


def _sections(table: Mapping[str, Any], pattern: str) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
    """Yield the sections of a pattern such as `sources.NAME.engine`, each with its keys."""
    parts = ["NAME" if "NAME" in part else part for part in pattern.split(".")]
    found: list[tuple[list[str], Any]] = [([], table)]
    for part in parts:
        found = [
            ([*keys, key], inner)
            for keys, values in found
            for key, inner in values.items()
            if part in {"NAME", key} and isinstance(inner, dict)
        ]
    yield from found


def _resolve(settings: Any, keys: Sequence[str]) -> Any:
    value = settings
    for key in keys:
        value = value.get(key) if hasattr(value, "get") else getattr(value, key, None)
    return value


def _at(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _value(value: Any, spec: Field[Any]) -> Any:
    return value if spec.repr or not value else HIDDEN


def _has(table: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(table, dict) or key not in table:
            return False
        table = table[key]
    return True


def _location(locations: Locations, *keys: str) -> str:
    return locations.of(*keys).removesuffix(" ").removesuffix(":")


def dotted(*keys: str) -> str:
    """Return a dotted name as TOML writes it, with quotes around parts that need them."""
    return ".".join(key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False) for key in keys)
