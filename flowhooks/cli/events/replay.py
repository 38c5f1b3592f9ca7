"""`flowhooks events replay`, `close`, `resolve` and `run-now`: change the state of deliveries."""

from __future__ import annotations

from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.events import text
from flowhooks.cli.events.bulk import (
    check_selection,
    dry_run_option,
    print_result,
    require_terminal,
    selection_options,
    yes_option,
)
from flowhooks.cli.operations.plan import PlannedCommand, detach_option, note_option, rate_option, run_planned
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.ledger.queries import SUSPENDED, EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.settings import Settings

_CLOSABLE: Final = (None, State.WAITING, State.DEAD, State.UNKNOWN, SUSPENDED)
_VERDICTS: Final = {"done": BulkAction.MARK_DONE, "not-done": BulkAction.MARK_NOT_DONE}


def operation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that plan an operation to a command, which receives a `PlannedCommand` first."""

    @selection_options
    @click.option(
        "--delivery",
        "delivery_ids",
        type=utf8,
        multiple=True,
        metavar="ID",
        help="This delivery only; may be given more than once.",
    )
    @note_option
    @rate_option
    @detach_option
    @dry_run_option
    @yes_option
    @json_option
    @settings_options
    @wraps(function)
    def wrapped(settings: Settings, *, event_filter: EventFilter, delivery_ids: tuple[str, ...], **kwargs: Any) -> Any:
        event_filter = replace(event_filter, delivery_ids=tuple(dict.fromkeys(delivery_ids)))
        options = {name: kwargs.pop(name) for name in ("note", "rate", "detach", "dry_run", "yes", "as_json")}
        return function(PlannedCommand(settings=settings, event_filter=event_filter, **options), **kwargs)

    return wrapped


def _run(asked: PlannedCommand, action: BulkAction, *, everything: bool) -> None:
    confirmed = asked.yes or asked.dry_run
    check_selection(asked.settings, asked.event_filter, everything=everything, confirmed=confirmed)
    run_planned(asked, action)


@click.command("replay", short_help="Run dead deliveries again.")
@click.option("--again", is_flag=True, help="Also run succeeded deliveries: their work is done a second time.")
@operation_options
def replay_command(asked: PlannedCommand, *, again: bool, everything: bool) -> None:
    r"""Run dead deliveries again, each with a new retry schedule. Their history is kept.

    Select events by ID or by filter; --handler, --state and --error-group also select among their deliveries. Events
    are not routed again. The command shows the plan with the exact number of deliveries, and asks for confirmation
    unless --yes is given, because the effects of a handler cannot be undone. Then it follows the operation until the
    deliveries have been executed. Ctrl-C ends the command only: the operation continues, and the command prints how
    to follow or cancel it.

    \b
    Examples:
      flowhooks events replay 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11
      flowhooks events replay --error-group 3f6f1e0c9a11 --since 2d --dry-run
      flowhooks events replay --handler payments:book --rate 5/s --note "the ERP is up again"
      flowhooks events replay --state succeeded --flow 4711 --again

    Exit codes: 0 done (or nothing to do), 1 error, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    _run(asked, BulkAction.RERUN if again else BulkAction.REPLAY, everything=everything)


