"""Take listening sockets from the service manager, such as those of a systemd socket unit.

The protocol is that of sd_listen_fds(3).
"""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import SettingsError
from flowhooks.forks import close_in_children
from flowhooks.web.server.sockets import bound_address

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from flowhooks.settings import Settings

FIRST_FILE: Final = 3
"""Number of the first file that a service manager passes."""


def take_sockets(environ: MutableMapping[str, str], listeners: Sequence[str]) -> dict[str, socket.socket]:
    """Return the sockets that the service manager has opened for this process, by the name of their setting.

    The variables are removed from `environ`. Sockets whose names are no settings are used in the order of `listeners`.

    Args:
        environ: the environment.
        listeners: names of the settings with the addresses to listen on.

    Raises:
        SettingsError: there are more sockets than listeners, or one is no listening TCP socket.
    """
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    given = names.split(":")
    if len(given) != int(count) or not set(given) <= set(listeners) or len(set(given)) < len(given):
        given = list(listeners[: int(count)])
    if len(given) < int(count):
        raise SettingsError(f"LISTEN_FDS: {count} sockets were passed, at most {len(listeners)} are used")
    return {name: _listening_socket(FIRST_FILE + index, name) for index, name in enumerate(given)}


def with_addresses(settings: Settings, sockets: Mapping[str, socket.socket]) -> Settings:
    """Return the settings with the addresses of sockets in place of the configured ones."""
    addresses: dict[str, Any] = {name: bound_address(sock) for name, sock in sockets.items()}
    return replace(settings, **addresses)


def _listening_socket(number: int, name: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=number)
        is_usable = (
            sock.family in {socket.AF_INET, socket.AF_INET6}
            and sock.type == socket.SOCK_STREAM
            and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )
    except OSError as error:
        raise SettingsError(f"LISTEN_FDS: file {number} is no socket: {error.strerror}") from None
    if not is_usable:
        sock.close()
        raise SettingsError(f"LISTEN_FDS: file {number}, for {name}, is no listening TCP socket")
    sock.set_inheritable(False)
    return close_in_children(sock, socket.socket.close)
