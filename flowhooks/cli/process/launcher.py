"""One process or several: a command's work is done here, or by processes that are supervised from here.

It must not know what the work is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flowhooks.cli.process.context import Around
from flowhooks.cli.process.inherited import Place
from flowhooks.cli.process.sd_notify import Manager
from flowhooks.cli.process.standard_files import open_closed_ones
from flowhooks.cli.process.supervisor import Supervisor
from flowhooks.errors import SettingsError
from flowhooks.observability import logging
from flowhooks.settings import change, check_processes, check_removed
from flowhooks.settings.secrets import masking
from flowhooks.web.server.sockets import bind

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from flowhooks.settings import Change, Settings

BACKLOG = 1024
"""Connections that wait to be accepted, as many as waitress asks for."""


def run(
    load: Callable[[], Settings],
    work: Callable[[Settings, Around], None],
    *,
    check: Callable[[Settings], None],
    listeners: Sequence[str],
) -> None:
    """Do the work, in as many processes as the settings say.

    Args:
        load: reads the settings.
        work: does it until it is to end.
        check: sees that the command can go by these settings.
        listeners: the settings that name where to listen.

    Raises:
        FlowhooksError: it cannot be done; one of SettingsError if it is a matter of settings.
    """

    def checked() -> Settings:
        settings = load()
        check_processes(settings)
        check(settings)
        return settings

    open_closed_ones()
    manager = Manager.of(os.environ)
    place = Place.inherited(os.environ)
    if place is not None:
        with place.reporting():
            settings = place.settle(load())
            check(settings)
            conceal = _masking(settings)
            _log(settings, conceal, of_several=True)
            work(settings, Around(place=place, manager=manager, reread=lambda old: change(old, old)))
        return
    settings = checked()
    conceal = _masking(settings)
    if settings.processes == 1:

        def reread(old: Settings) -> Change:
            found = change(old, checked())
            check_removed(old, found.settings)
            check(found.settings)  # as they will be: what was read may be fit only for the address that it names
            # Plugins have the secrets that they had, so these are what is masked.
            _log(found.settings, conceal)
            return found

        _log(settings, conceal)
        work(settings, Around(place=None, manager=manager, reread=reread))
        return
    sockets = {name: _listening(name, getattr(settings, name)) for name in listeners}
    _log(settings, conceal, of_several=True)
    supervisor = Supervisor(
        settings=settings,
        sockets=sockets,
        load=checked,
        configured=lambda new: _log(new, _masking(new), of_several=True),
        manager=manager,
    )
    raise SystemExit(supervisor.run())


def _listening(name: str, where: str) -> socket.socket:
    """A socket that callers may connect to from now on; they are answered as soon as a process is ready."""
    try:
        listening = bind(where)
        try:
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            reason = (error.strerror or str(error)).lower()
            raise SettingsError(f"cannot listen on {where}: {reason} (another server?)") from None
    except SettingsError as error:
        raise SettingsError(f"--{name}: {error}") from None
    return listening


def _masking(settings: Settings) -> Callable[[str], str]:
    return masking(settings.plugins, os.environ)


def _log(settings: Settings, conceal: Callable[[str], str], *, of_several: bool = False) -> None:
    logging.configure(
        settings.log.level,
        settings.log.format,
        redact=conceal,
        pid=os.getpid() if of_several else None,
    )
