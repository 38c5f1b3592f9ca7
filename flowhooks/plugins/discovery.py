"""Discover plugins and import them one at a time.

Discovery imports nothing: a plugin's code runs only in `DiscoveredPlugin.load`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING

from flowhooks.errors import PluginError, SettingsError
from flowhooks.hookspecs import PROJECT
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint
    from types import CodeType


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveredPlugin:
    """A plugin that was found and not yet imported.

    Attributes:
        name: name of the entry point, stem of the file, or name given with an object.
        origin: `"entry point PACKAGE:ATTRIBUTE"`, `"file PATH"` or `"object"`.
        distribution: installed package of the plugin; `""` if none.
        version: version of that package; `""` if none.
        top_module: top-level module of the plugin, which distinguishes its frames from those of libraries.
        load: imports and returns the plugin; passes on the plugin's exceptions.
        requires: requirements from the package's metadata.
    """

    name: str
    origin: str
    distribution: str
    version: str
    top_module: str
    load: Callable[[], object]
    requires: tuple[str, ...] = ()

    @property
    def origin_text(self) -> str:
        """Origin with its installed package."""
        return f"{self.origin} of {self.distribution}" if self.distribution else self.origin


def discover(
    *,
    objects: Mapping[str, object],
    entry_points: Iterable[EntryPoint] | None,
    dirs: Sequence[Path],
) -> tuple[list[DiscoveredPlugin], list[str]]:
    """Find all plugins, in the order of registration: objects, entry points by name, files by folder and name.

    Args:
        objects: plugins given directly, by name.
        entry_points: entry points to use; None: the installed ones of the group `flowhooks`.
        dirs: folders of single-file plugins.

    Returns:
        The plugins, and a warning for each installed package that cannot be read.

    Raises:
        SettingsError: a folder of `dirs` does not exist or cannot be read.
    """
    warnings: list[str] = []
    installed = _installed(warnings) if entry_points is None else list(entry_points)
    plugins = [_from_object(name, plugin) for name, plugin in objects.items()]
    plugins += sorted(map(_from_entry_point, installed), key=lambda plugin: plugin.name)
    plugins += [_from_file(path) for path in _files(dirs)]
    return plugins, warnings


def _from_object(name: str, plugin: object) -> DiscoveredPlugin:
    home = getattr(plugin, "__name__", None) or type(plugin).__module__
    return DiscoveredPlugin(
        name=name,
        origin="object",
        distribution="",
        version="",
        top_module=str(home).partition(".")[0],
        load=lambda: plugin,
    )


def _installed(warnings: list[str]) -> list[EntryPoint]:
    """Return the installed entry points of our group.

    `metadata.entry_points()` reads all packages at once, so one package with a damaged file would hide every plugin. Of
    two packages with one name the first on `sys.path` counts, as for an import.
    """
    entry_points: list[EntryPoint] = []
    seen: set[str] = set()
    for distribution in metadata.distributions():
        try:
            ours = distribution.entry_points.select(group=PROJECT)
        except Exception as error:  # noqa: BLE001 (a damaged file of another package may raise any error)
            package = _name(distribution) or f"a package in {distribution.locate_file('')}"
            warnings.append(printable_line(f"the entry points of {package} cannot be read: {error}"))
            continue
        if not ours:
            continue
        if remains := _remains(distribution):
            warnings.append(
                printable_line(f"{remains} is left of a pip run that was interrupted, and is not used: remove it")
            )
            continue
        name = re.sub(r"[-_.]+", "-", _name(distribution)).lower()
        if name not in seen and _is_first(distribution, name, warnings):
            entry_points += ours
        if name:
            seen.add(name)
    return entry_points


def _remains(distribution: metadata.Distribution) -> str:
    """Return the metadata folder if pip has renamed it in order to remove it; otherwise `""`.

    pip puts `~` first in the name, and ignores such folders. They remain if it is interrupted.
    """
    folder = getattr(distribution, "_path", None)  # there is no public name
    return str(folder) if getattr(folder, "name", "").startswith("~") else ""


def _is_first(distribution: metadata.Distribution, name: str, warnings: list[str]) -> bool:
    """Return whether no package with this name is in an earlier folder of `sys.path`; True if that is unknown.

    The earlier package may have no entry points. It is searched by the names of folders, because reading the metadata
    of every package would slow down each start. A folder without a name in its metadata is no package: a removal that
    was interrupted has left it.
    """
    folder = str(distribution.locate_file(""))
    try:
        for earlier in metadata.distributions(name=name) if name else ():
            if (other := str(earlier.locate_file(""))) == folder:
                break
            if _name(earlier):
                return False
            why = f"{name} in {other} has no readable metadata, so that in {folder} is used; remove what is left of it"
            warnings.append(printable_line(why))
    except Exception:  # noqa: BLE001 (a folder of `sys.path` may raise any error)
        return True
    return True


def _name(distribution: metadata.Distribution | None) -> str:
    return _metadata_field(distribution, "Name")


def _metadata_field(distribution: metadata.Distribution | None, field: str) -> str:
    if distribution is None:
        return ""
    try:
        return printable_line(str(distribution.metadata[field] or ""))
    except Exception:  # noqa: BLE001 (METADATA is missing or is not text)
        return ""


def _from_entry_point(entry_point: EntryPoint) -> DiscoveredPlugin:
    try:
        home = entry_point.module.partition(".")[0]
        load = entry_point.load
    except Exception:  # noqa: BLE001 (which error importlib raises here differs between Python versions)
        home, load = "", _not_an_entry_point
    return DiscoveredPlugin(
        name=entry_point.name,
        origin=f"entry point {printable_line(entry_point.value)}",
        distribution=_name(entry_point.dist),
        version=_metadata_field(entry_point.dist, "Version"),
        top_module=home,
        load=load,
        requires=_requires(entry_point.dist),
    )


def _requires(distribution: metadata.Distribution | None) -> tuple[str, ...]:
    try:
        return tuple((distribution.requires if distribution else None) or ())
    except Exception:  # noqa: BLE001 (METADATA is missing or is not text)
        return ()


def _not_an_entry_point() -> object:
    raise PluginError("its entry point is not of the form package.module:attribute")


def _files(dirs: Sequence[Path]) -> list[Path]:
    files: dict[Path, None] = {}
    for folder in dirs:
        try:
            # Up to Python 3.12, `Path.resolve` raises RuntimeError for a loop of links.
            paths = sorted(Path(os.path.realpath(folder)).iterdir())
        except OSError as error:
            raise SettingsError(f"the plugins folder {folder} cannot be read: {error.strerror}") from None
        files |= {path: None for path in paths if path.suffix == ".py" and path.name[0] not in "._" and _is_file(path)}
    return list(files)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # such as a link into a locked folder: its plugin is quarantined when it is loaded


def _from_file(path: Path) -> DiscoveredPlugin:
    # The private name keeps a file called json.py from shadowing a module. It is no package, so relative imports fail.
    module = f"{PROJECT}-file:{path.stem}"
    return DiscoveredPlugin(
        name=path.stem,
        origin=f"file {path}",
        distribution="",
        version="",
        top_module=module,
        load=lambda: _import_file(path, module),
    )


class _SourceLoader(SourceFileLoader):
    """Loads a file from its source, never from a compiled file.

    Python takes a compiled file for current if the source has the same size and the same time in whole seconds. A
    plugin that is saved twice in a second, such as before a restart, would then be the earlier one.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _import_file(path: Path, name: str) -> object:
    spec = importlib.util.spec_from_file_location(name, path, loader=_SourceLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look up a class's module there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
