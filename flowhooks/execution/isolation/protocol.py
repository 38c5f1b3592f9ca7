"""Encoding of deliveries, replies and exceptions between the server and a handler process.

Messages are JSON frames, each preceded by its length. Data from a handler process is never unpickled, because it is not
trusted.
"""

from __future__ import annotations

import json
import struct
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import HandlerRaised, Reject, RetryAfter
from flowhooks.execution.outcomes import MAX_ERROR_CHARS, MAX_TRACEBACK_CHARS, UNREADABLE_ERROR
from flowhooks.model.event import Event
from flowhooks.plugins.error_text import error_to_line, retry_delay, traceback_text
from flowhooks.text import to_storable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

MAX_FRAME_BYTES: Final = 5 * 1024**2
"""Maximum bytes of a frame from a handler process."""
# More than `result_encoding.MAX_RESULT_CHARS`, which the ledger stores: wrappers receive larger results, too.
MAX_VALUE_CHARS: Final = 1024**2
"""Maximum characters of a handler's result as JSON that is sent to the server. Each has at most four bytes."""
MAX_DROPPED_CHARS: Final = 2_000
"""Maximum characters of the reason why a result is not sent."""
_LENGTH: Final = struct.Struct("!I")
_FIELDS: Final = tuple(name for name in Event.__dataclass_fields__ if name not in {"data", "received_at"})


class ConnectionClosed(Exception):
    """The peer has closed the connection."""


class ProtocolError(Exception):
    """A message is malformed, or is not a reply to the request."""


def encode_frame(message: Mapping[str, Any]) -> bytes:
    """Encode a message as a frame."""
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
    body = text.encode("utf-8", "backslashreplace")  # escapes lone surrogates as JSON does
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Reads messages from a socket.

    Args:
        stream: the socket.
        max_bytes: maximum bytes of a message; None: no limit.
    """

    def __init__(self, stream: socket.socket, *, max_bytes: int | None = None) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def next(self, until: float | None = None) -> dict[str, Any]:
        """Return the next message.

        Args:
            until: deadline in `time.monotonic`; None: wait without limit.

        Raises:
            TimeoutError: the message did not arrive by the deadline.
            ConnectionClosed: the peer has closed the connection.
            ProtocolError: the message is malformed or too large.
        """
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, until))
        if self._max_bytes is not None and length > self._max_bytes:
            raise ProtocolError(f"a message of {length} bytes")
        try:
            message = json.loads(self._exactly(length, until))
        except (ValueError, RecursionError):
            raise ProtocolError("a message that is not JSON") from None
        if not isinstance(message, dict):
            raise ProtocolError("a message that is not an object")
        return message

    def _exactly(self, count: int, until: float | None) -> bytes:
        while len(self._buffer) < count:
            if until is not None:
                remaining = until - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError
                self._stream.settimeout(remaining)
            try:
                part = self._stream.recv(max(65536, min(count - len(self._buffer), 1024**2)))
            except TimeoutError:
                raise
            except OSError:
                part = b""
            if not part:
                raise ConnectionClosed
            self._buffer += part
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


def from_event(event: Event) -> dict[str, Any]:
    """Encode an event for a handler process."""
    fields = {name: getattr(event, name) for name in _FIELDS}
    return {**fields, "data": dict(event.data), "received_at": event.received_at.isoformat()}


def to_event(fields: Mapping[str, Any]) -> Event:
    """Decode an event in a handler process."""
    return Event(**{**fields, "received_at": datetime.fromisoformat(fields["received_at"])})


def from_error(error: BaseException, redact: Callable[[str], str]) -> dict[str, Any]:
    """Encode an exception of a handler: its name, text and traceback, with secrets masked. No exception passes on."""
    try:
        return _error_fields(error, redact)
    except BaseException as problem:  # noqa: BLE001 (reading a plugin's exception may run any code)
        return {"as": "error", "name": UNREADABLE_ERROR, "text": type(problem).__name__, "traceback": ""}


def _error_fields(error: BaseException, redact: Callable[[str], str]) -> dict[str, Any]:
    line = to_storable(redact(error_to_line(error)), MAX_ERROR_CHARS)
    if isinstance(error, Reject):
        return {"as": "reject", "text": line}
    traceback = to_storable(redact(traceback_text(error)), MAX_TRACEBACK_CHARS)
    name = type(error).__qualname__
    if (seconds := retry_delay(error)) is not None:
        return {"as": "retry", "seconds": seconds, "name": name, "text": line, "traceback": traceback}
    return {"as": "error", "name": name, "text": line, "traceback": traceback}


def to_error(fields: Mapping[str, Any]) -> BaseException:
    """Decode an exception of a handler in the server.

    Raises:
        ProtocolError: the fields do not describe an exception.
    """
    try:
        if fields["as"] == "reject":
            return Reject(_text(fields["text"]))
        raised = HandlerRaised(_text(fields["name"]), _text(fields["text"]), _text(fields["traceback"]))
        if fields["as"] == "retry":
            retry = RetryAfter(fields["seconds"], raised.text)
            retry.__cause__ = raised
            return retry
    except (LookupError, TypeError, ValueError):
        raise ProtocolError("an invalid exception") from None
    return raised


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
