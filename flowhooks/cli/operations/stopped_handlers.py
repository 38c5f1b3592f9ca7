"""Handlers that do not run their deliveries now: why, and how an operator resumes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.cli import output
from flowhooks.ledger import circuit_state, pauses
from flowhooks.ledger.operation_summary import planned_handlers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sqlalchemy import Connection

    from flowhooks.ledger.reader import Reader
    from flowhooks.model.bulk_operation import Operation

MAX_SHOWN: Final = 20
"""Maximum number of stopped handlers of an operation that are named."""


def handler_states(connection: Connection) -> dict[str, str]:
    """Return which handlers do not run their deliveries now, and why."""
    states = dict.fromkeys(pauses.paused(connection), "paused")  # those with an open circuit as well
    return states | dict.fromkeys(circuit_state.open_circuits(connection), "circuit open")


def stopped_lines(connection: Connection, handlers: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield those of `handlers` that do not run their deliveries now, each with a line that says why."""
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


def print_stopped(reader: Reader, operation: Operation) -> None:
    """Print why deliveries of an operation wait, if their handlers do not run now."""
    if not operation.remaining:
        return
    with reader.connection() as connection:
        lines = dict(stopped_lines(connection, planned_handlers(connection, operation.id)))
    print_first(lines)


def print_first(lines: Mapping[str, str], *, err: bool = False) -> None:
    """Print the lines of the first stopped handlers, and how many others there are."""
    for line in list(lines.values())[:MAX_SHOWN]:
        output.print_line(line, err=err)
    if (more := len(lines) - MAX_SHOWN) > 0:
        output.print_line(f"{output.pluralize(more, 'more handler')} not run: see `flowhooks handlers list`", err=err)
