"""The names of the plugins that a test gives as objects."""

from __future__ import annotations

import re
import sys
from functools import reduce
from importlib.metadata import entry_points
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import PluginError
from flowhooks.hookspecs import PROJECT, hookimpl
from flowhooks.model.handler import Handler

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flowhooks.plugins.plugins import Plugins

LOOSE_HANDLERS_PLUGIN: Final = "handlers"
"""Name of the plugin that contains handlers given without a plugin."""


def name_plugins(objects: Sequence[object], names: Mapping[str, object]) -> dict[str, object]:
    """Return the plugins by name.

    Args:
        objects: modules and objects, which are named here, and single handlers, which form one plugin.
        names: further plugins, by name.

    Raises:
        PluginError: an object is not a plugin, or two plugins have the same name.
    """
    plugins: dict[str, object] = {}
    loose = [item for item in objects if isinstance(item, Handler)]
    for plugin in objects:
        if isinstance(plugin, Handler):
            continue
        if plugin is None or isinstance(plugin, str | type) or (callable(plugin) and hasattr(plugin, "__code__")):
            raise PluginError(f"give modules, objects with hooks, or handlers made by @handler, not {plugin!r}")
        _add(plugins, _name(plugin, plugins), plugin)
    if loose:
        _add(plugins, LOOSE_HANDLERS_PLUGIN, plugin_with(loose))
    for name, plugin in names.items():
        _add(plugins, name, plugin_with([plugin]) if isinstance(plugin, Handler) else plugin)
    return plugins


def plugin_with(handlers: Iterable[Handler]) -> SimpleNamespace:
    """Return a plugin that has these handlers and nothing else."""
    handler_list = list(handlers)
    return SimpleNamespace(handlers=hookimpl(lambda: handler_list))


def _add(plugins: dict[str, object], name: str, plugin: object) -> None:
    if name in plugins:
        raise PluginError(f"two plugins would have the name {name!r}: give them names, names={{'NAME': plugin, …}}")
    plugins[name] = plugin


def _name(plugin: object, taken: Mapping[str, object]) -> str:
    """Return a plugin's entry point name if it is installed, otherwise its module's name, otherwise a number."""
    for entry_point in entry_points(group=PROJECT):
        module, _, attribute = entry_point.value.partition(":")
        loaded: Any = sys.modules.get(module.strip())
        names = filter(None, attribute.strip().split("."))
        if loaded is not None and plugin is reduce(lambda item, name: getattr(item, name, None), names, loaded):
            return entry_point.name
    if isinstance(plugin, ModuleType):
        return re.sub(r"[^A-Za-z0-9._-]", "-", plugin.__name__.rpartition(".")[2])
    number = sum(name.startswith("plugin") for name in taken) + 1
    return "plugin" if number == 1 else f"plugin{number}"


def check_loaded(plugins: Plugins) -> None:
    """Check that every plugin was loaded.

    Raises:
        PluginError: a plugin is quarantined. The message has the reason and, if there is one, the traceback.
    """
    broken = [info for info in plugins.infos if info.state == "quarantined" and info.origin == "object"]
    if broken:
        raise PluginError("\n\n".join(f"{info.error}\n{info.traceback}".rstrip() for info in broken))


def plugin_warnings(plugins: Plugins, names: Iterable[str]) -> list[str]:
    """Return the warnings about these plugins, such as functions and settings without effect."""
    ours = tuple(f"plugin {name!r} " for name in names)
    return [text for text in plugins.warnings if any(mark in text for mark in ours)]
