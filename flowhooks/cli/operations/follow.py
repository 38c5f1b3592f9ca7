"""Follow a running operation until its deliveries have been executed."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.interruption import EXIT_INTERRUPTED
from flowhooks.cli.operations import text
from flowhooks.cli.operations.stopped_handlers import print_first, stopped_lines
from flowhooks.errors import LedgerUnusable, NotFound
from flowhooks.ledger.bulk_operations import read_operation
from flowhooks.ledger.operation_summary import planned_handlers
from flowhooks.ledger.reader import Reader
from flowhooks.model.bulk_operation import OperationState
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.model.bulk_operation import Operation
    from flowhooks.settings import Settings

POLL_INTERVAL: Final = 0.5
"""Seconds between two looks at an operation."""
SERVER_GRACE: Final = 15.0
"""Seconds without a server after which the command stops following. A restart takes less."""


class Interrupted(click.exceptions.Exit):
    """Ctrl-C ended the command, and the operation continues."""

    def __init__(self) -> None:
        super().__init__(EXIT_INTERRUPTED)


def find_operation(reader: Reader, operation_id: str) -> Operation:
    """Return an operation.

    Raises:
        NotFound: there is no operation with this id.
    """
    with reader.connection() as connection:
        operation = read_operation(connection, operation_id)
    if operation is None:
        raise NotFound(f"there is no operation {operation_id}")
    return operation


def follow(settings: Settings, operation_id: str) -> Operation:
    """Show the progress of an operation until it does not run any more, and return it.

    Raises:
        Interrupted: Ctrl-C was pressed; the operation continues.
        NotFound: there is no operation with this id.
    """
    try:
        with closing(Reader(database_url(settings))) as reader:
            first = find_operation(reader, operation_id)
            with output.progress_bar(first.action.value, lambda: first.planned) as advance:
                return _watch(settings, reader, first, advance)
    except KeyboardInterrupt:
        output.print_line(f"Operation {operation_id} continues without this command.", err=True)
        print_commands(operation_id)
        raise Interrupted from None


def print_commands(operation_id: str) -> None:
    """Print the commands that follow and cancel an operation."""
    output.print_line(f"  flowhooks operations show {operation_id} --follow", err=True)
    output.print_line(f"  flowhooks operations cancel {operation_id}", err=True)


def _watch(settings: Settings, reader: Reader, operation: Operation, advance: Callable[[int], None]) -> Operation:
    shown, served_at = 0, time.monotonic()
    named: dict[str, str] = {}
    with reader.connection() as connection:
        handlers = planned_handlers(connection, operation.id)
    while operation.state is OperationState.RUNNING:
        executed = operation.planned - operation.remaining
        advance(executed - shown)
        shown = executed
        named = _name_stopped(settings, reader, operation, handlers, named)
        if _is_served(settings):
            served_at = time.monotonic()
        elif time.monotonic() - served_at > SERVER_GRACE:
            output.print_line("No server is running any more: the operation continues once a server starts.", err=True)
            break
        time.sleep(POLL_INTERVAL)
        operation = find_operation(reader, operation.id)
    return operation


def _name_stopped(
    settings: Settings, reader: Reader, operation: Operation, handlers: frozenset[str], named: dict[str, str]
) -> dict[str, str]:
    """Print the handlers that have stopped since the last look, without which the progress stands still."""
    with reader.connection() as connection:
        stopped = dict(stopped_lines(settings, connection, operation.action, handlers))
    print_first({handler: line for handler, line in stopped.items() if handler not in named}, err=True)
    return stopped


def _is_served(settings: Settings) -> bool:
    with suppress(LedgerUnusable):
        return operations_client.is_serving(settings)
    return False


def print_progress(operation: Operation, *, as_json: bool = False, server: bool = True) -> None:
    """Print the progress of an operation."""
    if as_json:
        from flowhooks.operations.json.bulk_operations import operation_to_json  # noqa: PLC0415 (only for JSON)

        output.print_json(operation_to_json(operation) | {"server": server})
    else:
        output.print_line(text.progress_text(operation))
