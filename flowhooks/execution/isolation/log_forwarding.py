"""Forward log records from a handler process to the server's log."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_MESSAGE_CHARS: Final = 8192
"""Maximum characters of a forwarded message."""
MAX_TRACEBACK_CHARS: Final = 32768
MAX_FIELDS_CHARS: Final = 65536
"""Maximum characters of a record's other fields as JSON; larger fields are left out."""
_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESERVED_FIELDS: Final = frozenset(
    {
        "attempt",
        "delivery",
        "event",
        "exc_info",
        "handler",
        "level",
        "logger",
        "method_name",
        "name",
        "positional_args",
        "self",
        "stack_info",
    }
)
"""Field names that a forwarded record cannot use in the server; they get the suffix `_`."""
_LEVELS: Final = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)
"""Levels at which the server logs forwarded records, because structlog knows no custom levels."""


class ForwardingHandler(logging.Handler):
    """Forwards each log record.

    Args:
        forward: receives a record as plain values.
        redact: masks secrets before a text is truncated, because half a secret could not be recognised.
    """

    def __init__(self, forward: Callable[[dict[str, Any]], None], redact: Callable[[str], str]) -> None:
        super().__init__()
        self._forward = forward
        self._redact = redact
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Forward a record; errors are ignored, so that logging never fails a handler."""
        if os.getpid() != self._pid:  # the handler has forked: only the parent may use the connection
            with suppress(OSError, ValueError):
                sys.stderr.write(f"{record.getMessage()}\n")
            return
        try:
            self._forward(_to_plain(record, self._redact))
        except Exception:  # noqa: BLE001 (logging must not fail a handler: the connection is closed, or the record is invalid)
            return


def install(forward: Callable[[dict[str, Any]], None], level: int, redact: Callable[[str], str] = str) -> None:
    """Forward every log record of this process, including those of structlog."""
    root = logging.getLogger()
    root.handlers[:] = [
        *(handler for handler in root.handlers if not isinstance(handler, ForwardingHandler)),
        ForwardingHandler(forward, redact),
    ]
    root.setLevel(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=lambda *names: logging.getLogger(names[0] if names else "flowhooks"),
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)


def _to_plain(record: logging.LogRecord, redact: Callable[[str], str]) -> dict[str, Any]:
    error: Any = record.exc_info
    if isinstance(record.msg, dict):
        fields = dict(record.msg)
        message = str(fields.pop("event", ""))
        error = fields.pop("exc_info", None) or error
    else:
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
        message = record.getMessage()
    text = ""
    if error:
        exception = sys.exc_info()[1] if error is True else error[1] if isinstance(error, tuple) else error
        text = "".join(traceback.format_exception(exception)) if isinstance(exception, BaseException) else ""
    try:
        plain_fields = json.loads(json.dumps(fields, default=repr))
        if len(json.dumps(plain_fields)) > MAX_FIELDS_CHARS:
            plain_fields = {"left_out": sorted(plain_fields)[:20]}
    except (TypeError, ValueError, RecursionError):
        plain_fields = {}
    return {
        "logger": record.name,
        "level": record.levelno,
        "message": redact(message)[:MAX_MESSAGE_CHARS],
        "fields": plain_fields,
        "traceback": redact(text)[-MAX_TRACEBACK_CHARS:],
    }


def emit_forwarded(record: Mapping[str, Any], **context: object) -> None:
    """Log a forwarded record in the server, with `context` (the attempt) added to its fields."""
    level = record.get("level")
    fields = record.get("fields")
    values = {
        f"{name}_" if name in _RESERVED_FIELDS or name in context else str(name): value
        for name, value in (fields.items() if isinstance(fields, dict) else ())
    }
    if text := str(record.get("traceback") or ""):
        values["traceback"] = text
    number = level if isinstance(level, int) else logging.INFO
    logger = structlog.get_logger(str(record.get("logger") or "handler"))
    logger.log(
        next((standard_level for standard_level in _LEVELS if standard_level <= number), logging.DEBUG),
        str(record.get("message")),
        **{**values, **context},
    )
