"""Sockets between processes of flowhooks, which block whatever default timeout a plugin has set.

`socket.setdefaulttimeout` applies to all new sockets of a process. It also makes their files non-blocking. Another
process that inherits such a file knows no timeout: it would fail as soon as there is nothing to receive.
"""

from __future__ import annotations

import socket


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets without a timeout."""
    ends = socket.socketpair()
    for end in ends:
        end.settimeout(None)
    return ends


def socket_from_file(number: int) -> socket.socket:
    """Return the socket of a file descriptor, without a timeout.

    Not for listening sockets: a process that shares one may rely on it not to block.

    Args:
        number: the file descriptor.
    """
    sock = socket.socket(fileno=number)
    sock.settimeout(None)
    return sock
