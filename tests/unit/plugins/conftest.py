"""Temporary plugins as installed: a module beside a `.dist-info` folder, and single files."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest

from flowhooks import Delivery, Event
from flowhooks.plugins.plugins import Plugins

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from flowhooks.plugins.loading import PluginInfo

GOOD = """
    from flowhooks import handler, hookimpl

    @handler(process_key="leave")
    def grant(event):
        return "granted"

    @hookimpl
    def handlers():
        return [grant]
"""


SCHEMAS = """
from pathlib import Path
@hookimpl
def schemas():
    return [Path(__file__).with_name("{name}_schemas")]
"""


class Site:
    """A folder on `sys.path` into which distributions are installed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dirs: list[Path] = []

    def install(
        self,
        name: str,
        source: str,
        *,
        target: str | None = None,
        version: str = "1.2",
        requires: Sequence[str] = (),
        schemas: Mapping[str, Any] | None = None,
    ) -> Path:
        """Install the distribution `flowhooks-NAME` with the module `NAME_plugin`, and return the module's file."""
        module = self.path / f"{name}_plugin.py"
        source = textwrap.dedent(source).lstrip()
        for path, schema in (schemas or {}).items():
            file = self.path / f"{name}_schemas" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(schema if isinstance(schema, str) else json.dumps(schema), "utf-8")
        module.write_text(source + (SCHEMAS.format(name=name) if schemas else ""))
        info = self.path / f"flowhooks_{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: flowhooks-{name}\nVersion: {version}\n"
            + "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        )
        (info / "entry_points.txt").write_text(f"[flowhooks]\n{name} = {target or module.stem}\n")
        importlib.invalidate_caches()
        return module

    def single_file(self, name: str, source: str, folder: str = "files") -> Path:
        """Write a single-file plugin into a plugins folder."""
        path = self.path.parent / folder
        path.mkdir(exist_ok=True)
        if path not in self.dirs:
            self.dirs.append(path)
        file = path / f"{name}.py"
        file.write_text(textwrap.dedent(source).lstrip())
        return file

    def load(self, **options: Any) -> Plugins:
        """Load the plugins of this folder only."""
        entry_points = [
            entry_point
            for distribution in metadata.distributions(path=[str(self.path)])
            for entry_point in distribution.entry_points.select(group="flowhooks")
        ]
        defaults: dict[str, Any] = {"dirs": self.dirs, "allow": (), "deny": (), "safe_mode": False, "sections": {}}
        return Plugins.load(**(defaults | {"entry_points": entry_points} | options))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site; modules imported from it are removed afterwards."""
    before = set(sys.modules)
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Site(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def good() -> str:
    """The source of a working plugin with one handler `grant`."""
    return GOOD


@pytest.fixture
def info_of() -> Any:
    """A function that returns the facts of a plugin by its name."""

    def find(plugins: Plugins, name: str) -> PluginInfo:
        (info,) = [info for info in plugins.infos if info.name == name]
        return info

    return find


def load_objects(**objects: object) -> Plugins:
    """Load only the plugins that are passed directly."""
    return Plugins.load(dirs=(), allow=(), deny=(), safe_mode=False, sections={}, entry_points=(), objects=objects)


@pytest.fixture
def load() -> Any:
    """The function that loads plugins passed directly: `load(name=plugin)`."""
    return load_objects


@pytest.fixture
def event() -> Event:
    """An event for a handler that listens to the key `leave`."""
    return Event(
        id="e1",
        flow_instance_id="i1",
        process_definition_key="leave",
        data={},
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.fixture
def delivery() -> Delivery:
    """A first attempt."""
    return Delivery(id="d1", event_id="e1", handler="good:grant", attempt=1)


@pytest.fixture
def attempt(event: Event, delivery: Delivery) -> Any:
    """A function that runs one attempt of the handler with an id: `attempt(plugins, "good:grant")`."""
    return lambda plugins, handler_id: plugins.run_handler(plugins.handlers[handler_id], event, delivery)
