"""Plan an uninstall: what is removed, what is retired, and what remains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowhooks.cli.plugins import text
from flowhooks.errors import SettingsError
from flowhooks.settings.types import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_FILE_PREFIX = "file "


@dataclass(frozen=True, slots=True, kw_only=True)
class UninstallPlan:
    """The steps of an uninstall, derived from `flowhooks plugins list --json`.

    Attributes:
        package: package to uninstall with pip; `""` if there is none.
        plugins: names of the plugins in the package, or of the plugin whose handlers are retired.
        handlers: handlers to retire.
        other_handlers: handlers that remain.
    """

    package: str
    plugins: tuple[str, ...]
    handlers: tuple[Mapping[str, Any], ...]
    other_handlers: tuple[Mapping[str, Any], ...]

    @property
    def unretired(self) -> list[str]:
        """The ids of the handlers that are not retired yet."""
        return [handler["id"] for handler in self.handlers if handler["availability"] != "retired"]

    @property
    def needs_restart(self) -> bool:
        """Whether a server that runs still has the plugins of the package, or runs one of the handlers."""
        return bool(self.package) or any(handler["availability"] == "elsewhere" for handler in self.handlers)

    def lines(self, unrouted: str) -> Iterator[str]:
        """Describe the plan, one line per action.

        Args:
            unrouted: the setting `routing.no_handler`: `"park"` or `"reject"`.
        """
        names = f"plugin{'s' if len(self.plugins) > 1 else ''} {', '.join(self.plugins)}"
        if self.package:
            yield f"Uninstalls the package {self.package}, with the {names}."
        else:
            yield f"Uninstalls no package; retires handlers of the {names}."
        for handler in self.handlers:
            stored = text.backlog_text(handler["backlog"])
            word = "Already retired:" if handler["availability"] == "retired" else "Retires"
            yield (
                f"{word} {handler['id']}: {text.selectors_text(handler['selectors'])}"
                f"{f'; stored: {stored}' if stored else ''}"
            )
        if not self.handlers:
            yield "It has no handlers."
        if any(text.backlog_text(handler["backlog"]) for handler in self.handlers):
            yield "Data stored for them is kept. If they are installed again, their deliveries continue."
        if unwanted := self.unhandled():
            fate = "parked" if unrouted == "park" else "rejected with 422"
            yield f"Callbacks with {' or '.join(unwanted)} will be {fate}: no other handler listens to them."

    def unhandled(self) -> list[str]:
        """Return the classes and keys that no handler listens to after the uninstall, with their kinds."""
        still_handled = {value for handler in self.other_handlers for value in _selector_values(handler)}
        no_longer_handled = dict.fromkeys(value for handler in self.handlers for value in _selector_values(handler))
        kinds: dict[str, list[str]] = {}
        for by, value, kind in no_longer_handled:
            if (by, value, kind) not in still_handled:
                kinds.setdefault(f"{by} {value}", []).append(kind)
        return [name if found == ["complete"] else f"{name} ({_kinds_text(found)})" for name, found in kinds.items()]


def _kinds_text(kinds: Sequence[str]) -> str:
    return f"kind{'s' if len(kinds) > 1 else ''} {', '.join(kinds)}"


def _selector_values(handler: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    selectors = handler["selectors"]
    if selectors and handler["availability"] != "retired":
        for by, values in (("class", selectors["callback_classes"]), ("key", selectors["process_keys"])):
            for value in values:
                yield by, value, selectors["kind"]


def plan_for_plugin(
    name: str, named_plugins: Sequence[Mapping[str, Any]], plugins: Sequence[Mapping[str, Any]]
) -> UninstallPlan:
    """Return the plan to uninstall a plugin.

    Args:
        name: name as given by the operator.
        named_plugins: plugins with this name.
        plugins: all plugins.

    Raises:
        SettingsError: pip cannot uninstall the plugin, or two packages have it.
    """
    installed = [plugin for plugin in named_plugins if plugin["origin"]]
    for plugin in installed:
        if plugin["origin"].startswith(_FILE_PREFIX):
            raise SettingsError(
                f"plugin {plugin['name']} is the single file {plugin['origin'].removeprefix(_FILE_PREFIX)}: delete "
                "the file, then run this command to retire its handlers"
            )
        if not plugin["package"]:
            raise SettingsError(f"plugin {plugin['name']} ({plugin['origin']}) is in no package that pip can uninstall")
    packages = list(dict.fromkeys(plugin["package"] for plugin in installed))
    if len(packages) > 1:
        raise SettingsError(
            f"the packages {' and '.join(packages)} both have a plugin {name}: give the name of a package"
        )
    package = packages[0] if packages else ""
    package_plugins = [plugin for plugin in plugins if package and plugin["package"] == package] or list(named_plugins)
    names = tuple(dict.fromkeys(plugin["name"] for plugin in package_plugins))
    # A remaining plugin with the same name takes over the registered handlers.
    staying = {plugin["name"] for plugin in plugins if plugin["origin"] and plugin["package"] != package}
    handlers = [
        handler
        for plugin in plugins
        if plugin["name"] in names and plugin["name"] not in staying
        for handler in plugin["handlers"]
    ]
    return _plan(package, names, handlers, plugins)


def plan_for_handlers(
    named_plugins: Sequence[Mapping[str, Any]], names: Sequence[str], plugins: Sequence[Mapping[str, Any]]
) -> UninstallPlan:
    """Return the plan to retire single handlers that their plugin no longer has, or of a plugin that is denied.

    A denied plugin registers nothing, so its handlers stay retired until the settings allow it again.

    Args:
        named_plugins: plugins with the given name.
        names: names or ids of handlers.
        plugins: all plugins.

    Raises:
        SettingsError: there is no such handler, its plugin still has it, or that cannot be determined.
    """
    handlers_by_id = {handler["id"]: handler for plugin in named_plugins for handler in plugin["handlers"]}
    selected = []
    for name in names:
        matching = [
            handler
            for handler_id, handler in handlers_by_id.items()
            if name in {handler_id, handler_id.partition(":")[2]}
        ]
        if not matching:
            suggestion = did_you_mean(
                name, [*handlers_by_id, *(handler_id.partition(":")[2] for handler_id in handlers_by_id)]
            )
            raise SettingsError(f"no handler {name!r} of {named_plugins[0]['name']} is registered{suggestion}")
        selected += matching
    for handler in selected:
        if why := _NOT_RETIRABLE.get(handler["availability"]):
            raise SettingsError(f"handler {handler['id']} cannot be retired: {why}")
    return _plan("", tuple(dict.fromkeys(plugin["name"] for plugin in named_plugins)), selected, plugins)


_NOT_RETIRABLE = {
    "present": "its plugin still has it and would register it again at the next start",
    "quarantined": "its plugin cannot be used now, so it is not known whether it still has the handler; fix the "
    "plugin first",
    "elsewhere": "another process runs it and would register it again at its next start; stop that process first",
}


def _plan(
    package: str, names: tuple[str, ...], handlers: Sequence[Mapping[str, Any]], plugins: Sequence[Mapping[str, Any]]
) -> UninstallPlan:
    ids = {handler["id"] for handler in handlers}
    others = tuple(handler for plugin in plugins for handler in plugin["handlers"] if handler["id"] not in ids)
    return UninstallPlan(package=package, plugins=names, handlers=tuple(handlers), other_handlers=others)
