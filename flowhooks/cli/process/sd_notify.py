"""The service manager that has started this process, such as systemd, and what it is told.

The protocol is that of sd_notify(3): a datagram to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

NOTIFY_SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
"""The environment variable by which a service manager says where it wants to be told."""

log = structlog.get_logger(__name__)


class ServiceManager:
    """Whoever wants to know when this process is ready, reads its settings again, or ends.

    Args:
        address: the path of a socket, or `@` and its abstract name; `""` where nobody wants to know.
    """

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Self:
        """The one that this environment names. Programs that handlers start do not see the variable."""
        return cls(environ.pop(NOTIFY_SOCKET_VARIABLE, ""))

    def ready(self) -> None:
        """Tell that the process does its work; also when it has read its settings again."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Tell that it reads its settings again; `ready` says when it has."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Tell that it has begun to end."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify_socket:
                notify_socket.connect(self._address)
                notify_socket.sendall(state.encode())
        except (OSError, ValueError) as error:
            log.warning("service_manager_notify_failed", what=state.partition("\n")[0], why=str(error))
