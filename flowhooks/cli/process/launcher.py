"""Run a command in this process, or in several processes supervised from here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flowhooks.cli.process.context import ProcessContext
from flowhooks.cli.process.inherited import InheritedSockets
from flowhooks.cli.process.sd_notify import ServiceManager
from flowhooks.cli.process.standard_files import reopen_closed_files
from flowhooks.cli.process.supervisor import Supervisor
from flowhooks.errors import SettingsError
from flowhooks.observability import logging
from flowhooks.settings import check_processes, check_removed, diff
from flowhooks.settings.secrets import plugin_redactor
from flowhooks.web.server.sockets import bind

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from flowhooks.settings import Settings, SettingsDiff

LISTEN_BACKLOG = 1024
"""Maximum number of connections that wait to be accepted; the same as in waitress."""


def run(
    load: Callable[[], Settings],
    work: Callable[[Settings, ProcessContext], None],
    *,
    check: Callable[[Settings], None],
    listeners: Sequence[str],
) -> None:
    """Run the work of a command in the configured number of processes.

    Args:
        load: reads the settings.
        work: runs until shutdown.
        check: checks that the command can run with these settings.
        listeners: names of the settings with the addresses to listen on.

    Raises:
        FlowhooksError: the command cannot run; a SettingsError if the settings are the reason.
    """

    def checked() -> Settings:
        settings = load()
        check_processes(settings)
        check(settings)
        return settings

    reopen_closed_files()
    service_manager = ServiceManager.from_environ(os.environ)
    inherited = InheritedSockets.from_environ(os.environ)
    if inherited is not None:
        with inherited.report_failure():
            settings = inherited.apply_addresses(load())
            check(settings)
            redact = _redactor(settings)
            _configure_logging(settings, redact, of_several=True)
            work(
                settings,
                ProcessContext(
                    inherited=inherited, service_manager=service_manager, reread_settings=lambda old: diff(old, old)
                ),
            )
        return
    settings = checked()
    redact = _redactor(settings)
    if settings.processes == 1:

        def reread(old: Settings) -> SettingsDiff:
            changes = diff(old, checked())
            check_removed(old, changes.settings)
            # Check the merged settings: the new ones may be valid only together with an address that is not applied.
            check(changes.settings)
            # Plugins keep the secrets they were loaded with, so these are still masked.
            _configure_logging(changes.settings, redact)
            return changes

        _configure_logging(settings, redact)
        work(settings, ProcessContext(inherited=None, service_manager=service_manager, reread_settings=reread))
        return
    sockets = {name: _open_listener(name, getattr(settings, name)) for name in listeners}
    _configure_logging(settings, redact, of_several=True)
    supervisor = Supervisor(
        settings=settings,
        sockets=sockets,
        load=checked,
        on_settings=lambda new: _configure_logging(new, _redactor(new), of_several=True),
        service_manager=service_manager,
    )
    raise SystemExit(supervisor.run())


def _open_listener(name: str, address: str) -> socket.socket:
    """Listen at an address; connections wait until a process accepts them."""
    try:
        sock = bind(address)
        try:
            sock.listen(LISTEN_BACKLOG)
        except OSError as error:
            sock.close()
            reason = (error.strerror or str(error)).lower()
            raise SettingsError(f"cannot listen on {address}: {reason} (is another server running?)") from None
    except SettingsError as error:
        raise SettingsError(f"--{name}: {error}") from None
    return sock


def _redactor(settings: Settings) -> Callable[[str], str]:
    return plugin_redactor(settings.plugins, os.environ)


def _configure_logging(settings: Settings, redact: Callable[[str], str], *, of_several: bool = False) -> None:
    logging.configure(
        settings.log.level,
        settings.log.format,
        redact=redact,
        pid=os.getpid() if of_several else None,
    )
