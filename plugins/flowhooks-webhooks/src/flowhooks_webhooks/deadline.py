"""The time limit of a whole request.

A timeout of `httpx2` is for each wait: a receiver that sends a byte or a 1xx response from time to time is never late.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self


class Deadline:
    """Ends a request's connection after a time. It is a context manager, for one request.

    Args:
        seconds: the time.

    Attributes:
        expired: whether the time has passed.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Copy the socket when the library has connected it: TLS would take the socket away."""
        if event == "connection.connect_tcp.complete":
            connected: socket.socket = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._close()
                self._socket = connected.dup()
                if self.expired:
                    self._shut_down()

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._close()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # the other end has closed it already
                self._socket.shutdown(SHUT_RDWR)  # a thread that reads or writes it continues

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
