"""Loads what was found, one plugin after the other, each guarded."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from flowhooks.errors import PluginError
from flowhooks.hookspecs import PROJECT
from flowhooks.model.handler import NAME_PATTERN
from flowhooks.plugins import default_hooks, error_text
from flowhooks.plugins.attribution import PluginAttribution
from flowhooks.plugins.registration import RegisteredPlugin, RegistrationContext, create_manager, register_plugin
from flowhooks.plugins.selector_checks import why_unsatisfiable
from flowhooks.plugins.version_check import unmet_requirement
from flowhooks.settings.secrets import redactor
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pluggy import HookCaller, PluginManager

    from flowhooks.model.handler import Handler
    from flowhooks.plugins.discovery import DiscoveredPlugin
    from flowhooks.schema import Schemas

PluginState = Literal["loaded", "quarantined", "denied"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """What is known of one plugin that was found.

    Attributes:
        name: the plugin's name. Of two with one name the second is quarantined, and listed too.
        origin: `"entry point PACKAGE:ATTRIBUTE"`, `"file PATH"` or `"object"`.
        distribution: the installed package it comes from; `""` if none.
        version: that package's version, or the plugin's `__version__`; `""` if neither.
        state: loaded; quarantined: it failed and is not used; denied: the settings keep it out, it was not imported.
        error: one line that names the plugin and, where known, file and line of the fault; `""` when loaded.
        traceback: the plugin's traceback, for operators only; `""` when there is none.
        handlers: its handlers.
        hooks: the hooks it implements.
        documentation: the first line of what its author says of it; `""` if it was not imported, or has none.
        schema_folders: its folders of schema files, as far as they became known.
    """

    name: str
    origin: str
    distribution: str
    version: str
    state: PluginState
    error: str = ""
    traceback: str = field(default="", repr=False)
    handlers: tuple[Handler, ...] = ()
    hooks: tuple[str, ...] = ()
    documentation: str = ""
    schema_folders: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginFilter:
    """What the settings keep out; asked before anything is imported.

    Attributes:
        allow: the only names to take; empty: all.
        deny: names to leave out.
        safe_mode: take none.
    """

    allow: tuple[str, ...]
    deny: frozenset[str]
    safe_mode: bool

    def why_denied(self, name: str) -> str | None:
        """Why the plugin called `name` is kept out, or None."""
        if self.safe_mode:
            return "safe mode takes no plugins"
        if name in self.deny:
            return "it is in plugins_deny"
        if self.allow and name not in self.allow:
            return "it is not in plugins_allow"
        return None


@dataclass(slots=True, kw_only=True)
class Loader:
    """Loads what was found, one after the other.

    Attributes:
        plugin_filter: what the settings keep out.
        sections: the settings' `[plugins.NAME]`, by name.
        environ: the environment that sections may take secrets from.
        schemas: the schemas in force; each plugin's are added. They stay even if the plugin is refused later on: so
            its kinds of call-back stay open, and their events wait for it.
        version: the version of flowhooks that runs.
        warnings: sentences for the operator; added to.
        secrets: those of every plugin's section.
        shared_manager: the pluggy manager in which every plugin that was loaded meets: what wraps the runs.
        registered: what was loaded, by name.
        origins: who took each name first.
    """

    plugin_filter: PluginFilter
    sections: Mapping[str, Mapping[str, Any]]
    environ: Mapping[str, str]
    schemas: Schemas
    version: str
    warnings: list[str]
    secrets: set[str] = field(default_factory=set, repr=False)
    shared_manager: PluginManager = field(default_factory=lambda: _with_builtin(create_manager()))
    registered: dict[str, RegisteredPlugin] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def load(self, discovered: DiscoveredPlugin) -> PluginInfo:
        """Load one plugin, or say why not. Only KeyboardInterrupt is let through."""
        prefix = f"plugin {printable_line(repr(discovered.name))} ({discovered.origin_text}): "
        if why := self.plugin_filter.why_denied(discovered.name):
            return _info(discovered, "denied", error=prefix + why)
        section = self.sections.get(discovered.name)
        context = RegistrationContext(section=section, environ=self.environ, schemas=self.schemas, secrets=self.secrets)
        facts: dict[str, Any] = {}
        try:
            self._claim_name(discovered)
            plugin = discovered.load()
            facts = {"version": _version(plugin), "documentation": _documentation(plugin)}
            registered = self._register(discovered.name, plugin, context)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (SystemExit and its like, too: one plugin never stops the rest)
            redact = redactor(self.secrets)
            line = prefix + error_text.error_line(error, top_module=discovered.top_module, redact=redact)
            facts |= {"error": line, "traceback": redact(error_text.traceback_text(error))}
            return _info(discovered, "quarantined", schema_folders=context.folders, **facts)
        facts |= {"handlers": registered.handlers, "hooks": registered.hooks}
        return _info(discovered, "loaded", schema_folders=context.folders, **facts)

    def load_all(self, discovered: Sequence[DiscoveredPlugin]) -> tuple[PluginInfo, ...]:
        """Load one after the other; then, with all schemas there, see that each handler listens to what can come."""
        return tuple(map(self._checked, discovered, [self.load(plugin) for plugin in discovered]))

    def _checked(self, discovered: DiscoveredPlugin, info: PluginInfo) -> PluginInfo:
        whys = [why for handler in info.handlers if (why := why_unsatisfiable(handler, self.schemas))]
        if not whys:
            return info
        self.shared_manager.unregister(name=info.name)
        del self.registered[info.name]
        line = f"plugin {info.name!r} ({discovered.origin_text}): {printable_line(whys[0])}"
        return replace(info, state="quarantined", error=line, handlers=(), hooks=())

    def _claim_name(self, discovered: DiscoveredPlugin) -> None:
        # The second plugin is rejected even if the first one failed: ids in the ledger carry the name.
        if not NAME_PATTERN.fullmatch(discovered.name):
            raise PluginError("its name must be 1 to 100 letters, digits, '.', '_' or '-'")
        if discovered.name == PROJECT:
            raise PluginError(f"the name {PROJECT!r} is reserved")
        if first := self.origins.get(discovered.name):
            raise PluginError(
                f"there are two plugins of this name; the other one is {first}; rename this one, or take it away"
            )
        self.origins[discovered.name] = discovered.origin_text
        if requirement := unmet_requirement(discovered.requires, self.version):
            raise PluginError(
                f"it is made for {requirement}, and this is {PROJECT} {self.version}: install a version of "
                f"{discovered.distribution} that fits"
            )

    def _register(self, name: str, plugin: object, context: RegistrationContext) -> RegisteredPlugin:
        for other, existing in self.shared_manager.list_name_plugin():
            if existing is plugin:
                raise PluginError(f"it is the same object as plugin {other!r}")
        try:
            result = register_plugin(plugin, name=name, context=context)
        finally:
            self.schemas = context.schemas
        self.shared_manager.register(plugin, name)
        self.shared_manager.check_pending()
        self.registered[name] = result
        self.warnings += result.warnings
        return result

    def hook_callers(self, hook: str) -> tuple[tuple[str, HookCaller], ...]:
        """What calls `hook` in each plugin alone that implements it, with the plugin's name."""
        return tuple(
            (name, plugin.hook_callers[hook]) for name, plugin in self.registered.items() if hook in plugin.hook_callers
        )

    def attribution(self) -> PluginAttribution:
        """What tells whose `run_handler` raised."""
        implementations = self.shared_manager.hook.run_handler.get_hookimpls()
        handlers = [handler.function for plugin in self.registered.values() for handler in plugin.handlers]
        return PluginAttribution(
            [(impl.function, impl.plugin_name) for impl in implementations if impl.plugin_name != PROJECT],
            excluded=[default_hooks.run_handler, *handlers],
        )


def _with_builtin(plugins: PluginManager) -> PluginManager:
    plugins.register(default_hooks, PROJECT)
    return plugins


def _documentation(plugin: object) -> str:
    if isinstance(plugin, ModuleType):
        text = plugin.__doc__
    else:
        text = None if type(plugin).__module__ in {"types", "builtins"} else type(plugin).__doc__
    return printable_line(inspect.cleandoc(text or "").partition("\n")[0])


def _version(plugin: object) -> str:
    version = getattr(plugin, "__version__", "")
    return printable_line(version) if isinstance(version, str) else ""


def _info(discovered: DiscoveredPlugin, state: PluginState, *, version: str = "", **facts: Any) -> PluginInfo:
    return PluginInfo(
        name=discovered.name,
        origin=discovered.origin,
        distribution=discovered.distribution,
        version=discovered.version or version,
        state=state,
        **facts,
    )