@click.command("run-now", short_help="Run scheduled deliveries now.")
@operation_options
def run_now_command(asked: PlannedCommand, *, everything: bool) -> None:
    r"""Run waiting deliveries now instead of at their scheduled time.

    The number of attempts and the order of ordered deliveries stay as they are. Deliveries that are blocked by an
    earlier one, and those of paused or missing handlers, are left out.

    \b
    Examples:
      flowhooks events run-now --delivery 019ab2c4-5d1f-7000-8000-aa30b1c2d3e4
      flowhooks events run-now --handler payments:book --rate 5/s

    Exit codes: 0 done (or nothing to do), 1 error, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    _run(asked, BulkAction.RUN_NOW, everything=everything)


@click.command("close", short_help="Close deliveries that need no further attempt.")
@operation_options
def close_command(asked: PlannedCommand, *, everything: bool) -> None:
    r"""Close waiting, dead and unknown deliveries: nothing more is needed of them.

    Select events by ID or by filter; --handler and --state also select among their deliveries. --state suspended
    selects the deliveries that wait because their handler was removed, or a condition is undecided. A closed delivery
    never runs again, also when its handler is installed again.

    \b
    Examples:
      flowhooks events close --state suspended --handler leave:grant_leave --dry-run
      flowhooks events close --state dead --until 2026-11-01 --note "done by hand"

    Exit codes: 0 done (or nothing to do), 1 error, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    if asked.event_filter.state not in _CLOSABLE:
        raise click.UsageError("Only waiting, suspended, dead and unknown deliveries can be closed: change --state.")
    _run(asked, BulkAction.CLOSE, everything=everything)


@click.command("resolve", short_help="Record the outcome of unknown deliveries.")
@click.option("--did", "single", flag_value="did", help="The work of this delivery was done: mark it as succeeded.")
@click.option("--did-not", "single", flag_value="did-not", help="The work of this delivery was not done: run it again.")
@click.option("--close", "single", flag_value="close", help="Close this delivery, whatever it did.")
@click.option(
    "--verdict",
    type=click.Choice(list(_VERDICTS)),
    help="The work of all selected unknown deliveries was done, or was not done: run them again.",
)
@operation_options
def resolve_command(asked: PlannedCommand, *, single: str | None, verdict: str | None, everything: bool) -> None:
    r"""Record the outcome of deliveries that flowhooks cannot know: their work was done, or not, or is not needed.

    For one delivery, give its ID and --did, --did-not or --close. --did and --did-not are for unknown deliveries;
    --close is for unknown, dead and waiting deliveries. `flowhooks events show` lists the ids of deliveries.

    For many, give --verdict and select events by ID or by filter: only their unknown deliveries are resolved. The
    command shows the plan and follows the operation, as `flowhooks events replay` does. It asks for confirmation unless
    --yes is given, and says whether the step can be undone.

    \b
    Examples:
      flowhooks events resolve 019ab2c4-5d1f-7000-8000-aa30b1c2d3e4 --did --note "found in the archive"
      flowhooks events resolve 019ab2c4-5d1f-7000-8000-aa30b1c2d3e4 --did-not
      flowhooks events resolve 019ab2c4-5d1f-7000-8000-aa30b1c2d3e4 --close --yes
      flowhooks events resolve --verdict done --handler contracts:scan --note "all found in the archive"

    Exit codes: 0 done, 1 the delivery's state does not allow it, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    if (single is None) is (verdict is None):
        raise click.UsageError(
            "Give the outcome: --did, --did-not or --close for one delivery, or --verdict for a selection."
        )
    if verdict is not None:
        _run(asked, _VERDICTS[verdict], everything=everything)
        return
    ids = asked.event_filter.ids
    if len(ids) != 1 or asked.event_filter != EventFilter(ids=ids) or everything or asked.detach or asked.rate:
        raise click.UsageError(
            f"--{single} is for one delivery: give its ID, and leave out filters, --all, --rate and --detach."
        )
    _resolve(asked, ids[0], str(single))


def _resolve(asked: PlannedCommand, delivery_id: str, verdict: str) -> None:
    require_terminal(asked.yes or asked.dry_run)
    arguments = {"delivery_id": delivery_id, "verdict": verdict, "note": asked.note}
    if not (asked.dry_run or asked.yes):
        preview = {**arguments, "dry_run": True}
        planned = operations_client.run_step(asked.settings, "resolve", preview, "nothing was changed")
        output.confirm(f"{text.resolve_text(planned)} {text.RESOLUTION_WARNINGS[verdict]} Continue?")
    print_result(
        operations_client.run_operation(asked.settings, "resolve", {**arguments, "dry_run": asked.dry_run}),
        text.resolve_text,
        as_json=asked.as_json,
    )
