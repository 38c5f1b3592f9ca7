"""Load discovered plugins one after another, so that a failing plugin affects no other."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

from flowhooks.errors import PluginError
from flowhooks.hookspecs import PROJECT
from flowhooks.model.handler import NAME_PATTERN
from flowhooks.plugins import default_hooks, error_text
from flowhooks.plugins.attribution import PluginAttribution
from flowhooks.plugins.log_state import LogState
from flowhooks.plugins.registration import RegisteredPlugin, RegistrationContext, create_manager, register_plugin
from flowhooks.plugins.selector_checks import why_unsatisfiable
from flowhooks.plugins.slow_loading import SlowLoadingWatch
from flowhooks.plugins.version_check import unmet_requirement
from flowhooks.settings.secrets import redactor
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pluggy import HookCaller, PluginManager

    from flowhooks.model.handler import Handler
    from flowhooks.plugins.discovery import DiscoveredPlugin
    from flowhooks.schema.schemas import Schemas

PluginState = Literal["loaded", "quarantined", "denied"]

_LOG_CHANGED: Final = (
    "plugin {name!r} has changed the log of the whole process while it was loaded, for example with logging.disable, "
    "logging.basicConfig(force=True), logging.config.dictConfig or structlog.configure; the change was undone. A "
    "plugin may add handlers and set the levels of its own loggers"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """Result of loading one discovered plugin.

    Attributes:
        name: name of the plugin. If two plugins have the same name, the second one is quarantined and listed as well.
        origin: `"entry point PACKAGE:ATTRIBUTE"`, `"file PATH"` or `"object"`.
        distribution: installed package of the plugin; `""` if none.
        version: version of that package, or the plugin's `__version__`; `""` if neither.
        state: loaded; quarantined: loading failed, and the plugin is not used; denied: excluded by the settings and not
            imported.
        error: one line that names the plugin and, if known, file and line of the error; `""` if loaded.
        traceback: traceback of the plugin, for operators only; `""` if there is none.
        handlers: handlers of the plugin.
        hooks: hooks that the plugin implements.
        documentation: first line of the plugin's docstring; `""` if it was not imported or has none.
        schema_folders: folders of schema files, if loading got that far.
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
    """Plugins that the settings exclude, checked before the import.

    Attributes:
        allow: names of the only plugins to load; empty: all.
        deny: names of plugins not to load.
        safe_mode: whether to load no plugin.
    """

    allow: tuple[str, ...]
    deny: frozenset[str]
    safe_mode: bool

    def why_denied(self, name: str) -> str | None:
        """Return why the plugin called `name` is excluded, or None."""
        if self.safe_mode:
            return "safe mode loads no plugins"
        if name in self.deny:
            return "it is in plugins_deny"
        if self.allow and name not in self.allow:
            return "it is not in plugins_allow"
        return None


