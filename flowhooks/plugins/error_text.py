"""Describe an error of a plugin, in one line and as a traceback."""

from __future__ import annotations

import inspect
import re
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from flowhooks.errors import MAX_DELAY_SECONDS, HandlerError, PluginError, RetryAfter
from flowhooks.model.handler import handler
from flowhooks.settings.types import did_you_mean
from flowhooks.text import one_line, printable_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_OURS: Final = frozenset({"flowhooks", "pluggy", "importlib", "contextlib", "functools", "inspect"})
"""Top-level modules whose frames are not part of the plugin: they only passed on the call."""
_MAX_CAUSES: Final = 20
"""Maximum length of a chain of exception causes whose tracebacks are removed."""
_HEADING: Final = "Traceback (most recent call last):\n"
_NO_DELAY: Final = (
    f"its seconds are not a number from 0 to {MAX_DELAY_SECONDS}, so it counts as any other exception; a subclass of "
    "RetryAfter must call super().__init__(seconds, why)"
)


def error_to_line(error: BaseException) -> str:
    """Return the text of an exception on one line. No exception passes on."""
    try:
        line = one_line(str(error))
    except BaseException as worse:  # noqa: BLE001 (a plugin's __str__ may run any code)
        line = f"(its text cannot be read: {type(worse).__name__})"
    if isinstance(error, RetryAfter) and retry_delay(error) is None:
        line = f"{line} ({_NO_DELAY})"
    return line


def retry_delay(error: BaseException) -> float | None:
    """Return the seconds after which `RetryAfter` asks to be retried; None for any other exception.

    If its seconds are not valid, the result is None, too. No exception passes on.
    """
    if isinstance(error, RetryAfter):
        with suppress(BaseException):  # reading an attribute of a plugin's class may run any code
            if 0 <= error.seconds <= MAX_DELAY_SECONDS:
                return float(error.seconds)
    return None


def error_line(error: BaseException, *, top_module: str, redact: Callable[[str], str] = str) -> str:
    """Return the message of an error, with file and line if they are known.

    Args:
        error: an exception raised by the plugin, or a `PluginError` of our own checks, whose message is complete.
        top_module: top-level module of the plugin; a line in it is preferred to a line in a library.
        redact: masks secrets in the message; default: nothing is masked.

    Returns:
        Printable text without line breaks, at most about 600 characters before the location.
    """
    place = _location(error, top_module)
    text = printable_line(redact(_message(error)))  # redact before the text is cut and its white space collapsed
    # The message of a declaration refused by `@handler` already has the location.
    named = isinstance(error, HandlerError) and place.rpartition(":")[0] in text
    return text if not place or named else f"{text} ({printable_line(place)})"


def traceback_text(error: BaseException) -> str:
    """Return the traceback from the plugin's first frame on; `""` for an error of our own checks.

    If the exception itself cannot be read, the traceback has only its frames and the name of its class.
    """
    if isinstance(error, PluginError):
        return ""
    entry = error.__traceback__
    while entry is not None and _is_ours(entry):
        entry = entry.tb_next
    try:
        return "".join(traceback.TracebackException(type(error), error, entry).format())
    except BaseException as worse:  # noqa: BLE001 (reading a plugin's exception may run any code)
        frames = "".join(
            f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}\n'
            for frame, line in traceback.walk_tb(entry)
        )
        name = type(error).__qualname__
        return f"{_HEADING}{frames}{name}: (its traceback cannot be formatted: {type(worse).__name__})\n"


def clear_tracebacks(error: BaseException) -> None:
    """Remove the tracebacks of an exception and of its causes, once its text is known. No exception passes on.

    A plugin may keep one exception object and raise it in each attempt. Each raise adds frames to its traceback, and
    each frame keeps the event of its attempt.
    """
    cause: BaseException | None = error
    with suppress(BaseException):  # reading an attribute of a plugin's class may run any code
        for _ in range(_MAX_CAUSES):
            if cause is None:
                return
            BaseException.with_traceback(cause, None)  # the class may have a method of this name
            cause = cause.__cause__ or cause.__context__


def _message(error: BaseException) -> str:
    if isinstance(error, PluginError | HandlerError):
        return str(error)
    if isinstance(error, SystemExit):
        return "it called sys.exit()"
    name = type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{name}: {error.msg}"
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 (a plugin's __str__ may run any code)
        text = "its message cannot be read"
    hint = _decorator_hint(text) if isinstance(error, TypeError) else ""
    if hint:  # from Python 3.14 on, the text has a hint of its own
        text = text.partition(". Did you mean ")[0]
    return f"{name}: {text}{hint}" if text else name


def _decorator_hint(text: str) -> str:
    """Return what to write instead, if `text` is Python's message about a wrong call of `@handler`."""
    if unknown := re.match(r"handler\(\) got an unexpected keyword argument '(\w+)'", text):
        names = list(inspect.signature(handler).parameters)
        return did_you_mean(unknown[1], [f"{name}=" for name in names]) or f"; it takes {', '.join(names)}"
    if re.match(r"handler\(\) takes \d+ positional arguments?", text):
        return "; write @handler(process_key=...), with parentheses and the names of the arguments"
    return ""


def _location(error: BaseException, top_module: str) -> str:
    """Return `file:line` of a syntax error, otherwise of the plugin's innermost frame."""
    if isinstance(error, PluginError):
        return ""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    foreign = own = ""
    entry = error.__traceback__
    while entry is not None:
        if not _is_ours(entry):
            foreign = f"{entry.tb_frame.f_code.co_filename}:{entry.tb_lineno}"
            module = str(entry.tb_frame.f_globals.get("__name__"))
            if module == top_module or module.startswith(f"{top_module}."):
                own = foreign
        entry = entry.tb_next
    return own or foreign


def _is_ours(entry: TracebackType) -> bool:
    return str(entry.tb_frame.f_globals.get("__name__")).partition(".")[0] in _OURS
