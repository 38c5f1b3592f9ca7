"""What a process has around it: who started it and wants to know how it does, and where its settings come from."""

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
    from flowhooks.cli.process.inherited import InheritedSockets
    from flowhooks.cli.process.sd_notify import ServiceManager
    from flowhooks.cli.process.signals import ShutdownSignal
    from flowhooks.settings import Settings, SettingsDiff
    from flowhooks.web.server.server import Server

NEXT: Final = "the process goes on with the settings that it had; mend them, then send SIGHUP again"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessContext:
    """What is around a process that goes on until it is told to end.

    Attributes:
        inherited: its place under a supervisor, who is told instead of the service manager; None: there is none.
        service_manager: who wants to know how it does.
        reread_settings: what has changed in the settings since those that it is given, after a look at all of them.
    """

    inherited: InheritedSockets | None
    service_manager: ServiceManager
    reread_settings: Callable[[Settings], SettingsDiff]

    def watch_supervisor(self, shutdown_signal: ShutdownSignal) -> None:
        """From now on ask for the end when the supervisor says so, if there is one."""
        if self.inherited is not None:
            self.inherited.watch_supervisor(shutdown_signal)

    @property
    def is_replaced(self) -> bool:
        """Whether another process has taken over, so that this one is to leave without anybody noticing."""
        return self.inherited is not None and self.inherited.is_replaced

    def run_main_loop(self, shutdown_signal: ShutdownSignal, app: App, *servers: Server) -> None:
        """Say that this process does its work now, and wait until it is to end.

        Meanwhile SIGHUP has the settings read again. One of several processes is replaced by a new one instead.

        Args:
            shutdown_signal: hears the signals.
            app: what goes by the settings.
            servers: its listeners.
        """
        if self.inherited is not None:
            self.inherited.report_ready()
            shutdown_signal.wait()
            return
        self.service_manager.ready()
        shutdown_signal.wait(on_hangup=partial(self._reload, app, *servers))
        self.service_manager.stopping()

    def _reload(self, app: App, *servers: Server) -> None:
        self.service_manager.reloading()
        try:
            changes = self.reread_settings(app.settings)
            serving.reconfigure(changes.settings, app, *servers)
        except FlowhooksError as error:
            log.error("settings_reload_failed", why=str(error), next=NEXT)  # noqa: TRY400 (one line says it)
        except Exception:
            # Whatever fault of ours it was, call-backs are taken all the same.
            log.exception("settings_reload_failed", why="a fault of flowhooks", next=NEXT)
        else:
            log.info("settings_reloaded", changed=changes.changed)
            if changes.needs_restart:
                why = "they have changed, and are read at the start only"
                log.warning("restart_needed", settings=changes.needs_restart, why=why)
        self.service_manager.ready()
