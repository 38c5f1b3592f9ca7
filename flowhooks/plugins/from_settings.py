"""Load the schema files and the plugins that the settings name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from flowhooks.logger import get_logger
from flowhooks.plugins.plugins import Plugins
from flowhooks.schema.schemas import Schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from importlib.metadata import EntryPoint

    from flowhooks.plugins.discovery import DiscoveredPlugin
    from flowhooks.settings import Settings

log = get_logger(__name__)


def _log_slow(plugin: DiscoveredPlugin, seconds: int) -> None:
    log.warning(
        "plugin_loading_slowly",
        plugin=plugin.name,
        origin=plugin.origin,
        seconds=seconds,
        next="nothing else starts before its import and its start hooks return; fix it, or add it to plugins_deny",
    )


def load(
    settings: Settings,
    *,
    objects: Mapping[str, object] | None = None,
    entry_points: Iterable[EntryPoint] | None = None,
    environ: Mapping[str, str] | None = None,
    on_slow: Callable[[DiscoveredPlugin, int], None] = _log_slow,
) -> tuple[Schemas, Plugins]:
    """Load the schema files and the plugins, and log which plugins are quarantined.

    Args:
        settings: the settings.
        objects: plugins given directly, by name.
        entry_points: entry points of plugins; default: the installed ones of the group `flowhooks`.
        environ: the environment from which plugins' secrets are read; default: that of this process.
        on_slow: called from another thread with a plugin that takes long to load, and the seconds so far; default: a
            warning is logged.

    Raises:
        SettingsError: a folder or schema file named in the settings cannot be used.
    """
    plugins = Plugins.load(
        dirs=[Path(folder) for folder in settings.plugins_dirs],
        allow=settings.plugins_allow,
        deny=settings.plugins_deny,
        safe_mode=settings.safe_mode,
        sections=settings.plugins,
        entry_points=entry_points,
        objects=objects or {},
        schemas=Schemas.load([Path(settings.schemas_dir)] if settings.schemas_dir else []),
        environ=os.environ if environ is None else environ,
        on_slow=on_slow,
    )
    for info in plugins.infos:
        if info.state == "quarantined":
            log.error("plugin_quarantined", plugin=info.name, origin=info.origin, why=info.error)
    for warning in plugins.warnings:
        log.warning("plugin_warning", why=warning)
    return plugins.schemas, plugins
