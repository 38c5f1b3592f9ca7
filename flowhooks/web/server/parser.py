"""A strict parser for HTTP/1.1 requests (RFC 9112).

Written against waitress 3.0.2. waitress's own parser accepts Content-Length beside Transfer-Encoding and doubled
fields, takes a second for a field of 16,000 spaces, and raises ValueError on a Content-Length of 5,000 digits.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

import structlog
from waitress.buffers import OverflowableBuffer  # type: ignore[import-untyped]  # waitress has no types
from waitress.parser import HTTPRequestParser  # type: ignore[import-untyped]  # waitress has no types
from waitress.receiver import ChunkedReceiver, FixedStreamReceiver  # type: ignore[import-untyped]  # no types

from flowhooks.web.errors import LocalizedHTTPError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Z]+) ([!-~]+) HTTP/1\.([01])")
"""Methods in lower case are rejected: no registered method has lower-case letters, and proxies treat them differently.
"""
_HTTP_2_PREFACE: Final = b"PRI * HTTP/2.0\r\n"
"""The first line of a client that uses HTTP/2 without asking (RFC 9113 §3.4)."""
_FIELD_NAME: Final = re.compile(_TOKEN)
_INVALID_VALUE_BYTES: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_ABSOLUTE: Final = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)
_HOST: Final = re.compile(r"(?:\[[A-Za-z0-9.:_~-]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]{0,5})?")
"""A valid value of Host. The comma, which joins a doubled header, is not allowed."""
_DIGITS: Final = re.compile(r"[0-9]+")
_CHUNK_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_MAX_CHUNK_LINE_BYTES: Final = 256
"""Maximum length of the line before a chunk, in bytes. Clients write only the size there, at most 16 digits."""

_log = structlog.get_logger(__name__)


class RequestParser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """A parser of one request, whose bytes arrive in parts.

    `max_request_header_size` and `max_request_body_size` of waitress's adjustments are the largest sizes that are
    accepted. A rejected request is `completed`, and `error` has the reason.

    Attributes:
        repeated: the names of headers that the request has more than once, as the keys of `headers`, in which their
            values are joined.
        started_at: the time of its first byte, by `time.monotonic`; 0 before that.
    """

    version = "1.1"
    command = ""
    path = ""
    query = ""
    request_uri = ""
    header_plus: bytes = b""
    headers_finished: bool = False
    repeated: frozenset[str] = frozenset()
    started_at = 0.0
    _closed = False

    def received(self, data: bytes) -> int:
        """Parse bytes; return how many of them belong to this request."""
        if self._closed:
            return len(data)
        if self.completed:
            return 0
        try:
            return self._receive_body(data) if self.headers_finished else self._receive_head(data)
        except LocalizedHTTPError as refusal:
            self.reject(refusal)
            return len(data)

    def reject(self, refusal: LocalizedHTTPError) -> None:
        """End the request with an error, which its task sends."""
        if not self.headers_finished:
            # The error response uses the path and the language, also of a request that has not arrived completely.
            with contextlib.suppress(LocalizedHTTPError):
                self._parse_lines(self.header_plus.split(b"\r\n")[:-1])
        self.error = refusal
        self.completed = True
        self.expect_continue = False

    def close(self) -> None:
        """Release the body."""
        self._closed = True
        with contextlib.suppress(OSError):  # the disk is full: data not yet written to it is no longer needed
            super().close()

    def _receive_head(self, data: bytes) -> int:
        n_buffered = len(self.header_plus)
        head = self.header_plus + data
        if not n_buffered:
            # Old clients send an empty line after a body, which belongs to no request (RFC 9112 §2.2).
            head = head.lstrip(b"\r\n")
            if not head:
                return len(data)
            self.started_at = time.monotonic()
        end = head.find(b"\r\n\r\n", max(0, n_buffered - 3))
        self.header_plus = head if end < 0 else head[: end + 4]
        limit = self.adj.max_request_header_size
        if len(self.header_plus) > limit:
            raise LocalizedHTTPError(431, "headers_too_large", limit=limit)
        if self.header_plus.startswith(_HTTP_2_PREFACE):
            raise LocalizedHTTPError(505, "http_2")
        if end < 0:
            if _BARE_LF.search(head, n_buffered):
                # Reject now, because a head with such line ends might never end.
                raise LocalizedHTTPError(400, "bad_request")
            return len(data)
        self.headers_finished = True
        self._parse_lines(self.header_plus[:end].split(b"\r\n"))
        self._parse_target()
        self._parse_framing()
        self.completed = self.body_rcv is None
        return len(data) - len(head) + end + 4

    def _parse_lines(self, lines: Sequence[bytes]) -> None:
        match = _REQUEST_LINE.fullmatch(lines[0]) if lines else None
        if match:
            self.command, self.request_uri = match[1].decode("ascii"), match[2].decode("ascii")
            self.version = "1." + match[3].decode("ascii")
        well_formed = match is not None
        headers = self.headers
        for line in lines[1:]:
            if not (field := _split_field(line)):
                well_formed = False  # the other fields are still parsed: one may state the response's language
            elif b"_" not in field[0]:  # because CGI names do not distinguish it from a hyphen
                key = field[0].upper().replace(b"-", b"_").decode("ascii")
                value = field[1].decode("latin-1")
                if key in headers:
                    self.repeated |= {key}
                    value = f"{headers[key]}, {value}"
                headers[key] = value
        if not well_formed:
            raise LocalizedHTTPError(400, "bad_request")

    def _parse_target(self) -> None:
        target: str = self.request_uri
        field = host = self.headers.get("HOST", "" if self.version == "1.0" else None)
        if absolute := _ABSOLUTE.fullmatch(target):
            # RFC 9112 §3.2.2: every server accepts this form, and its host takes precedence over the Host field, which
            # must be there and be valid all the same (§3.2).
            host = self.headers["HOST"] = absolute[1] or None
            target = absolute[2] if absolute[2].startswith("/") else "/" + absolute[2]
        elif not target.startswith("/") and (self.command, target) != ("OPTIONS", "*"):
            raise LocalizedHTTPError(400, "bad_request")
        if not _is_host(field) or not _is_host(host) or "#" in target:
            raise LocalizedHTTPError(400, "bad_request")
        self.request_uri = target
        path, _, self.query = target.partition("?")
        self.path = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        if self.path.startswith("//"):
            # waitress would remove the second slash, so a proxy's rule for the path could be bypassed.
            raise LocalizedHTTPError(404, "path_slashes")
        self.url_scheme = self.adj.url_scheme

    def _parse_framing(self) -> None:
        headers = self.headers
        if "," in headers.get("CONNECTION", ""):
            # waitress's task recognises `close` and `keep-alive` only as single values.
            options = {option.strip(" \t").lower() for option in headers["CONNECTION"].split(",")}
            headers["CONNECTION"] = next((word for word in ("close", "keep-alive") if word in options), "")
        length, coding = headers.get("CONTENT_LENGTH"), headers.pop("TRANSFER_ENCODING", None)
        limit = self.adj.max_request_body_size
        if coding is not None:
            self._check_codings(coding, alone=length is None)
            self.chunked = True
            self.body_rcv = _ChunkedBody(self._buffer(), limit, self.adj.max_request_header_size)
        elif length is not None:
            if not _DIGITS.fullmatch(length):
                raise LocalizedHTTPError(400, "bad_request")
            length = length.lstrip("0") or "0"
            if len(length) > len(str(limit)) or int(length) > limit:
                raise LocalizedHTTPError(413, "too_large", limit=limit)
            headers["CONTENT_LENGTH"] = length
            self.content_length = int(length)
            if self.content_length:
                self.body_rcv = FixedStreamReceiver(self.content_length, self._buffer())
        self.expect_continue = (
            self.body_rcv is not None and self.version == "1.1" and headers.get("EXPECT", "").lower() == "100-continue"
        )

    def _check_codings(self, field: str, *, alone: bool) -> None:
        # RFC 9112 §6.1 and §6.3. Framings on which proxies differ are rejected, as the RFC permits.
        codings = [coding.strip(" \t").lower() for coding in field.split(",")]
        if not alone or self.version == "1.0" or codings[-1] != "chunked" or codings.count("chunked") > 1:
            raise LocalizedHTTPError(400, "bad_request")
        if len(codings) > 1:
            raise LocalizedHTTPError(501, "not_implemented")

    def _buffer(self) -> Any:
        return OverflowableBuffer(self.adj.inbuf_overflow)

    def _receive_body(self, data: bytes) -> int:
        try:
            taken: int = self.body_rcv.received(data)
        except OSError as error:  # a large body goes to a temporary file, and the disk is full
            _log.error("body_buffer_failed", why=error.strerror or str(error))
            raise LocalizedHTTPError(503, "no_room") from None
        if self.body_rcv.completed:
            self.completed = True
            if self.chunked:
                # For the application it is a body like any other.
                self.headers["CONTENT_LENGTH"] = str(len(self.body_rcv))
        return taken


class _ChunkedBody(ChunkedReceiver):  # type: ignore[misc]  # waitress has no types
    """A chunked body (RFC 9112 §7.1), parsed strictly.

    Args:
        buf: receives the body.
        limit: maximum size of the body in bytes.
        most_trailers: maximum size of the trailer section in bytes, which is not read.
    """

    def __init__(self, buf: Any, limit: int, most_trailers: int) -> None:
        super().__init__(buf)
        self._limit = limit
        self._trailers_left = most_trailers
        self._line = b""
        self._chunk_bytes_left = 0
        self._in_chunk = False
        self._in_trailers = False

    def received(self, data: bytes) -> int:
        """Parse bytes; return how many of them belong to this body."""
        at = 0
        while at < len(data) and not self.completed:
            at += self._receive_chunk(data, at) if self._chunk_bytes_left else self._receive_line_part(data, at)
        return at

    def _receive_chunk(self, data: bytes, at: int) -> int:
        part = data[at : at + self._chunk_bytes_left]
        self.buf.append(part)
        self._chunk_bytes_left -= len(part)
        return len(part)

    def _receive_line_part(self, data: bytes, at: int) -> int:
        # Only CRLF may follow a chunk.
        max_bytes = 0 if self._in_chunk else self._trailers_left if self._in_trailers else _MAX_CHUNK_LINE_BYTES
        n_buffered = len(self._line)
        line = self._line + data[at : at + max_bytes + 2 - n_buffered]
        end = line.find(b"\r\n", max(0, n_buffered - 1))
        if end >= 0:
            self._line = b""
            self._parse_line(line[:end])
            return end + 2 - n_buffered
        if len(line) > max_bytes + 1:
            raise LocalizedHTTPError(400, "bad_request")
        self._line = line
        return len(line) - n_buffered

    def _parse_line(self, line: bytes) -> None:
        if self._in_chunk:
            self._in_chunk = False
        elif not self._in_trailers:
            if not (match := _CHUNK_SIZE_LINE.fullmatch(line)):
                raise LocalizedHTTPError(400, "bad_request")
            self._chunk_bytes_left = int(match[1], 16)
            if len(self) + self._chunk_bytes_left > self._limit:
                raise LocalizedHTTPError(413, "too_large", limit=self._limit)
            self._in_chunk = self._chunk_bytes_left > 0
            self._in_trailers = not self._in_chunk
        elif line:
            self._trailers_left -= len(line) + 2
            if not _split_field(line) or self._trailers_left < 0:
                raise LocalizedHTTPError(400, "bad_request")
        else:
            self.completed = True


def _is_host(host: str | None) -> bool:
    return host is not None and _HOST.fullmatch(host) is not None


def _split_field(line: bytes) -> tuple[bytes, bytes] | None:
    """Split a field line (RFC 9112 §5) into name and value; None if it is malformed."""
    name, colon, value = line.partition(b":")
    if not colon or not _FIELD_NAME.fullmatch(name) or _INVALID_VALUE_BYTES.search(value):
        return None
    return name, value.strip(b" \t")