@dataclass(slots=True, kw_only=True)
class Loader:
    """Loads discovered plugins one after another.

    Attributes:
        plugin_filter: plugins that the settings exclude.
        sections: sections `[plugins.NAME]` of the settings, by name.
        environ: the environment from which sections may take secrets.
        schemas: schemas in force; those of plugins are added. They stay even if the plugin is refused later, so its
            kinds of callback stay open and their events wait for it.
        version: running version of flowhooks.
        warnings: sentences for the operator; appended to.
        on_slow: called from another thread with a plugin that takes long to load, and the seconds so far.
        secrets: secrets of all plugins' sections; added to.
        shared_manager: pluggy manager with all loaded plugins, which wraps the runs.
        registered: loaded plugins by name.
        origins: origin of the first plugin of each name.
    """

    plugin_filter: PluginFilter
    sections: Mapping[str, Mapping[str, Any]]
    environ: Mapping[str, str]
    schemas: Schemas
    version: str
    warnings: list[str]
    on_slow: Callable[[DiscoveredPlugin, int], None]
    secrets: set[str] = field(default_factory=set, repr=False)
    shared_manager: PluginManager = field(default_factory=lambda: _with_builtin(create_manager()))
    registered: dict[str, RegisteredPlugin] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def load(self, discovered: DiscoveredPlugin) -> PluginInfo:
        """Load one plugin and return the result. Only KeyboardInterrupt is raised."""
        prefix = f"plugin {printable_line(repr(discovered.name))} ({discovered.origin_text}): "
        if why := self.plugin_filter.why_denied(discovered.name):
            return _info(discovered, "denied", error=prefix + why)
        section = self.sections.get(discovered.name)
        context = RegistrationContext(
            section=section,
            environ=self.environ,
            schemas=self.schemas,
            secrets=self.secrets,
            engine_clients={
                client: name for name, plugin in self.registered.items() for client in plugin.engine_clients
            },
        )
        facts: dict[str, Any] = {}
        try:
            self._claim_name(discovered)
            plugin = discovered.load()
            facts = {"version": _version(plugin), "documentation": _documentation(plugin)}
            registered = self._register(discovered.name, plugin, context)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (also SystemExit: one plugin must not stop the others)
            redact = redactor(self.secrets)
            line = prefix + error_text.error_line(error, top_module=discovered.top_module, redact=redact)
            facts |= {"error": line, "traceback": redact(error_text.traceback_text(error))}
            return _info(discovered, "quarantined", schema_folders=context.folders, **facts)
        facts |= {"handlers": registered.handlers, "hooks": registered.hooks}
        return _info(discovered, "loaded", schema_folders=context.folders, **facts)

    def load_all(self, discovered: Sequence[DiscoveredPlugin]) -> tuple[PluginInfo, ...]:
        """Load all plugins, then check with all schemas that each handler's events can occur."""
        infos = []
        with SlowLoadingWatch(self.on_slow) as watch:
            for plugin in discovered:
                watch.begin(plugin)
                log_state = LogState.read()
                infos.append(self.load(plugin))
                if log_state.restore():
                    self.warnings.append(_LOG_CHANGED.format(name=plugin.name))
        return tuple(map(self._checked, discovered, infos))

    def _checked(self, discovered: DiscoveredPlugin, info: PluginInfo) -> PluginInfo:
        whys = [why for handler in info.handlers if (why := why_unsatisfiable(handler, self.schemas))]
        if not whys:
            return info
        self.shared_manager.unregister(name=info.name)
        del self.registered[info.name]
        line = f"plugin {info.name!r} ({discovered.origin_text}): {printable_line(whys[0])}"
        return replace(info, state="quarantined", error=line, handlers=(), hooks=())

    def _claim_name(self, discovered: DiscoveredPlugin) -> None:
        # Reject the second plugin even if the first one failed, because handler ids in the ledger contain the name.
        if not NAME_PATTERN.fullmatch(discovered.name):
            raise PluginError("its name must have 1 to 100 letters, digits, '.', '_' or '-'")
        if discovered.name == PROJECT:
            raise PluginError(f"the name {PROJECT!r} is reserved")
        if first := self.origins.get(discovered.name):
            raise PluginError(
                f"there are two plugins with this name; the other one is {first}; rename or remove this one"
            )
        self.origins[discovered.name] = discovered.origin_text
        if requirement := unmet_requirement(discovered.requires, self.version):
            raise PluginError(
                f"it requires {requirement}, but this is {PROJECT} {self.version}: install a matching version of "
                f"{discovered.distribution}"
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
        self.registered[name] = result
        self.warnings += result.warnings
        return result

    def hook_callers(self, hook: str) -> tuple[tuple[str, HookCaller], ...]:
        """Return, for each plugin that implements `hook`, its name and the caller of its implementation only."""
        return tuple(
            (name, plugin.hook_callers[hook]) for name, plugin in self.registered.items() if hook in plugin.hook_callers
        )

    def attribution(self) -> PluginAttribution:
        """Return the object that finds the plugin whose `run_handler` raised."""
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
