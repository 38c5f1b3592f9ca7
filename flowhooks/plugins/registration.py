"""Register one plugin: check its hooks, then collect its schemas, handlers and engine clients.

Each plugin is registered in a pluggy manager of its own. Hook calls there reach this plugin only, so an exception
affects no other plugin, and a refused plugin leaves nothing in the shared manager.
"""

from __future__ import annotations

import difflib
import inspect
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pluggy

from flowhooks import hookspecs
from flowhooks.errors import PluginError, SettingsError
from flowhooks.model.handler import Handler
from flowhooks.plugins.selector_checks import unused_data_schemas
from flowhooks.schema.plugin_schemas import PluginSchemas, load_plugin_schemas
from flowhooks.settings.secrets import location_text, resolve_secrets
from flowhooks.settings.types import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from flowhooks.model.engine import EngineClientFactory
    from flowhooks.schema.schemas import Schemas


def create_manager() -> pluggy.PluginManager:
    """Return a pluggy manager with our hook specifications and no plugins."""
    plugins = pluggy.PluginManager(hookspecs.PROJECT)
    plugins.add_hookspecs(hookspecs)
    return plugins


def _hooks() -> dict[str, tuple[str, ...]]:
    plugins = pluggy.PluginManager(hookspecs.PROJECT)
    return {
        name: tuple(inspect.signature(spec).parameters)
        for name, spec in vars(hookspecs).items()
        if plugins.parse_hookspec_opts(hookspecs, name) is not None
    }


HOOKS: Final[Mapping[str, tuple[str, ...]]] = _hooks()
"""Hooks with the names of their arguments, in the order of `hookspecs.py`."""
_MAY_BE_GENERATORS: Final = frozenset({"handlers", "schemas"})
"""Hooks whose result is iterated. Any other generator is a wrapper whose author did not mark it as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredPlugin:
    """A plugin that passed every check.

    Attributes:
        hooks: implemented hooks, in the order of `hookspecs.py`.
        handlers: handlers, with the plugin's name filled in.
        engine_clients: factories of engine clients, by the name that the settings use.
        schema_folders: folders of schema files.
        schemas: schemas of the plugin's own settings and data.
        hook_callers: caller of this plugin's implementation only, by hook.
        warnings: warnings for the plugin's author that do not keep it from running.
    """

    hooks: tuple[str, ...]
    handlers: tuple[Handler, ...]
    engine_clients: Mapping[str, EngineClientFactory]
    schema_folders: tuple[Path, ...]
    schemas: PluginSchemas
    hook_callers: Mapping[str, pluggy.HookCaller]
    warnings: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class RegistrationContext:
    """Inputs of a registration, and results that are kept even if the plugin is refused later.

    Attributes:
        section: the plugin's section of the settings; None if there is none.
        environ: the environment from which the section may take secrets.
        schemas: schemas in force; those of the plugin are added as soon as they are valid, even if it is refused later.
        secrets: the secrets found in the section are added.
        engine_clients: the plugin of each engine client that is registered already.
        folders: set to the plugin's schema folders as soon as they are known, even if it is refused later.
    """

    section: Mapping[str, Any] | None
    environ: Mapping[str, str]
    schemas: Schemas
    secrets: set[str] = field(repr=False)
    engine_clients: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()


def register_plugin(plugin: object, *, name: str, context: RegistrationContext) -> RegisteredPlugin:
    """Check a plugin's hooks, read its schema folders, configure it, and collect its handlers and engine clients.

    Args:
        plugin: a module or an object.
        name: name of the plugin.
        context: inputs of the registration; updated.

    Raises:
        PluginError: the plugin cannot be used.
        BaseException: raised by the plugin.
    """
    own = create_manager()
    hooks = _register(own, plugin, name)
    warnings = [
        f"plugin {name!r} has a function {hook!r} ({place}) without @hookimpl: it is not called"
        for hook, place in _unmarked(own, plugin)
    ]
    context.folders = tuple(_folder(folder) for folder in _collect(own, "schemas", "folders"))
    try:
        context.schemas, schemas = load_plugin_schemas(context.schemas, context.folders)
    except SettingsError as error:
        raise PluginError(str(error)) from None
    if "configure" in hooks:
        own.hook.configure(settings=_section(name, context, schemas))
    elif context.section is not None:
        warnings.append(f"the settings have a section [plugins.{name}], but plugin {name!r} has no settings")
    elif schemas.has_settings_schema:
        warnings.append(f"plugin {name!r} has a schema for settings, but has no settings: it has no hook 'configure'")
    handlers = _with_plugin([_handler(item) for item in _collect(own, "handlers", "handlers")], plugin=name)
    warnings += [
        f"plugin {name!r} has a schema {file}, but {why}" for file, why in unused_data_schemas(schemas, handlers)
    ]
    return RegisteredPlugin(
        hooks=hooks,
        handlers=handlers,
        engine_clients=_engine_clients(own, context.engine_clients),
        schema_folders=context.folders,
        schemas=schemas,
        hook_callers={hook: getattr(own.hook, hook) for hook in hooks},
        warnings=tuple(warnings),
    )


def _section(name: str, context: RegistrationContext, schemas: PluginSchemas) -> dict[str, Any]:
    """Return a copy of the plugin's section with its secrets filled in, validated by its own schema."""
    try:
        section, secrets = resolve_secrets(context.section or {}, plugin=name, environ=context.environ)
    except SettingsError as error:
        raise PluginError(str(error)) from None
    context.secrets |= secrets
    if refused := schemas.settings_violations(section):
        raise PluginError("; ".join(f"{location_text(name, path)} {why}" for path, why in refused))
    return section


