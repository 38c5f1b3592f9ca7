"""The built-in hook implementations, registered like any plugin's; it must not know the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.delivery import Delivery, Outcome, OutcomeKind
from flowhooks.hookspecs import hookimpl

if TYPE_CHECKING:
    from flowhooks.event import Event
    from flowhooks.handler import Handler


@hookimpl(trylast=True)
def run_handler(handler: Handler, event: Event, delivery: Delivery) -> Outcome:
    """Call the handler's function; what it raises goes on to the wrappers and to dispatch."""
    delivery._entered.append(True)  # noqa: SLF001 (tells dispatch that the function was entered)
    value = handler.function(event, delivery) if handler.takes_delivery else handler.function(event)
    return Outcome(kind=OutcomeKind.SUCCEEDED, value=value)
