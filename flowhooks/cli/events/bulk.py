"""The selection of events, and the paging of commands that change the routing of many events."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.events import text
from flowhooks.cli.filters import filter_options
from flowhooks.cli.interruption import EXIT_INTERRUPTED, OperationStopped
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.clock import Clock, to_datetime
from flowhooks.errors import NotFound
from flowhooks.ledger import database
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.settings import Settings

MAX_IDS: Final = 1000
"""Maximum number of ids given as arguments. A filter selects more."""

dry_run_option: Final = click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
yes_option: Final = click.option("--yes", is_flag=True, help="Skip the confirmation; required without a terminal.")
note_option: Final = click.option(
    "--note", type=utf8, default="", metavar="TEXT", help="Reason, kept in the audit log."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkTarget:
    """The events that a command changes, and how.

    Attributes:
        settings: settings with the ledger's database.
        event_filter: the events.
        after: event after which to continue; `""`: start with the oldest.
        dry_run: whether only to report what would be done.
        yes: whether to proceed without confirmation.
        as_json: whether to print JSON.
    """

    settings: Settings
    event_filter: EventFilter
    after: str
    dry_run: bool
    yes: bool
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkCommand:
    """The operation that a command runs.

    Attributes:
        operation: a key of `operations.registry.OPERATIONS`.
        arguments: arguments besides the events.
        describe: describes the result.
        question: returns the confirmation question for the result of a dry run; `""` if nothing would be done.
        resume_hint: how to continue after an interruption.
        scanned: events that the operation examines, if fewer than the selected ones.
    """

    operation: str
    arguments: Mapping[str, Any]
    describe: Callable[[Mapping[str, Any]], str]
    question: Callable[[Mapping[str, Any]], str]
    resume_hint: str = "; run the same command again to continue"
    scanned: EventFilter | None = None


def selection_options(function: Callable[..., Any], *, with_handler: bool = True) -> Callable[..., Any]:
    """Add ids, the filter and `--all` to a command, which receives `event_filter` and `everything`.

    Args:
        function: the command.
        with_handler: whether the filter has `--handler`.
    """

    @click.argument("event_ids", type=utf8, nargs=-1, metavar="[ID]...")
    @partial(filter_options, with_handler=with_handler)
    @click.option("--all", "everything", is_flag=True, help="Select all events.")
    @wraps(function)
    def wrapped(*args: Any, event_ids: tuple[str, ...], event_filter: EventFilter, **kwargs: Any) -> Any:
        event_filter = replace(event_filter, ids=tuple(dict.fromkeys((*event_ids, *event_filter.ids))))
        return function(*args, event_filter=event_filter, **kwargs)

    return wrapped


def check_selection(settings: Settings, event_filter: EventFilter, *, everything: bool, confirmed: bool) -> None:
    """Refuse a selection that was hardly meant.

    Args:
        settings: settings with the ledger's database.
        event_filter: the selection.
        everything: whether `--all` is given.
        confirmed: whether no confirmation is needed.

    Raises:
        click.UsageError: nothing or too much is selected, or there is no terminal to confirm it.
        NotFound: there is no event or delivery with one of the ids.
    """
    if event_filter.has_criteria == everything:
        raise click.UsageError(
            "--all selects every event; leave out the IDs and filters, or leave out --all."
            if everything
            else "Select events: give IDs or a filter, or --all for all events."
        )
    if len(event_filter.ids) > MAX_IDS:
        raise click.UsageError(f"Give at most {MAX_IDS:,} IDs, or a filter.")
    require_terminal(confirmed)
    with closing(Reader(database_url(settings))) as reader:
        _check_ids(reader, event_filter.ids)
        for delivery_id in event_filter.delivery_ids:
            if reader.shown_delivery(delivery_id) is None:
                raise NotFound(f"there is no delivery {delivery_id}")


def bulk_options(function: Callable[..., Any], *, with_handler: bool = True) -> Callable[..., Any]:
    """Add the options of paged commands to a command, which receives a `BulkTarget`.

    The options are ids, the filter, --all, --after, --dry-run, --yes, --json and the settings.

    Args:
        function: the command.
        with_handler: whether the filter has `--handler`.
    """

    @partial(selection_options, with_handler=with_handler)
    @click.option(
        "--after", type=utf8, default="", metavar="ID", help="Continue after this event, where an earlier run stopped."
    )
    @dry_run_option
    @yes_option
    @json_option
    @settings_options
    @wraps(function)
    def wrapped(settings: Settings, *, event_filter: EventFilter, everything: bool, **kwargs: Any) -> Any:
        options = {name: kwargs.pop(name) for name in ("after", "dry_run", "yes", "as_json")}
        if kwargs.get("parked"):
            if event_filter.has_criteria or everything or options["after"]:
                raise click.UsageError(
                    "--parked selects all parked events; leave out IDs, filters, --all and --after. To select some "
                    "of them, leave out --parked and give IDs, or --state parked with a filter."
                )
            return function(
                BulkTarget(settings=settings, event_filter=EventFilter(state="parked"), **options), **kwargs
            )
        confirmed = options["yes"] or options["dry_run"]
        check_selection(settings, event_filter, everything=everything, confirmed=confirmed)
        return function(BulkTarget(settings=settings, event_filter=event_filter, **options), **kwargs)

    return wrapped


def run_bulk(target: BulkTarget, action: BulkCommand) -> None:
    """Run an operation on the selected events. Unless `--yes` is given, show the count and ask for confirmation.

    A filter selects no event that is received after the command has started: nobody has seen it.
    """
    event_filter = _freeze(target.settings, target.event_filter)

    def perform(*, dry_run: bool) -> dict[str, Any]:
        return run_on_target(target, action, event_filter=event_filter, **action.arguments, dry_run=dry_run)

    if not (target.yes and not target.dry_run):
        planned = perform(dry_run=True)
        question = "" if target.dry_run else action.question(planned)
        if not question:
            print_result(planned | {"dry_run": target.dry_run}, action.describe, as_json=target.as_json)
            return
        output.confirm(question)
    print_result(perform(dry_run=False), action.describe, as_json=target.as_json)


def run_on_target(
    target: BulkTarget, action: BulkCommand, *, event_filter: EventFilter, **arguments: Any
) -> dict[str, Any]:
    """Run an operation, or its dry run, on these events of a target and return the result."""
    # Send no empty list of ids: the operation refuses it, because it could mean every event.
    full_arguments = {
        "event_filter": event_filter.to_json(),
        **({"after": target.after} if target.after else {}),
        **arguments,
    }
    # The message about an interruption has only the times that the user gave, so it takes the filter of the target.
    return run_paged(
        target.settings, replace(action, arguments=full_arguments), event_filter=action.scanned or target.event_filter
    )


def run_paged(settings: Settings, action: BulkCommand, *, event_filter: EventFilter) -> dict[str, Any]:
    """Run a paged operation. If it stops early, raise an error that tells its progress and how to continue."""

    def total() -> int:
        with closing(Reader(database_url(settings))) as reader:
            return reader.count_events(event_filter)

    try:
        return operations_client.run_operation(
            settings, action.operation, action.arguments, progress=(action.operation.replace("_", " "), total)
        )
    except OperationStopped as stopped:
        so_far = f" Done so far: {action.describe(stopped.done)}" if stopped.done else ""
        how = action.resume_hint.format(after=stopped.after) + _times_text(event_filter)
        raise _IncompleteOperation(f"{stopped}{how}.{so_far}", EXIT_INTERRUPTED if stopped.interrupted else 1) from None


def _freeze(settings: Settings, event_filter: EventFilter) -> EventFilter:
    """Return a filter without the events that are received from now on, unless it has ids or an end."""
    if event_filter.ids or event_filter.delivery_ids or event_filter.until is not None:
        return event_filter
    clock = Clock()
    with closing(Reader(database_url(settings))) as reader, reader.connection() as connection:
        clock.sync(lambda: database.database_time(connection))  # the clock of the servers, which store the times
    return replace(event_filter, until=clock.now() + 1)


def _times_text(event_filter: EventFilter) -> str:
    """Return the times of a filter as options. A relative time, such as 2h, would mean another one later."""
    times = {
        "since": event_filter.since,
        "until": event_filter.until,
        "attempted-since": event_filter.attempted_since,
    }
    options = [f"--{name} {to_datetime(value).isoformat()}" for name, value in times.items() if value is not None]
    return f", with {' '.join(options)}" if options else ""


def print_result(done: Mapping[str, Any], describe: Callable[[Mapping[str, Any]], str], *, as_json: bool) -> None:
    """Print the result of an operation."""
    if as_json:
        output.print_json(done)
        return
    output.print_line(describe(done))
    if waits := text.no_server_text(done):
        output.print_line(waits)


def require_terminal(unless: bool) -> None:
    """Refuse to ask for confirmation without a terminal.

    Raises:
        click.UsageError: standard input is not a terminal, and `unless` is false.
    """
    if not unless and not sys.stdin.isatty():
        raise click.UsageError(
            "There is no terminal to ask for confirmation: give --yes, or --dry-run to see what would be done."
        )


def _check_ids(reader: Reader, ids: tuple[str, ...]) -> None:
    if ids:
        known = {stored.event.id for stored in reader.page(EventFilter(ids=ids), limit=len(ids))}
        if unknown := [event_id for event_id in ids if event_id not in known]:
            raise NotFound(f"there is no event {', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}")  # noqa: PLR2004 (enough to see it)


class _IncompleteOperation(click.ClickException):
    """An operation stopped before its last page."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it on the class and reads it from the instance
