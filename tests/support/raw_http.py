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
OURS = re.compile(rb"Traceback|File \"|\.py\b|site-packages|sqlalchemy|sqlite|SELECT |INSERT |UPDATE ", re.IGNORECASE)
"""Texts that no response may show: tracebacks, files and SQL."""
HEAD = re.compile(rb"HTTP/1\.[01] (\d{3}) ([A-Za-z ]+)\r\n((?:[A-Za-z-]+: [\t -~]*\r\n)*)\r\n")
"""The head of a response: only one status line and fields without controls."""

MIN_DELAY = 0.25
"""Seconds between connecting and having sent after which a server may have closed: half the shortest read timeout."""
MAX_TRIES = 5
BODILESS = re.compile(rb"HEAD [!-~]+ HTTP/1\.[01]\r\n")
"""Requests whose responses have no bodies. A line that is not parsed completely is no such request."""


class Answer(NamedTuple):
    """One response as it was received."""

    status: int
    headers: dict[str, str]
    body: bytes


def answers(came, *, to=b""):
    """The responses in some bytes, which must be complete and follow the contract.

    Args:
        came: all bytes received until the server closed.
        to: the sent bytes; if they begin with a HEAD request, the first response has no body.

    Raises:
        AssertionError: a response is incomplete or violates the contract.
    """
    found = []
    while came:
        head = HEAD.match(came)
        assert head, (to, came[:500])
        status = int(head[1])
        lines = head[3].decode("ascii").split("\r\n")[:-1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert len(headers) == len(lines), (to, lines)
        came = came[head.end() :]
        if status == 100:
            found.append(Answer(status, headers, b""))
            continue
        first = all(one.status == 100 for one in found)
        length = 0 if first and BODILESS.match(to) else int(headers["content-length"])
        assert len(came) >= length, (to, head[0], came)
        found.append(Answer(status, headers, came[:length]))
        check(found[-1])
        came = came[length:]
    return found


def check(answer):
    """Check that a response is a success or an error envelope, and reveals nothing internal.

    Raises:
        AssertionError: it is neither, or does.
    """
    assert answer.headers["server"] == "flowhooks"
    if answer.status < 400 or not answer.body:
        return
    assert not OURS.search(answer.body), answer
    body = json.loads(answer.body)
    assert list(body) == ERROR, answer
    assert (body["success"], body["status"]) == (False, answer.status), answer
    assert body["errorInfo"] == {"message": body["message"]}, answer
    assert body["message"].strip(), answer
    assert datetime.fromisoformat(body["timestamp"]).utcoffset() is not None
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


def exchange(place, sent, *, half_close=False, timeout=WAIT_TIMEOUT):
    """Send bytes on a new connection; return all bytes until the server closes.

    A server closes a connection without an answer if the first byte arrives late. If that can be the reason, because
    this client was delayed, the bytes are sent again.

    Args:
        place: the host and port of the server.
        sent: the bytes.
        half_close: whether nothing more can be sent after them.
        timeout: seconds.

    Raises:
        TimeoutError: the server neither closes nor sends for `timeout` seconds.
    """
    for _ in range(MAX_TRIES):
        began = time.monotonic()
        with socket.create_connection(place, timeout=timeout) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # the server has already answered
                connection.sendall(sent)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            taken = time.monotonic() - began
            parts = []
            with suppress(ConnectionResetError):
                while part := connection.recv(65536):
                    parts.append(part)
        if parts or taken < MIN_DELAY:
            break
    return b"".join(parts)


def hang_up(place, sent, *, reset=False):
    """Send bytes on a new connection, and disconnect without reading; with `reset` by a TCP reset."""
    with socket.create_connection(place, timeout=WAIT_TIMEOUT) as connection:
        connection.sendall(sent)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
