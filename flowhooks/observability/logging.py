"""The log handler of a process and its formats: one line per record.

The rest of flowhooks logs with `structlog.get_logger(__name__).info("event_name", key=value)`. Modules that short
commands import use the same function of `flowhooks.logger`. The event is a fixed name, and everything that varies is a
value. Libraries log through the standard library. Both reach the same handler.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import logging
import math
import os
import sys
import threading
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO
from uuid import UUID

import structlog

from flowhooks.model.invocation import current_invocation
from flowhooks.observability.attempt_lines import add_to_attempt, value_text
from flowhooks.text import escape_control, truncate_middle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

MAX_BYTES: Final = 131_072
"""Maximum number of bytes of a value that are searched for secrets, before it is shortened. A secret has half of it."""
MAX_VALUE_CHARS: Final = 8192
"""Maximum number of characters that are logged of one value."""
MAX_TRACEBACK_CHARS: Final = 32768
"""Maximum number of characters that are logged of a traceback. A longer one is cut in the middle."""
_MAX_DEPTH: Final = 6
_JSON: Final = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
_ASCII_JSON: Final = json.JSONEncoder(allow_nan=False)
_MAX_NUMBER_BITS: Final = 64  # JSON parsers lose digits of wider integers

LIBRARY_LEVELS: Final[Mapping[str, int]] = {
    "waitress.queue": logging.ERROR,  # logs a warning for each request that waits for a thread
    "alembic": logging.WARNING,  # logs the dialect at each start
    "sqlalchemy": logging.WARNING,  # logs every statement at level info, with the values of callbacks
}
"""Least severe level that is logged, for each library that logs too much."""


def configure(
    level: str,
    format: Literal["auto", "json", "text"],  # noqa: A002 (the setting's own word)
    stream: TextIO | None = None,
    *,
    redact: Callable[[str], str] = str,
    pid: int | None = None,
) -> None:
    """Send every log record, warning and uncaught exception of this process to one stream, one line each.

    The configuration is process-wide, as that of `logging` is, and a second call replaces the first. If the stream
    breaks, records are lost, and nothing else happens.

    Args:
        level: the least severe level that is logged, such as `"info"`.
        format: `"json"`: one object per line, with `time` (UTC), `level`, `logger`, `event`, the values of the record
            and, for an exception, its `traceback`; ASCII only if the stream is not UTF-8. `"text"`: for people.
            `"auto"`: text if the stream is a terminal, otherwise JSON.
        stream: default: standard error.
        redact: masks secrets in a text, whichever library logs it; default: masks nothing.
        pid: the process id to add to each record; None: records have none, because no other process writes to the
            stream.
    """
    stream = stream or sys.stderr
    handler = _LineHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.PositionalArgumentsFormatter(),
                _add_invocation,
                _RecordFields(redact, pid),
                add_to_attempt,
                _JsonLine(_JSON if _is_utf8(stream) else _ASCII_JSON)
                if format == "json" or (format == "auto" and not stream.isatty())
                else _TextLine(colors=_wants_colors(stream)),
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _LineHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, least in LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(least)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=_Logger,
        logger_factory=_logger,
        # A cached logger would keep this configuration forever, and save only 1.5 of the 30 microseconds that a record
        # costs.
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)
    threading.excepthook = _log_thread_death
    sys.excepthook = _log_crash
    sys.unraisablehook = _log_unraisable


def _logger(*names: str) -> logging.Logger:
    return logging.getLogger(names[0] if names else "flowhooks")


class _Logger(structlog.stdlib.BoundLogger):
    """A logger that raises no exception of handlers and filters that plugins and libraries have added to `logging`.

    `logging` passes such an exception to the code that logs. It would end threads of flowhooks, and keep outcomes from
    being recorded.
    """

    def _proxy_to_logger(self, method_name: str, event: str | None = None, *event_args: str, **event_kw: Any) -> Any:
        try:
            return super()._proxy_to_logger(method_name, event, *event_args, **event_kw)
        except RecursionError:
            raise  # as in `_LineHandler`
        except Exception as error:  # noqa: BLE001 (such a handler may raise anything)
            _report_failed_handler(event, error)


def _report_failed_handler(event: str | None, error: Exception) -> None:
    record = logging.makeLogRecord(
        {
            "name": "flowhooks",
            "levelno": logging.ERROR,
            "levelname": "ERROR",
            "msg": "log_handler_failed",
            "record": event,
            "next": "correct the log handler or filter that a plugin or a library has added",
            "exc_info": (type(error), error, error.__traceback__),
        }
    )
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _LineHandler):
            handler.handle(record)


def _wants_colors(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _is_utf8(stream: TextIO) -> bool:
    # A stream without an encoding, such as a StringIO, accepts any text.
    return codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name == "utf-8"


class _LineHandler(logging.StreamHandler[TextIO]):
    """A handler that writes one line per record; an error in it never reaches the program that logs."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except RecursionError:
            raise  # as `logging` does: continuing would overflow the interpreter's C stack
        except Exception as error:  # noqa: BLE001 (a record that cannot be shown is still a record)
            line = self.format(_stand_in(record, error))
        with contextlib.suppress(OSError, ValueError):  # a closed pipe or file: there is no other place to log to
            self._write(line)

    def _write(self, line: str) -> None:
        try:
            self.stream.write(line + "\n")
        except UnicodeEncodeError:
            self.stream.write(line.encode("ascii", "backslashreplace").decode("ascii") + "\n")
        self.flush()


