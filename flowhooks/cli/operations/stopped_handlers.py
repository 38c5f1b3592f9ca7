"""Handlers that do not run their deliveries now: why, and how an operator resumes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.cli import operations_client, output
from flowhooks.ledger import circuit_state, pauses
from flowhooks.ledger.operation_summary import planned_handlers
from flowhooks.model.bulk_operation import BulkAction

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from sqlalchemy import Connection

    from flowhooks.ledger.reader import Reader
    from flowhooks.model.bulk_operation import Operation
    from flowhooks.settings import Settings

MAX_SHOWN: Final = 20
"""Maximum number of stopped handlers of an operation that are named."""


_WITHOUT_HANDLER: Final = frozenset({BulkAction.CLOSE, BulkAction.MARK_DONE})
"""Actions after which no handler runs."""


def handler_states(settings: Settings, connection: Connection, handlers: Iterable[str]) -> dict[str, str]:
    """Return which handlers do not run their deliveries now, and why. `handlers` are those that may not be loaded."""
    states = dict.fromkeys(_not_loaded(settings, connection, handlers), "not loaded")
    states |= dict.fromkeys(pauses.paused(connection), "paused")  # those with an open circuit as well
    return states | dict.fromkeys(circuit_state.open_circuits(connection), "circuit open")


def stopped_lines(
    settings: Settings, connection: Connection, action: BulkAction, handlers: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield those of `handlers` that do not run their deliveries now, each with a line that says why."""
    if action in _WITHOUT_HANDLER:
        return
    for handler in _not_loaded(settings, connection, handlers):
        yield (
            handler,
            output.escape_newlines(
                f"{handler} is not run: no running process has loaded it. Its deliveries wait until a process that has "
                "its plugin starts. `flowhooks check` shows what is wrong"
            ),
        )
    circuits = circuit_state.open_circuits(connection)
    for handler in pauses.paused(connection):
        if handler not in handlers:
            continue
        why = "it is paused"
        if (circuit := circuits.get(handler)) is not None:
            why = f"its circuit is open, and the next trial is at {output.format_time(circuit.retry_at)} (UTC)"
        yield (
            handler,
            output.escape_newlines(
                f"{handler} is not run: {why}. To run its deliveries: `flowhooks handlers resume {handler}`"
            ),
        )


def _not_loaded(settings: Settings, connection: Connection, handlers: Iterable[str]) -> list[str]:
    executed = operations_client.executed_handlers(settings, connection)
    return [] if executed is None else sorted(set(handlers) - executed)


def print_stopped(settings: Settings, reader: Reader, operation: Operation) -> None:
    """Print why deliveries of an operation wait, if their handlers do not run now."""
    if not operation.remaining:
        return
    with reader.connection() as connection:
        handlers = planned_handlers(connection, operation.id)
        lines = dict(stopped_lines(settings, connection, operation.action, handlers))
    print_first(lines)


def print_first(lines: Mapping[str, str], *, err: bool = False) -> None:
    """Print the lines of the first stopped handlers, and how many others there are."""
    for line in list(lines.values())[:MAX_SHOWN]:
        output.print_line(line, err=err)
    if (more := len(lines) - MAX_SHOWN) > 0:
        output.print_line(f"{output.pluralize(more, 'more handler')} not run: see `flowhooks handlers list`", err=err)
