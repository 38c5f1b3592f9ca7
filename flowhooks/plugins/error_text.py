"""What went wrong in a plugin, in one line and in full."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Final

from flowhooks.errors import HandlerError, PluginError
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_OURS: Final = frozenset({"flowhooks", "pluggy", "importlib", "contextlib", "functools", "inspect"})
"""Top-level modules whose frames say nothing about the plugin: they only carried the call."""


def error_line(error: BaseException, *, top_module: str, redact: Callable[[str], str] = str) -> str:
    """What happened, and in which file and line where that is known.

    Args:
        error: whatever the plugin raised, or a `PluginError` of our own checks, which says all itself.
        top_module: the plugin's top-level module; a line in it tells its author more than one in a library.
        redact: masks secrets in what happened; default: there are none.

    Returns:
        Printable text without line breaks, at most some 600 characters before the place.
    """
    place = _location(error, top_module)
    text = printable_line(redact(_message(error)))  # before it is cut, and its white space run together
    # A declaration that `@handler` refuses already says where it stands.
    named = isinstance(error, HandlerError) and place.rpartition(":")[0] in text
    return text if not place or named else f"{text} ({printable_line(place)})"


def traceback_text(error: BaseException) -> str:
    """The traceback from the plugin's first frame on; `""` for a finding of our own checks."""
    if isinstance(error, PluginError):
        return ""
    entry = error.__traceback__
    while entry is not None and _is_ours(entry):
        entry = entry.tb_next
    return "".join(traceback.TracebackException(type(error), error, entry).format())


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
    except Exception:  # noqa: BLE001 (the plugin's own exception class may be as broken as the plugin)
        text = "its message cannot be read"
    return f"{name}: {text}" if text else name


def _location(error: BaseException, top_module: str) -> str:
    """Return `file:line` of a syntax error, else of the innermost frame of the plugin."""
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
