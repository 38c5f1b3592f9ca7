"""`flowhooks events replay`, `resolve` and `close-suspended`: change the state of deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.events import text
from flowhooks.cli.events.bulk import (
    BulkAction,
    BulkTarget,
    bulk_options,
    dry_run_option,
    note_option,
    print_result,
    require_terminal,
    run_bulk,
    run_on_target,
    yes_option,
)
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.ledger.queries import SUSPENDED
from flowhooks.operations.close_suspended import suspended_only

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.settings import Settings


@click.command("replay", short_help="Run dead deliveries again.")
@click.option("--again", is_flag=True, help="Also run succeeded deliveries: their work is done a second time.")
@bulk_options
def replay_command(target: BulkTarget, *, again: bool) -> None:
    r"""Run dead deliveries again, each with a new retry schedule. Their history is kept.

    Select events by ID or by filter; --handler and --state also select among their deliveries. Events are not routed
    again. The command asks for confirmation unless --yes is given, because the effects of a handler cannot be undone.

    \b
    Examples:
      flowhooks events replay 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11
      flowhooks events replay --handler contracts:archive_contract --since 2d --dry-run
      flowhooks events replay --all --yes
      flowhooks events replay --state succeeded --flow 4711 --again

    Exit codes: 0 done (or nothing to do), 1 trouble, 2 wrong usage, 130 stopped by Ctrl-C.
    """

    def question(planned: Mapping[str, Any]) -> str:
        if not planned["deliveries"]:
            return ""
        dead = (
            run_on_target(target, action, again=False, dry_run=True)["deliveries"] if again else planned["deliveries"]
        )
        return text.replay_question(dead, planned["deliveries"] - dead)

    action = BulkAction(
        operation="replay",
        arguments={"again": again},
        describe=text.replay_text,
        question=question,
        resume_hint="; to continue where it stopped, add --after {after}"
        if again
        else ("; run the same command again to continue"),
    )
    run_bulk(target, action)


@click.command("resolve", short_help="Record the outcome of an unknown delivery.")
@click.argument("delivery_id", type=utf8, metavar="DELIVERY_ID")
@click.option("--did", "verdict", flag_value="did", help="Its work was done: mark it as succeeded.")
@click.option("--did-not", "verdict", flag_value="did-not", help="Its work was not done: run it again.")
@click.option("--close", "verdict", flag_value="close", help="Close it, whatever it did: nothing more is needed.")
@note_option
@dry_run_option
@yes_option
@json_option
@settings_options
def resolve_command(
    settings: Settings, *, delivery_id: str, verdict: str | None, note: str, dry_run: bool, yes: bool, as_json: bool
) -> None:
    r"""Record the outcome of a delivery that flowhooks cannot know: its work was done, or not, or is not needed.

    --did and --did-not are for unknown deliveries; --close is for unknown, dead and waiting deliveries. `flowhooks
    events show` lists the ids of deliveries. The command asks for confirmation unless --yes is given, and says whether
    the step can be undone.

    \b
    Examples:
      flowhooks events resolve 019ab2c4-5d1f-7000-8000-aa30b1c2d3e4 --did --note "found in the archive"
      flowhooks events resolve 019ab2c4-5d1f-7000-8000-aa30b1c2d3e4 --did-not
      flowhooks events resolve 019ab2c4-5d1f-7000-8000-aa30b1c2d3e4 --close --yes

    Exit codes: 0 done, 1 the delivery's state does not allow it, 2 wrong usage.
    """
    if verdict is None:
        raise click.UsageError("Give the outcome: --did, --did-not or --close.")
    require_terminal(yes or dry_run)
    arguments = {"delivery_id": delivery_id, "verdict": verdict, "note": note}
    if not (dry_run or yes):
        planned = operations_client.run_operation(settings, "resolve", {**arguments, "dry_run": True})
        output.confirm(f"{text.resolve_text(planned)} {text.RESOLUTION_WARNINGS[verdict]} Continue?")
    print_result(
        operations_client.run_operation(settings, "resolve", {**arguments, "dry_run": dry_run}),
        text.resolve_text,
        as_json=as_json,
    )


@click.command("close-suspended", short_help="Close the deliveries of handlers that were removed.")
@note_option
@bulk_options
def close_suspended_command(target: BulkTarget, *, note: str) -> None:
    r"""Close suspended deliveries: those that wait because their handler is not installed, or a condition is undecided.

    Select events by ID or by filter; --handler also selects among their deliveries. Only suspended deliveries are
    closed. --all selects all of them. `flowhooks events list --state suspended` with the same filter lists them. A
    closed delivery does not run when its handler is installed again: if its work is needed, install the handler
    instead. The command asks for confirmation unless --yes is given.

    \b
    Examples:
      flowhooks events close-suspended --handler leave:grant_leave --dry-run
      flowhooks events close-suspended --handler leave:grant_leave --note "leave is now granted by hand"
      flowhooks events close-suspended --until 2026-11-01 --yes

    Exit codes: 0 done (or nothing to do), 1 trouble, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    if target.event_filter.state not in {None, SUSPENDED}:
        raise click.UsageError("Only suspended deliveries are closed: leave out --state, or give --state suspended.")
    action = BulkAction(
        operation="close_suspended",
        arguments={"note": note},
        describe=text.close_suspended_text,
        question=text.close_suspended_question,
        scanned=suspended_only(target.event_filter),
    )
    run_bulk(target, action)
