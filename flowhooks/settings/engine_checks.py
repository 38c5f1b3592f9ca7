"""Checks of sources with an engine that concern more than one setting."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flowhooks.settings.engine import BODY_MEMBERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowhooks.settings.engine import EngineSettings
    from flowhooks.settings.named_sections import Source

_DEFAULT_PORTS = {"http": 80, "https": 443}


def find_problems(sources: Mapping[str, Source]) -> Iterator[str]:
    """Yield a line for each problem: ambiguous names, unusable credentials and variables, an engine of two sources.

    Args:
        sources: the sources by name.
    """
    yield from _former_names(sources)
    engines = {name: source.engine for name, source in sources.items() if source.engine is not None}
    for name, engine in engines.items():
        if engine.password is not None and not engine.username:
            yield f"sources.{name}.engine has a password, but no username, so no credential would be sent: add username"
        if ":" in engine.username:
            yield f"sources.{name}.engine.username has a colon, which HTTP Basic authentication does not allow"
        for variable in engine.variables:
            if variable in BODY_MEMBERS:
                yield (
                    f"sources.{name}.engine.variables has {variable}, which is a member of every event that "
                    "reconciliation takes in: remove it"
                )
    for (name, engine), (other, other_engine) in combinations(engines.items(), 2):
        if _address(engine.url) == _address(other_engine.url) and _share_tenants(engine, other_engine):
            yield (
                f"sources.{name}.engine and sources.{other}.engine have the same url and read the same tenants, so "
                "each instance would become two events: give each its own tenants, or remove one of the two"
            )


def _former_names(sources: Mapping[str, Source]) -> Iterator[str]:
    owners: dict[str, str] = {}
    for name, source in sources.items():
        for former in dict.fromkeys(source.former_names):
            if former in sources:
                whose = "this source's own name" if former == name else "the name of another source"
                yield f"sources.{name}.former_names has {former}, which is {whose}: remove it"
            elif (owner := owners.setdefault(former, name)) != name:
                yield f"sources.{owner}.former_names and sources.{name}.former_names both have {former}: remove one"


def _address(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme), parts.path.rstrip("/")


def _share_tenants(engine: EngineSettings, other: EngineSettings) -> bool:
    return not engine.tenants or not other.tenants or bool(set(engine.tenants) & set(other.tenants))
