"""An HTTP server on this machine that answers as broken engines, proxies and attackers do."""

from __future__ import annotations

import functools
import socketserver
import threading
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import io
    import socket
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

MIB: Final = 1_048_576
DRIP_INTERVAL: Final = 0.05
"""Seconds between two bytes of a slow answer: shorter than any timeout for one read."""
ENDLESS_BYTES: Final = 512 * MIB
"""Size of an answer that does not end: a client that reads it whole has no limit."""
BOMB_BYTES: Final = 256 * MIB
"""Size of an answer that is compressed to a thousandth."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that the server received.

    Attributes:
        method: its method.
        target: its path and query, as they were sent.
        headers: its header fields; names in lower case.
    """

    method: str
    target: str
    headers: Mapping[str, str]


class HostileServer:
    """Answers each request with `answer`. It is a context manager.

    Attributes:
        answer: the function that yields the bytes of the answer to a request.
        requests: the received requests.
        connections: the number of connections.
        sent: the number of bytes that were sent.
        stopped: set at the end, so that slow answers end.
        tls: if it is set, the server speaks TLS.
    """

    def __init__(self, answer: Callable[[Request], Iterator[bytes]]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        self.sent = 0
        self.stopped = threading.Event()
        self.tls: ssl.SSLContext | None = None
        hostile = self

        class Connection(socketserver.StreamRequestHandler):
            timeout = 60

            def handle(self) -> None:
                hostile.connections += 1
                with suppress(OSError):  # the client has closed the connection, as it should
                    hostile._serve(self.connection)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection)
        self._server.daemon_threads = False  # so that server_close() waits for them
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._server.server_address[1]
        return port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, connection: socket.socket) -> None:
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True)
        with connection, connection.makefile("rb") as file:
            request = _read_request(file)
            if request is None:
                return
            self.requests.append(request)
            self._send(connection, request)

    def _send(self, connection: socket.socket, request: Request) -> None:
        for part in self.answer(request):
            if self.stopped.is_set():
                return
            connection.sendall(part)
            self.sent += len(part)

    def drip(self, text: bytes) -> Iterator[bytes]:
        """Yield a text byte by byte, slowly, and then yield blanks without an end."""
        position = 0
        while not self.stopped.wait(DRIP_INTERVAL):
            yield text[position : position + 1] or b" "
            position += 1

    def wait(self) -> Iterator[bytes]:
        """Yield nothing until the server stops."""
        self.stopped.wait()
        yield b""


def response(status: int, body: bytes, content_type: str = "application/json", *fields: str, reason: str = "") -> bytes:
    """Return the bytes of a complete response."""
    head = [f"HTTP/1.1 {status} {reason or 'Status'}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "Connection: close", *fields, "", ""]).encode() + body


def endless(start: bytes) -> Iterator[bytes]:
    """Yield the start of a response, and then much more than anyone should read."""
    yield start
    part = b" " * 65_536
    for _ in range(ENDLESS_BYTES // len(part)):
        yield part


@functools.cache
def bomb() -> bytes:
    """Return a response whose compressed body grows a thousand times."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    start = packer.compress(b"[" + b" " * MIB) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a block does not depend on those before, so the same one can be sent many times.
    block = packer.compress(b" " * MIB) + packer.flush(zlib.Z_FULL_FLUSH)
    body = start + block * (BOMB_BYTES // MIB) + packer.flush()
    return response(200, body, "application/json", "Content-Encoding: gzip")


def _read_request(file: io.BufferedReader) -> Request | None:
    words = file.readline(65_536).decode("latin-1").split()
    if len(words) != 3 or not words[2].startswith("HTTP/"):  # noqa: PLR2004 (method, target and version)
        return None  # such as TLS
    headers: dict[str, str] = {}
    while (line := file.readline(65_536).decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    file.read(int(headers.get("content-length", "0")))
    return Request(words[0], words[1], headers)
