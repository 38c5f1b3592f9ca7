"""`flowhooks events reroute` and `dismiss`: change the routing of stored events."""

from __future__ import annotations

from functools import partial

import click

from flowhooks.cli.events import text
from flowhooks.cli.events.bulk import (
    BulkAction,
    BulkTarget,
    bulk_options,
    note_option,
    print_result,
    run_bulk,
    run_paged,
)
from flowhooks.cli.options import utf8
from flowhooks.operations.dismiss import parked_only


@click.command("reroute", short_help="Route events again, by the handlers that there are now.")
@click.option(
    "--handler",
    type=utf8,
    metavar="PLUGIN:NAME",
    help="Create deliveries for this handler only; events that it does not take are left as they are.",
)
@click.option(
    "--parked", is_flag=True, help="Deliver all parked events that a handler takes now, the oldest first; do not ask."
)
@partial(bulk_options, with_handler=False)
def reroute_command(target: BulkTarget, *, handler: str | None, parked: bool) -> None:
    r"""Route events again with the current handlers, and create the deliveries that are missing.

    Parked and dismissed events get deliveries for the handlers that take them. A dismissed event is parked if no
    handler takes it. Routed events get deliveries for handlers that were installed later. Existing deliveries are
    neither changed nor run again, and none is removed. With --handler only that handler gets deliveries.

    --parked means all parked events and does what a server does when it starts: each is routed again, by its class or
    key, its conclusion and, where a handler has conditions, its body. Those that no handler takes stay parked.

    --state means what the events have already, such as dismissed. A running server keeps the plugins it loaded at its
    start: restart it after installing one. Without --parked the command asks before it does anything, unless --yes is
    given, because what a handler does cannot be undone.

    \b
    Examples:
      flowhooks events reroute --parked
      flowhooks events reroute 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11
      flowhooks events reroute --key contract_approval --since 2026-11-01 --dry-run
      flowhooks events reroute --handler finance:book --state dismissed --since 2026-11-01 --dry-run

    Exit codes: 0 done (or nothing to do), 1 trouble, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    if parked:
        if handler:
            raise click.UsageError(
                "--parked means every handler; leave out --handler, or give --state parked instead of --parked."
            )
        _reroute_parked(target)
        return
    arguments = {"handler": handler} if handler else {}
    action = BulkAction(
        operation="reroute", arguments=arguments, describe=text.reroute_text, question=text.reroute_question
    )
    run_bulk(target, action)


def _reroute_parked(target: BulkTarget) -> None:
    action = BulkAction(
        operation="reroute_parked",
        arguments={"dry_run": target.dry_run},
        describe=text.reroute_parked_text,
        question=lambda _planned: "",
    )
    done = run_paged(target.settings, action, event_filter=target.event_filter)
    print_result(done, action.describe, as_json=target.as_json)


@click.command("dismiss", short_help="Dismiss parked events that no handler is to take.")
@note_option
@bulk_options
def dismiss_command(target: BulkTarget, *, note: str) -> None:
    r"""Dismiss parked events that no handler is to take: they are kept, and no longer wait for a handler.

    It dismisses the parked events among those with these IDs, or that the filter means; --all means all parked
    events. An engine that calls back again is answered 200. `flowhooks events reroute` undoes it. If no event of a key
    will ever need a handler, name the key in the setting routing.ignore_process_keys.

    \b
    Examples:
      flowhooks events dismiss 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11 --note "sent by a test"
      flowhooks events dismiss --key travel_request --until 2026-11-01 --dry-run
      flowhooks events dismiss --all --yes

    Exit codes: 0 done (or nothing to do), 1 trouble, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    action = BulkAction(
        operation="dismiss",
        arguments={"note": note},
        describe=text.dismiss_text,
        question=text.dismiss_question,
        scanned=parked_only(target.event_filter),
    )
    run_bulk(target, action)
