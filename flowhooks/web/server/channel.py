"""One connection: time limits, error responses, and a close that does not lose the last response.

Written against waitress 3.0.2. `tests/unit/test_private_names.py` lists the internals of waitress that this module
uses.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from functools import lru_cache
from typing import Any, Final, NamedTuple

import falcon
import structlog
import waitress.task  # type: ignore[import-untyped]  # waitress has no types
from waitress.channel import ClientDisconnected, HTTPChannel  # type: ignore[import-untyped]  # no types
from waitress.utilities import build_http_date  # type: ignore[import-untyped]  # no types

from flowhooks import messages
from flowhooks.web import errors, negotiation
from flowhooks.web.client_network import client_network
from flowhooks.web.server.parser import RequestParser
from flowhooks.web.server.thread_pool import POOL
from flowhooks.web.server.trusted_proxy import FORWARDED_FOR, client_address, set_client_address

SEND_BUFFER_BYTES: Final = 65536
"""Size in bytes up to which a response is sent when it is complete, not while it is written."""
RETRY_AFTER_SECONDS: Final = 5
"""Seconds after which a client may retry a request that was rejected for lack of disk space."""
LINGER_SECONDS: Final = 2.0
"""Seconds for which data of a client that is still sending is read after its response, so that it can receive it."""
MAX_LINGER_BYTES: Final = 64 * 1024 * 1024
"""Maximum number of bytes that are read and discarded during that time."""
REPEATED_HEADERS: Final = "flowhooks.repeated_headers"
"""Names of the headers that a request has more than once, in its environ: in upper case, with `_` for `-`."""

_NOT_PLAIN: Final = frozenset({"Connection", "Server", "Transfer-Encoding"})
"""Headers of an application for which waitress writes another head."""
_http_date = lru_cache(maxsize=2)(build_http_date)
_log = structlog.get_logger(__name__)


@lru_cache(maxsize=128)
def _head_parts(status: str, names: tuple[str, ...]) -> tuple[tuple[str, int], ...] | None:
    """Return the text before the value of each header, in the order of waitress, with the index of the value.

    The value of `Server`, which waitress adds, follows those of `names`. None: waitress writes the head, because the
    response has no body, or one of unknown length, or a header that changes others.
    """
    titles = ["-".join([part.capitalize() for part in name.split("-")]) for name in names]
    if status.startswith(("1", "204", "304")) or "Content-Length" not in titles or not _NOT_PLAIN.isdisjoint(titles):
        return None
    ordered = sorted((title, index) for index, title in enumerate([*titles, "Server"]))
    return tuple((f"\r\n{title}: ", index) for title, index in ordered)


class Rejection(NamedTuple):
    """A request that was rejected before the application was called.

    Attributes:
        error: the error that it was answered with.
        method: its method; `""` if it has not arrived, or is malformed.
        path: its path, not decoded; `""` as above.
        address: the client's address; `""` if the trusted proxy sent no valid one.
        user_agent: the client's program, as it names itself; `""` if this header has not arrived.
    """

    error: errors.LocalizedHTTPError
    method: str
    path: str
    address: str
    user_agent: str = ""


def _write_error(task: Any, refusal: errors.LocalizedHTTPError) -> None:
    request = task.request
    status = refusal.status_code
    message = messages.text(
        refusal.key, negotiation.parse_accept_language(request.headers.get("ACCEPT_LANGUAGE")), **refusal.params
    )
    path = request.request_uri.partition("?")[0]
    body = errors.encode(errors.envelope(status=status, message=message, path=path))
    task.status = falcon.code_to_http_status(status)
    task.response_headers = list(errors.HEADERS)
    if status == 503:  # noqa: PLR2004 (Service Unavailable)
        task.response_headers.append(("Retry-After", str(RETRY_AFTER_SECONDS)))
    task.content_length = len(body)
    task.content_bytes_written = 0
    task.complete = True
    # For an HTTP/1.0 request with keep-alive, waitress would otherwise send `Connection: Keep-Alive` beside `close`.
    request.headers["CONNECTION"] = "close"
    task.set_close_on_finish()
    task.write(b"" if request.command == "HEAD" else body)


class _TimedTask:
    """The common part of both kinds of task: flushes the response, and notes when the wait for the client starts."""

    channel: Any

    def write(self, data: bytes) -> None:
        """Send a part of the response; the first part goes out together with the head."""
        super().write(data)  # type: ignore[misc]  # the task of waitress that this is mixed into
        self.channel.flush_output()

    def finish(self) -> None:
        """End the response and start to wait for the client."""
        super().finish()  # type: ignore[misc]  # as above
        self.channel.flush_output()
        # Set before waitress removes the request from its list: from then on the loop checks the client's time limits.
        self.channel.waiting_since = time.monotonic()
        self.channel.answered = True


class _WaitressTask(_TimedTask, waitress.task.WSGITask):  # type: ignore[misc]  # waitress has no types
    """A request for the application."""

    def get_environment(self) -> dict[str, Any]:
        """Return the WSGI environ with the client's address, the names of repeated headers and the pool of threads."""
        environ: dict[str, Any] = super().get_environment()
        server = self.channel.server
        environ[REPEATED_HEADERS] = self.request.repeated
        environ[POOL] = server.task_dispatcher
        set_client_address(environ, server.limits.trusted_proxy)
        return environ

    def execute(self) -> None:
        """Call the application; turn an exception that it raises into an error response."""
        try:
            super().execute()
        except ClientDisconnected:
            raise
        except BaseException as error:  # noqa: BLE001 (waitress leaves a connection open forever after SystemExit)
            path = self.request.request_uri.partition("?")[0]
            _log.error("application_failed", path=path, exc_info=error)
            if self.wrote_header:
                # A part of the response is out. It must not look complete, so the last chunk is left out.
                self.chunked_response = False
                self.close_on_finish = True
            else:
                _write_error(self, errors.LocalizedHTTPError(500, "internal"))

    def build_response_header(self) -> bytes:
        """Return the head of the response.

        While the server drains, retires or is about to, the last response announces that the connection closes.
        """
        channel = self.channel
        server = channel.server
        if server.closing or server.announces_closing:
            with channel.requests_lock:  # which the loop holds until it has parsed all that it has read
                is_last = len(channel.requests) <= 1 and not channel.request_started_at
            if is_last:
                channel.linger = True
                self.request.headers["CONNECTION"] = "close"
        headers = self.response_headers
        # waitress would format the same second again for each response.
        headers.append(("Date", _http_date(int(self.start_time))))
        if self.version == "1.1" and self.request.headers.get("CONNECTION", "").lower() != "close":
            # The same bytes as of waitress, in a third of its time. It has refused line ends in `start_response`.
            parts = _head_parts(self.status, tuple([name for name, _ in headers]))
            if parts is not None:
                values = [*[value for _, value in headers], server.adj.ident]
                lines = "".join([text + values[index] for text, index in parts])
                return f"HTTP/1.1 {self.status}{lines}\r\n\r\n".encode("latin-1")
        head: bytes = super().build_response_header()
        return head


