"""Identify the error of an attempt by its type, its message and the plugin's innermost frame, not by its values.

Only the stored texts are used, so a handler in a thread and the same handler in its own process have the same errors.
Line numbers and the folder of the plugin are no part of an error: they change with each version and machine.
"""

from __future__ import annotations

import inspect
import re
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.model.delivery import OutcomeKind
from flowhooks.model.error_group import FAILED, LOST, REJECTED, ErrorIdentity, identify
from flowhooks.model.traceback_text import frames

if TYPE_CHECKING:
    from flowhooks.model.handler import Handler

_TYPED: Final = re.compile(
    r"(?:(?:the run_handler wrapper of plugin \S+|flowhooks or a plugin) raised before .{0,40}: )?"
    r"([A-Za-z_][\w.<>]*)(?:: |\Z)"
)
_RETRY_AFTER: Final = "RetryAfter"


class _PluginFiles(NamedTuple):
    """The files of a plugin's code.

    Attributes:
        folder: the folder in which its package or module is, with a slash at the end.
        start: the path of its package with a slash at the end, or of its module.
    """

    folder: str
    start: str


def identify_error(handler: Handler, kind: OutcomeKind, error: str, traceback: str) -> ErrorIdentity:
    """Return the identity of the error of an attempt that has not succeeded.

    Args:
        handler: the handler.
        kind: how the attempt ended.
        error: the stored error line.
        traceback: the stored traceback; `""` if there is none.
    """
    if kind is OutcomeKind.REJECTED:
        return identify(handler.id, REJECTED, error)
    if kind is OutcomeKind.LOST:
        return identify(handler.id, LOST, error)  # what its process printed last is no traceback of an exception
    if not traceback:
        return identify(handler.id, FAILED, error)
    frame = _innermost_frame(handler, traceback)
    typed = _TYPED.match(error)
    # The module of a plugin file is called `flowhooks-file:` and the name of the file.
    if typed is not None and re.search(rf"^[ |]*+(?:\S+\.)?{re.escape(typed[1])}(?::|$)", traceback, re.MULTILINE):
        return identify(handler.id, typed[1], error[: typed.start(1)] + error[typed.end() :], frame)
    # Its line has no type, because its text is for operators.
    return identify(handler.id, _RETRY_AFTER if _RETRY_AFTER in traceback else FAILED, error, frame)


def _innermost_frame(handler: Handler, traceback: str) -> str:
    """Return the plugin's last frame in the text, which is that of the exception raised last; otherwise its first."""
    code = getattr(inspect.unwrap(handler.function), "__code__", None)
    module = getattr(handler.function, "__module__", None)
    files = None if code is None else _plugin_files(code.co_filename, str(module or ""))
    first = own = ""
    for frame in frames(traceback):
        first = first or f"{PurePath(frame.file).name}:{frame.function}"
        if files is not None and frame.file.startswith(files.start):
            own = f"{frame.file.removeprefix(files.folder)}:{frame.function}"
    return own or first


@lru_cache(maxsize=1024)
def _plugin_files(file: str, module: str) -> _PluginFiles:
    path = PurePath(file)
    levels = module.count(".") + (path.stem == "__init__")
    if levels == 0 or ":" in module or len(path.parents) <= levels:
        return _PluginFiles(f"{path.parent}/", str(path))
    folder = path.parents[levels]
    return _PluginFiles(f"{folder}/", f"{folder / path.relative_to(folder).parts[0]}/")
