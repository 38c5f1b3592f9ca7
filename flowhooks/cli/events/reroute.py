"""`flowhooks events drain`, `reroute` and `dismiss`: change where events go."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from flowhooks.cli.events import text
from flowhooks.cli.events.bulk import (
    BulkAction,
    BulkTarget,
    bulk_options,
    dry_run_option,
    note_option,
    print_result,
    run_bulk,
    run_paged,
)
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.dismiss import parked_only

if TYPE_CHECKING:
    from flowhooks.settings import Settings


@click.command("drain", short_help="Deliver parked events that a handler takes now.")
@dry_run_option
@json_option
@settings_options
def drain_command(settings: Settings, *, dry_run: bool, as_json: bool) -> None:
    r"""Deliver parked events that a handler takes now, the oldest first.

    Each parked event is routed again: by its class or key, its conclusion and, where a handler has conditions, its
    body. Dismissed events are not touched; `flowhooks events reroute` delivers those.

    A server does this by itself when it starts. A running server keeps the plugins it loaded at its start: restart it
    after installing one.

    \b
    Examples:
      flowhooks events drain --dry-run
      flowhooks events drain

    Exit codes: 0 done (or nothing to do), 1 trouble, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    action = BulkAction(
        operation="drain", arguments={"dry_run": dry_run}, describe=text.drain_text, question=lambda _planned: ""
    )
    print_result(
        run_paged(settings, action, event_filter=EventFilter(state="parked")), text.drain_text, as_json=as_json
    )


@click.command("reroute", short_help="Route events again, by the handlers that there are now.")
@click.option(
    "--handler",
    type=utf8,
    metavar="PLUGIN:NAME",
    help="Create deliveries for this handler only; events that it does not take are left as they are.",
)
@partial(bulk_options, with_handler=False)
def reroute_command(target: BulkTarget, *, handler: str | None) -> None:
    r"""Route events again with the current handlers, and create the deliveries that are missing.

    Parked and dismissed events get deliveries for the handlers that take them. A dismissed event is parked if no
    handler takes it. Routed events get deliveries for handlers that were installed later. Existing deliveries are
    neither changed nor run again, and none is removed. With --handler only that handler gets deliveries.

    --state means what the events have already, such as dismissed. A running server keeps the plugins it loaded at its
    start: restart it after installing one. The command asks before it does anything, unless --yes is given, because
    what a handler does cannot be undone.

    \b
    Examples:
      flowhooks events reroute 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11
      flowhooks events reroute --key contract_approval --since 2026-11-01 --dry-run
      flowhooks events reroute --state dismissed --key travel_request
      flowhooks events reroute --handler finance:book --state dismissed --since 2026-11-01 --dry-run

    Exit codes: 0 done (or nothing to do), 1 trouble, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    arguments = {"handler": handler} if handler else {}
    action = BulkAction(
        operation="reroute", arguments=arguments, describe=text.reroute_text, question=text.reroute_question
    )
    run_bulk(target, action)


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