class _ErrorTask(_TimedTask, waitress.task.ErrorTask):  # type: ignore[misc]  # waitress has no types
    """A request that is rejected before the application."""

    def execute(self) -> None:
        """Send the error that the parser raised."""
        refusal = self.request.error
        if not isinstance(refusal, errors.LocalizedHTTPError):
            refusal = errors.LocalizedHTTPError(500, "internal")  # waitress's own error, which it has logged
        self.channel.linger = True
        self.channel.server.on_rejected(self._describe(refusal))
        _write_error(self, refusal)

    def _describe(self, refusal: errors.LocalizedHTTPError) -> Rejection:
        request, listener = self.request, self.channel.server
        forwarded_for = request.headers.get(FORWARDED_FOR.removeprefix("HTTP_"))
        return Rejection(
            error=refusal,
            method=request.command,
            path=request.request_uri.partition("?")[0],
            address=client_address(self.channel.addr[0], forwarded_for, listener.limits.trusted_proxy) or "",
            user_agent=request.headers.get("USER_AGENT") or "",
        )


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """One connection.

    Attributes:
        waiting_since: the time, by `time.monotonic`, since which the server has been waiting for the client: when it
            connected, or when its last response was sent.
        answered: whether a request has been answered on this connection.
        network: the client's address, or its /64 network.
        linger: whether the client may still be sending after its last response. Closing at once would then reset the
            connection and lose the response (RFC 9112 §9.6).
    """

    task_class = _WaitressTask
    error_task_class = _ErrorTask
    parser_class = RequestParser
    # Messages of waitress below a warning contain the decoded path, which could break a line of the log.
    logger = logging.getLogger("waitress.flowhooks")
    logger.setLevel(logging.WARNING)
    request: RequestParser | None = None
    linger = False
    answered = False
    _lingering = False
    _discarded = 0
    _has_more = False  # whether the last read was as large as a read can be, so that more may have arrived

    def __init__(self, server: Any, sock: socket.socket, addr: Any, *args: Any, **kwargs: Any) -> None:
        self.waiting_since = self._active_at = time.monotonic()
        self.network = client_network(addr[0])
        super().__init__(server, sock, addr, *args, **kwargs)

    def add_channel(self, *args: Any) -> None:
        """Add the connection to the open ones of its network."""
        super().add_channel(*args)
        self.server.connections_by_network[self.network] += 1

    def del_channel(self, *args: Any) -> None:
        """Remove the connection from the open ones of its network."""
        is_open = self._fileno in self.server.active_channels
        super().del_channel(*args)
        if is_open:
            by_network = self.server.connections_by_network
            by_network[self.network] -= 1
            if not by_network[self.network]:
                del by_network[self.network]

    @property
    def last_activity(self) -> float:
        """Time of the last bytes sent or received, by `time.monotonic`; waitress's wall clock may be changed."""
        return self._active_at

    @last_activity.setter
    def last_activity(self, _wall_clock: float) -> None:
        self._active_at = time.monotonic()

    @property
    def request_started_at(self) -> float:
        """Time of the first byte of the request that is arriving, by `time.monotonic`; 0 if none is."""
        request = self.request
        return request.started_at if request is not None else 0.0

    def check(self, now: float) -> None:
        """Close the connection, or answer 408, if the client has exceeded a time limit.

        Called in the loop's thread, at least once a second.

        Args:
            now: the time by `time.monotonic` until which the data that arrived has been read, unless it is more than
                one read returns.
        """
        limits = self.server.limits
        if self._lingering:
            if now - self.waiting_since > LINGER_SECONDS:
                self.handle_close()
        elif self.requests or self.total_outbufs_len:
            # The server is busy with the request, or the client is reading its response: it may read slowly.
            if self.total_outbufs_len and now - self._active_at > limits.idle_timeout:
                self.handle_close()
        elif self.request_started_at and not self.close_when_flushed:
            # Bytes that arrived while an earlier request was answered could not be read before.
            is_late = now - max(self.waiting_since, self.request_started_at) > limits.read_timeout
            if is_late and not (self._has_more and self._active_at >= now):
                self._reject_late()
        elif now - self.waiting_since > self._max_wait or (self.server.draining and self._is_idle()):
            self.handle_close()

    @property
    def _max_wait(self) -> float:
        """Seconds for which this connection may stay open without a request."""
        timeout: float = self.server.idle_timeout
        return timeout if self.answered else min(timeout, self.server.limits.read_timeout)

    def is_busy_since(self, moment: float) -> bool:
        """Return whether a request is arriving or being answered, or the wait for one began after a time.

        Args:
            moment: the time by `time.monotonic`.
        """
        if self._lingering:
            return False  # the response was sent, and what arrives is discarded
        if self.requests or self.request_started_at or self.total_outbufs_len or self.waiting_since > moment:
            return True
        return self._has_unread_data()

    def is_idle_since(self, moment: float) -> bool:
        """Return whether nothing was sent or received since a time by `time.monotonic`, and nothing has arrived now.

        False for a connection that the client has closed: the loop is about to handle that.
        """
        if self.waiting_since > moment or self.requests or self.request_started_at or self._lingering:
            return False
        if self.total_outbufs_len or self.will_close or self.close_when_flushed:
            return False
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _is_idle(self) -> bool:
        if self.total_outbufs_len or self.will_close or self.close_when_flushed:
            return False
        return not self._has_unread_data()

    def _has_unread_data(self) -> bool:
        """Return whether the client has sent data that the loop has not read yet."""
        connection = self.socket  # the loop sets it to None when it closes the connection
        try:
            return connection is not None and bool(connection.recv(1, socket.MSG_PEEK))
        except OSError:  # no data has arrived, or the connection is closed
            return False

    def _reject_late(self) -> None:
        with self.requests_lock:
            request, self.request = self.request, None
            if request is None:  # closed meanwhile
                return
            request.reject(errors.LocalizedHTTPError(408, "request_timeout"))
            self.requests.append(request)
        self.server.add_task(self)

    def write_soon(self, data: Any) -> int:
        """Buffer a part of a response. The wait for the client starts now, however long the response has taken."""
        if not self.total_outbufs_len:
            self._active_at = time.monotonic()
        return int(super().write_soon(data))

    def flush_output(self) -> None:
        """Send as much of the output as the client accepts at once; the loop sends the rest.

        waitress sends at each `write_soon`. Head and body would then be two system calls, and each of them releases the
        interpreter lock, for which the thread then competes with all other threads.
        """
        if self.total_outbufs_len:
            with self.outbuf_lock:
                self._flush_exception(self._flush_some, do_close=False)

    def readable(self) -> bool:
        """Return whether the loop is to wake when the client sends."""
        return self._lingering or super().readable()

    def writable(self) -> bool:
        """Return whether the loop is to wake when the client can receive more."""
        if self._lingering:
            return False
        # A thread that writes its response holds the lock that sending needs. The loop would spin until that lock is
        # released, and compete for the interpreter lock meanwhile. The thread wakes the loop itself when the response
        # is complete.
        if self.requests and self.total_outbufs_len < SEND_BUFFER_BYTES and not self.will_close:
            return False
        return bool(super().writable())

    def handle_read(self) -> None:
        """Read data of the client; while lingering, discard it."""
        if not self._lingering:
            super().handle_read()
            return
        try:
            self._discarded += len(self.recv(65536))
        except OSError:
            self.handle_close()
        else:
            if self._discarded > MAX_LINGER_BYTES:
                self.handle_close()

    def received(self, data: bytes) -> Any:
        """Parse the data of one read."""
        self._has_more = len(data) >= self.adj.recv_bytes
        return super().received(data)

    def handle_write(self) -> None:
        """Send buffered output; then close the connection or start to linger, if that is due."""
        if not self.linger:
            had_output = self.total_outbufs_len
            super().handle_write()
            if had_output and not self.total_outbufs_len:
                self.waiting_since = time.monotonic()
            return
        if self.total_outbufs_len:
            self._flush_exception(self._flush_some_if_lockable if self.requests else self._flush_some)
        if self.will_close:
            self.handle_close()
        elif self.connected and self.close_when_flushed and not self.total_outbufs_len:
            self._lingering = True
            self.waiting_since = time.monotonic()
            with contextlib.suppress(OSError):  # already gone, as the loop will find
                self.socket.shutdown(socket.SHUT_WR)

    def handle_close(self) -> None:
        """Close the connection and release a request that has not arrived completely.

        Only the loop's thread closes connections while the loop runs, because no lock protects the map that it polls.
        In a request's thread, where waitress finds that a client is gone which waits for `100 Continue`, the connection
        is marked, and the loop closes it.
        """
        if self.server.loop_thread not in {None, threading.get_ident()}:
            self.will_close = True
            return
        if self.request is not None:
            self.request.close()
        super().handle_close()
