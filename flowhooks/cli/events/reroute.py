"""`flowhooks events reroute` and `dismiss`: change the routing of stored events."""

from __future__ import annotations

from functools import partial

import click

from flowhooks.cli.events import text
from flowhooks.cli.events.bulk import (
    BulkCommand,
    BulkTarget,
    bulk_options,
    note_option,
    print_result,
    run_bulk,
    run_paged,
)
from flowhooks.cli.options import utf8
from flowhooks.operations.dismiss import parked_only


@click.command("reroute", short_help="Route events again with the current handlers.")
@click.option(
    "--handler",
    type=utf8,
    metavar="PLUGIN:NAME",
    help="Create deliveries for this handler only. Events that do not match it stay unchanged.",
)
@click.option(
    "--parked",
    is_flag=True,
    help="Deliver all parked events that match a handler now, oldest first, without confirmation.",
)
@partial(bulk_options, with_handler=False)
def reroute_command(target: BulkTarget, *, handler: str | None, parked: bool) -> None:
    r"""Route events again with the current handlers, and create the missing deliveries.

    Parked and dismissed events get deliveries for the handlers that they match. A dismissed event is parked if it
    matches no handler. Routed events get deliveries for handlers that were installed later. Existing deliveries are not
    changed, run again or removed. With --handler, only that handler gets deliveries.

    --parked selects all parked events and does what a server does at its start. Each event is routed again, by its
    class or key, its conclusion and, if a handler has conditions, its body. Events that match no handler stay parked.

    --state selects events by their current state, such as dismissed. A running server keeps the plugins that it loaded
    at its start: restart it after installing a plugin. Without --parked the command asks for confirmation unless --yes
    is given, because the effects of a handler cannot be undone.

    \b
    Examples:
      flowhooks events reroute --parked
      flowhooks events reroute 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11
      flowhooks events reroute --key contract_approval --since 2026-11-01 --dry-run
      flowhooks events reroute --handler finance:book --state dismissed --since 2026-11-01 --dry-run

    Exit codes: 0 done (or nothing to do), 1 error, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    if parked:
        if handler:
            raise click.UsageError(
                "--parked applies to every handler; leave out --handler, or give --state parked instead of --parked."
            )
        _reroute_parked(target)
        return
    arguments = {"handler": handler} if handler else {}
    action = BulkCommand(
        operation="reroute", arguments=arguments, describe=text.reroute_text, question=text.reroute_question
    )
    run_bulk(target, action)


def _reroute_parked(target: BulkTarget) -> None:
    action = BulkCommand(
        operation="reroute_parked",
        arguments={"dry_run": target.dry_run},
        describe=text.reroute_parked_text,
        question=lambda _planned: "",
    )
    done = run_paged(target.settings, action, event_filter=target.event_filter)
    print_result(done, action.describe, as_json=target.as_json)


@click.command("dismiss", short_help="Dismiss parked events that need no handler.")
@note_option
@bulk_options
def dismiss_command(target: BulkTarget, *, note: str) -> None:
    r"""Dismiss parked events that need no handler: they are kept, and no longer wait for a handler.

    Select events by ID or by filter; only parked events are dismissed. --all selects all parked events. If the engine
    repeats the callback, the answer is 200. `flowhooks events reroute` undoes a dismissal. If events of a key never
    need a handler, add the key to the setting routing.ignore_process_keys.

    \b
    Examples:
      flowhooks events dismiss 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11 --note "sent by a test"
      flowhooks events dismiss --key travel_request --until 2026-11-01 --dry-run
      flowhooks events dismiss --all --yes

    Exit codes: 0 done (or nothing to do), 1 error, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    action = BulkCommand(
        operation="dismiss",
        arguments={"note": note},
        describe=text.dismiss_text,
        question=text.dismiss_question,
        scanned=parked_only(target.event_filter),
    )
    run_bulk(target, action)
