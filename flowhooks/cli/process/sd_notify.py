"""Notify the service manager that started this process, such as systemd.

The protocol is that of sd_notify(3): a datagram to the socket in NOTIFY_SOCKET.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Final, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

NOTIFY_SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
"""Environment variable with the service manager's socket."""
EXTENSION_INTERVAL: Final = 10.0
"""Seconds between two notifications that a start goes on."""
EXTENSION_SECONDS: Final = 60
"""Seconds after such a notification within which the next one must arrive, if the start exceeds its timeout."""

log = structlog.get_logger(__name__)


class ServiceManager:
    """The service manager, notified when this process is ready, reloads its settings or stops.

    Args:
        address: path of the socket, or `@` and its abstract name; `""` if there is no service manager.

    Attributes:
        address: as given.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._is_ready = threading.Event()

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Self:
        """Return the service manager of this environment. Programs started by handlers do not see the variable."""
        return cls(environ.pop(NOTIFY_SOCKET_VARIABLE, ""))

    def ready(self) -> None:
        """Notify that the process is ready, also at the end of a reload."""
        self._is_ready.set()
        self._send("READY=1")

    def extend_start(self) -> None:
        """Notify that the start goes on, and may exceed its timeout."""
        self._send(f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1_000_000}")

    def keep_extending_start(self, goes_on: Callable[[], bool]) -> None:
        """Notify in a thread that the start goes on, until `ready`, while the main thread runs and `goes_on()`."""
        if self._address:
            threading.Thread(target=self._extend, args=(goes_on,), name="start", daemon=True).start()

    def _extend(self, goes_on: Callable[[], bool]) -> None:
        while threading.main_thread().is_alive() and goes_on() and not self._is_ready.is_set():
            self.extend_start()
            self._is_ready.wait(EXTENSION_INTERVAL)

    def reloading(self) -> None:
        """Notify that the process reloads its settings; `ready` ends the reload."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Notify that the process is stopping."""
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