class AttemptLogHandler(logging.Handler):
    """A handler that only adds records to the log of their attempt, for a process without `configure`.

    Of several such handlers the first one adds a record.

    Args:
        redact: masks secrets in a text.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
                processors=[
                    structlog.stdlib.PositionalArgumentsFormatter(),
                    _add_invocation,
                    _RecordFields(redact, None),
                    add_to_attempt,
                    _JsonLine(_JSON),
                ],
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record to the log of its attempt; an error in it never reaches the program that logs."""
        handlers = logging.getLogger().handlers
        collectors = [handler for handler in handlers if isinstance(handler, _LineHandler | AttemptLogHandler)]
        if current_invocation() is None or collectors[:1] != [self]:
            return
        try:
            self.format(record)
        except RecursionError:
            raise
        except Exception as error:  # noqa: BLE001 (as in `_LineHandler`)
            self.format(_stand_in(record, error))


def _stand_in(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    """Return a record in place of one that cannot be formatted."""
    return logging.makeLogRecord(
        {
            "name": record.name,
            "levelno": record.levelno,
            "levelname": record.levelname,
            "created": time.time(),
            "msg": "log_record_unreadable",
            "template": record.msg,
            "arguments": record.args,
            "problem": type(error).__name__,
        }
    )


def _add_invocation(_: Any, __: str, values: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the delivery and its event to a record that is logged while a handler runs, whichever library logs it.

    Another value of the record with the name of such a field gets the suffix `_`.
    """
    invocation = current_invocation()
    if invocation is not None:
        for name, value in invocation.log_fields().items():
            own = values.pop(name, value)
            if not (isinstance(own, str | int) and own == value):
                values[f"{name}_"] = own
            values[name] = value
    return values


class _RecordFields:
    """A processor that collects a record's standard fields, its own values and its traceback; it redacts secrets."""

    __slots__ = ("_pid", "_redact")

    def __init__(self, redact: Callable[[str], str], pid: int | None) -> None:
        self._redact = redact
        self._pid = pid

    def __call__(self, _: Any, __: str, values: structlog.typing.EventDict) -> dict[str, Any]:
        record: logging.LogRecord = values.pop("_record")
        if not values.pop("_from_structlog"):
            for left_behind in ("message", "asctime"):  # set by other formatters that have processed this record
                values.pop(left_behind, None)
        error = values.pop("exc_info", None)
        text = values.pop("traceback") if isinstance(values.get("traceback"), str) else None
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            "time": stamp.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": to_plain(values.pop("event", ""), self._redact),
        }
        if self._pid is not None:
            fields["pid"] = self._pid
            if values.get("pid") == self._pid:
                del values["pid"]
        if not isinstance(fields["event"], str):
            fields["event"] = _JSON.encode(fields["event"])
        for name, value in values.items():
            key = to_plain(name, self._redact)
            fields[f"{key}_" if key in fields or key == "traceback" else key] = to_plain(value, self._redact)
        if error:
            text = structlog.processors.format_exc_info(None, "", {"exc_info": error}).get("exception") or text
        if text:
            fields["traceback"] = _truncate_traceback(self._redact(text))
        return fields


class _JsonLine:
    """A processor that renders a record as one JSON object on one line, with control characters escaped."""

    __slots__ = ("_encoder",)

    def __init__(self, encoder: json.JSONEncoder) -> None:
        self._encoder = encoder

    def __call__(self, _: Any, __: str, fields: structlog.typing.EventDict) -> str:
        line = self._encoder.encode(fields)
        # Line separators, marks that reverse text and similar characters could forge a line. JSON has them in strings
        # only.
        return escape_control(line)


class _TextLine:
    """A processor that renders a record for people; continuation lines are indented, unlike records."""

    __slots__ = ("_render",)

    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False, timestamp_key="time")

    def __call__(self, logger: Any, method: str, fields: structlog.typing.EventDict) -> str:
        traceback = fields.pop("traceback", None)
        rendered: dict[str, Any] = {}
        for key, value in fields.items():
            if key in {"time", "level", "logger", "event"}:
                rendered[key] = escape_control(value)
            else:
                rendered[f"{key}_" if key in {"exception", "stack"} else escape_control(key)] = _TextValue(value)
        if traceback:
            rendered["exception"] = "\n".join(f"    {escape_control(line)}" for line in traceback.split("\n"))
        return str(self._render(logger, method, rendered))


