"""What is logged in a handler's process, on its way to the server's log; it must not know how that looks."""

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

LONGEST: Final = 8192
"""Characters of a message that are shipped."""
LONGEST_TRACEBACK: Final = 32768
MOST_FIELDS: Final = 65536
"""Characters of what a record says besides its message, as JSON; more is left out."""
_ORDINARY: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS: Final = frozenset(
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
"""What a record's own values cannot be called, where it is logged again."""
_LEVELS: Final = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)
"""Those at which it is logged again: of a level of a handler's own structlog would have no name."""


class Shipping(logging.Handler):
    """Hands each record on.

    Args:
        ship: takes a record, as plain values.
        conceal: masks secrets, before anything is cut: of half a one the server would not know that it is one.
    """

    def __init__(self, ship: Callable[[dict[str, Any]], None], conceal: Callable[[str], str]) -> None:
        super().__init__()
        self._ship = ship
        self._conceal = conceal
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one on; whatever goes wrong with it, the handler that logged goes on."""
        if os.getpid() != self._pid:  # a handler has forked: only one of the two speaks with the server
            with suppress(OSError, ValueError):
                sys.stderr.write(f"{record.getMessage()}\n")
            return
        try:
            self._ship(_plain(record, self._conceal))
        except Exception:  # noqa: BLE001 (logging stops nobody: the server has gone, or the record cannot be shown)
            return


def install(ship: Callable[[dict[str, Any]], None], level: int, conceal: Callable[[str], str] = str) -> None:
    """Have every log record of this process shipped, those of structlog too."""
    root = logging.getLogger()
    root.handlers[:] = [*(one for one in root.handlers if not isinstance(one, Shipping)), Shipping(ship, conceal)]
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


def _plain(record: logging.LogRecord, conceal: Callable[[str], str]) -> dict[str, Any]:
    error: Any = record.exc_info
    if isinstance(record.msg, dict):
        fields = dict(record.msg)
        message = str(fields.pop("event", ""))
        error = fields.pop("exc_info", None) or error
    else:
        fields = {name: value for name, value in vars(record).items() if name not in _ORDINARY}
        message = record.getMessage()
    text = ""
    if error:
        found = sys.exc_info()[1] if error is True else error[1] if isinstance(error, tuple) else error
        text = "".join(traceback.format_exception(found)) if isinstance(found, BaseException) else ""
    try:
        shown = json.loads(json.dumps(fields, default=repr))
        if len(json.dumps(shown)) > MOST_FIELDS:
            shown = {"left_out": sorted(shown)[:20]}
    except (TypeError, ValueError, RecursionError):
        shown = {}
    return {
        "logger": record.name,
        "level": record.levelno,
        "message": conceal(message)[:LONGEST],
        "fields": shown,
        "traceback": conceal(text)[-LONGEST_TRACEBACK:],
    }


def relog(found: Mapping[str, Any], **about: object) -> None:
    """Log in the server what was logged in a handler's process.

    Args:
        found: the record, as it was shipped.
        **about: on which attempt it was.
    """
    level = found.get("level")
    fields = found.get("fields")
    given = {
        f"{name}_" if name in _OURS or name in about else str(name): value
        for name, value in (fields.items() if isinstance(fields, dict) else ())
    }
    if text := str(found.get("traceback") or ""):
        given["traceback"] = text
    said = level if isinstance(level, int) else logging.INFO
    logger = structlog.get_logger(str(found.get("logger") or "handler"))
    logger.log(
        next((one for one in _LEVELS if one <= said), logging.DEBUG), str(found.get("message")), **{**given, **about}
    )
