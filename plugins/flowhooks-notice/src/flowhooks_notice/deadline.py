"""The time limit of a whole message.

A socket's timeout is for each wait: a server that sends a byte or a line from time to time is never late.
"""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

FACTOR: Final = 5
"""A message may take this many times the timeout of one step."""


class Deadline:
    """Ends the connection of a message after a time. It is a context manager, for one message.

    An error that comes after this time leaves it as a TimeoutError.

    Args:
        timeout: seconds for one step.
    """

    def __init__(self, timeout: float) -> None:
        self._expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(FACTOR * timeout, self._expire)
        self._timer.daemon = True

    def connect(
        self, address: tuple[str, int], timeout: float, source_address: tuple[str, int] | None = None
    ) -> socket.socket:
        """Connect as `socket.create_connection` does, and keep a copy of the socket: TLS would take it away."""
        connected = socket.create_connection(address, timeout, source_address)
        with self._lock:
            self._close()
            self._socket = connected.dup()
            if self._expired:
                self._shut_down()
        return connected

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
            with suppress(OSError):  # the other end has closed it already
                self._socket.shutdown(socket.SHUT_RDWR)  # a thread that reads or writes it continues

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
