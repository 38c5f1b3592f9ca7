"""One connection: reads against the clock, answers errors, closes politely.

Written against waitress 3.0.2. `tests/unit/test_private_names.py` lists what this uses of its internals.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from typing import Any, Final

import falcon
import structlog
import waitress.task  # type: ignore[import-untyped]  # waitress has no types
from waitress.channel import ClientDisconnected, HTTPChannel  # type: ignore[import-untyped]  # no types

from flowhooks import messages
from flowhooks.web import errors, negotiation
from flowhooks.web.server.parser import RequestParser

SEND_BUFFER_BYTES: Final = 65536
"""Bytes of an answer up to which it is sent when it is complete, not while it is written."""
RETRY_AFTER_SECONDS: Final = 5
"""Seconds after which a client may call again that was refused for want of room."""
LINGER_SECONDS: Final = 2.0
"""How long a client that is still sending is listened to after its answer, so that it can read it."""
MAX_LINGER_BYTES: Final = 64 * 1024 * 1024
"""How much of what it is still sending is read and thrown away meanwhile."""

_log = structlog.get_logger(__name__)


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
    # To HTTP/1.0 that asked for more, waitress would promise to stay, beside saying that it closes.
    request.headers["CONNECTION"] = "close"
    task.set_close_on_finish()
    task.write(b"" if request.command == "HEAD" else body)


class _TimedTask:
    """The common part of both kinds of task: measures the time of the response."""

    channel: Any

    def write(self, data: bytes) -> None:
        """Send a part of the answer; the head goes out with the first one."""
        super().write(data)  # type: ignore[misc]  # the task of waitress that this is mixed into
        self.channel.flush_output()

    def finish(self) -> None:
        """End the answer; from now on the client is waited for."""
        super().finish()  # type: ignore[misc]  # as above
        self.channel.flush_output()
        # Before waitress takes the request off its list, from when on the loop may find the client too slow.
        self.channel.waiting_since = time.monotonic()


class _Task(_TimedTask, waitress.task.WSGITask):  # type: ignore[misc]  # waitress has no types
    """A request for the application."""

    def execute(self) -> None:
        """Call the application; whatever it lets through becomes an error."""
        try:
            super().execute()
        except ClientDisconnected:
            raise
        except BaseException as error:  # noqa: BLE001 (waitress leaves a connection open for ever after SystemExit)
            path = self.request.request_uri.partition("?")[0]
            _log.error("application_failed", path=path, exc_info=error)
            if self.wrote_header:
                # Part of an answer is out. It must not look whole, so it is not ended as chunks are.
                self.chunked_response = False
                self.close_on_finish = True
            else:
                _write_error(self, errors.LocalizedHTTPError(500, "internal"))

    def build_response_header(self) -> bytes:
        """The head of the answer; while the server drains or retires, the last one says that the connection closes."""
        channel = self.channel
        if channel.server.closing and len(channel.requests) <= 1 and not channel.request_started_at:
            channel.linger = True
            self.request.headers["CONNECTION"] = "close"
        head: bytes = super().build_response_header()
        return head


class _ErrorTask(_TimedTask, waitress.task.ErrorTask):  # type: ignore[misc]  # waitress has no types
    """A request that is rejected before the application."""

    def execute(self) -> None:
        """Answer the parser's refusal."""
        refusal = self.request.error
        if not isinstance(refusal, errors.LocalizedHTTPError):
            refusal = errors.LocalizedHTTPError(500, "internal")  # waitress's own, after an error that it has logged
        self.channel.linger = True
        self.channel.server.on_rejected(refusal.status_code)
        _write_error(self, refusal)


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """One connection.

    Attributes:
        waiting_since: since when the client has been waited for, by `time.monotonic`: its connection or its last
            answer.
        linger: whether the client may still be sending when its last answer is out. Closing at once would
            then reset the connection and lose the answer (RFC 9112 §9.6).
    """

    task_class = _Task
    error_task_class = _ErrorTask
    parser_class = RequestParser
    # What waitress says below a warning repeats the path, decoded: it could break a line of the log.
    logger = logging.getLogger("waitress.flowhooks")
    logger.setLevel(logging.WARNING)
    request: RequestParser | None = None
    linger = False
    _lingering = False
    _discarded = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.waiting_since = self._active_at = time.monotonic()
        super().__init__(*args, **kwargs)

    @property
    def last_activity(self) -> float:
        """When bytes last came or went, by `time.monotonic`: waitress's own wall clock may be set meanwhile."""
        return self._active_at

    @last_activity.setter
    def last_activity(self, _wall_clock: float) -> None:
        self._active_at = time.monotonic()

    @property
    def request_started_at(self) -> float:
        """When the request that is arriving began to, by `time.monotonic`; 0 if none is."""
        request = self.request
        return request.started_at if request is not None else 0.0

    def check(self, now: float) -> None:
        """Hold the client to its time limits. Called in the loop's thread, once a second or oftener.

        Args:
            now: by `time.monotonic`.
        """
        limits = self.server.limits
        if self._lingering:
            if now - self.waiting_since > LINGER_SECONDS:
                self.handle_close()
        elif self.requests:
            # The server's turn, unless the answer is so large that it waits for the client to read it.
            if self.total_outbufs_len and now - self._active_at > limits.idle_timeout:
                self.handle_close()
        elif self.request_started_at and not self.close_when_flushed:
            # What came while an earlier request was answered could not be read meanwhile.
            if now - max(self.waiting_since, self.request_started_at) > limits.read_timeout:
                self._reject_late()
        elif now - self.waiting_since > self.server.idle_timeout or (self.server.draining and self._is_idle()):
            self.handle_close()

    def _is_idle(self) -> bool:
        if self.total_outbufs_len or self.will_close or self.close_when_flushed:
            return False
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except OSError:  # nothing has come, or the client is gone
            return True

    def _reject_late(self) -> None:
        with self.requests_lock:
            request, self.request = self.request, None
            if request is None:  # closed meanwhile
                return
            request.reject(errors.LocalizedHTTPError(408, "request_timeout"))
            self.requests.append(request)
        self.server.add_task(self)

    def write_soon(self, data: Any) -> int:
        """Take a part of an answer. Its client is waited for from now on, however long the answer has taken."""
        if not self.total_outbufs_len:
            self._active_at = time.monotonic()
        return int(super().write_soon(data))

    def flush_output(self) -> None:
        """Send what a task has written, as much as the client takes at once; the loop sends the rest.

        Not at each `write_soon`, as waitress does: head and body would be two calls of the system, and each of them
        lets go of the interpreter, which then has to be won back from all other threads.
        """
        if self.total_outbufs_len:
            with self.outbuf_lock:
                self._flush_exception(self._flush_some, do_close=False)

    def readable(self) -> bool:
        """Whether the loop should wake when the client sends."""
        return self._lingering or super().readable()

    def writable(self) -> bool:
        """Whether the loop should wake when the client can take more."""
        if self._lingering:
            return False
        # A thread that is writing its answer holds the lock that sending needs. The loop would spin until it lets go,
        # and take the interpreter from it meanwhile; the thread wakes the loop itself when the answer is complete.
        if self.requests and self.total_outbufs_len < SEND_BUFFER_BYTES and not self.will_close:
            return False
        return bool(super().writable())

    def handle_read(self) -> None:
        """Take what the client sends."""
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

    def handle_write(self) -> None:
        """Send what waits to be sent; then close, if that was said."""
        if not self.linger:
            super().handle_write()
            return
        if self.total_outbufs_len:
            self._flush_exception(self._flush_some_if_lockable if self.requests else self._flush_some)
        if self.will_close:
            self.handle_close()
        elif self.connected and self.close_when_flushed and not self.total_outbufs_len:
            self._lingering = True
            self.waiting_since = time.monotonic()
            with contextlib.suppress(OSError):  # already gone, which the loop will see
                self.socket.shutdown(socket.SHUT_WR)

    def handle_close(self) -> None:
        """Close the connection and let go of a request that did not arrive whole."""
        if self.request is not None:
            self.request.close()
        super().handle_close()