class _TextValue:
    """A value whose repr is a plain word if possible, otherwise a quoted and escaped string."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        return value_text(self._value)


def _truncate_traceback(text: str) -> str:
    left_out = len(text) - MAX_TRACEBACK_CHARS
    return truncate_middle(text, MAX_TRACEBACK_CHARS, f"\n… ({left_out} characters left out) …\n")


def to_plain(value: Any, redact: Callable[[str], str] = str) -> Any:
    """Return `value` as data for JSON, at most `MAX_VALUE_CHARS` of it. Never raises, even if a method of it does."""
    try:
        return _Clipper(redact).to_plain(value, 0)
    except Exception:  # noqa: BLE001 (a value's own methods may raise anything)
        return f"<{type(value).__name__} that cannot be shown>"


class _Clipper:
    """A converter to plain data within limits of length and depth, which also end cycles."""

    __slots__ = ("_left", "_redact")

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._left = MAX_VALUE_CHARS

    def to_plain(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if not isinstance(value, dict | list | tuple):
            return self._to_scalar(value)
        if depth >= _MAX_DEPTH:
            return "…"
        if isinstance(value, dict):
            return {
                self._clip(key if isinstance(key, str) else repr(key)): self.to_plain(inner, depth + 1)
                for key, inner in islice(value.items(), MAX_VALUE_CHARS)
                if self._left > 0
            }
        return [self.to_plain(inner, depth + 1) for inner in islice(value, MAX_VALUE_CHARS) if self._left > 0]

    def _to_scalar(self, value: Any) -> Any:
        match value:
            case None | bool():
                return value
            case str():
                return self._clip(str.__str__(value))
            case int():
                wide = value.bit_length() > _MAX_NUMBER_BITS
                return f"<a number of {value.bit_length()} bits>" if wide else int(value)
            case float():
                return float(value) if math.isfinite(value) else repr(float(value))
            case date() | PurePath() | UUID() | Decimal():
                return self._clip(str(value))
        # Far behind what is kept, so that the cut halves no secret that is kept.
        return self._clip(repr(value[:MAX_BYTES] if isinstance(value, bytes | bytearray) else value))

    def _clip(self, text: str) -> str:
        text = self._redact(text)  # before a cut could halve a secret
        if len(text) <= max(self._left, 0):
            self._left -= len(text)
            return text
        kept, self._left = text[: max(self._left, 0)], 0
        return f"{kept}… ({len(text)} characters)"


def _log_thread_death(args: threading.ExceptHookArgs) -> None:
    if issubclass(args.exc_type, SystemExit):
        return  # a thread's own way to end, as the standard hook has it
    structlog.get_logger("flowhooks").error(
        "thread_died",
        thread=args.thread.name if args.thread else None,
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )


def _log_crash(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    structlog.get_logger("flowhooks").critical("process_crashed", exc_info=(kind, error, traceback))


def _log_unraisable(args: sys.UnraisableHookArgs) -> None:
    structlog.get_logger("flowhooks").error(
        "unraisable_exception",
        where=args.object,
        problem=args.err_msg,
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )
