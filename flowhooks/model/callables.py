"""Check that functions of plugins have the parameters that flowhooks passes."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from flowhooks.errors import HandlerError

if TYPE_CHECKING:
    from collections.abc import Callable


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    # A decorator with `*args` passes its arguments on, so the wrapped function's parameters apply.
    try:
        parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError) as error:
        raise HandlerError(f"its arguments cannot be read: {error}") from None
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return _parameters(wrapped)
    return parameters


def _count_positional(function: Callable[..., Any]) -> tuple[int, int, list[str]]:
    """Return a function's minimum and maximum number of positional arguments, and their names."""
    parameters = _parameters(function)
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        raise HandlerError(
            "it has keyword-only arguments without a default; it is called as (event) or (event, delivery)"
        )
    # A partial function has keyword-only arguments that its author has given already.
    if not isinstance(function, partial) and any(p.kind is p.KEYWORD_ONLY and p.name == "delivery" for p in parameters):
        raise HandlerError("delivery is keyword-only, but it is called as (event, delivery): remove the * before it")
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    max_count = 99 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(positional)
    return sum(p.default is p.empty for p in positional), max_count, [p.name for p in positional]


def _refuse_async(function: Any) -> None:
    target = inspect.unwrap(function) if callable(function) else function
    for candidate in (target, getattr(target, "__call__", None)):  # noqa: B004 (an object may have an async __call__)
        if (
            inspect.iscoroutinefunction(candidate)
            or inspect.isasyncgenfunction(candidate)
            or inspect.isgeneratorfunction(candidate)
        ):
            raise HandlerError("`async def` and generators are not supported; write a plain function")


def _check_order(names: list[str], prefix: str = "it ") -> None:
    if names[:1] == ["delivery"] or names[1:2] == ["event"]:
        raise HandlerError(
            f"{prefix}is called as (event, delivery), but its parameters are ({', '.join(names)}): event is first"
        )


def takes_delivery(function: Any) -> bool:
    """Return whether a handler's function takes the delivery as its second argument.

    Raises:
        HandlerError: it is not a plain function of `(event)` or `(event, delivery)`.
    """
    if not callable(function) or isinstance(function, type):
        raise HandlerError(f"@handler must decorate a function, not {function!r}")
    _refuse_async(function)
    min_count, max_count, names = _count_positional(function)
    if min_count > 2 or max_count < 1:  # noqa: PLR2004 (event and delivery)
        counts = f"{min_count}" if min_count == max_count else f"{min_count} to {max_count}"
        raise HandlerError(f"it takes {counts} arguments; it is called as (event) or (event, delivery)")
    _check_order(names)
    return min_count == 2 or names[1:2] == ["delivery"]  # noqa: PLR2004 (event and delivery)


def check_probe(probe: Any) -> None:
    """Check a handler's `probe=`.

    Raises:
        HandlerError: it is not a plain function of `(event, delivery)`.
    """
    if probe is None:
        return
    if not callable(probe):
        raise HandlerError(f"probe= must be a function of (event, delivery), not {probe!r}")
    _refuse_async(probe)
    min_count, max_count, names = _count_positional(probe)
    if min_count > 2 or max_count < 2:  # noqa: PLR2004 (event and delivery)
        raise HandlerError("probe= is called as (event, delivery)")
    _check_order(names, "probe= ")
