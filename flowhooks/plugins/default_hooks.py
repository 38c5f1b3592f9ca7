"""The built-in hook implementations, registered like any plugin's."""

from __future__ import annotations

from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import HandlerError
from flowhooks.hookspecs import hookimpl
from flowhooks.model.delivery import Delivery, Outcome, OutcomeKind

if TYPE_CHECKING:
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler

_NOT_RUN: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)
"""What a call gives whose code has not run: `@handler` refuses such functions, but not every decorator shows them."""


@hookimpl(trylast=True)
def run_handler(handler: Handler, event: Event, delivery: Delivery) -> Outcome:
    """Call the handler's function, here or in its own process; what it raises goes on to the wrappers and dispatch."""
    if delivery._isolated_call is not None:  # noqa: SLF001 (dispatch has put it there)
        value = delivery._isolated_call(event, delivery)  # noqa: SLF001 (as above)
    else:
        delivery._entered.append(True)  # noqa: SLF001 (tells dispatch that the function was entered)
        value = call_handler(handler, event, delivery)
    return Outcome(kind=OutcomeKind.SUCCEEDED, value=value)


def call_handler(handler: Handler, event: Event, delivery: Delivery) -> Any:
    """What the handler's function returns.

    Raises:
        HandlerError: it returned what would have to be run first.
        BaseException: whatever it raises.
    """
    value = handler.function(event, delivery) if handler.takes_delivery else handler.function(event)
    if isinstance(value, _NOT_RUN):
        if not isinstance(value, AsyncGeneratorType):
            value.close()
        raise HandlerError(f"it returned a {type(value).__name__}, whose code has not run; write a plain function")
    return value
