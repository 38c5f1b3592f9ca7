"""The process's supervisor link, service manager and source of settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.cli.process import serving
from flowhooks.errors import FlowhooksError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.app import App
    from flowhooks.cli.options import SettingsSource
    from flowhooks.cli.process.inherited import InheritedSockets
    from flowhooks.cli.process.sd_notify import ServiceManager
    from flowhooks.cli.process.signals import ShutdownSignal
    from flowhooks.settings import Settings, SettingsDiff
    from flowhooks.web.server.server import Server

NEXT: Final = "the process continues with its old settings; fix the settings, then send SIGHUP again"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessContext:
    """Environment of a long-running process.

    Attributes:
        source: where the settings are read from.
        inherited: link to the supervisor, which is notified instead of the service manager; None if there is no
            supervisor.
        service_manager: the service manager to notify.
        reread_settings: reads and checks the settings again, and returns the difference to the given ones.
    """

    source: SettingsSource
    inherited: InheritedSockets | None
    service_manager: ServiceManager
    reread_settings: Callable[[Settings], SettingsDiff]

    def watch_supervisor(self, shutdown_signal: ShutdownSignal) -> None:
        """From now on, request shutdown on a command of the supervisor, if there is one."""
        if self.inherited is not None:
            self.inherited.watch_supervisor(shutdown_signal)

    @property
    def is_replaced(self) -> bool:
        """Whether a successor has taken over, so that this process retires without closing the service."""
        return self.inherited is not None and self.inherited.is_replaced

    def report_ready(self) -> None:
        """Report to the supervisor, or to the service manager, that this process serves."""
        if self.inherited is not None:
            self.inherited.report_ready()
        else:
            self.service_manager.ready()

    def run_main_loop(self, shutdown_signal: ShutdownSignal, app: App, *servers: Server) -> None:
        """Wait for the shutdown signal.

        While a single process waits, SIGHUP reloads its settings. A process under a supervisor is replaced instead.

        Args:
            shutdown_signal: receives the signals.
            app: the application to reconfigure.
            servers: the listeners to reconfigure.
        """
        if self.inherited is not None:
            shutdown_signal.wait()
            return
        shutdown_signal.wait(on_hangup=partial(self._reload, app, *servers))
        self.service_manager.stopping()

    def _reload(self, app: App, *servers: Server) -> None:
        self.service_manager.reloading()
        try:
            changes = self.reread_settings(app.settings)
            serving.reconfigure(changes.settings, app, *servers)
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
        self.service_manager.ready()
