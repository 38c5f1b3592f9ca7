"""Functions that open a listening socket.

One process may open the socket, and others that inherit it may accept its connections.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from flowhooks.errors import AddressInUse, SettingsError
from flowhooks.forks import close_in_children

LISTEN_BACKLOG: Final = 1024
"""Maximum number of connections that wait to be accepted; the same as in waitress."""


def open_listener(listen: str) -> socket.socket:
    """Return a socket that listens on an address. Connections wait until a process accepts them.

    Args:
        listen: `host:port`; `[::1]:8080` for IPv6, `*:8080` for every address, port 0 for any free one.

    Raises:
        AddressInUse: another process listens on the address.
        SettingsError: the address cannot be used.
    """
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 (TCP's own)
        raise SettingsError(f"cannot listen on {listen}: write host:port, such as 127.0.0.1:8080 or [::1]:8080")
    name = host.removeprefix("[").removesuffix("]")
    try:
        addresses = socket.getaddrinfo(
            None if name in {"", "*"} else name, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = addresses[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"cannot listen on {listen}: {(error.strerror or str(error)).lower()}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(LISTEN_BACKLOG)
    except OSError as error:
        listening.close()
        why = f"cannot listen on {listen}: {(error.strerror or str(error)).lower()}"
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"{why} (is another server running?)") from None
        raise SettingsError(why) from None
    return close_in_children(listening, socket.socket.close)


def bound_address(listening: socket.socket) -> str:
    """Return the address to which a socket is bound, as `host:port`."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
