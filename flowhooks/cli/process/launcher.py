"""Run a command in this process, or in several processes supervised from here."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.cli.process import serving
from flowhooks.cli.process.context import ProcessContext
from flowhooks.cli.process.core_dumps import disable_core_dumps
from flowhooks.cli.process.forced_exit import force_exit_later
from flowhooks.cli.process.inherited import InheritedSockets
from flowhooks.cli.process.sd_notify import ServiceManager
from flowhooks.cli.process.socket_activation import take_sockets, with_addresses
from flowhooks.cli.process.supervisor import Supervisor
from flowhooks.errors import SettingsError
from flowhooks.observability import logging
from flowhooks.observability.shared_counts import continue_counts
from flowhooks.settings import check_processes, check_removed, diff
from flowhooks.settings.secrets import SettingsRedactor
from flowhooks.web.server.sockets import open_listener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowhooks.cli.options import SettingsSource
    from flowhooks.settings import Settings, SettingsDiff

ADDRESSES_KEPT: Final = "a server that is replaced keeps its sockets: stop and start it to change its addresses"
PROCESSES_KEPT: Final = "a single process is replaced by a single process: stop and start it to run several processes"
COUNT_AGAIN: Final = (
    "send SIGHUP to the supervisor, so that all processes count together again; restart it if this is logged then"
)

log = structlog.get_logger(__name__)


def run(
    source: SettingsSource,
    work: Callable[[Settings, ProcessContext], None],
    *,
    check: Callable[[Settings], None],
    listeners: Sequence[str],
) -> None:
    """Run the work of a command in the configured number of processes.

    Args:
        source: reads the settings.
        work: runs until shutdown.
        check: checks that the command can run with these settings.
        listeners: names of the settings with the addresses to listen on.

    Raises:
        FlowhooksError: the command cannot run; a SettingsError if the settings are the reason.
    """

    def checked() -> Settings:
        settings = with_addresses(source.load(), activated)
        check_processes(settings)
        check(settings)
        return settings

    started = time.monotonic()
    disable_core_dumps()
    service_manager = ServiceManager.from_environ(os.environ)
    inherited = InheritedSockets.from_environ(os.environ)
    activated = take_sockets(os.environ, listeners)
    environ = dict(os.environ)
    if inherited is not None:
        with inherited.report_failure():
            loaded = source.load()
            settings = inherited.apply_addresses(loaded)
            if inherited.is_successor:  # a process that is started after a crash is not refused
                check_processes(settings)
            check(settings)
            redact = inherited.redact = SettingsRedactor(os.environ)
            configure_log = partial(_configure_logging, redact=redact, of_several=True)
            configure_log(settings)
            if inherited.metrics_number is not None and (why := continue_counts(inherited.metrics_number)):
                log.warning("counts_incomplete", why=why, next=COUNT_AGAIN)
            _report_addresses(inherited, loaded)
            if inherited.is_only and settings.processes > 1:
                log.warning("restart_needed", settings=["processes"], why=PROCESSES_KEPT)
            context = ProcessContext(
                started=started,
                source=source,
                inherited=inherited,
                service_manager=service_manager,
                reread_settings=_rereader(lambda: _keep_addresses(inherited, checked()), check=check, redact=redact),
                configure_log=configure_log,
                environ=environ,
                configured=inherited.configured,
            )
            _work(work, settings, context)
        return
    settings = checked()
    redact = SettingsRedactor(os.environ)
    configure_log = partial(_configure_logging, redact=redact, of_several=settings.processes > 1)
    if settings.processes == 1:
        configure_log(settings)
        context = ProcessContext(
            started=started,
            source=source,
            inherited=None,
            service_manager=service_manager,
            reread_settings=_rereader(checked, check=check, redact=redact),
            configure_log=configure_log,
            environ=environ,
            configured={name: getattr(source.load(), name) for name in listeners},
            activated=activated,
        )
        _work(work, settings, context)
        return
    sockets = dict(activated)
    for name in (name for name in listeners if name not in activated):
        with serving.explain_origin(source, name):
            sockets[name] = open_listener(getattr(settings, name))
    configure_log(settings)
    supervisor = Supervisor(
        settings=settings,
        sockets=sockets,
        load=checked,
        on_settings=configure_log,
        service_manager=service_manager,
    )
    raise SystemExit(supervisor.run())


def _work(work: Callable[[Settings, ProcessContext], None], settings: Settings, context: ProcessContext) -> None:
    """Run the work. If it fails, the process ends even if a plugin has left a thread running."""
    try:
        work(settings, context)
    except Exception as error:
        force_exit_later(2 if isinstance(error, SettingsError) else 1)
        raise


def _rereader(
    load: Callable[[], Settings], *, check: Callable[[Settings], None], redact: SettingsRedactor
) -> Callable[[Settings], SettingsDiff]:
    """Return the function that reads the settings again, checks them, and masks their secrets from then on."""

    def reread(old: Settings) -> SettingsDiff:
        changes = diff(old, load())
        check_removed(old, changes.settings)
        # Check the merged settings: the new ones may be valid only together with an address that is not applied.
        check(changes.settings)
        redact.add(changes.settings)  # before the log is configured by them: applying them may log
        return changes

    return reread


def _report_addresses(inherited: InheritedSockets, loaded: Settings) -> None:
    if changed := inherited.changed_addresses(loaded):
        log.warning("restart_needed", settings=changed, why=ADDRESSES_KEPT)


def _keep_addresses(inherited: InheritedSockets, loaded: Settings) -> Settings:
    _report_addresses(inherited, loaded)
    return inherited.apply_addresses(loaded)


def _configure_logging(settings: Settings, *, redact: SettingsRedactor, of_several: bool) -> None:
    redact.add(settings)
    logging.configure(
        settings.log.level,
        settings.log.format,
        redact=redact,
        pid=os.getpid() if of_several else None,
    )
