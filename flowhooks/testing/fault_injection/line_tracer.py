"""A tracer that records the executed lines of a handler and can raise an exception before one of them.

It uses `sys.settrace`, in the handler's own thread and only while the handler runs.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    from flowhooks.model.handler import Handler

_EXEMPT_FUNCTIONS: Final = frozenset({"__exit__", "__aexit__", "__del__"})
"""Cleanup functions, in which no exception is raised: a lock would stay locked that a real kill releases."""


class Killed(BaseException):
    """A simulated kill of the process."""


class Failure(Exception):
    """A simulated failure of a type that the handler cannot know."""


def is_test_code(module: str, plugin: str = "") -> bool:
    """Return whether a module is a test, by its name. Tests represent the world outside the plugin.

    Args:
        module: the module's name.
        plugin: the top-level package that is the plugin. Its own name may look like that of a test.
    """
    parts = module.split(".")
    if parts[0] == plugin:
        del parts[0]
    return module == "__main__" or any(
        part in {"test", "tests", "conftest"} or part.startswith("test_") or part.endswith("_test") for part in parts
    )


def belongs_to(handler: Handler, plugin: str = "") -> Callable[[str], bool]:
    """Return a function that tells whether the module of a name belongs to the handler's own code.

    The handler's own code is that of its top-level package, or of its module if that is a test.

    Args:
        handler: the handler.
        plugin: as in `is_test_code`.
    """
    home = str(getattr(inspect.unwrap(handler.function), "__module__", ""))
    if is_test_code(home, plugin):
        return home.__eq__
    package = home.partition(".")[0]
    return lambda module: module.partition(".")[0] == package and not is_test_code(module, plugin)


class LineTracer:
    """A tracer that counts executed lines, and raises an exception before one of them.

    Args:
        ours: returns whether the lines of a module count.
        at: the number of the line, from 1, before which the exception is raised; 0: none.
        error: the exception to raise.

    Attributes:
        places: `file.py:line` of each executed line, in order.
        reached: whether the exception was raised.
    """

    def __init__(self, ours: Callable[[str], bool], *, at: int = 0, error: type[BaseException] = Killed) -> None:
        self._ours = ours
        self._at = at
        self._error = error
        self.places: list[str] = []
        self.reached = False

    @contextmanager
    def trace(self) -> Iterator[None]:
        """Trace this thread's lines during the `with` block, in functions that are called within it."""
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _call(self, frame: FrameType, _event: str, _argument: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        if self.reached or code.co_name in _EXEMPT_FUNCTIONS or not self._ours(str(frame.f_globals.get("__name__"))):
            return None
        resumed = getattr(frame.f_trace, "__self__", None)  # of a generator or a coroutine
        if isinstance(resumed, _InFrame) and resumed.tracer is self:
            return resumed.line
        return _InFrame(self, *_excluded_lines(code)).line

    def count(self, frame: FrameType) -> None:
        """Count a line that is about to be executed."""
        self.places.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        if len(self.places) == self._at:
            self.reached = True
            raise self._error("simulated by flowhooks.testing")


class _InFrame:
    """One call of a function, with the lines that are not counted."""

    __slots__ = ("_headers", "_met", "_nowhere", "tracer")

    def __init__(self, tracer: LineTracer, headers: frozenset[int], nowhere: frozenset[int]) -> None:
        self.tracer = tracer
        self._headers = headers
        self._nowhere = nowhere
        self._met: set[int] = set()

    def line(self, frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
        """Handle an event of `sys.settrace`."""
        if event == "line":
            number = frame.f_lineno
            # A `with` header is traced again on exit, before `__exit__`, which an exception raised here would skip.
            again = number in self._headers and number in self._met
            self._met.add(number)
            if not again and number not in self._nowhere:
                self.tracer.count(frame)
        return self.line


@cache
def _excluded_lines(code: CodeType) -> tuple[frozenset[int], frozenset[int]]:
    """Return the lines of `with` headers, and those where no exception is injected."""
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    except (SyntaxError, ValueError):
        return frozenset(), frozenset()
    headers: set[int] = set()
    nowhere: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.With | ast.AsyncWith):
            last = max(item.context_expr.end_lineno or node.lineno for item in node.items)
            headers.update(range(node.lineno, last + 1))
        elif isinstance(node, ast.Try | ast.TryStar):
            nowhere.add(node.lineno)  # no code runs on this line, and it is not yet inside the `try`
            for statement in node.finalbody:
                nowhere.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return frozenset(headers), frozenset(nowhere)