def function_location(function: Callable[..., Any]) -> str:
    """Return `file:line` of a function, or its representation if it has no Python code."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function)


def _register(own: pluggy.PluginManager, plugin: object, name: str) -> tuple[str, ...]:
    """Register `plugin`; return the names of the hooks it implements."""
    if plugin is None or isinstance(plugin, type):
        raise PluginError(f"a plugin must be a module or an object, not {plugin!r}")
    try:
        own.register(plugin, name)
    except pluggy.PluginValidationError as error:
        raise PluginError(_invalid_hook(own, plugin, str(error))) from None
    implementations = [
        (caller.name, impl) for caller in own.get_hookcallers(plugin) or () for impl in caller.get_hookimpls()
    ]
    try:
        own.check_pending()
    except pluggy.PluginValidationError:
        raise PluginError(
            "; ".join(_unknown_hook(hook, impl) for hook, impl in implementations if hook not in HOOKS)
        ) from None
    for hook, impl in implementations:
        _check_kind(hook, impl)
    _check_receivers([impl for hook, impl in implementations if hook == "receive_request"])
    implemented = {hook for hook, _ in implementations}
    if hooks := tuple(hook for hook in HOOKS if hook in implemented):
        return hooks
    unmarked = ", ".join(f"{hook!r} ({place}) lacks @hookimpl" for hook, place in _unmarked(own, plugin))
    why = f": {unmarked}" if unmarked else ""
    if handlers := [value for value in getattr(plugin, "__dict__", {}).values() if isinstance(value, Handler)]:
        names = ", ".join(handler.name for handler in handlers)
        where = function_location(handlers[0].function)
        why += f"; it has the handler {names} ({where}): return it from a hook, @hookimpl def handlers(): return [...]"
    raise PluginError(f"it implements no hook{why}")


def _marked(own: pluggy.PluginManager, plugin: object) -> Iterator[tuple[str, str]]:
    """Yield each attribute with `@hookimpl`, and the hook it implements."""
    for attribute in dir(plugin):
        options = own.parse_hookimpl_opts(plugin, attribute)
        if options is not None:
            yield attribute, options.get("specname") or attribute


def _unmarked(own: pluggy.PluginManager, plugin: object) -> list[tuple[str, str]]:
    # pluggy ignores functions without `@hookimpl` silently.
    marked = {attribute for attribute, _ in _marked(own, plugin)}
    functions = [(hook, inspect.getattr_static(plugin, hook, None)) for hook in HOOKS if hook not in marked]
    return [(hook, function_location(function)) for hook, function in functions if inspect.isfunction(function)]


def _invalid_hook(own: pluggy.PluginManager, plugin: object, message: str) -> str:
    """Describe a rejected hook with its location and the accepted arguments."""
    for attribute, hook in _marked(own, plugin):
        if f"hook {hook!r}" in message:
            takes = ", ".join(HOOKS[hook]) or "no arguments"
            reason = message.partition("\nhookimpl definition: ")[2] or message
            return f"hook {hook!r} ({function_location(getattr(plugin, attribute))}): {reason}; it takes: {takes}"
    return message


def _unknown_hook(hook: str, impl: pluggy.HookImpl) -> str:
    near = difflib.get_close_matches(hook, HOOKS, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}?" if near else f"the hooks are: {', '.join(HOOKS)}"
    return f"there is no hook {hook!r} ({function_location(impl.function)}); {meant}"


def _check_kind(hook: str, impl: pluggy.HookImpl) -> None:
    # A coroutine or generator function would be called and never run.
    function = inspect.unwrap(impl.function)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"hook {hook!r} ({function_location(function)}) is `async def`, which is not supported")
    wrapper = impl.wrapper or impl.hookwrapper
    if hook not in _MAY_BE_GENERATORS and not wrapper and inspect.isgeneratorfunction(function):
        raise PluginError(
            f"hook {hook!r} ({function_location(function)}) has a `yield`: mark it with @hookimpl(wrapper=True)"
        )


def _check_receivers(implementations: Sequence[pluggy.HookImpl]) -> None:
    # The first credential check that fails must decide, so there is one implementation, and it sees the request.
    for impl in implementations:
        place = f"hook 'receive_request' ({function_location(impl.function)})"
        if impl.wrapper or impl.hookwrapper:
            raise PluginError(f"{place} is a wrapper, but flowhooks has no receiver that it could wrap")
        if "request" not in impl.argnames:
            raise PluginError(f"{place} does not take the argument request, so it cannot check a credential")
    if len(implementations) > 1:
        places = " and ".join(function_location(impl.function) for impl in implementations)
        raise PluginError(f"it implements the hook 'receive_request' twice: {places}; remove one of the two")


def _collect(own: pluggy.PluginManager, hook: str, what: str) -> list[Any]:
    caller: pluggy.HookCaller = getattr(own.hook, hook)
    plain = [impl for impl in caller.get_hookimpls() if not (impl.wrapper or impl.hookwrapper)]
    place = function_location(plain[0].function) if plain else ""
    results = caller()
    # pluggy drops None, the result of a function without `return`.
    if not isinstance(results, list) or len(results) < len(plain):
        raise PluginError(f"{hook}() ({place}) returned None, not a list of {what}")
    collected: list[Any] = []
    for result in results:
        if isinstance(result, str | bytes | os.PathLike | dict) or not hasattr(result, "__iter__"):
            raise PluginError(f"{hook}() ({place}) returned {_describe(result)}, not a list of {what}")
        collected += result
    return collected


def _engine_clients(own: pluggy.PluginManager, others: Mapping[str, str]) -> dict[str, EngineClientFactory]:
    implementations = own.hook.engine_clients.get_hookimpls()
    place = function_location(implementations[0].function) if implementations else ""
    results = own.hook.engine_clients()
    if len(results) < len(implementations):
        raise PluginError(f"engine_clients() ({place}) returned None, not a dict of factories by name")
    clients: dict[str, EngineClientFactory] = {}
    for result in results:
        if not isinstance(result, Mapping):
            raise PluginError(f"engine_clients() ({place}) returned {_describe(result)}, not a dict of factories")
        for name, factory in result.items():
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise PluginError(f"engine_clients() ({place}) returned {_describe(name)}, which is no client's name")
            if not callable(factory):
                raise PluginError(
                    f"engine_clients() ({place}) returned {_describe(factory)} for {name!r}, not a factory"
                )
            if other := others.get(name):
                raise PluginError(f"plugin {other!r} offers the engine client {name!r} already; remove one of the two")
            clients[name] = factory
    return clients


def _folder(item: object) -> Path:
    if not isinstance(item, str | os.PathLike):
        raise PluginError(f"schemas() returned {_describe(item)}, which is not a folder")
    folder = Path(os.fsdecode(item))
    if not folder.is_dir():
        raise PluginError(f"schemas() returned {str(folder)!r}, which is not an existing folder")
    return folder


def _handler(item: object) -> Handler:
    if isinstance(item, Handler):
        return item
    raise PluginError(f"handlers() returned {_describe(item)}, which was not made by @handler")


def _with_plugin(handlers: Iterable[Handler], *, plugin: str) -> tuple[Handler, ...]:
    named: dict[str, Handler] = {}
    for handler in handlers:
        if (first := named.get(handler.name)) is not None:
            if first.function is handler.function:
                raise PluginError(f"handlers() returned {handler.name!r} ({handler.source_location}) twice")
            raise PluginError(
                f"two handlers have the name {handler.name!r}: {first.source_location} and "
                f"{handler.source_location}; give one of them name="
            )
        named[handler.name] = replace(handler, plugin=plugin)
    return tuple(named.values())


def _describe(item: object) -> str:
    if inspect.isfunction(item):
        return f"the function {item.__name__!r} ({function_location(item)})"
    return reprlib.repr(item)
