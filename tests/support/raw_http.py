"""Send bytes to a server and parse the responses, each complete and checked against the contract; no tests."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from support.waiting import WAIT_TIMEOUT

ERROR = ["success", "message", "errorInfo", "timestamp", "status", "error", "path"]
"""The members of an error, and no others."""
INTERNAL_DETAILS = re.compile(
    rb"Traceback|File \"|\.py\b|site-packages|sqlalchemy|sqlite|SELECT |INSERT |UPDATE ", re.IGNORECASE
)
"""Texts that no response may show: tracebacks, files and SQL."""
HEAD = re.compile(rb"HTTP/1\.[01] (\d{3}) ([A-Za-z ]+)\r\n((?:[A-Za-z-]+: [\t -~]*\r\n)*)\r\n")
"""The head of a response: only one status line and fields without controls."""

MIN_DELAY = 0.25
"""Seconds between connecting and having sent after which a server may have closed: half the shortest read timeout."""
MAX_TRIES = 5
BODILESS = re.compile(rb"HEAD [!-~]+ HTTP/1\.[01]\r\n")
"""Requests whose responses have no bodies. A line that is not parsed completely is no such request."""


class RawResponse(NamedTuple):
    """One response as it was received."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_responses(received, *, request=b""):
    """Parse the responses in received bytes; they must be complete and follow the contract.

    Args:
        received: all bytes received until the server closed the connection.
        request: the sent bytes; if they begin with a HEAD request, the first response has no body.

    Raises:
        AssertionError: a response is incomplete or violates the contract.
    """
    responses = []
    while received:
        head = HEAD.match(received)
        assert head, (request, received[:500])
        status = int(head[1])
        lines = head[3].decode("ascii").split("\r\n")[:-1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert len(headers) == len(lines), (request, lines)
        received = received[head.end() :]
        if status == 100:
            responses.append(RawResponse(status, headers, b""))
            continue
        first = all(response.status == 100 for response in responses)
        length = 0 if first and BODILESS.match(request) else int(headers["content-length"])
        assert len(received) >= length, (request, head[0], received)
        responses.append(RawResponse(status, headers, received[:length]))
        check(responses[-1])
        received = received[length:]
    return responses


def check(response):
    """Check that a response is a success or an error envelope, and reveals nothing internal.

    Raises:
        AssertionError: the response is neither, or reveals internal details.
    """
    assert response.headers["server"] == "flowhooks"
    if response.status < 400 or not response.body:
        return
    assert not INTERNAL_DETAILS.search(response.body), response
    body = json.loads(response.body)
    assert list(body) == ERROR, response
    assert (body["success"], body["status"]) == (False, response.status), response
    assert body["errorInfo"] == {"message": body["message"]}, response
    assert body["message"].strip(), response
    assert datetime.fromisoformat(body["timestamp"]).utcoffset() is not None
    assert response.headers["content-type"] == "application/json; charset=utf-8"


def exchange(address, request, *, half_close=False, timeout=WAIT_TIMEOUT):
    """Send bytes on a new connection; return all bytes until the server closes.

    A server closes a connection without an answer if the first byte arrives late. If that can be the reason, because
    this client was delayed, the bytes are sent again.

    Args:
        address: the host and port of the server.
        request: the bytes to send.
        half_close: whether the sending side is closed after them.
        timeout: the timeout of each socket operation in seconds.

    Raises:
        TimeoutError: the server neither closes nor sends for `timeout` seconds.
    """
    for _ in range(MAX_TRIES):
        began = time.monotonic()
        with socket.create_connection(address, timeout=timeout) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # the server has already answered
                connection.sendall(request)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            send_seconds = time.monotonic() - began
            parts = []
            with suppress(ConnectionResetError):
                while part := connection.recv(65536):
                    parts.append(part)
        if parts or send_seconds < MIN_DELAY:
            break
    return b"".join(parts)


def disconnect(address, request, *, reset=False):
    """Send bytes on a new connection, and disconnect without reading; with `reset` by a TCP reset."""
    with socket.create_connection(address, timeout=WAIT_TIMEOUT) as connection:
        connection.sendall(request)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
