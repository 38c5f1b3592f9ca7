"""The process's supervisor link, service manager and source of settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from flowhooks.cli.process import serving
from flowhooks.errors import FlowhooksError
from flowhooks.operations import server_audit

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from flowhooks.app import App
    from flowhooks.cli.options import SettingsSource
    from flowhooks.cli.process.inherited import InheritedSockets
    from flowhooks.cli.process.sd_notify import ServiceManager
    from flowhooks.cli.process.signals import ShutdownSignal
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import Settings, SettingsDiff
    from flowhooks.web.server.server import Server

NEXT: Final = "the process continues with its old settings; fix the settings, then send SIGHUP again"

log = structlog.get_logger(__name__)


class ReplaceableProcess(Protocol):
    """This process, as its main loop replaces it: see `flowhooks.cli.process.replacement`."""

    @property
    def is_due(self) -> bool:
        """Whether a successor has loaded."""

    def request(self, shutdown_signal: ShutdownSignal, on_hangup: Callable[[], None]) -> bool:
        """Have this process replaced; return whether to stop waiting for signals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessContext:
    """Environment of a long-running process.

    Attributes:
        started: when this process began to load settings and plugins, by `time.monotonic`.
        source: where the settings are read from.
        inherited: link to the supervisor, which is notified instead of the service manager; None if there is no
            supervisor.
        service_manager: the service manager to notify.
        reread_settings: reads and checks the settings again, and returns the difference to the given ones.
        configure_log: applies the log settings of new settings.
        environ: the environment of this process before plugins were loaded, which may change it.
        configured: the addresses in the settings with which the listening sockets were opened, by the setting's name.
        activated: the listening sockets that the service manager has opened, by the setting's name.
    """

    started: float
    source: SettingsSource
    inherited: InheritedSockets | None
    service_manager: ServiceManager
    reread_settings: Callable[[Settings], SettingsDiff]
    configure_log: Callable[[Settings], None]
    environ: Mapping[str, str]
    configured: Mapping[str, str]
    activated: Mapping[str, socket.socket] = field(default_factory=dict)

    @property
    def sockets(self) -> Mapping[str, socket.socket]:
        """The listening sockets that another process has opened for this one, by the setting's name."""
        return self.activated if self.inherited is None else self.inherited.sockets

    def watch_supervisor(self, shutdown_signal: ShutdownSignal) -> None:
        """From now on, request shutdown on a command of the supervisor, if there is one."""
        if self.inherited is not None:
            self.inherited.watch_supervisor(shutdown_signal)

    def finish_loading(self, shutdown_signal: ShutdownSignal) -> None:
        """Report that the plugins are loaded. From now on, the first signal requests a graceful shutdown.

        The rest of the start works on the ledger, and has no limit.
        """
        shutdown_signal.finish_loading()
        if self.inherited is not None:
            self.inherited.report_loaded()
        else:
            self.service_manager.keep_extending_start(lambda: not shutdown_signal.was_received)

    def before_lock(self, check: Callable[[Plugins], None]) -> Callable[[Plugins], None] | None:
        """Return what a successor does before it takes the lock of the ledger; None for any other process.

        Args:
            check: checks that the successor can take over.
        """
        inherited = self.inherited
        if inherited is None or not inherited.is_successor:
            return None

        def wait(plugins: Plugins) -> None:
            check(plugins)
            inherited.wait_for_predecessor()

        return wait

    def seconds_refusing(self) -> float | None:
        """Return the seconds since the predecessor stopped to accept connections; None if there was none."""
        return None if self.inherited is None else self.inherited.seconds_refusing()

    @property
    def is_replaced(self) -> bool:
        """Whether a successor has taken over, so that this process retires without closing the service."""
        return self.inherited is not None and self.inherited.is_replaced

    def report_ready(self, settings: Settings) -> None:
        """Report to the supervisor, or to the service manager, that this process serves with these settings."""
        if self.inherited is not None:
            self.inherited.report_ready(settings.shutdown.timeout + settings.http.read_timeout)
        else:
            self.service_manager.ready()

    def run_main_loop(
        self, shutdown_signal: ShutdownSignal, app: App, *servers: Server, replacement: ReplaceableProcess | None = None
    ) -> None:
        """Wait for the shutdown signal, or until this process has to hand over to a successor.

        While a single process waits, SIGHUP reloads its settings, and SIGUSR2 replaces it. Of several processes the
        supervisor handles both.

        Args:
            shutdown_signal: receives the signals.
            app: the application to reconfigure.
            servers: the listeners to reconfigure.
            replacement: replaces this process; default: SIGUSR2 is ignored.
        """
        if self.inherited is not None and not self.inherited.is_only:
            shutdown_signal.wait()
            return
        reload = partial(self._reload, app, *servers)
        if replacement is None:
            shutdown_signal.wait(on_hangup=reload)
        else:
            shutdown_signal.wait(on_hangup=reload, on_replace=lambda: replacement.request(shutdown_signal, reload))
        if replacement is None or not replacement.is_due:
            self.service_manager.stopping()

    def _reload(self, app: App, *servers: Server) -> None:
        self.service_manager.reloading()
        try:
            changes = self.reread_settings(app.settings)
            serving.reconfigure(changes.settings, app, *servers)
            self.configure_log(changes.settings)  # last, because the app may refuse the settings
        except FlowhooksError as error:
            log.error("settings_reload_failed", why=str(error), next=NEXT)  # noqa: TRY400 (the message is enough)
        except Exception:
            # A defect in the reload must not stop the process from accepting callbacks.
            log.exception("settings_reload_failed", why="an error in flowhooks", next=NEXT)
        else:
            log.info("settings_reloaded", changed=changes.changed)
            if changes.needs_restart:
                why = "these settings have changed, but are read only at the start"
                log.warning("restart_needed", settings=changes.needs_restart, why=why)
            server_audit.record_reload(app.ledger, app.clock, changes.changed, changes.needs_restart)
        self.service_manager.ready()
        if self.inherited is not None:
            self.inherited.report_reloaded()
