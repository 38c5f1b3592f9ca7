"""The time limit for one request.

The timeout of `httpx2` applies to each wait separately, so it does not stop a receiver that periodically sends a byte
or a 1xx response.
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
    """Context manager that closes the connection of one request after the time limit.

    Args:
        seconds: the time limit.

    Attributes:
        expired: whether the time limit has passed.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Store a duplicate of the socket when the library has connected it.

        TLS detaches the original socket, so only the duplicate can be shut down later.

        Args:
            event: name of the event of `httpx2`; all events except the end of the TCP connect are ignored.
            info: data of the event.
        """
        if event == "connection.connect_tcp.complete":
            connection: socket.socket = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._close()
                self._socket = connection.dup()
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
            with suppress(OSError):  # the peer has already closed the connection
                self._socket.shutdown(SHUT_RDWR)  # wakes a thread that reads or writes

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
