"""Find the plugin whose `run_handler` raised an exception, by its traceback."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType


class PluginAttribution:
    """Finds the plugin that raised an exception.

    An exception of a handler passes through every wrapper, so the traceback has their frames, too. The innermost frame
    of a plugin's function, a handler or the built-in implementation is the origin.

    Args:
        implementations: implementations of the hook, each with its plugin's name.
        excluded: handlers and the built-in implementation; their exceptions are attributed to no wrapper.
    """

    def __init__(
        self, implementations: Iterable[tuple[Callable[..., Any], str]], *, excluded: Iterable[Callable[..., Any]]
    ) -> None:
        # With the file: code objects are equal if their code is, also in a copy of the file.
        self._owners: dict[tuple[str, CodeType], str | None] = {}
        self._places: dict[str, str] = {}
        for function in excluded:
            self._owners |= dict.fromkeys(map(_key, _codes(function)))
        for function, plugin in implementations:
            self._owners |= dict.fromkeys(map(_key, _codes(function)), plugin)
            self._places |= {f"{code.co_filename}:{code.co_firstlineno} ": plugin for code in _codes(function)}

    def responsible_plugin(self, exception: BaseException) -> str | None:
        """Return the plugin whose function raised `exception`; None if there is none."""
        owner: str | None = None
        module = ""
        entry = exception.__traceback__
        while entry is not None:
            owner = self._owners.get(_key(entry.tb_frame.f_code), owner)
            module = str(entry.tb_frame.f_globals.get("__name__"))
            entry = entry.tb_next
        if isinstance(exception, RuntimeError) and module.partition(".")[0] == "pluggy":
            # pluggy raises for a wrapper without a yield, or with two, and names the function's file and line.
            message = str(exception)
            return next((plugin for place, plugin in self._places.items() if place in message), owner)
        return owner


def _key(code: CodeType) -> tuple[str, CodeType]:
    return code.co_filename, code


def _codes(function: Callable[..., Any]) -> Iterator[CodeType]:
    """Yield the code objects of a function and of the functions that it wraps."""
    for candidate in (function, inspect.unwrap(function)):
        code = getattr(candidate, "__code__", None)
        if code is not None:
            yield code
