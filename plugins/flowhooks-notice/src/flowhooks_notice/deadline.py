"""The time limit for sending one message.

The timeout of a socket applies to each wait separately, so it does not stop a server that periodically sends a byte.
"""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT_FACTOR: Final = 5
"""The time limit of a message, as a multiple of the timeout of one step."""


class Deadline:
    """Context manager that closes the connection of one message after the time limit.

    An error that occurs after the time limit is replaced by a TimeoutError.

    Args:
        timeout: seconds for one step; the time limit is `TIMEOUT_FACTOR` times as long.
    """

    def __init__(self, timeout: float) -> None:
        self._expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(TIMEOUT_FACTOR * timeout, self._expire)
        self._timer.daemon = True

    def connect(
        self, address: tuple[str, int], timeout: float, source_address: tuple[str, int] | None = None
    ) -> socket.socket:
        """Connect as `socket.create_connection` does, and store a duplicate of the socket.

        TLS detaches the original socket, so only the duplicate can be shut down later.
        """
        connection = socket.create_connection(address, timeout, source_address)
        with self._lock:
            self._close()
            self._socket = connection.dup()
            if self._expired:
                self._shut_down()
        return connection

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._close()
        if error is not None and self._expired:
            raise TimeoutError(errno.ETIMEDOUT, "timed out") from None

    def _expire(self) -> None:
        with self._lock:
            self._expired = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # the peer has already closed the connection
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads or writes

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
