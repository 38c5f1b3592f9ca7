"""Built-in hook implementations, registered like those of a plugin."""

from __future__ import annotations

import os
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import HandlerError
from flowhooks.hookspecs import hookimpl
from flowhooks.model.delivery import Delivery, Outcome, OutcomeKind
from flowhooks.model.invocation import Invocation, current_invocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler

_NOT_RUN: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)
"""Return types of calls whose code has not run. `@handler` refuses such functions, but decorators may hide them."""


@hookimpl(trylast=True)
def run_handler(handler: Handler, event: Event, delivery: Delivery) -> Outcome:
    """Call the handler's function in this thread or in its own process. Exceptions pass on to the wrappers."""
    invocation = current_invocation() or Invocation(delivery.id, delivery.attempt)  # a direct call of the hook
    if invocation.isolated_call is not None:
        value = invocation.isolated_call(event)
    else:
        invocation.entered = True
        value = call_handler(handler, event, delivery)
    return Outcome(kind=OutcomeKind.SUCCEEDED, value=value)


def call_handler(handler: Handler, event: Event, delivery: Delivery) -> Any:
    """Call the handler's function and return its result.

    Raises:
        HandlerError: the function returned a coroutine or generator, whose code has not run.
        BaseException: raised by the function.
    """
    pid = os.getpid()
    try:
        value = handler.function(event, delivery) if handler.takes_delivery else handler.function(event)
    finally:
        _exit_in_a_child(pid)
    if isinstance(value, _NOT_RUN):
        if not isinstance(value, AsyncGeneratorType):
            value.close()
        raise HandlerError(f"it returned a {type(value).__name__}, whose code has not run; write a plain function")
    return value


def _exit_in_a_child(pid: int) -> None:
    """End a process that a handler or probe of the process `pid` has forked: only the parent continues."""
    if os.getpid() != pid:
        os._exit(0)


def call_probe(probe: Callable[[Event, Delivery], object], event: Event, delivery: Delivery) -> bool | None:
    """Call a handler's probe and return its answer.

    Raises:
        TypeError: the answer is not True, False or None.
        BaseException: raised by the probe.
    """
    pid = os.getpid()
    try:
        answer = probe(event, delivery)
    finally:
        _exit_in_a_child(pid)
    if answer is None or isinstance(answer, bool):
        return answer
    raise TypeError(f"the probe returned a {type(answer).__name__} instead of True, False or None")
