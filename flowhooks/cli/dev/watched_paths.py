"""The files and folders whose changes restart the server of `flowhooks dev`."""

from __future__ import annotations

import site
import sysconfig
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from flowhooks.hookspecs import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowhooks.settings import Settings


def watched_paths(settings: Settings, config: Path | None, also: Sequence[Path] = ()) -> list[Path]:
    """Return the existing files and folders to watch, each once.

    Args:
        settings: the settings.
        config: the settings file; None: there is none.
        also: further paths.
    """
    folders = [*settings.plugins_dirs, *([settings.schemas_dir] if settings.schemas_dir else [])]
    found = [*map(Path, folders), *_editable_plugins(), *([config] if config else []), *also]
    return sorted({path.resolve() for path in found if path.exists()})


def _editable_plugins() -> Iterator[Path]:
    """Yield the packages of plugins that are installed as editable; others change only by an installation."""
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    installed |= {Path(folder).resolve() for folder in site.getsitepackages()}
    for entry_point in metadata.entry_points(group=PROJECT):
        spec = util.find_spec(entry_point.module.partition(".")[0])
        locations = [*(spec.submodule_search_locations or [spec.origin or ""])] if spec else []
        for location in map(Path, filter(None, locations)):
            if not installed & set(location.resolve().parents):
                yield location
