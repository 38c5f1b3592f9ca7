"""Load plugins one by one and call them through one typed method per hook.

An exception in a plugin, even `SystemExit`, quarantines that plugin only. Two faults cannot be contained: a plugin
whose import or start hook never returns, and a plugin that ends the process from C (`os._exit`, a crash).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flowhooks import __version__
from flowhooks.logger import get_logger
from flowhooks.plugins.discovery import discover
from flowhooks.plugins.error_text import clear_tracebacks, error_to_line, traceback_text
from flowhooks.plugins.loading import Loader, PluginFilter, PluginInfo, PluginState
from flowhooks.plugins.receivers import Receivers
from flowhooks.plugins.registration import HOOKS
from flowhooks.schema.schemas import Schemas
from flowhooks.settings import unknown_kinds, unknown_notifiers, unknown_receivers
from flowhooks.settings.secrets import redactor
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from pluggy import HookCaller

    from flowhooks.model.alert import Alert
    from flowhooks.model.delivery import Delivery, Outcome, State
    from flowhooks.model.engine import EngineClientFactory
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler
    from flowhooks.plugins.attribution import PluginAttribution
    from flowhooks.plugins.discovery import DiscoveredPlugin
    from flowhooks.schema.plugin_schemas import PluginSchemas
    from flowhooks.settings import AlertRoute, Source

__all__ = ["HOOKS", "PluginInfo", "PluginState", "Plugins"]

MAX_ERROR_CHARS: Final = 300
"""Maximum characters of an error with which a plugin did not accept an alert."""

_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugins:
    """All plugins that were found, with the callers of those that were loaded. Created by `load`.

    Attributes:
        infos: results of loading, in the order of registration; a later plugin wraps the runs of earlier ones.
        warnings: sentences for the operator about settings and functions that have no effect.
        handlers: handlers by id; read-only.
        engine_clients: factories of engine clients by the name that the settings use; read-only.
        receivers: the plugins that read the requests to the fixed URLs of sources.
        schema_folders: folders of schema files, each with its plugin's name.
        schemas: schemas in force: the given ones and those of plugins.
    """

    infos: tuple[PluginInfo, ...]
    warnings: tuple[str, ...]
    handlers: Mapping[str, Handler]
    engine_clients: Mapping[str, EngineClientFactory]
    receivers: Receivers
    schema_folders: tuple[tuple[str, Path], ...]
    schemas: Schemas = field(repr=False)
    _run: HookCaller = field(repr=False)
    _accepted: tuple[tuple[str, HookCaller], ...] = field(repr=False)
    _settled: tuple[tuple[str, HookCaller], ...] = field(repr=False)
    _alerted: tuple[tuple[str, HookCaller], ...] = field(repr=False)
    _resolved: tuple[tuple[str, HookCaller], ...] = field(repr=False)
    _attribution: PluginAttribution = field(repr=False)
    _data: Mapping[str, PluginSchemas] = field(repr=False)
    _redact: Callable[[str], str] = field(repr=False)

    @classmethod
    def load(
        cls,
        *,
        dirs: Sequence[Path],
        allow: Sequence[str],
        deny: Sequence[str],
        safe_mode: bool,
        sections: Mapping[str, Mapping[str, Any]],
        entry_points: Iterable[EntryPoint] | None = None,
        objects: Mapping[str, object] = MappingProxyType({}),
        schemas: Schemas | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
        on_slow: Callable[[DiscoveredPlugin, int], None] = lambda _plugin, _seconds: None,
    ) -> Plugins:
        """Find, import, check and configure plugins one by one. A plugin that fails is quarantined.

        Args:
            dirs: folders of single-file plugins: every `*.py` whose name does not start with `_` or `.`.
            allow: names of the only plugins to load; empty: all.
            deny: names of plugins not to load. Neither they nor plugins that are not allowed are imported.
            safe_mode: whether to load no plugin.
            sections: sections `[plugins.NAME]` of the settings, by name. A plugin sees only its own section.
            entry_points: entry points of plugins; default: the installed ones of the group `flowhooks`.
            objects: plugins given directly, by name.
            schemas: schemas in force, to which those of plugins are added; default: the shipped ones.
            environ: the environment from which secrets in `sections` are read, such as `os.environ`; default: empty.
            on_slow: called from another thread with a plugin that takes long to load, and the seconds so far.

        Raises:
            SettingsError: a folder of `dirs` does not exist or cannot be read.
            KeyboardInterrupt: raised by the operator, even during a plugin's import.
        """
        discovered, warnings = discover(objects=objects, entry_points=entry_points, dirs=dirs)
        loader = Loader(
            plugin_filter=PluginFilter(allow=tuple(allow), deny=frozenset(deny), safe_mode=safe_mode),
            sections=sections,
            environ=environ,
            schemas=schemas or Schemas.load(),
            version=__version__,
            warnings=warnings,
            on_slow=on_slow,
        )
        infos = loader.load_all(discovered)
        names = tuple(dict.fromkeys(plugin.name for plugin in discovered))
        for what, mentioned in (("plugins_allow", allow), ("plugins_deny", deny), ("[plugins.NAME]", sections)):
            warnings += [_unknown_plugin(what, name, names) for name in mentioned if name not in names]
        return cls(
            infos=infos,
            warnings=tuple(warnings),
            handlers=MappingProxyType({handler.id: handler for info in infos for handler in info.handlers}),
            engine_clients=MappingProxyType(
                dict(chain.from_iterable(plugin.engine_clients.items() for plugin in loader.registered.values()))
            ),
            receivers=Receivers(dict(loader.hook_callers("receive_request"))),
            schema_folders=tuple(
                (name, folder) for name, plugin in loader.registered.items() for folder in plugin.schema_folders
            ),
            schemas=loader.schemas,
            _run=loader.shared_manager.hook.run_handler,
            _accepted=loader.hook_callers("event_accepted"),
            _settled=loader.hook_callers("delivery_settled"),
            _alerted=loader.hook_callers("alert_raised"),
            _resolved=loader.hook_callers("alert_resolved"),
            _attribution=loader.attribution(),
            _data={
                name: plugin.schemas for name, plugin in loader.registered.items() if plugin.schemas.has_data_schemas
            },
            _redact=redactor(loader.secrets),
        )

    def why_data_invalid(self, handler: Handler, event: Event) -> str | None:
        """Return why the event's data violates the schemas of the handler's plugin; None if it is valid."""
        own = self._data.get(handler.plugin)
        if own is None:
            return None
        return own.why_data_invalid(
            event.data, callback_class=event.callback_class, process_key=event.process_definition_key
        )

    def redact(self, text: str) -> str:
        """Return `text` with each secret of the plugins' settings replaced by `…`."""
        return self._redact(text)

    @property
    def has_subscribers(self) -> bool:
        """Whether any plugin implements `event_accepted` or `delivery_settled`."""
        return bool(self._accepted or self._settled)

    def run_handler(self, handler: Handler, event: Event, delivery: Delivery) -> object:
        """Run one attempt through the wrappers of all plugins.

        Returns:
            The `Outcome` of the built-in implementation, unless a wrapper replaced it.

        Raises:
            BaseException: raised by the handler or a wrapper.
        """
        return self._run(handler=handler, event=event, delivery=delivery)

    def event_accepted(self, event: Event, handlers: Sequence[str]) -> None:
        """Notify each plugin that an event was stored. An exception in one is logged and stops no other."""
        for name, call in self._accepted:
            self._notify(name, call, event=event, handlers=handlers)

    def delivery_settled(self, event: Event, delivery: Delivery, outcome: Outcome, state: State) -> None:
        """Notify each plugin how an attempt ended. An exception in one is logged and stops no other."""
        for name, call in self._settled:
            self._notify(name, call, event=event, delivery=delivery, outcome=outcome, state=state)

    @property
    def alert_listeners(self) -> tuple[str, ...]:
        """Names of the plugins that implement `alert_raised`."""
        return tuple(name for name, _ in self._alerted)

    @property
    def resolution_listeners(self) -> tuple[str, ...]:
        """Names of the plugins that implement `alert_resolved`."""
        return tuple(name for name, _ in self._resolved)

    def unknown_notifiers(self, routes: Mapping[str, AlertRoute]) -> list[str]:
        """Return a sentence for each plugin that a route of alerts names, and that cannot receive alerts.

        A plugin that is denied or quarantined may receive alerts when it is loaded again.
        """
        return unknown_notifiers(routes, self.alert_listeners, self.unloaded)

    def ingress_problems(self, sources: Mapping[str, Source]) -> list[str]:
        """Return a sentence for each kind of callback and each receiver of an ingress that does not exist.

        A plugin that is denied or quarantined may be a receiver when it is loaded again.
        """
        return [
            *unknown_kinds(sources, self.schemas.kinds),
            *unknown_receivers(sources, self.receivers.names, self.unloaded),
        ]

    @property
    def unloaded(self) -> list[str]:
        """Names of the plugins that are denied or quarantined. Nothing is known about what they offer."""
        return [info.name for info in self.infos if info.state != "loaded"]

    def alert_raised(self, alert: Alert, name: str) -> str | None:
        """Notify a plugin of an alert; return the error that it raised, on one line, or None. The error is logged."""
        return self._notify_of_alert(self._alerted, alert, name)

    def alert_resolved(self, alert: Alert, name: str) -> str | None:
        """Notify a plugin that an alert is closed; return the error that it raised, as `alert_raised` does."""
        return self._notify_of_alert(self._resolved, alert, name)

    def _notify_of_alert(self, callers: Sequence[tuple[str, HookCaller]], alert: Alert, name: str) -> str | None:
        for listener, call in callers:
            if listener == name and (error := self._notify(name, call, alert=alert)) is not None:
                return escape_control(self.redact(error_to_line(error) or type(error).__name__), MAX_ERROR_CHARS)
        return None

    def responsible_plugin(self, exception: BaseException) -> str | None:
        """Return the plugin whose `run_handler` raised `exception`; None if the handler raised it or it is unknown."""
        return self._attribution.responsible_plugin(exception)

    def _notify(self, name: str, call: HookCaller, **arguments: object) -> BaseException | None:
        try:
            call(**arguments)
        except BaseException as error:  # noqa: BLE001 (also SystemExit: one plugin must not stop the others)
            _log.error("hook_failed", plugin=name, hook=call.name, traceback=self.redact(traceback_text(error)))
            clear_tracebacks(error)
            return error
        return None


def _unknown_plugin(what: str, name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"{what} names {name!r}, but there is no such plugin" + (f"; did you mean {near[0]!r}?" if near else "")
